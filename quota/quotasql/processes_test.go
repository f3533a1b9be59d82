package quotasql_test

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/internal/processtest"
	"github.com/crmguard/crmguard/internal/sqldb/sqldbtest"
	"github.com/crmguard/crmguard/quota"
	"github.com/crmguard/crmguard/quota/quotasql"
)

func TestMain(m *testing.M) {
	tasks := map[string]processtest.Task{}
	for name, try := range tries {
		tasks[name] = processtest.Racer(func(ctx context.Context, p *processtest.Process) (func(int) (quota.Taken, error), error) {
			db, s, err := openStore(ctx, p.Args[0])
			if err != nil {
				return nil, err
			}
			p.AtEnd(db.Close)
			if p.Args[1] == faulty {
				known, err := s.Read(ctx, "acme", "anna", today)
				if err != nil {
					return nil, err
				}
				s = &looksFirst{s, db, known}
			}
			return func(n int) (quota.Taken, error) { return try(ctx, s, n) }, nil
		})
	}
	processtest.Main(tasks)
	os.Exit(m.Run())
}

func openStore(ctx context.Context, database string) (*sql.DB, quota.Store, error) {
	db, err := processtest.Open(ctx, database)
	if err != nil {
		return nil, nil, err
	}
	s, err := quotasql.New(ctx, db, nil)
	return db, s, err
}

// What anna has taken before anybody races, and up to where she may go.
const (
	softLimit = 20
	hardLimit = 30
	holder    = 7
	held      = 6 // of the soft limit's items
)

// wanting is what a racer wants: that much more, or less, of one norm.
func wanting(items ...string) quota.Taking {
	t := taking(items...)
	t.Limits[0].Soft, t.Limits[0].Hard = softLimit, hardLimit
	return t
}

func heldItems() quota.Taking {
	t := wanting()
	for n := range held {
		t.Items = append(t.Items, fmt.Sprint("held", n))
	}
	t.Holder = holder
	return t
}

// tries are what processes do at once to what [prepare] left.
var tries = map[string]func(ctx context.Context, s quota.Store, n int) (quota.Taken, error){
	"take": func(ctx context.Context, s quota.Store, n int) (quota.Taken, error) {
		return s.Take(ctx, wanting(fmt.Sprint("own", n)))
	},
	"take the same": func(ctx context.Context, s quota.Store, _ int) (quota.Taken, error) {
		return s.Take(ctx, wanting("same"))
	},
	"give back": func(ctx context.Context, s quota.Store, _ int) (quota.Taken, error) {
		return quota.Taken{}, s.Return(ctx, heldItems(), nil)
	},
	"give back or open": func(ctx context.Context, s quota.Store, n int) (quota.Taken, error) {
		what := heldItems()
		if n%2 == 0 {
			return quota.Taken{}, s.Return(ctx, what, nil)
		}
		what.Holder = 0
		return s.Take(ctx, what)
	},
	"refuse": func(ctx context.Context, s quota.Store, _ int) (quota.Taken, error) {
		return s.Take(ctx, refusal())
	},
}

// softAttempts is what anna was refused before anybody races, up to the soft
// threshold of attempts.
const (
	softAttempts = 3
	hardAttempts = 20
)

// refusal is one by another check.
func refusal() quota.Taking {
	t := taking()
	t.Limits, t.Attempts.Soft, t.Attempts.Hard = nil, softAttempts, hardAttempts
	return t
}

const faulty = "faulty"

// looksFirst is a planted fault: it decides by what it saw before anybody acted.
type looksFirst struct {
	quota.Store
	db    *sql.DB
	known quota.Reading
}

func (s *looksFirst) Take(ctx context.Context, t quota.Taking) (quota.Taken, error) {
	attempts := s.known.Counters[quota.AttemptsCounter]
	var counts []quota.Count
	for _, l := range t.Limits { // one or none
		counts = append(counts, s.known.Counters[l.Counter])
	}
	taken := quota.Taken{Day: t.Day}
	taken.Refused, taken.Fired = t.Decide(&attempts, counts, []int{len(t.Items)})
	for i := range t.Limits {
		t.Limits[i].Hard = quota.MaxHard
	}
	_, err := s.Store.Take(ctx, t)
	return taken, err
}

func (s *looksFirst) Return(ctx context.Context, t quota.Taking, _ []quota.Fired) error {
	_, err := s.db.ExecContext(ctx, `UPDATE crmguard_quota_counts SET n = n - $1 WHERE person = $2 AND counter = $3`,
		len(t.Items), t.Person, t.Limits[0].Counter)
	return err
}

// outcome is what a race came to.
type outcome struct{ passed, soft, hard, counted, items, refused int }

// Anna is at her soft threshold, with some items that an act may give back. However
// many processes go on: her norm is what it is, each threshold tells once, and what
// is given back is given back once, and each refusal is one.
func TestProcessesShareANorm(t *testing.T) {
	const all = processtest.Racers
	for task, tt := range map[string]struct{ want, planted outcome }{
		"take": {
			outcome{passed: hardLimit - softLimit, soft: 1, hard: 1, counted: hardLimit, items: hardLimit, refused: all - (hardLimit - softLimit)},
			outcome{passed: all, soft: all, counted: softLimit + all, items: softLimit + all},
		},
		"take the same": {
			outcome{passed: all, soft: 1, counted: softLimit + 1, items: softLimit + 1},
			outcome{passed: all, soft: all, counted: softLimit + 1, items: softLimit + 1},
		},
		"give back": {
			outcome{passed: all, counted: softLimit - held, items: softLimit - held},
			outcome{passed: all, counted: softLimit - held*all, items: softLimit},
		},
		"give back or open": {
			outcome{passed: all, counted: softLimit, items: softLimit},
			outcome{passed: all, soft: all / 2, counted: softLimit - held*all/2, items: softLimit},
		},
		"refuse": {
			outcome{passed: all, soft: 1, hard: 1, counted: softLimit, items: softLimit, refused: all},
			outcome{passed: all, soft: all, counted: softLimit, items: softLimit, refused: all},
		},
	} {
		t.Run(task, func(t *testing.T) {
			processtest.EachDatabase(t, func(t *testing.T, database string) { require.Equal(t, tt.want, race(t, database, task, "")) })
		})
		t.Run(task+", planted fault", func(t *testing.T) {
			require.Equal(t, tt.planted, race(t, sqldbtest.PostgresURL(t), task, faulty))
		})
	}
}

func race(t *testing.T, database, task, store string) (got outcome) {
	t.Helper()
	db, s, err := openStore(t.Context(), database)
	require.NoError(t, err)
	defer func() { require.NoError(t, db.Close()) }()
	mustTake(t, s, heldItems())
	seen := wanting()
	for n := range softLimit - held {
		seen.Items = append(seen.Items, fmt.Sprint("seen", n))
	}
	mustTake(t, s, seen)
	for range softAttempts {
		mustTake(t, s, refusal())
	}

	for _, taken := range processtest.Race[quota.Taken](t, task, database, store) {
		if taken.Refused == "" {
			got.passed++
		}
		for _, f := range taken.Fired {
			if f.Level == quota.Soft {
				got.soft++
			} else {
				got.hard++
			}
		}
	}
	r, err := s.Read(t.Context(), "acme", "anna", today)
	require.NoError(t, err)
	got.counted = r.Counters[seen.Limits[0].Counter].N
	got.refused = r.Counters[quota.AttemptsCounter].N - softAttempts
	got.items = scan[int](t, db, `SELECT COUNT(*) FROM crmguard_quota_items`)
	return got
}
