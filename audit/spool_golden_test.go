package audit_test

import (
	"flag"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/internal/journaltest"
)

const goldenSpool = "testdata/spool-v1"

// A spool that version 1 wrote is recorded, in the log that it is of.
func TestGoldenSpool(t *testing.T) {
	log := func(t *testing.T, s audit.Store) *audit.Log {
		t.Helper()
		signer, verifier, err := audit.OpenSigner(filepath.Join(t.TempDir(), "key"), "crm.example/journal", true)
		require.NoError(t, err)
		l, err := audit.New(t.Context(), s, journaltest.NewSealer(), signer, verifier, nil)
		require.NoError(t, err)
		t.Cleanup(func() { _ = l.Close() })
		return l
	}
	store := func() audit.Store { return audit.MemoryOf([16]byte([]byte("a golden spool's")), nil, nil) }
	if flag.Lookup("update").Value.String() == "true" {
		down := &outage{Store: store()}
		l := log(t, down)
		down.set(errDown, nil)
		dir := t.TempDir()
		f, err := audit.NewFailover(l, dir, &audit.FailoverOptions{Policy: func(crmguard.Event) audit.Policy { return audit.Spool }})
		require.NoError(t, err)
		for i := range 3 {
			require.NoError(t, f.Record(t.Context(), journaltest.Event(i)))
		}
		require.NoError(t, f.Close())
		require.NoError(t, os.MkdirAll(goldenSpool, 0o755))
		for name, content := range spoolFiles(t, dir) {
			require.NoError(t, os.WriteFile(filepath.Join(goldenSpool, name), content, 0o644))
		}
	}
	l := log(t, store())
	f, err := audit.NewFailover(l, folder(t, files(t, goldenSpool)), nil)
	require.NoError(t, err)
	require.Eventually(t, func() bool { return f.Status().Spooled == 0 }, 20*time.Second, time.Millisecond)
	require.Zero(t, f.Status().Left)
	require.NoError(t, f.Close())
	page, err := l.Find(t.Context(), audit.Query{Tenant: "acme"})
	require.NoError(t, err)
	require.Len(t, page.Entries, 3)
	for _, e := range page.Entries { // of three people: in no order
		i, err := strconv.Atoi(strings.TrimPrefix(e.Event.ID, "event-"))
		require.NoError(t, err)
		want := journaltest.Event(i)
		require.Equal(t, want.Time, e.Event.Time)
		require.Equal(t, want.Subject.ID, e.Event.Subject.ID)
		values, err := l.OpenPrivate(crmguard.System(t.Context(), "acme", "test"), e)
		require.NoError(t, err)
		require.Equal(t, want.Private[0].Value, values[0].Value)
	}
}
