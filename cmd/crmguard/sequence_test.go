package main

import (
	"bytes"
	"context"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/auditsql"
	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/encrypt/encryptsql"
	"github.com/crmguard/crmguard/internal/racetest"
)

// recordInInbox records as a CRM does that has no signing key.
func recordInInbox(t *testing.T, name, keyStore, kekFile string, from, to int) {
	t.Helper()
	kek, err := encrypt.OpenKeyFile(kekFile, "", false)
	require.NoError(t, err)
	keysDB, err := open(t.Context(), keyStore)
	require.NoError(t, err)
	defer keysDB.Close() //nolint:errcheck // a test
	rows, err := encryptsql.New(t.Context(), keysDB, nil)
	require.NoError(t, err)
	keys, err := encrypt.New(kek, rows, nil)
	require.NoError(t, err)
	defer keys.Close() //nolint:errcheck // a test
	db, err := open(t.Context(), name)
	require.NoError(t, err)
	defer db.Close() //nolint:errcheck // a test
	store, err := auditsql.New(t.Context(), db, nil)
	require.NoError(t, err)
	journal, err := audit.OpenInbox(t.Context(), store, keys, nil)
	require.NoError(t, err)
	for i := from; i < to; i++ {
		require.NoError(t, journal.Record(t.Context(), view(strconv.Itoa(i))))
	}
	require.NoError(t, journal.Close())
}

// A CRM without the signing key records; the command chains and signs, and hands what it signs to
// an anchor. Holds and pruning go by the same files.
func TestSequence(t *testing.T) {
	eachName(t, func(t *testing.T, name string) {
		dir := t.TempDir()
		keyStore, kek := dir+"/keys.db", dir+"/kek.json"
		require.NoError(t, makeKeyStore(t.Context(), []string{keyStore, kek, "acme"}))
		require.NoError(t, os.Chmod(keyStore, 0o600))
		_, _, err := audit.OpenSigner(dir+"/journal.key", "crm.example/journal", true)
		require.NoError(t, err)
		flags := []string{"-db", name, "-signer", dir + "/journal.key", "-store", keyStore, "-kek", kek, "-anchor", dir + "/anchor"}
		with := func(words string, more ...string) []string {
			return append(append(strings.Fields(words), flags...), more...)
		}
		recordInInbox(t, name, keyStore, kek, 0, 300)

		for round := range 2 {
			ctx, stop := context.WithCancel(t.Context())
			var complaint racetest.Buffer
			ended := make(chan int, 1)
			go func() { ended <- run(ctx, with("audit sequence"), nil, &complaint, &complaint) }()
			require.Eventually(t, func() bool {
				code, out, _ := invoke(t, "audit", "export", "-db", name, "-key", dir+"/journal.key.pub", "-tenant", "acme")
				return code == good && strings.Count(out, "\n") == 300+10*round
			}, time.Minute, 50*time.Millisecond, "%s", &complaint)
			stop()
			require.Equal(t, good, <-ended, complaint.String())
			require.Equal(t, "chaining and signing; Ctrl-C ends it\n", complaint.String())
			code, out, why := invoke(t, "audit", "verify", "-db", name, "-key", dir+"/journal.key.pub", "-anchor", dir+"/anchor")
			require.Equal(t, good, code, out+why)
			recordInInbox(t, name, keyStore, kek, 300+10*round, 310+10*round)
		}

		// An anchor that is gone is not begun again, and the journal not signed, until somebody says why.
		require.NoError(t, os.Remove(dir+"/anchor"))
		for _, args := range [][]string{with("audit hold"), with("audit prune", "-before", "2000-01-01", "-yes")} {
			code, _, why := invoke(t, args...)
			require.Equal(t, unable, code, why)
			require.Contains(t, why, "/anchor holds no checkpoint, and the journal has ")
			require.Contains(t, why, "\nNothing was signed. Put it back")
			require.NoFileExists(t, dir+"/anchor")
		}
		require.NoError(t, os.WriteFile(dir+"/anchor", []byte("no frame, and longer than the head of one"), 0o600))
		code, _, why := invoke(t, with("audit hold", "-new-anchor", "the disk was replaced")...)
		require.Equal(t, unable, code)
		require.Contains(t, why, "damaged at byte 0")
		require.Contains(t, why, "\nNothing was signed. Put it back")
		require.NoError(t, os.Remove(dir+"/anchor"))
		code, _, why = invoke(t, with("audit hold", "-new-anchor", "the disk was replaced")...)
		require.Equal(t, good, code, why)
		code, _, why = invoke(t, with("audit hold", "-new-anchor", "again")...)
		require.Equal(t, unable, code)
		require.Contains(t, why, "leave out -new-anchor")
		_, out, _ := invoke(t, "audit", "timeline", "-db", name, "-tenant", "operator")
		require.Contains(t, out, "the disk was replaced")

		// An extract proves itself, whole or not at all.
		code, out, why = invoke(t, with("audit extract", "-tenant", "acme", "-record", "contacts/3", "-o", dir+"/extract")...)
		require.Equal(t, good, code, out+why)
		require.Regexp(t, `^entries in the extract: 1, of the \d+ that`, why)
		code, out, why = invoke(t, "audit", "check", "-key", dir+"/journal.key.pub", dir+"/extract")
		require.Equal(t, good, code, out+why)
		require.Regexp(t, `extract: holds: 1 act of a journal of \d+ entries, signed by crm.example/journal: all with tenant=acme kind=contacts record=3\n  3  .*  contacts/3  done`, out)
		text, err := os.ReadFile(dir + "/extract")
		require.NoError(t, err)
		first := bytes.IndexByte(text, '\n') + 1
		second := first + bytes.IndexByte(text[first:], '\n') + 1
		require.NoError(t, os.WriteFile(dir+"/shorter", append(text[:first:first], text[second:]...), 0o600))
		code, out, _ = invoke(t, "audit", "check", "-key", dir+"/journal.key.pub", dir+"/shorter")
		require.Equal(t, tampered, code)
		require.Contains(t, out, "DOES NOT HOLD")
		code, _, _ = invoke(t, with("audit extract", "-tenant", "acme", "-o", dir+"/extract")...)
		require.Equal(t, unable, code, "the file exists")
		code, _, _ = invoke(t, with("audit extract", "-tenant", "acme")...)
		require.Equal(t, misuse, code)

		// A hold keeps, a release does not.
		code, out, why = invoke(t, with("audit hold", "-tenant", "acme", "-id", "case-7", "-record", "contacts/3", "-reason", "lawsuit")...)
		require.Equal(t, good, code, out+why)
		_, out, _ = invoke(t, with("audit hold")...)
		require.Equal(t, "acme  case-7  kind=contacts  record=3  reason=lawsuit\n", out)
		code, out, why = invoke(t, with("audit prune", "-before", "2999-01-01", "-yes")...)
		require.Equal(t, good, code, out+why)
		require.Regexp(t, `^there was nothing to remove\nkept: entry \d+ and what came after it, by the hold case-7 of tenant acme\n$`, out)
		code, out, why = invoke(t, with("audit hold", "-tenant", "acme", "-id", "case-7", "-release", "-reason", "settled")...)
		require.Equal(t, good, code, out+why)
		_, out, _ = invoke(t, with("audit hold")...)
		require.Empty(t, out)

		code, _, why = invoke(t, with("audit prune", "-before", "2999-01-01")...)
		require.Equal(t, misuse, code)
		require.Contains(t, why, "-yes is needed")
		code, out, why = invoke(t, with("audit prune", "-before", "2000-01-01", "-yes")...)
		require.Equal(t, good, code, out+why)
		require.Equal(t, "there was nothing to remove\n", out)
		code, out, why = invoke(t, with("audit prune", "-before", "2999-01-01", "-yes")...)
		require.Equal(t, good, code, out+why)
		require.Equal(t, "removed: entries 0 to 255\n", out)
		code, out, why = invoke(t, "audit", "verify", "-db", name, "-key", dir+"/journal.key.pub", "-anchor", dir+"/anchor")
		require.Equal(t, pruned, code, out+why)
		code, _, why = invoke(t, "audit", "export", "-db", name, "-key", dir+"/journal.key.pub")
		require.Equal(t, good, code, "what was pruned is not missing: %s", why)
		code, _, why = invoke(t, "audit", "timeline", "-db", name, "-tenant", "acme")
		require.Equal(t, good, code, why)

		// A journal that was tampered with is neither signed nor pruned.
		require.NoError(t, execute(t.Context(), []string{name, `DELETE FROM crmguard_audit_entries WHERE seq = 300`}))
		for _, args := range [][]string{with("audit prune", "-before", "2999-01-01", "-yes"), with("audit extract", "-tenant", "acme", "-o", dir+"/none")} {
			code, out, why = invoke(t, args...)
			require.Equal(t, tampered, code, out+why)
		}
		require.NoFileExists(t, dir+"/none")

		// One that was emptied, so that another takes its place, is not signed.
		for _, table := range []string{"entries", "checkpoints", "tail", "pruned", "logs"} {
			require.NoError(t, execute(t.Context(), []string{name, `DELETE FROM crmguard_audit_` + table}))
		}
		recordInInbox(t, name, keyStore, kek, 0, 10)
		for range 2 {
			code, _, why = invoke(t, with("audit hold")...)
			require.Equal(t, unable, code, why)
			require.Regexp(t, `the journal is empty, and the anchor .*/anchor holds a checkpoint of \d+ entries`, why)
			require.Contains(t, why, "\nNothing was signed. Put back a backup")
		}
	})
}
