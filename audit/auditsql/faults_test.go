package auditsql_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/auditsql"
	"github.com/crmguard/crmguard/audit/internal/journaltest"
	"github.com/crmguard/crmguard/internal/processtest"
	"github.com/crmguard/crmguard/internal/sqldb/sqldbtest"
	"github.com/crmguard/crmguard/internal/testservers"
)

// faultProcesses record into one log, each 20 entries a round: 10,000 in 500 rounds.
const faultProcesses = 8

// recordMany records entries of its own from several goroutines.
func recordMany(ctx context.Context, p *processtest.Process) error {
	n, err := openNode(ctx, p.Args[0], p.Args[1], nil)
	if err != nil {
		return err
	}
	p.AtEnd(n.Close)
	each, err := strconv.Atoi(p.Args[3])
	if err != nil {
		return err
	}
	const writers = 20
	failed := make([]error, writers)
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := w; i < each && failed[w] == nil; i += writers {
				e := journaltest.Event(i)
				e.ID = fmt.Sprintf("%s-%d", p.Args[2], i)
				failed[w] = n.log.Record(ctx, e)
			}
		})
	}
	wg.Wait()
	return errors.Join(failed...)
}

// Eight processes that do nothing but record make one linear chain on PostgreSQL.
func TestManyProcesses(t *testing.T) {
	database, dir := sqldbtest.PostgresURL(t), t.TempDir()
	n := openHere(t, database, dir)
	each := 20 * processtest.Rounds()
	began := time.Now()
	var wg sync.WaitGroup
	output, failed := make([][]byte, faultProcesses), make([]error, faultProcesses)
	for i := range faultProcesses {
		cmd := processtest.Command(t, "record many", database, dir, fmt.Sprint(i), fmt.Sprint(each))
		wg.Go(func() { output[i], failed[i] = cmd.CombinedOutput() })
	}
	wg.Wait()
	for i := range faultProcesses {
		require.NoError(t, failed[i], "%s", output[i])
	}
	t.Logf("%d processes recorded %d entries each in %v", faultProcesses, each, time.Since(began).Round(time.Millisecond))
	all := events(t, n.store)
	for i := range faultProcesses {
		for k := range each {
			require.Equal(t, 1, all[fmt.Sprintf("%d-%d", i, k)])
		}
	}
	n.requireOK(t, dir)
}

// PostgreSQL crashes again and again while entries are recorded, some of them in
// transactions of the host: every acknowledged one is there, and none twice. It does so
// three times, or as often as processtest.Rounds says if that is set.
func TestKillPostgres(t *testing.T) {
	server, err := testservers.StartPostgres(t.Context())
	if errors.Is(err, testservers.ErrNotInstalled) {
		t.Skip(err)
	}
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, server.Stop()) })
	u, err := url.Parse(server.URL())
	require.NoError(t, err)
	query := u.Query()
	query.Set("synchronous_commit", "on") // the server's own default is for speed
	u.RawQuery = query.Encode()
	db, err := sql.Open("pgx", u.String())
	require.NoError(t, err)
	defer func() { require.NoError(t, db.Close()) }()
	_, err = db.Exec(`CREATE TABLE contacts (id TEXT PRIMARY KEY)`)
	require.NoError(t, err)
	signer, verifier := journaltest.Signer(t)
	store, err := auditsql.New(t.Context(), db, nil)
	require.NoError(t, err)
	log, err := audit.New(t.Context(), store, journaltest.NewSealer(), signer, verifier, &audit.Options{CheckpointEvery: 3 * time.Millisecond})
	require.NoError(t, err)

	var mu sync.Mutex
	var acknowledged []string
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				e := journaltest.Event(i)
				e.ID = fmt.Sprintf("%d-%d", w, i)
				for try := range 3 { // as hosts do
					if try > 0 {
						time.Sleep(5 * time.Millisecond)
					}
					var err error
					if w%2 == 0 {
						err = log.Record(t.Context(), e)
					} else {
						err = log.InTx(t.Context(), db, func(ctx context.Context, tx *sql.Tx, record func(crmguard.Event) error) error {
							_, err := tx.ExecContext(ctx, `INSERT INTO contacts (id) VALUES ($1) ON CONFLICT DO NOTHING`, e.ID)
							return errors.Join(err, record(e))
						})
					}
					if err == nil {
						mu.Lock()
						acknowledged = append(acknowledged, e.ID)
						mu.Unlock()
						break
					}
				}
			}
		})
	}
	crashes := 3
	if processtest.Long() {
		crashes = processtest.Rounds()
	}
	for range crashes {
		mu.Lock()
		before := len(acknowledged)
		mu.Unlock()
		require.Eventually(t, func() bool {
			mu.Lock()
			defer mu.Unlock()
			return len(acknowledged) > before+50
		}, time.Minute, time.Millisecond, "it works again")
		require.NoError(t, server.Crash(t.Context()))
	}
	close(stop)
	wg.Wait()
	require.NoError(t, log.Close())

	all := events(t, store)
	for _, id := range acknowledged {
		require.Equal(t, 1, all[id], id)
	}
	for id, n := range all {
		require.Equal(t, 1, n, id)
	}
	var changed int // a change without its entry, or an entry without its change
	require.NoError(t, db.QueryRow(`SELECT COUNT(*) FROM contacts`).Scan(&changed))
	inTx := 0
	for id := range all {
		if w := int(id[0] - '0'); len(id) > 1 && id[1] == '-' && w%2 == 1 {
			inTx++
		}
	}
	require.Equal(t, changed, inTx)
	require.Zero(t, count(t, db, "crmguard_audit_inbox"))
	r := verify(t, store, verifier)
	require.True(t, r.OK(), r.Detail)
	t.Logf("%d acknowledged, %d there", len(acknowledged), len(all))
}
