package auditsql_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/mod/sumdb/note"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/auditsql"
	"github.com/crmguard/crmguard/audit/internal/journaltest"
	"github.com/crmguard/crmguard/internal/sqldb/sqldbtest"
)

// disturbed is a database with a log, of which each round has a copy: another process does
// something before one of the statements of the round.
type disturbed struct {
	db       *sql.DB
	tables   map[string]string // names of the columns
	rounds   int
	signer   note.Signer
	verifier note.Verifier
	keys     *journaltest.Sealer
}

const disturbedEntries = 300 // a tile that can be pruned, and more

func newDisturbed(t *testing.T, db *sql.DB) *disturbed {
	d := &disturbed{db: db, tables: map[string]string{}, keys: journaltest.NewSealer()}
	d.signer, d.verifier = journaltest.Signer(t)
	log := d.open(t, &auditsql.Options{Log: "all"}, db)
	errs := make([]error, disturbedEntries)
	var all sync.WaitGroup
	for i := range errs {
		all.Go(func() { errs[i] = log.Record(t.Context(), d.event(fmt.Sprint("old", i))) })
	}
	all.Wait()
	require.NoError(t, errors.Join(errs...))
	require.NoError(t, log.Close())

	columns := `SELECT m.name, group_concat(p.name, ', ') FROM sqlite_master m, pragma_table_info(m.name) p
		WHERE m.type = 'table' AND m.name LIKE 'crmguard_audit_%' AND p.name <> 'log' GROUP BY m.name`
	if strings.Contains(t.Name(), "postgres") {
		columns = `SELECT table_name, string_agg(column_name, ', ') FROM information_schema.columns
			WHERE table_schema = current_schema() AND table_name LIKE 'crmguard_audit_%' AND column_name <> 'log' GROUP BY table_name`
	}
	rows, err := db.QueryContext(t.Context(), columns)
	require.NoError(t, err)
	defer rows.Close() //nolint:errcheck // Err tells
	for rows.Next() {
		var table, names string
		require.NoError(t, rows.Scan(&table, &names))
		d.tables[table] = names
	}
	require.NoError(t, rows.Err())
	require.NotEmpty(t, d.tables)
	return d
}

func (d *disturbed) event(id string) crmguard.Event {
	e := journaltest.Event(1)
	e.ID = id
	return e
}

func (d *disturbed) open(t *testing.T, o *auditsql.Options, db *sql.DB) *audit.Log {
	t.Helper()
	store, err := auditsql.New(t.Context(), db, o)
	require.NoError(t, err)
	log, err := audit.New(t.Context(), store, d.keys, d.signer, d.verifier, nil)
	require.NoError(t, err)
	return log
}

// copy makes a log that is as that of the beginning.
func (d *disturbed) copy(t *testing.T) *auditsql.Options {
	t.Helper()
	d.rounds++
	o := &auditsql.Options{Log: fmt.Sprint("round", d.rounds)}
	for table, names := range d.tables {
		_, err := d.db.ExecContext(t.Context(), `INSERT INTO `+table+` (log, `+names+`) SELECT '`+o.Log+`', `+names+` FROM `+table+` WHERE log = 'all'`) //nolint:gosec // fixed texts
		require.NoError(t, err)
	}
	return o
}

// Whatever another process does between two statements of who reads a log, nothing is
// called broken, missing or not to be verified.
func TestBetweenStatements(t *testing.T) {
	meanwhile := map[string]func(t *testing.T, log *audit.Log, d *disturbed){
		"appends": func(t *testing.T, log *audit.Log, d *disturbed) {
			require.NoError(t, log.Record(t.Context(), d.event("new")))
			require.NoError(t, log.InTx(t.Context(), d.db, func(_ context.Context, _ *sql.Tx, record func(crmguard.Event) error) error {
				return record(d.event("boxed"))
			}))
		},
		"prunes": func(t *testing.T, log *audit.Log, _ *disturbed) {
			removed, err := log.Prune(crmguard.System(t.Context(), "acme", "retention"), time.Now().Add(time.Hour))
			require.NoError(t, err)
			require.EqualValues(t, 256, removed.To)
		},
	}
	reads := map[string]func(t *testing.T, s *auditsql.Store, d *disturbed) error{
		"verifies": func(t *testing.T, s *auditsql.Store, d *disturbed) error {
			r, err := audit.VerifyStore(t.Context(), s, d.verifier, nil)
			if err == nil && !r.OK() {
				err = fmt.Errorf("%s at entry %d: %s", r.Verdict, r.At, r.Detail)
			}
			return err
		},
		"reads": func(t *testing.T, s *auditsql.Store, d *disturbed) (err error) {
			for _, one := range audit.ReadStore(t.Context(), s, d.verifier, nil, -1) {
				err = errors.Join(err, one)
			}
			return err
		},
		"opens": func(t *testing.T, s *auditsql.Store, d *disturbed) error {
			log, err := audit.New(t.Context(), s, d.keys, d.signer, d.verifier, nil)
			if err == nil {
				err = log.Close()
			}
			return err
		},
	}
	sqldbtest.Each(t, func(t *testing.T, db *sql.DB) {
		d := newDisturbed(t, db)
		for who, read := range reads {
			for what, act := range meanwhile {
				step := 1
				if what == "prunes" || strings.Contains(t.Name(), "postgres") {
					step = 4 // it takes longer
				}
				for before := 0; ; before += step {
					reached, err := d.between(t, d.copy(t), before, act, func(s *auditsql.Store) error { return read(t, s, d) })
					require.NoError(t, err, "another process %s before statement %d of who %s", what, before, who)
					if !reached {
						break
					}
				}
			}
		}
		for before := range 12 { // of who opens a log in which there is nothing yet
			_, err := d.between(t, &auditsql.Options{Log: fmt.Sprint("new", before)}, before, meanwhile["appends"], func(s *auditsql.Store) error { return reads["opens"](t, s, d) })
			require.NoError(t, err, "another process begins before statement %d", before)
		}
		// Who does not look at what was pruned is noticed.
		found := false
		for before := 0; before < 20 && !found; before += 2 {
			_, err := d.between(t, d.copy(t), before, meanwhile["prunes"], func(s *auditsql.Store) error {
				r, err := audit.VerifyStore(t.Context(), struct{ audit.Store }{s}, d.verifier, nil)
				require.NoError(t, err)
				if !r.OK() {
					return errors.New(r.Detail)
				}
				return nil
			})
			found = err != nil
		}
		require.True(t, found)
	})
}

// between has another process act before one of the statements of do, and reports whether
// there were as many.
func (d *disturbed) between(t *testing.T, o *auditsql.Options, before int, act func(*testing.T, *audit.Log, *disturbed), do func(*auditsql.Store) error,
) (reached bool, _ error) {
	t.Helper()
	var mu sync.Mutex
	begun, seen := false, 0
	watched := sqldbtest.Before(t, d.db, func(string) {
		mu.Lock()
		defer mu.Unlock()
		if !begun || reached {
			return
		}
		if seen++; seen > before {
			reached = true
			log := d.open(t, o, d.db)
			act(t, log, d)
			require.NoError(t, log.Close())
		}
	})
	s, err := auditsql.New(t.Context(), watched, o)
	require.NoError(t, err)
	mu.Lock()
	begun = true
	mu.Unlock()
	err = do(s)
	mu.Lock()
	defer mu.Unlock()
	return reached, err
}
