package app

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/guard"
)

const (
	maxFile  = 20 << 20 // of an attachment
	maxFiles = 100      // of a contact
)

// uploadRoute is the one that takes more than a form.
const uploadRoute = "POST /contacts/{id}/attachments"

// attachmentsView is the part of card.html about attachments. It is nil for whoever
// may not know that there are any.
type attachmentsView struct {
	Files                       []attachmentLine
	MayAdd, MayFetch, MayDelete bool
	Largest                     string
}

type attachmentLine struct {
	ID, Size, By string
	Name         value
	Created      time.Time
	Damaged      bool
}

// attachmentsView opens the names for who may have them in the clear. Others who see
// the contact learn how many files there are and how large.
func (a *App) attachmentsView(r *http.Request, c *Contact) (*attachmentsView, error) {
	ctx := r.Context()
	fields, err := a.rights.Fields(ctx, subjectOf(ctx), c.resource(), attachmentField)
	may := fields[attachmentField]
	if err != nil || !may.Read || !c.Erased.IsZero() {
		return nil, err
	}
	files, err := a.db.attachmentsOf(ctx, c.ID)
	if err != nil {
		return nil, err
	}
	if may.Unmask {
		if err := a.openNames(ctx, files...); err != nil {
			return nil, err
		}
	}
	resource := c.resource()
	resource.Field = attachmentField
	view := &attachmentsView{
		MayAdd: may.Write && !c.Damaged && len(files) < maxFiles, MayDelete: may.Write, MayFetch: a.may(r, crmguard.Reveal, resource), Largest: fileSize(maxFile),
	}
	for _, f := range files {
		name := value{"clear", f.Name}
		if !may.Unmask {
			name = value{"masked", "•••"}
		}
		view.Files = append(view.Files, attachmentLine{ID: f.ID, Size: fileSize(f.Size), By: f.By, Name: name, Created: f.Created, Damaged: f.Damaged})
	}
	return view, nil
}

// openNames opens the names of files. Those that do not open are marked.
func (a *App) openNames(ctx context.Context, files ...*attachment) error {
	err := a.attachments.table.Open(ctx, tenant, files...)
	failed, ok := errors.AsType[encrypt.RowErrors](err)
	if !ok {
		return err
	}
	for _, e := range failed {
		a.log.ErrorContext(ctx, "the name of an attachment does not open", "attachment", files[e.Row].ID, "error", e.Err)
		files[e.Row].Damaged = true
	}
	return nil
}

// fileSize says how large a file is.
func fileSize(n int64) string {
	switch {
	case n < 1<<10:
		return plural(int(n), "byte")
	case n < 1<<20:
		return fmt.Sprintf("%d kB", (n+1<<10-1)>>10)
	}
	return strings.TrimSuffix(fmt.Sprintf("%.1f", float64(n)/(1<<20)), ".0") + " MB"
}

// attachmentsOfContact is what a request to change a contact's attachments is about.
func (a *App) attachmentsOfContact(r *http.Request) (crmguard.Resource, error) {
	resource, err := a.contactOf(r)
	resource.Field = attachmentField
	guard.Describe(r.Context(), func(e *guard.Details) { e.Fields = []string{attachmentField} })
	return resource, err
}

// attachmentOf finds the contact and its attachment that the path names. That of
// another contact is not there.
func (a *App) attachmentOf(r *http.Request) (crmguard.Resource, error) {
	resource, err := a.attachmentsOfContact(r)
	if err != nil {
		return resource, err
	}
	f, err := a.db.attachment(r.Context(), resource.ID, r.PathValue("file"))
	if errors.Is(err, errNoAttachment) {
		return resource, guard.ErrNotFound
	}
	stateOf(r.Context()).file = f
	return resource, err
}

// fetchedAttachment is attachmentOf with why somebody wants it.
func (a *App) fetchedAttachment(r *http.Request) (crmguard.Resource, error) {
	if err := readForm(r); err != nil {
		return crmguard.Resource{}, err
	}
	resource, err := a.attachmentOf(r)
	if err != nil {
		return resource, err
	}
	return resource, describeReason(r, resource.ID, revealReasons)
}

// upload adds a file to a contact. It goes encrypted into a temporary file while it
// arrives, and into the database when it is whole: nothing waits for a slow line.
func (a *App) upload(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	c := stateOf(ctx).contact
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(sendingTime)) // else the server's own holds
	part, err := uploadedPart(r, "file")
	if err != nil {
		return err
	}
	name, err := fileName(part)
	if err != nil {
		return err
	}
	f := &attachment{ID: newContactID(), Contact: c.ID, Name: name, By: subjectOf(ctx).ID, Created: a.now()}
	stored, err := unnamedFile()
	if err != nil {
		return err
	}
	defer stored.Close() //nolint:errcheck // it is gone then, and was stored or not
	if err := a.receive(ctx, f, part, stored); err != nil {
		if f.Size > maxFile {
			_, _ = io.Copy(io.Discard, r.Body) // or browsers say that the line broke instead of why
		}
		return err
	}
	if _, err := a.attachments.table.Seal(ctx, tenant, f); err != nil {
		return err
	}
	within, err := a.within(ctx, crmguard.Update)
	if err != nil {
		return err
	}
	guard.Describe(ctx, func(e *guard.Details) {
		e.Reason = "attach"
		e.Private = append(e.Private, crmguard.Private{Client: c.ID, Name: "file", Value: []byte(name)})
	})
	err = guard.Settle(ctx, func(done crmguard.Event) error {
		return a.recorded(ctx, done, func(ctx context.Context, tx *sql.Tx) error {
			if err := mayAttach(ctx, tx, c.ID, within); err != nil {
				return err
			}
			return insertAttachment(ctx, tx, f, stored)
		})
	})
	if err != nil {
		return err
	}
	http.Redirect(w, r, "/contacts/"+c.ID+"?attached", http.StatusSeeOther)
	return nil
}

// receive encrypts what arrives.
func (a *App) receive(ctx context.Context, f *attachment, part io.Reader, stored *os.File) error {
	encrypted, err := a.attachments.files.Encrypt(ctx, f.place(), stored)
	if err != nil {
		return err
	}
	f.Size, err = io.Copy(encrypted, io.LimitReader(part, maxFile+1))
	_, tooLarge := errors.AsType[*http.MaxBytesError](err)
	if tooLarge || f.Size > maxFile {
		return &guard.Problem{Status: http.StatusRequestEntityTooLarge, Title: "The file is too large", Code: "file-size",
			Detail: "An attachment has at most " + fileSize(maxFile) + ". Nothing of it was kept. Make it smaller, or split it, and add it again."}
	}
	if err != nil {
		return &guard.Problem{Status: http.StatusBadRequest, Title: "The file did not arrive", Code: "file",
			Detail: "The connection broke before all of it was here, so nothing was kept. Add it again."}
	}
	return encrypted.Close()
}

// mayAttach makes sure, in the transaction that stores a file, that the person may
// still change the contact, and that there is room.
func mayAttach(ctx context.Context, tx *sql.Tx, contact string, within predicate) error {
	where, args, err := within(2)
	if err != nil {
		return err
	}
	var there, files int
	//nolint:gosec // where is from rbac.Filter, which checks its columns
	err = tx.QueryRowContext(ctx, `SELECT (SELECT COUNT(*) FROM contacts WHERE id = $1 AND (`+where+`)), (SELECT COUNT(*) FROM attachments WHERE contact = $1)`,
		append([]any{contact}, args...)...).Scan(&there, &files)
	switch {
	case err != nil:
		return fmt.Errorf("store an attachment: %w", err)
	case there == 0:
		return guard.ErrNotFound
	case files >= maxFiles:
		return &guard.Problem{Status: http.StatusConflict, Title: "There are enough attachments", Code: "too-many",
			Detail: fmt.Sprintf("A contact has at most %d. Delete one that nobody needs first.", maxFiles)}
	}
	return nil
}

// uploadedPart finds the file in a form. It is nil if none was chosen.
func uploadedPart(r *http.Request, field string) (*multipart.Part, error) {
	form, err := r.MultipartReader()
	if err != nil {
		return nil, unreadable()
	}
	for {
		part, err := form.NextPart()
		if err != nil {
			return nil, unreadable()
		}
		if part.FormName() == field {
			return part, nil
		}
	}
}

// fileName is what a file is called, or why it cannot be called that. Where it lay on
// the sender's machine is nobody's business.
func fileName(part *multipart.Part) (string, error) {
	_, named, err := mime.ParseMediaType(part.Header.Get("Content-Disposition"))
	name := path.Base(strings.ReplaceAll(named["filename"], `\`, "/"))
	if err == nil {
		name, err = cleanText("name", name)
	}
	if err != nil || !visible(name) || slices.Contains([]string{".", "..", "/"}, name) {
		return "", &guard.Problem{Status: http.StatusUnprocessableEntity, Title: "Not added", Code: "file-name",
			Detail: "Choose a file first. Its name has at most 200 characters, and no signs that control text or turn its direction. Rename it if it has, and add it again."}
	}
	return name, nil
}

// download sends a file to who may reveal it. It is decrypted once to its end before
// anything is sent, so that a damaged one is a page that says so, and not half a file.
func (a *App) download(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	f := stateOf(ctx).file
	stored, err := a.db.fetch(ctx, f)
	if err != nil {
		return err
	}
	defer stored.Close() //nolint:errcheck // it is gone then, and was sent or not
	content, err := a.openFile(ctx, f, stored)
	if err != nil {
		return err
	}
	guard.Describe(ctx, func(e *guard.Details) {
		e.Private = append(e.Private, crmguard.Private{Client: f.Contact, Name: "file", Value: []byte(f.Name)})
	})
	leaves := takeaway{id: guard.RequestID(ctx), contact: f.Contact, what: "attachment " + f.ID, person: subjectOf(ctx).ID, at: a.now()}
	err = guard.Settle(ctx, func(done crmguard.Event) error {
		return a.recorded(ctx, done, func(ctx context.Context, tx *sql.Tx) error { return enterTakeaway(ctx, tx, leaves) })
	})
	if err != nil {
		return err
	}
	a.sendFile(ctx, w, f, content)
	return nil
}

// openFile opens a file and its name, and reads all of it once.
func (a *App) openFile(ctx context.Context, f *attachment, stored *os.File) (io.Reader, error) {
	size, err := rewind(stored)
	if err != nil {
		return nil, err
	}
	if err := a.openNames(ctx, f); err != nil {
		return nil, err
	}
	content, err := a.attachments.files.Open(ctx, f.place(), stored, size)
	var whole int64
	if err == nil {
		whole, err = io.Copy(io.Discard, content)
	}
	if err == nil && whole != f.Size { // the row's word for it: browsers would take what it says for all of it
		err = fmt.Errorf("it has %d bytes, and its row says %d", whole, f.Size)
	}
	if err == nil {
		_, err = rewind(content)
	}
	if _, refused := errors.AsType[*crmguard.Denial](err); refused || errors.Is(err, crmguard.ErrErased) || errors.Is(err, crmguard.ErrUnavailable) || ctx.Err() != nil {
		return nil, err
	}
	if err != nil || f.Damaged {
		a.log.ErrorContext(ctx, "an attachment does not open", "attachment", f.ID, "error", err)
		return nil, &guard.Problem{Status: http.StatusInternalServerError, Title: "The file does not open", Code: "damaged",
			Detail: "It was changed past the CRM, or the disk has an error, so nothing of it was sent. Tell the administrator, who finds the cause in the log and may have a backup of it."}
	}
	return content, nil
}

// sendFile sends a file for keeping, never for showing: what type it is only its
// sender has said. Whether the person still may is asked again after each part.
func (a *App) sendFile(ctx context.Context, w http.ResponseWriter, f *attachment, content io.Reader) {
	h := w.Header()
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Content-Disposition", mime.FormatMediaType("attachment", map[string]string{"filename": f.Name}))
	h.Set("Content-Length", strconv.FormatInt(f.Size, 10))
	h.Set("Cache-Control", "no-store")
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(sendingTime)) //nolint:gosec // else the server's own holds
	for {
		if _, err := io.CopyN(w, content, 1<<20); err != nil { // the end, or the client is gone
			return
		}
		if err := a.exports.recheck(ctx); err != nil {
			panic(http.ErrAbortHandler) // the browser is told that it has not got all of it
		}
	}
}

// detach deletes an attachment. Nothing is opened for that.
func (a *App) detach(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	f := stateOf(ctx).file
	guard.Describe(ctx, func(e *guard.Details) { e.Reason = "detach" })
	err := guard.Settle(ctx, func(done crmguard.Event) error {
		return a.recorded(ctx, done, func(ctx context.Context, tx *sql.Tx) error { return deleteAttachment(ctx, tx, f) })
	})
	if errors.Is(err, errNoAttachment) { // somebody was faster
		err = guard.ErrNotFound
	}
	if err != nil {
		return err
	}
	http.Redirect(w, r, "/contacts/"+f.Contact+"?detached", http.StatusSeeOther)
	return nil
}
