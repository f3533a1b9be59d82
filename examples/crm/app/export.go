package app

import (
	"context"
	"database/sql"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/guard"
	"github.com/crmguard/crmguard/masking"
)

// exportChunk is how many rows an export reads, opens and encrypts before it asks
// again whether it may go on.
const exportChunk = 500

// exportHeader names the columns: those that an import reads, and who took them.
var exportHeader = append(slices.Clone(importColumns), "exported")

// sendingTime is how long the finished file may take to whoever asked for it.
const sendingTime = 10 * time.Minute

// exports are the exports under way.
type exports struct {
	running    sync.Map                    // by person: more than one is for nothing but to fill the disk
	recheck    func(context.Context) error // asked before each chunk, and before the first byte goes
	stretching sync.Mutex                  // a passphrase takes 256 MiB for a second: one at a time
}

// exported says what a file holds.
type exported struct {
	rows, left int // left out: damaged or erased
	fields     []string
	size       int64
}

// export writes the contacts that the person may export, as the person sees them,
// into an encrypted file, and sends it when it is whole. Whatever happens before
// that, not a byte is sent, and what was counted toward the norm is given back.
func (a *App) export(w http.ResponseWriter, r *http.Request) error {
	order := stateOf(r.Context()).order
	if order == nil { // the loader found that the person may not
		return errors.New("an export that nobody described")
	}
	person := subjectOf(r.Context()).ID
	if _, busy := a.exports.running.LoadOrStore(person, true); busy {
		return &guard.Problem{Status: http.StatusConflict, Title: "One export at a time", Code: "busy",
			Detail: "Another export of yours is being made. Wait until it is finished."}
	}
	defer a.exports.running.Delete(person)
	return a.norms.counter.Load().OpenOrRefund(r.Context(), func(ctx context.Context) (sent bool, err error) {
		file, err := unnamedFile()
		if err != nil {
			return false, err
		}
		defer file.Close() //nolint:errcheck // it is gone then, and was sent or not
		done, err := a.writeExport(ctx, file, order)
		if err != nil {
			return false, err
		}
		if done.size, err = rewind(file); err != nil {
			return false, err
		}
		if err := a.exports.recheck(ctx); err != nil {
			return false, err
		}
		guard.Describe(ctx, func(e *guard.Details) { e.Fields, e.Count = done.fields, done.rows })
		name := a.exportName(done)
		// The journal knows of the file before the first byte of it is out, and so does who
		// forgets a client later.
		leaves := takeaway{id: guard.RequestID(ctx), what: name + ", " + plural(done.rows, "contact"), person: person, at: a.now()}
		err = guard.Settle(ctx, func(e crmguard.Event) error {
			return a.recorded(ctx, e, func(ctx context.Context, tx *sql.Tx) error { return enterTakeaway(ctx, tx, leaves) })
		})
		if err != nil {
			return false, err
		}
		sendExport(w, file, name, done.size)
		return true, nil
	})
}

// unnamedFile is a temporary file without a name: when the program ends, however it
// ends, nothing of it is left.
func unnamedFile() (*os.File, error) {
	file, err := os.CreateTemp("", "crm-export-*")
	if err != nil {
		return nil, fmt.Errorf("temporary file: %w", err)
	}
	if err := os.Remove(file.Name()); err != nil {
		return nil, errors.Join(fmt.Errorf("temporary file: %w", err), file.Close())
	}
	return file, nil
}

// writeExport writes the file. Only encrypted bytes reach the disk.
func (a *App) writeExport(ctx context.Context, file io.Writer, order *exportOrder) (exported, error) {
	var done exported
	encrypted, err := order.encrypt(a, file)
	if err != nil {
		return done, err
	}
	if _, err := io.WriteString(encrypted, "\ufeff"); err != nil { // or spreadsheets take it for another encoding
		return done, err
	}
	out := csv.NewWriter(encrypted)
	if err := out.Write(exportHeader); err != nil {
		return done, err
	}
	mark := fmt.Sprintf("%s · %s · request %s", subjectOf(ctx).ID, a.now().UTC().Format("2006-01-02 15:04:05 UTC"), guard.RequestID(ctx))
	for after, more := int64(0), true; more; {
		if err := a.exports.recheck(ctx); err != nil {
			return done, err
		}
		contacts, err := a.exportable(ctx, after)
		if err != nil {
			return done, err
		}
		if more = len(contacts) == exportChunk; more {
			after = contacts[len(contacts)-1].Seq
		}
		if err := a.writeChunk(ctx, out, contacts, mark, &done); err != nil {
			return done, err
		}
	}
	out.Flush()
	return done, errors.Join(out.Error(), encrypted.Close())
}

// exportable reads the next rows that the person may export at this moment, still
// sealed.
func (a *App) exportable(ctx context.Context, after int64) ([]*Contact, error) {
	within, err := a.within(ctx, crmguard.Export)
	if err != nil {
		return nil, err
	}
	where, args, err := within(1)
	if err != nil {
		return nil, err
	}
	return a.db.queryContacts(ctx, fmt.Sprintf(`SELECT `+cardColumns+` FROM contacts WHERE (%s) AND seq > $%d ORDER BY seq LIMIT %d`,
		where, len(args)+1, exportChunk), append(args, after)...)
}

// writeChunk opens rows and writes of each what the person may read, masked where
// it is masked on the person's pages. Rights to reveal do not count.
func (a *App) writeChunk(ctx context.Context, out *csv.Writer, contacts []*Contact, mark string, done *exported) error {
	rights := fieldRights{a: a, ctx: ctx}
	for _, c := range contacts {
		if err := rights.drop(c); err != nil {
			return err
		}
	}
	if err := a.openContacts(ctx, contacts); err != nil {
		return err
	}
	for _, c := range contacts {
		if c.Damaged || !c.Erased.IsZero() {
			done.left++
			continue
		}
		may, err := rights.of(c)
		if err != nil {
			return err
		}
		shown, err := masking.View(*c, func(field string) bool { return may[field].Unmask })
		if err != nil {
			return fmt.Errorf("mask a contact: %w", err)
		}
		cells := map[string]string{"owner": c.Owner, "department": a.people.unitName(c.Unit), "country": c.Country, "exported": mark}
		for _, t := range shown.texts() {
			if !may[t.name].Read {
				continue
			}
			cells[t.name] = *t.value
			if !slices.Contains(done.fields, t.name) {
				done.fields = append(done.fields, t.name)
			}
		}
		line := make([]string, len(exportHeader))
		for i, column := range exportHeader {
			line[i] = guardCell(cells[column])
		}
		if err := out.Write(line); err != nil {
			return err
		}
		done.rows++
	}
	return nil
}

// rewind returns the size of a file and goes back to its beginning.
func rewind(file io.Seeker) (size int64, err error) {
	if size, err = file.Seek(0, io.SeekEnd); err == nil {
		_, err = file.Seek(0, io.SeekStart)
	}
	return size, err
}

// exportName is the name of the file, which tells if something was left out.
func (a *App) exportName(done exported) string {
	name := "contacts-" + a.now().Format("2006-01-02")
	if done.left > 0 {
		name += fmt.Sprintf("-%d-of-%d", done.rows, done.rows+done.left)
	}
	return name + ".csv.age"
}

// sendExport sends the finished file. That the browser goes away meanwhile changes
// nothing any more: part of the file may have arrived.
func sendExport(w http.ResponseWriter, file io.Reader, name string, size int64) {
	h := w.Header()
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Content-Disposition", `attachment; filename="`+name+`"`)
	h.Set("Content-Length", strconv.FormatInt(size, 10))
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(sendingTime)) //nolint:gosec // else the server's own holds
	_, _ = io.Copy(w, file)                                                         //nolint:gosec // the client may be gone
}

// exportForm asks for whom the file is to be encrypted. It shows nobody's data, so
// that nothing is recorded.
func (a *App) exportForm(w http.ResponseWriter, r *http.Request) {
	resource, _ := allContacts(r)
	err := a.guard.Check(r.Context(), crmguard.Export, resource)
	if err == nil {
		err = a.render(w, http.StatusOK, "export", a.page(r, "Export", false, &exportPage{Reasons: exportReasons}))
	}
	if err != nil {
		a.guard.WriteError(w, r, err)
	}
}

// exportedContacts reads the form of an export. What is wrong with it is told to
// those only who may export; others are refused, whatever they wrote.
func (a *App) exportedContacts(r *http.Request) (crmguard.Resource, error) {
	resource, err := allContacts(r)
	if err != nil || !a.may(r, crmguard.Export, resource) {
		return resource, err
	}
	if err := readForm(r); err != nil {
		return resource, err
	}
	order, form := readExport(r.PostForm, subjectOf(r.Context()).ID)
	if order == nil {
		stateOf(r.Context()).export = form
		return resource, &guard.Problem{Status: http.StatusUnprocessableEntity, Title: "Not exported", Code: exportProblem}
	}
	stateOf(r.Context()).order = order
	guard.Describe(r.Context(), func(e *guard.Details) {
		e.Reason = order.reason + ":" + order.recipientName
		if order.more != "" {
			e.Private = []crmguard.Private{{Name: "reason", Value: []byte(order.more)}}
		}
	})
	return resource, nil
}
