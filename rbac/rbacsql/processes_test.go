package rbacsql_test

import (
	"context"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/internal/processtest"
	"github.com/crmguard/crmguard/internal/sqldb/sqldbtest"
	"github.com/crmguard/crmguard/rbac"
	"github.com/crmguard/crmguard/rbac/rbacsql"
)

func TestMain(m *testing.M) {
	tasks := map[string]processtest.Task{}
	for name, try := range tries {
		tasks[name] = processtest.Racer(func(ctx context.Context, p *processtest.Process) (func(int) (int, error), error) {
			db, err := processtest.Open(ctx, p.Args[0])
			if err != nil {
				return nil, err
			}
			p.AtEnd(db.Close)
			n := node{}
			if n.adapter, err = rbacsql.New(ctx, db, nil); err != nil {
				return nil, err
			}
			ctx = crmguard.System(ctx, "default", "test")
			if n.engine, err = rbac.New(ctx, n.adapter, quiet()); err != nil {
				return nil, err
			}
			if p.Args[1] == faulty {
				n.engine, err = rbac.New(ctx, looksFirst{n.adapter}, quiet())
			}
			return func(int) (int, error) { return try(ctx, n) }, err
		})
	}
	processtest.Main(tasks)
	os.Exit(m.Run())
}

// node is one process of the CRM.
type node struct {
	adapter *rbacsql.Adapter
	engine  *rbac.Engine
}

// tries return how many rows they removed.
var tries = map[string]func(ctx context.Context, n node) (int, error){
	"add": func(_ context.Context, n node) (int, error) {
		return 0, n.adapter.AddPolicy("g", "g", []string{"u:boris", "role:seller", "default"})
	},
	"grant": func(ctx context.Context, n node) (int, error) {
		return 0, n.engine.GrantRole(ctx, "default", "boris", "seller")
	},
	"revoke": func(ctx context.Context, n node) (int, error) {
		got, err := n.engine.Revoke(ctx, "default", "anna")
		return got.Count, err
	},
}

const faulty = "faulty"

// looksFirst is a planted fault: it counts the row as removed that was there before
// anybody acted.
type looksFirst struct{ *rbacsql.Adapter }

func (a looksFirst) RemoveRules(ctx context.Context, kind string, fields ...string) (int, error) {
	n, err := a.Adapter.RemoveRules(ctx, kind, fields...)
	if kind == "g" {
		n = 1
	}
	return n, err
}

// Anna has a role. However many processes give Boris one, or take hers: a row is
// added once and removed once.
func TestProcessesShareATable(t *testing.T) {
	type outcome struct{ rows, removed int }
	race := func(t *testing.T, database, task, which, unprotect string) (got outcome) {
		t.Helper()
		db, err := processtest.Open(t.Context(), database)
		require.NoError(t, err)
		defer func() { require.NoError(t, db.Close()) }()
		a := open(t, db, nil, rbac.StarterPolicy()+"g, u:anna, role:seller, default\ng, u:oleg, role:owner, default\n")
		_, err = db.ExecContext(t.Context(), unprotect)
		require.NoError(t, err)
		before := len(rules(t, a))
		for _, removed := range processtest.Race[int](t, task, database, which) {
			got.removed += removed
		}
		var n int
		require.NoError(t, db.QueryRowContext(t.Context(), `SELECT COUNT(*) FROM casbin_rule`).Scan(&n))
		got.rows = n - before
		return got
	}
	const withoutIndex = `DROP INDEX casbin_rule_row`
	for task, tt := range map[string]struct {
		want, planted    outcome
		which, unprotect string
	}{
		"add":    {outcome{rows: 1}, outcome{rows: processtest.Racers}, "", withoutIndex},
		"grant":  {outcome{rows: 1}, outcome{rows: processtest.Racers}, "", withoutIndex},
		"revoke": {outcome{rows: -1, removed: 1}, outcome{rows: -1, removed: processtest.Racers}, faulty, ""},
	} {
		t.Run(task, func(t *testing.T) {
			processtest.EachDatabase(t, func(t *testing.T, database string) { require.Equal(t, tt.want, race(t, database, task, "", "")) })
		})
		t.Run(task+", planted fault", func(t *testing.T) {
			require.Equal(t, tt.planted, race(t, sqldbtest.PostgresURL(t), task, tt.which, tt.unprotect))
		})
	}
}
