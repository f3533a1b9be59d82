package audit_test

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/mod/sumdb/note"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/internal/journaltest"
)

const golden = "testdata/journal-v1"

// A journal that version 1 wrote opens and verifies with its public key.
func TestGoldenJournal(t *testing.T) {
	if updating() {
		writeGolden(t)
	}
	content := files(t, golden)
	public := content["key.pub"]
	delete(content, "key.pub")
	verifier, err := note.NewVerifier(strings.TrimSpace(string(public)))
	require.NoError(t, err)
	s := openFile(t, folder(t, content))
	r := verify(t, s, verifier)
	require.Equal(t, audit.Unanchored, r.Verdict, r.Detail)
	require.EqualValues(t, 5, r.Entries)
	require.EqualValues(t, 5, r.Signed)
	rows, err := s.Find(t.Context(), audit.Query{Tenant: "acme", Client: "client-2", Limit: 10})
	require.NoError(t, err)
	require.Len(t, rows, 1)
	require.EqualValues(t, 2, rows[0].Seq)
}

// updating says that golden files are to be written.
func updating() bool { return flag.Lookup("update").Value.String() == "true" }

func writeGolden(t *testing.T) {
	t.Helper()
	key := filepath.Join(t.TempDir(), "key")
	signer, verifier, err := audit.OpenSigner(key, "crm.example/journal", true)
	require.NoError(t, err)
	dir := t.TempDir()
	s := openFile(t, dir)
	log, err := audit.New(t.Context(), s, journaltest.NewSealer(), signer, verifier, nil)
	require.NoError(t, err)
	for i := range 5 {
		require.NoError(t, log.Record(t.Context(), journaltest.Event(i)))
	}
	require.NoError(t, log.Close())
	require.NoError(t, s.Close())
	content := files(t, dir)
	delete(content, "lock")
	content["key.pub"], err = os.ReadFile(key + ".pub")
	require.NoError(t, err)
	require.NoError(t, os.MkdirAll(golden, 0o755))
	for name, b := range content {
		require.NoError(t, os.WriteFile(filepath.Join(golden, name), b, 0o644))
	}
}
