package audit_test

import (
	"context"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"golang.org/x/mod/sumdb/note"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/internal/journaltest"
	"github.com/crmguard/crmguard/internal/processtest"
)

func TestMain(m *testing.M) {
	processtest.Main(map[string]processtest.Task{
		"record forever": recordForever,
		"spool forever":  spoolForever,
		"open signer":    processtest.Racer(opener),
	})
	goleak.VerifyTestMain(m)
}

func recordForever(ctx context.Context, p *processtest.Process) error {
	dir := p.Args[0]
	store, err := audit.OpenFile(filepath.Join(dir, "journal"))
	if err != nil {
		return err
	}
	audit.SetMaxSegment(store, 20_000)
	audit.SetRoom(store, 3_000)
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
	requireEachOnce(t, store, verifier, acknowledged)
}

// requireEachOnce checks that a journal is right and holds what was acknowledged, once.
func requireEachOnce(t *testing.T, store audit.Store, verifier note.Verifier, acknowledged []string) {
	t.Helper()
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

func opener(_ context.Context, p *processtest.Process) (func(int) (uint32, error), error) {
	path := p.Args[0]
	if p.Args[1] == "faulty" { // a planted fault: it is not there yet, so each process makes one
		path += strconv.Itoa(p.N)
	}
	return func(int) (uint32, error) {
		signer, _, err := audit.OpenSigner(path, "crm.example/journal", true)
		if err != nil {
			return 0, err
		}
		return signer.KeyHash(), nil
	}, nil
}

// Processes that start on a new installation at the same time sign with one key.
func TestProcessesMakeOneSigner(t *testing.T) {
	keys := func(how string) map[uint32]bool {
		keys := map[uint32]bool{}
		for _, hash := range processtest.Race[uint32](t, "open signer", filepath.Join(t.TempDir(), "key"), how) {
			keys[hash] = true
		}
		return keys
	}
	require.Len(t, keys(""), 1)
	require.Len(t, keys("faulty"), processtest.Processes)
}
