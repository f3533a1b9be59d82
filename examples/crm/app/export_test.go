package app

import (
	"bytes"
	"encoding/csv"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/audit"
)

// exporter is somebody with a fresh second factor and an age key.
type exporter struct {
	*browser
	in    *installation
	login string
	key   *age.X25519Identity
}

func (in *installation) exporter(login string) *exporter {
	in.t.Helper()
	key, err := age.GenerateX25519Identity()
	require.NoError(in.t, err)
	return &exporter{in.signedIn(login), in, login, key}
}

// ask exports for the person's own key unless the form says otherwise.
func (e *exporter) ask(form ...string) (*http.Response, []byte) {
	e.t.Helper()
	if form == nil {
		form = []string{"key", e.key.Recipient().String(), "reason", "report"}
	}
	answer := e.do(http.MethodPost, "/contacts/export", fields(form...))
	body, err := io.ReadAll(answer.Body)
	require.NoError(e.t, err)
	return answer, body
}

// rows decrypts a file and returns its lines by column.
func rowsOf(t *testing.T, file []byte, key age.Identity) []map[string]string {
	t.Helper()
	plain, err := age.Decrypt(bytes.NewReader(file), key)
	require.NoError(t, err)
	text, err := io.ReadAll(plain)
	require.NoError(t, err)
	require.True(t, bytes.HasPrefix(text, []byte("\ufeff")))
	lines, err := csv.NewReader(bytes.NewReader(text[3:])).ReadAll()
	require.NoError(t, err)
	require.Equal(t, exportHeader, lines[0])
	rows := make([]map[string]string, len(lines)-1)
	for i, line := range lines[1:] {
		rows[i] = map[string]string{}
		for c, column := range exportHeader {
			rows[i][column] = line[c]
		}
	}
	return rows
}

// exportEntries are those of the journal about exports, the newest first. The outcome
// of one that was made is found a moment later.
func (in *installation) exportEntries() (events []crmguard.Event) {
	in.t.Helper()
	require.Eventually(in.t, func() bool {
		found, err := in.app.journal.Find(in.t.Context(), audit.Query{Tenant: tenant, Limit: 200})
		require.NoError(in.t, err)
		events = nil
		for _, e := range found.Entries {
			if e.Event.Action == crmguard.Export && e.Event.Resource.Kind == kind {
				events = append(events, e.Event)
			}
		}
		return len(events) == 0 || events[0].Outcome != crmguard.Attempted
	}, 10*time.Second, 5*time.Millisecond)
	return events
}

// counted is how many clients a norm of exports has counted for somebody today.
func (in *installation) counted(login string) int {
	in.t.Helper()
	usage, err := in.app.norms.counter.Load().Usage(in.t.Context(), tenant, login)
	require.NoError(in.t, err)
	for _, n := range usage.Norms {
		if n.Norm.Action == crmguard.Export {
			return n.Count
		}
	}
	return 0
}

// temporary gives exports a folder of their own for their temporary files.
func temporary(t *testing.T) (dir string) {
	dir = t.TempDir()
	t.Setenv("TMPDIR", dir)
	return dir
}

func requireEmpty(t *testing.T, dir string) {
	t.Helper()
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, left)
}

func TestExport(t *testing.T) {
	eachAlone(t, func(t *testing.T, on database) {
		const n = 600 // two chunks
		in := newInstallation(t, on, sample(n))
		in.atNoon()
		dir := temporary(t)
		owner, head := in.exporter("owner"), in.exporter("head")

		answer, file := owner.ask()
		require.Equal(t, http.StatusOK, answer.StatusCode, string(file))
		require.Equal(t, "application/octet-stream", answer.Header.Get("Content-Type"))
		require.Equal(t, "no-store", answer.Header.Get("Cache-Control"))
		require.Equal(t, `attachment; filename="contacts-`+in.app.now().Format("2006-01-02")+`.csv.age"`, answer.Header.Get("Content-Disposition"))
		require.NotContains(t, string(file), "Quillfeather")
		rows := rowsOf(t, file, owner.key)
		require.Len(t, rows, n)
		done := in.exportEntries()
		for i, row := range rows {
			require.Equal(t, fmt.Sprintf("Quillfeather%04d Имярек", i), row["name"])
			require.Equal(t, "'"+phoneOf(i), row["phone"])
			require.Contains(t, row["note"], fmt.Sprintf("Whisper%04d", i))
			require.Contains(t, row["exported"], "owner · ")
			require.Contains(t, row["exported"], "request "+done[0].Request)
		}
		require.Equal(t, "Sales / North", rows[1]["department"])
		require.Len(t, done, 2)
		require.Equal(t, crmguard.Done, done[0].Outcome)
		require.Equal(t, n, done[0].Count)
		require.Equal(t, fieldNames, done[0].Fields)
		require.Regexp(t, `^report:key-[0-9a-f]{16}$`, done[0].Reason)
		require.Equal(t, crmguard.Attempted, done[1].Outcome)
		require.Equal(t, done[0].Reason, done[1].Reason)
		require.Equal(t, n, in.counted("owner"))

		// The head: the own department and what lies below it, masked as on the pages,
		// although a head may reveal one by one.
		answer, file = head.ask()
		require.Equal(t, http.StatusOK, answer.StatusCode, string(file))
		rows = rowsOf(t, file, head.key)
		require.Len(t, rows, 400)
		for _, row := range rows {
			require.NotEqual(t, "Support", row["department"])
			require.Contains(t, row["name"], "Quillfeather")
			require.Regexp(t, `^'\+7 ••• \d\d$`, row["phone"])
			require.Equal(t, "q•••@•••.org", row["email"])
			require.Equal(t, "•••", row["note"])
		}
		require.Equal(t, 400, in.exportEntries()[0].Count)

		// Who may not export learns nothing of what is wrong with the form either.
		for _, login := range []string{"seller1", "admin", "accountant"} {
			b := &exporter{in.signedIn(login), in, login, owner.key}
			status, page := b.get("/contacts/export")
			require.Equal(t, http.StatusForbidden, status)
			_, list := b.get("/contacts")
			hasNot(t, list, "/contacts/export")
			for _, form := range [][]string{nil, {"key", "nonsense"}} {
				answer, file = b.ask(form...)
				require.Equal(t, http.StatusForbidden, answer.StatusCode)
				hasNot(t, string(file), "age1")
			}
			hasNot(t, page, "Passphrase")
			require.Equal(t, crmguard.Denied, in.exportEntries()[0].Outcome)
		}
		_, list := head.get("/contacts")
		has(t, list, "/contacts/export")

		// An administrator to whom somebody gives the right takes masks along.
		in.allow([]string{"role:admin", tenant, "contacts", "export", "all", "allow"})
		admin := in.exporter("admin")
		answer, file = admin.ask()
		require.Equal(t, http.StatusOK, answer.StatusCode, string(file))
		rows = rowsOf(t, file, admin.key)
		require.Len(t, rows, n)
		for _, row := range rows {
			require.Equal(t, "•••", row["name"])
			require.Empty(t, row["note"], "not even that there is one")
		}
		require.NotContains(t, in.exportEntries()[0].Fields, "note")
		requireEmpty(t, dir)
	})
}

// TestExportForAPassphrase: the file opens with the passphrase, which no database has
// to do with; stretching it takes seconds under the race detector.
func TestExportForAPassphrase(t *testing.T) {
	t.Parallel()
	in := newInstallation(t, onSQLite, sample(3))
	head := in.exporter("head")
	answer, file := head.ask("passphrase", "bergamot tuning unicorn latch", "again", "bergamot tuning unicorn latch", "reason", "other", "more", "for Wafflewords")
	require.Equal(t, http.StatusOK, answer.StatusCode, string(file))
	key, err := age.NewScryptIdentity("bergamot tuning unicorn latch")
	require.NoError(t, err)
	require.Len(t, rowsOf(t, file, key), 2)
	entry := in.exportEntries()[0]
	require.Equal(t, "other:passphrase", entry.Reason)
	require.Equal(t, 2, entry.Count)
}

// TestExportLeavesOut: what is erased or does not open is left out, and the name of
// the file says so.
func TestExportLeavesOut(t *testing.T) {
	each(t, func(t *testing.T, on database) {
		in := newInstallation(t, on, sample(4))
		owner := in.exporter("owner")
		status, _ := owner.post("/contacts/"+in.idOf(0)+"/forget", "reason", "client-request")
		require.Equal(t, http.StatusOK, status)
		_, err := in.app.db.ExecContext(t.Context(), `UPDATE contacts SET phone = (SELECT phone FROM contacts WHERE id = $1) WHERE id = $2`, in.idOf(2), in.idOf(1))
		require.NoError(t, err)
		answer, file := owner.ask()
		require.Contains(t, answer.Header.Get("Content-Disposition"), "-2-of-4.csv.age")
		rows := rowsOf(t, file, owner.key)
		require.Len(t, rows, 2)
		require.Contains(t, rows[0]["name"], "Quillfeather0002")
		require.Equal(t, 2, in.exportEntries()[0].Count)
	})
}

// TestExportComesBack: what was exported can be imported, here and elsewhere, and
// runs nothing in a spreadsheet.
func TestExportComesBack(t *testing.T) {
	odd := []byte("name,phone,email,company,city,note,owner,department,country\n" +
		"=HYPERLINK(1),+79165550001,+anna@example.org,@Works;=1+1,-Town,\"- first\n- second, \"\"quoted\"\"\n=cmd|' /C calc'!A0\",seller1,Sales,RU\n" +
		"'=Apostrophe,8 916 555-00-02 доб 12,,＝Wide,'',+7 916 and so on,,Support,\n")
	each(t, func(t *testing.T, on database) {
		in := newInstallation(t, on, odd)
		owner := in.exporter("owner")
		_, file := owner.ask()
		rows := rowsOf(t, file, owner.key)
		require.Len(t, rows, 2)
		for _, row := range rows {
			for column, cell := range row {
				for piece := range strings.FieldsFuncSeq(cell, func(r rune) bool { return strings.ContainsRune(cellEnds, r) }) {
					require.False(t, isFormula(piece), "%s: %q", column, cell)
				}
			}
		}
		require.Equal(t, "'=HYPERLINK(1)", rows[0]["name"])
		require.Equal(t, "'+79165550002 ext. 12", rows[1]["phone"])

		plain, err := age.Decrypt(bytes.NewReader(file), owner.key)
		require.NoError(t, err)
		text, err := io.ReadAll(plain)
		require.NoError(t, err)
		ctx := crmguard.System(t.Context(), tenant, "import")
		report, err := in.app.Import(ctx, text, nil, nil)
		require.NoError(t, err)
		require.Equal(t, ImportReport{Rows: 2, Duplicates: 2}, report, "the same rows, to the letter")

		other := founded(t, on, nil)
		report, err = other.app.Import(ctx, text, nil, nil)
		require.NoError(t, err)
		require.Equal(t, ImportReport{Rows: 2, Added: 2}, report)
		again := other.exporter("owner")
		_, file = again.ask()
		copies := rowsOf(t, file, again.key)
		for i := range rows {
			delete(rows[i], "exported")
			delete(copies[i], "exported")
		}
		require.Equal(t, rows, copies)
	})
}

// zeroKey is the point 0 as an age public key: with it everybody could decrypt.
const zeroKey = "age1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqq5cu47z"
