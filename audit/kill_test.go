package audit_test

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/internal/journaltest"
)

const childEnv = "CRMGUARD_AUDIT_CHILD"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childEnv); dir != "" {
		child(dir)
	}
	goleak.VerifyTestMain(m)
}

// child appends until it is killed. It prints the ID of each acknowledged entry.
func child(dir string) {
	fail := func(err error) {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	ctx := context.Background()
	store, err := audit.OpenFile(filepath.Join(dir, "journal"))
	fail(err)
	audit.SetMaxSegment(store, 20_000)
	signer, verifier, err := audit.OpenSigner(filepath.Join(dir, "key"), "crm.example/journal", true)
	fail(err)
	log, err := audit.New(ctx, store, journaltest.NewSealer(), signer, verifier, &audit.Options{CheckpointEvery: 3 * time.Millisecond})
	fail(err)
	for w := range 8 {
		go func() {
			for i := 0; ; i++ {
				e := journaltest.Event(i)
				e.ID = fmt.Sprintf("%d-%d-%d", os.Getpid(), w, i)
				fail(log.Record(ctx, e))
				fmt.Println(e.ID) // one write: whole or not at all
			}
		}()
	}
	select {}
}

// A process is killed again and again: what it was told is there, once.
func TestKill(t *testing.T) {
	dir := t.TempDir()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	acknowledged := map[string]bool{}
	for range 20 {
		for _, id := range run(t, dir, random.IntN(40)) {
			acknowledged[id] = true
		}
	}
	require.NotEmpty(t, acknowledged)
	store := openFile(t, filepath.Join(dir, "journal"))
	_, verifier, err := audit.OpenSigner(filepath.Join(dir, "key"), "crm.example/journal", false)
	require.NoError(t, err)
	there := map[string]int{}
	rows, err := store.Read(t.Context(), 0, 1<<30)
	require.NoError(t, err)
	for _, r := range rows {
		there[r.Keys.Event]++
	}
	for id := range acknowledged {
		require.Equal(t, 1, there[id], id)
	}
	r := verify(t, store, verifier)
	require.True(t, r.OK(), r.Detail)
	t.Logf("%d acknowledged, %d there", len(acknowledged), len(there))
}

// run starts a child, kills it some milliseconds after its first entry, and returns
// what it acknowledged.
func run(t *testing.T, dir string, milliseconds int) (ids []string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+dir)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if ids = append(ids, lines.Text()); len(ids) == 1 {
			time.AfterFunc(time.Duration(milliseconds)*time.Millisecond, func() { _ = cmd.Process.Kill() })
		}
	}
	require.Error(t, cmd.Wait(), "it ends only because it is killed")
	require.Empty(t, stderr.String())
	return ids
}
