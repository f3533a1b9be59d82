package rbacsql_test

import (
	"context"
	"crypto/rand"
	"database/sql"
	"os"
	"strings"
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
			if n.adapter, err = rbacsql.New(ctx, db, testKeys, nil); err != nil {
				return nil, err
			}
			ctx = crmguard.System(ctx, "default", "test")
			if n.engine, err = rbac.New(ctx, n.adapter, quiet()); err != nil {
				return nil, err
			}
			if p.Args[1] == faulty {
				store := looksFirst{Adapter: n.adapter, db: db}
				if store.first, err = n.adapter.Load(ctx); err == nil {
					n.engine, err = rbac.New(ctx, store, quiet())
				}
			}
			return func(int) (int, error) { return try(ctx, n) }, err
		})
	}
	tasks["read"], tasks["write"], tasks["change"] = reader, writer, changer
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
	"grants": func(ctx context.Context, n node) (int, error) {
		return 0, n.engine.GrantRole(ctx, "default", "p"+strings.ToLower(rand.Text()), "seller")
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

// looksFirst is a planted fault: it acts on what was there before anybody else did,
// and compares no versions.
type looksFirst struct {
	*rbacsql.Adapter
	db    *sql.DB
	first rbac.Stored
}

func (a looksFirst) Load(context.Context) (rbac.Stored, error) { return a.first, nil }

func (a looksFirst) Change(ctx context.Context, was rbac.Stored, add, remove [][]string) (rbac.Version, error) {
	for _, rule := range add {
		if _, err := a.db.ExecContext(ctx, `INSERT INTO casbin_rule (ptype, v0, v1, v2) VALUES ($1, $2, $3, $4)`, rule[0], rule[1], rule[2], rule[3]); err != nil {
			return rbac.Version{}, err
		}
	}
	for _, rule := range remove {
		if _, err := a.db.ExecContext(ctx, `DELETE FROM casbin_rule WHERE v0 = $1 AND v1 = $2`, rule[1], rule[2]); err != nil {
			return rbac.Version{}, err
		}
	}
	return was.Version, nil
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
	for task, want := range map[string]outcome{"add": {rows: 1}, "grant": {rows: 1}, "grants": {rows: processtest.Racers}, "revoke": {-1, 1}} {
		t.Run(task, func(t *testing.T) {
			processtest.EachDatabase(t, func(t *testing.T, database string) { require.Equal(t, want, race(t, database, task, "", "")) })
		})
	}
	for task, planted := range map[string]outcome{"grant": {rows: processtest.Racers}, "revoke": {-1, processtest.Racers}} {
		t.Run(task+", planted fault", func(t *testing.T) {
			require.Equal(t, planted, race(t, sqldbtest.PostgresURL(t), task, faulty, `DROP INDEX casbin_rule_row`))
		})
	}
}
