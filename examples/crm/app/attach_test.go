package app

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
)

// send posts a form with one file.
func (b *browser) send(path, field, name string, content io.Reader, headers ...string) (int, string) {
	b.t.Helper()
	return read(b.t, b.sent(path, field, name, content, headers...))
}

func (b *browser) sent(path, field, name string, content io.Reader, headers ...string) *http.Response {
	b.t.Helper()
	var form bytes.Buffer
	w := multipart.NewWriter(&form)
	part, err := w.CreateFormFile(field, name)
	require.NoError(b.t, err)
	_, err = io.Copy(part, content)
	require.NoError(b.t, err)
	require.NoError(b.t, w.Close())
	r, err := http.NewRequestWithContext(b.t.Context(), http.MethodPost, b.base+path, &form)
	require.NoError(b.t, err)
	r.Header.Set("Accept", "text/html")
	r.Header.Set("Content-Type", w.FormDataContentType())
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	answer, err := b.http.Do(r)
	require.NoError(b.t, err)
	b.t.Cleanup(func() { _ = answer.Body.Close() })
	return answer
}

var attachmentID = regexp.MustCompile(`/attachments/([a-z2-7]{20})/delete`)

// attach adds a file and returns its id.
func (b *browser) attach(contact, name, content string) string {
	b.t.Helper()
	status, page := b.send("/contacts/"+contact+"/attachments", "file", name, strings.NewReader(content))
	require.Equal(b.t, http.StatusOK, status)
	has(b.t, page, "The file was added.")
	ids := attachmentID.FindAllStringSubmatch(page, -1)
	require.NotEmpty(b.t, ids)
	return ids[len(ids)-1][1]
}

// TestAttachments: a file comes back as it was, to those who may have it, with what
// keeps browsers from showing it; the journal and the receipt know; nothing lies in the clear.
func TestAttachments(t *testing.T) {
	eachAlone(t, func(t *testing.T, on database) {
		in := newInstallation(t, on, sample(6))
		var dismissed atomic.Bool
		recheck := in.app.exports.recheck
		in.app.exports.recheck = func(ctx context.Context) error {
			if dismissed.Load() {
				return errors.New("dismissed")
			}
			return recheck(ctx)
		}
		seller, admin, owner := in.signedIn("seller1"), in.signedIn("admin"), in.signedIn("owner")
		mine, foreign := in.idOf(0), in.idOf(1)
		path := "/contacts/" + mine + "/attachments/"
		content := strings.Repeat("Wafflewords of a passport. ", 40_000) // several pieces
		id := seller.attach(mine, `C:\Scans\паспорт "1".html`, content)
		fetch := []string{"reason", "check-data"}

		_, page := seller.get("/contacts/" + mine)
		has(t, page, `паспорт "1".html`)
		has(t, page, "1 MB")
		answer := seller.do(http.MethodPost, path+id+"/download", fields(fetch...))
		require.Equal(t, http.StatusOK, answer.StatusCode)
		got, err := io.ReadAll(answer.Body)
		require.NoError(t, err)
		require.True(t, string(got) == content, "as it was")
		require.Equal(t, "application/octet-stream", answer.Header.Get("Content-Type"), "whatever its name says")
		require.Equal(t, "nosniff", answer.Header.Get("X-Content-Type-Options"))
		require.Equal(t, "no-store", answer.Header.Get("Cache-Control"))
		disposition, named, err := mime.ParseMediaType(answer.Header.Get("Content-Disposition"))
		require.NoError(t, err)
		require.Equal(t, "attachment", disposition)
		require.Equal(t, `паспорт "1".html`, named["filename"])

		t.Run("whose rights end meanwhile", func(t *testing.T) {
			dismissed.Store(true)
			defer dismissed.Store(false)
			answer := seller.do(http.MethodPost, path+id+"/download", fields(fetch...))
			got, err := io.ReadAll(answer.Body)
			require.Error(t, err, "the browser knows that it has not got all")
			require.Less(t, len(got), len(content))
		})

		t.Run("rights", func(t *testing.T) {
			_, page := admin.get("/contacts/" + mine)
			has(t, page, "Attachments", "that there is one")
			hasNot(t, page, "паспорт", "but not what it is called")
			hasNot(t, page, "/download")
			_, page = in.signedIn("accountant").get("/contacts/" + mine)
			hasNot(t, page, "Attachments")
			for _, b := range []*browser{admin, in.signedIn("accountant")} {
				status, page := b.post(path+id+"/download", fetch...)
				require.Equal(t, http.StatusForbidden, status)
				hasNot(t, page, "Wafflewords")
				status, _ = b.post(path + id + "/delete")
				require.Equal(t, http.StatusForbidden, status)
				status, _ = b.send("/contacts/"+mine+"/attachments", "file", "x", strings.NewReader("x"))
				require.Equal(t, http.StatusForbidden, status)
			}
			theirs := owner.attach(foreign, "theirs.txt", "of another client")
			for _, at := range []string{path + theirs, "/contacts/" + foreign + "/attachments/" + theirs, path + "aaaaaaaaaaaaaaaaaaaa", path + "%00"} {
				for _, act := range []string{"/download", "/delete"} {
					status, _ := seller.post(at+act, fetch...)
					require.Equal(t, http.StatusNotFound, status, at+act)
				}
			}
			status, _ := seller.send("/contacts/"+foreign+"/attachments", "file", "x", strings.NewReader("x"))
			require.Equal(t, http.StatusNotFound, status)
			status, _ = in.session("seller1", crmguard.AssuranceSecondFactor, time.Hour).post(path+id+"/download", fetch...)
			require.Equal(t, http.StatusUnauthorized, status, "without a fresh code")
			status, _ = seller.post(path + id + "/download")
			require.Equal(t, http.StatusUnprocessableEntity, status, "without a reason")
			status, _ = seller.send("/contacts/"+mine+"/attachments", "file", "x", strings.NewReader("x"), "Sec-Fetch-Site", "cross-site")
			require.Equal(t, http.StatusForbidden, status, "from another site")
		})

		t.Run("what cannot be added", func(t *testing.T) {
			at := "/contacts/" + mine + "/attachments"
			status, page := seller.send(at, "file", "large.bin", io.LimitReader(endless{}, maxFile+1))
			require.Equal(t, http.StatusRequestEntityTooLarge, status)
			has(t, page, "at most 20 MB")
			for _, name := range []string{"", "..", "/", "\u200b", "a\u202egpj.exe", strings.Repeat("x", 201)} {
				status, _ = seller.send(at, "file", name, strings.NewReader("x"))
				require.Equal(t, http.StatusUnprocessableEntity, status, name)
			}
			status, _ = seller.send(at, "other", "x", strings.NewReader("x"))
			require.Equal(t, http.StatusBadRequest, status)
			status, _ = seller.post(at, "file", "x")
			require.Equal(t, http.StatusBadRequest, status)
			status, _ = seller.post("/contacts/new", "name", strings.Repeat("x", maxForm))
			require.Equal(t, http.StatusRequestEntityTooLarge, status, "other forms stay small")
			_, page = seller.get("/contacts/" + mine)
			require.Equal(t, 1, strings.Count(page, "/download"))
		})

		t.Run("journal", func(t *testing.T) {
			var page string
			require.Eventually(t, func() bool { // an outcome is found a moment later
				_, page = owner.get("/journal?outcome=done&record=" + mine)
				return strings.Contains(page, "update attachments") && strings.Contains(page, "reveal attachments")
			}, 10*time.Second, 20*time.Millisecond)
			has(t, page, "sealed: file")
			hasNot(t, page, "паспорт")
		})

		t.Run("moved and changed", func(t *testing.T) {
			other := seller.attach(mine, "other.txt", content)
			// A row that is moved to a contact whose attachments one may have.
			theirs := owner.attach(foreign, "secret.txt", "of another client")
			in.tamper(`UPDATE attachments SET contact = $1 WHERE id = $2`, mine, theirs)
			_, page := seller.get("/contacts/" + mine)
			has(t, page, "does not open")
			hasNot(t, page, "secret.txt")
			status, page := seller.post(path+theirs+"/download", fetch...)
			require.Equal(t, http.StatusInternalServerError, status)
			has(t, page, "The file does not open")
			in.tamper(`DELETE FROM attachments WHERE id = $1`, theirs)
			// Pieces that are swapped, cut off, or taken from another file of the same client.
			var piece []byte
			require.NoError(t, in.app.db.QueryRowContext(t.Context(), `SELECT content FROM attachment_pieces WHERE attachment = $1 AND n = 1`, id).Scan(&piece))
			damaged := func(why, change string, args ...any) {
				in.tamper(change, args...)
				status, page := seller.post(path+id+"/download", fetch...)
				require.Equal(t, http.StatusInternalServerError, status, why)
				hasNot(t, page, "Wafflewords", "not even the part that is good")
			}
			flipped := bytes.Clone(piece)
			flipped[100] ^= 1
			damaged("a bit", `UPDATE attachment_pieces SET content = $1 WHERE attachment = $2 AND n = 1`, flipped, id)
			damaged("cut", `DELETE FROM attachment_pieces WHERE attachment = $1 AND n = 1`, id)
			damaged("a piece of another file", `INSERT INTO attachment_pieces (attachment, n, content) SELECT $1, n, content FROM attachment_pieces WHERE attachment = $2 AND n = 1`, id, other)
			in.tamper(`UPDATE attachment_pieces SET content = $1 WHERE attachment = $2 AND n = 1`, piece, id)
			for _, size := range []int{32 << 10, len(content) - 1, len(content) + 1} {
				damaged("another size in the row", `UPDATE attachments SET size = $1 WHERE id = $2`, size, id)
			}
			in.tamper(`UPDATE attachments SET size = $1 WHERE id = $2`, len(content), id)
			status, page = seller.post(path+id+"/download", fetch...)
			require.Equal(t, http.StatusOK, status)
			require.True(t, page == content)
			status, page = seller.post(path + other + "/delete")
			require.Equal(t, http.StatusOK, status)
			has(t, page, "The file was deleted.")
			status, _ = seller.post(path + other + "/delete")
			require.Equal(t, http.StatusNotFound, status)
		})

		t.Run("norm", func(t *testing.T) {
			second := in.idOf(3)
			other := seller.attach(second, "second.txt", "Wafflewords of the second")
			status, _ := owner.post("/settings/norms", normFields("0", "soft-0", "", "hard-0", "1")...)
			require.Equal(t, http.StatusOK, status)
			head := in.signedIn("head")
			status, _ = head.post(path+id+"/download", fetch...)
			require.Equal(t, http.StatusOK, status, "a download is a card")
			status, page := head.post("/contacts/"+second+"/attachments/"+other+"/download", fetch...)
			require.Equal(t, http.StatusTooManyRequests, status)
			hasNot(t, page, "Wafflewords")
			status, _ = head.post(path+id+"/download", fetch...)
			require.Equal(t, http.StatusOK, status, "what was opened today stays open")
			status, _ = owner.post("/settings/norms", normFields("1")...)
			require.Equal(t, http.StatusOK, status)
		})

		t.Run("forgotten", func(t *testing.T) {
			f, err := in.app.db.attachment(t.Context(), mine, id)
			require.NoError(t, err)
			stored, err := in.app.db.fetch(t.Context(), f)
			require.NoError(t, err)
			defer stored.Close() //nolint:errcheck // it was only read
			_, page := owner.post("/contacts/"+mine+"/forget", "reason", "client-request")
			has(t, page, "attachment "+id, "the copy that somebody downloaded")
			var left int
			require.NoError(t, in.app.db.QueryRowContext(t.Context(), `SELECT COUNT(*) FROM attachment_pieces WHERE attachment = $1`, id).Scan(&left))
			require.Zero(t, left, "the bytes are gone")
			_, err = in.app.openFile(crmguard.System(t.Context(), tenant, "test"), f, stored)
			require.ErrorIs(t, err, crmguard.ErrErased, "and a copy of them opens no more")
			status, _ := seller.send("/contacts/"+mine+"/attachments", "file", "late.txt", strings.NewReader("late"))
			require.Equal(t, http.StatusGone, status)
			status, _ = seller.post(path+id+"/download", fetch...)
			require.Equal(t, http.StatusNotFound, status)
			// One that was on its way is removed when the key is destroyed.
			in.tamper(`INSERT INTO attachments (id, contact, name, size, added_by, created_at) VALUES ('lateaaaaaaaaaaaaaaaa', $1, $2, 1, 'seller1', 1)`, mine, f.NameSealed)
			in.pass(2 * time.Minute)
			require.NoError(t, in.app.finishErasuresOnce(t.Context()))
			require.NoError(t, in.app.db.QueryRowContext(t.Context(), `SELECT COUNT(*) FROM attachments WHERE contact = $1`, mine).Scan(&left))
			require.Zero(t, left)
		})

		require.Empty(t, leaks(t, in.cfg, [][]byte{[]byte("паспорт"), []byte("Wafflewords"), []byte("of another client")}))
	})
}

// endless is a file that never ends.
type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

// TestAttachmentsAreBounded: a contact has so many, and rights count at the moment in
// which a file is stored.
func TestAttachmentsAreBounded(t *testing.T) {
	each(t, func(t *testing.T, on database) {
		in := newInstallation(t, on, sample(1))
		id := in.idOf(0)
		seller := crmguard.WithSubject(t.Context(), crmguard.Subject{Tenant: tenant, ID: "seller1", Kind: employee})
		attach := func(ctx context.Context) error {
			within, err := in.app.within(ctx, crmguard.Update)
			require.NoError(t, err)
			tx, err := in.app.db.BeginTx(ctx, nil)
			require.NoError(t, err)
			defer tx.Rollback() //nolint:errcheck // nothing was changed
			return mayAttach(ctx, tx, id, within)
		}
		require.NoError(t, attach(seller))
		require.Error(t, attach(crmguard.WithSubject(t.Context(), crmguard.Subject{Tenant: tenant, ID: "seller3", Kind: employee})))
		for i := range maxFiles {
			in.tamper(`INSERT INTO attachments (id, contact, name, size, added_by, created_at) VALUES ($1, $2, $3, 1, 'seller1', 1)`, fmt.Sprint(i), id, []byte("x"))
		}
		require.ErrorContains(t, attach(seller), "There are enough attachments")
	})
}

func TestFileSize(t *testing.T) {
	for n, want := range map[int64]string{0: "0 bytes", 1: "1 byte", 1023: "1,023 bytes", 1024: "1 kB", 1025: "2 kB", 1 << 20: "1 MB", 3 << 19: "1.5 MB", maxFile: "20 MB"} {
		require.Equal(t, want, fileSize(n))
	}
}
