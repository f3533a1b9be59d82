package calltokensql_test

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/internal/processtest"
	"github.com/crmguard/crmguard/internal/racetest"
	"github.com/crmguard/crmguard/internal/sqldb/sqldbtest"
	"github.com/crmguard/crmguard/masking/calltoken"
	"github.com/crmguard/crmguard/masking/calltoken/calltokensql"
)

func TestMain(m *testing.M) {
	processtest.Main(map[string]processtest.Task{
		"begin": processtest.Racer(func(ctx context.Context, p *processtest.Process) (func(int) (bool, error), error) {
			s, err := openIn(ctx, p)
			return func(int) (bool, error) {
				_, first, err := s.Begin(ctx, call("a"), noon.Add(-time.Hour))
				return first, err
			}, err
		}),
		"settle": processtest.Racer(func(ctx context.Context, p *processtest.Process) (func(int) (bool, error), error) {
			s, err := openIn(ctx, p)
			return func(int) (bool, error) { return s.Settle(ctx, "acme", "a", calltoken.Ended) }, err
		}),
	})
	os.Exit(m.Run())
}

func openIn(ctx context.Context, p *processtest.Process) (calltoken.Store, error) {
	db, err := processtest.Open(ctx, p.Args[0])
	if err != nil {
		return nil, err
	}
	p.AtEnd(db.Close)
	s, err := calltokensql.New(ctx, db, nil)
	if err != nil || p.Args[1] == "" {
		return s, err
	}
	_, err = s.Find(ctx, "acme", "a")
	return &looksFirst{s, errors.Is(err, calltoken.ErrNotFound)}, nil
}

// looksFirst is a planted fault: it decides by what it saw before anybody acted.
type looksFirst struct {
	*calltokensql.Store
	absent bool
}

func (s *looksFirst) Begin(ctx context.Context, c calltoken.Call, before time.Time) (calltoken.Call, bool, error) {
	_, _, err := s.Store.Begin(ctx, c, before)
	return c, s.absent, err
}

func (s *looksFirst) Settle(ctx context.Context, tenant, id string, state calltoken.State) (bool, error) {
	_, err := s.Store.Settle(ctx, tenant, id, state)
	return !s.absent, err
}

// Of all goroutines of all processes one begins a call, and one settles it. The same
// race notices a store that looks and then writes.
func TestProcessesShareCalls(t *testing.T) {
	race := func(t *testing.T, database, task, fault string) int {
		db, err := processtest.Open(t.Context(), database)
		require.NoError(t, err)
		s := open(t, db, nil)
		if task == "settle" {
			_, _, err := s.Begin(t.Context(), call("a"), noon)
			require.NoError(t, err)
		}
		require.NoError(t, db.Close())
		return racetest.Count(processtest.Race[bool](t, task, database, fault))
	}
	for _, task := range []string{"begin", "settle"} {
		t.Run(task, func(t *testing.T) {
			processtest.EachDatabase(t, func(t *testing.T, database string) { require.Equal(t, 1, race(t, database, task, "")) })
		})
		t.Run(task+", planted fault", func(t *testing.T) {
			require.Equal(t, processtest.Racers, race(t, sqldbtest.PostgresURL(t), task, "faulty"))
		})
	}
}
