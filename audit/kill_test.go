package audit_test

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/internal/journaltest"
	"github.com/crmguard/crmguard/internal/processtest"
)

func TestMain(m *testing.M) {
	processtest.Main(map[string]processtest.Task{"record forever": recordForever})
	goleak.VerifyTestMain(m)
}

func recordForever(ctx context.Context, p *processtest.Process) error {
	dir := p.Args[0]
	store, err := audit.OpenFile(filepath.Join(dir, "journal"))
	if err != nil {
		return err
	}
	audit.SetMaxSegment(store, 20_000)
	signer, verifier, err := audit.OpenSigner(filepath.Join(dir, "key"), "crm.example/journal", true)
	if err != nil {
		return err
	}
	log, err := audit.New(ctx, store, journaltest.NewSealer(), signer, verifier, &audit.Options{CheckpointEvery: 3 * time.Millisecond})
	if err != nil {
		return err
	}
	return journaltest.RecordForever(ctx, log)
}

// A process is killed again and again: what it was told is there, once.
func TestKill(t *testing.T) {
	dir := t.TempDir()
	acknowledged := processtest.Kill(t, 40*time.Millisecond, "record forever", dir)
	store := openFile(t, filepath.Join(dir, "journal"))
	_, verifier, err := audit.OpenSigner(filepath.Join(dir, "key"), "crm.example/journal", false)
	require.NoError(t, err)
	there := map[string]int{}
	rows, err := store.Read(t.Context(), 0, 1<<30)
	require.NoError(t, err)
	for _, r := range rows {
		there[r.Keys.Event]++
	}
	for _, id := range acknowledged {
		require.Equal(t, 1, there[id], id)
	}
	r := verify(t, store, verifier)
	require.True(t, r.OK(), r.Detail)
	t.Logf("%d acknowledged, %d there", len(acknowledged), len(there))
}
