package auditsql_test

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

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/auditsql"
	"github.com/crmguard/crmguard/audit/internal/journaltest"
	"github.com/crmguard/crmguard/internal/sqldb"
)

const childEnv = "CRMGUARD_AUDITSQL_CHILD"

// child appends until it is killed, if this process was started for that. It
// prints the ID of each acknowledged entry.
func child() {
	dir := os.Getenv(childEnv)
	if dir == "" {
		return
	}
	fail := func(err error) {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	ctx := context.Background()
	db, err := sqldb.OpenSQLite(ctx, filepath.Join(dir, "crm.db"))
	fail(err)
	store, err := auditsql.New(ctx, db, nil)
	fail(err)
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
		for _, id := range run(t, dir, random.IntN(60)) {
			acknowledged[id] = true
		}
	}
	require.NotEmpty(t, acknowledged)
	db, err := sqldb.OpenSQLite(t.Context(), filepath.Join(dir, "crm.db"))
	require.NoError(t, err)
	defer func() { require.NoError(t, db.Close()) }()
	store := newStore(t, db)
	_, verifier, err := audit.OpenSigner(filepath.Join(dir, "key"), "crm.example/journal", false)
	require.NoError(t, err)
	all := events(t, store)
	for id := range acknowledged {
		require.Equal(t, 1, all[id], id)
	}
	r := verify(t, store, verifier)
	require.True(t, r.OK(), r.Detail)
	t.Logf("%d acknowledged, %d there", len(acknowledged), len(all))
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
