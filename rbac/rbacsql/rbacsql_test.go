package rbacsql_test

import (
	"context"
	"database/sql"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/casbin/casbin/v2"
	"github.com/casbin/casbin/v2/model"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/internal/racetest"
	"github.com/crmguard/crmguard/internal/sqldb/sqldbtest"
	"github.com/crmguard/crmguard/rbac"
	"github.com/crmguard/crmguard/rbac/rbacsql"
)

func quiet() *rbac.Options { return &rbac.Options{Logger: slog.New(slog.DiscardHandler)} }

// rowsOf reads CSV rows, by type.
func rowsOf(t testing.TB, text string) map[string][][]string {
	t.Helper()
	r := csv.NewReader(strings.NewReader(text))
	r.Comment, r.TrimLeadingSpace, r.FieldsPerRecord = '#', true, -1
	rows := map[string][][]string{}
	for {
		row, err := r.Read()
		if err == io.EOF {
			return rows
		}
		require.NoError(t, err)
		rows[row[0]] = append(rows[row[0]], row[1:])
	}
}

func open(t testing.TB, db *sql.DB, o *rbacsql.Options, text string) *rbacsql.Adapter {
	t.Helper()
	a, err := rbacsql.New(context.Background(), db, testKeys, o)
	require.NoError(t, err)
	for kind, rows := range rowsOf(t, text) {
		require.NoError(t, a.AddPolicies(kind[:1], kind, rows))
	}
	return a
}

const people = `g, u:anna, role:seller, default
g, u:Вера, role:head, default
g, u:oleg, role:owner, default
g, unit:Бухгалтерия, role:accountant, default
g, u:ann's "x", unit:Бухгалтерия, default
`

// doubled makes CSV of a text whose quotes are bare.
func doubled(text string) string {
	return strings.ReplaceAll(text, `u:ann's "x"`, `"u:ann's ""x"""`)
}

func TestPlainCasbinGivesTheSameAnswers(t *testing.T) {
	sqldbtest.Each(t, func(t *testing.T, db *sql.DB) {
		a := open(t, db, nil, rbac.StarterPolicy()+doubled(people))
		engine, err := rbac.New(t.Context(), a, quiet())
		require.NoError(t, err)
		m, err := model.NewModelFromString(rbac.Model)
		require.NoError(t, err)
		plain, err := casbin.NewEnforcer(m, a)
		require.NoError(t, err)
		plain.EnableAutoSave(false)
		_, err = plain.AddNamedGroupingPolicies("g2", rbac.ScopeRows())
		require.NoError(t, err)

		rnd := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // the same run every time
		ids := []string{"anna", "Вера", "oleg", `ann's "x"`, "nobody"}
		actions := []crmguard.Action{crmguard.View, crmguard.List, crmguard.Create, crmguard.Update, crmguard.Export, crmguard.Erase}
		yes := 0
		for range 1000 {
			id, action := ids[rnd.IntN(len(ids))], actions[rnd.IntN(len(actions))]
			owner, shared := ids[rnd.IntN(len(ids))], rnd.IntN(2) == 0
			relation := "none"
			switch {
			case owner == id && shared:
				relation = "own+shared"
			case owner == id:
				relation = "own"
			case shared:
				relation = "shared"
			}
			want, err := plain.Enforce("u:"+id, "default", "contacts", string(action), relation)
			require.NoError(t, err)
			err = engine.Check(t.Context(), crmguard.Subject{Tenant: "default", ID: id, Kind: crmguard.KindEmployee}, action,
				crmguard.Resource{Tenant: "default", Kind: "contacts", ID: "1", Owner: owner, Shared: shared})
			require.Equal(t, want, err == nil, "%s %s %s: %v", id, action, relation, err)
			if want {
				yes++
			}
		}
		require.Greater(t, yes, 300)
	})
}

func TestGrantsAreKept(t *testing.T) {
	sqldbtest.Each(t, func(t *testing.T, db *sql.DB) {
		a := open(t, db, nil, rbac.StarterPolicy()+doubled(people))
		one, err := rbac.New(t.Context(), a, quiet())
		require.NoError(t, err)
		two, err := rbac.New(t.Context(), a, quiet())
		require.NoError(t, err)
		before := one.Version()
		require.Equal(t, before, two.Version())

		ctx := crmguard.System(t.Context(), "default", "test")
		require.NoError(t, one.GrantRole(ctx, "default", "boris", "seller"))
		require.NoError(t, one.GrantRole(ctx, "default", "boris", "seller"))
		require.NoError(t, two.Reload(ctx))
		require.Equal(t, one.Version(), two.Version())

		// what another node granted since goes too
		require.NoError(t, two.GrantRole(ctx, "default", "boris", "accountant"))
		_, err = one.Revoke(ctx, "default", "boris")
		require.NoError(t, err)
		require.NoError(t, two.Reload(ctx))
		require.Equal(t, before, two.Version())
		require.Equal(t, before, one.Version())

		require.NoError(t, one.RevokeRole(ctx, "default", "anna", "seller"))
		require.NoError(t, two.Reload(ctx))
		require.NotEqual(t, before, two.Version())
	})
}

func TestBadRowsAreNamed(t *testing.T) {
	sqldbtest.Each(t, func(t *testing.T, db *sql.DB) {
		a := open(t, db, nil, "p, role:seller, default, contacts, view, own, allow")
		_, err := db.ExecContext(t.Context(), `INSERT INTO casbin_rule (ptype, v0, v1, v2, v3, v4) VALUES ('p', 'role:a', 'default', 'contacts', 'view', 'own')`)
		require.NoError(t, err)
		_, err = db.ExecContext(t.Context(), `INSERT INTO casbin_rule (v0) VALUES ('nothing')`)
		require.NoError(t, err)
		_, err = a.Adopt(t.Context(), "a test")
		require.NoError(t, err)
		var refused *rbac.PolicyError
		_, err = rbac.New(t.Context(), a, quiet())
		require.ErrorAs(t, err, &refused)
		require.Len(t, refused.Findings, 2)
		require.Equal(t, "row 2", refused.Findings[0].Where)
		require.Contains(t, refused.Findings[0].Reason, "5 fields")
		require.Equal(t, "row 3", refused.Findings[1].Where)

		m, err := model.NewModelFromString(rbac.Model)
		require.NoError(t, err)
		require.ErrorContains(t, a.LoadPolicy(m), "row 2")
		require.NoError(t, a.RemovePolicy("p", "p", []string{"role:a", "default", "contacts", "view", "own"}))
		m.ClearPolicy()
		require.ErrorContains(t, a.LoadPolicy(m), "row 3 has no ptype")
	})
}

// rules lists the table as text.
func rules(t testing.TB, a *rbacsql.Adapter) []string {
	t.Helper()
	stored, err := a.Load(context.Background())
	require.NoError(t, err)
	var texts []string
	for _, row := range stored.Rules {
		texts = append(texts, strings.Join(row, " "))
	}
	return texts
}

func TestAdapterAsCasbinWantsIt(t *testing.T) {
	sqldbtest.Each(t, func(t *testing.T, db *sql.DB) {
		a, err := rbacsql.New(t.Context(), db, testKeys, &rbacsql.Options{TablePrefix: "acme_"})
		require.NoError(t, err)
		_, err = rbacsql.New(t.Context(), db, testKeys, &rbacsql.Options{TablePrefix: "acme_"})
		require.NoError(t, err, "a second time")
		var n int
		require.NoError(t, db.QueryRowContext(t.Context(), `SELECT COUNT(*) FROM acme_rule`).Scan(&n))

		require.NoError(t, a.AddPolicy("g", "g", []string{"u:a", "role:x", "t"}))
		require.NoError(t, a.AddPolicy("g", "g", []string{"u:a", "role:x", "t"}), "again")
		require.NoError(t, a.AddPolicies("g", "g", [][]string{{"u:a", "role:y", "t"}, {"u:a", "role:x", "t2"}, {"u:b", "role:x", "t"}}))
		require.NoError(t, a.AddPolicies("p", "p", [][]string{{"u:a", "t", "k", "view", "own", "allow"}}))
		require.Equal(t, []string{"g u:a role:x t", "g u:a role:y t", "g u:a role:x t2", "g u:b role:x t", "p u:a t k view own allow"}, rules(t, a))

		require.Error(t, a.AddPolicies("p", "p", [][]string{{"u:c"}, {"1", "2", "3", "4", "5", "6", "7"}}))
		require.Len(t, rules(t, a), 5, "all or none")

		require.NoError(t, a.RemovePolicy("g", "g", []string{"u:a", "role:x"}), "not a whole row, so none")
		require.NoError(t, a.RemovePolicies("g", "g", [][]string{{"u:b", "role:x", "t"}, {"u:none", "role:x", "t"}}))
		require.Len(t, rules(t, a), 4)
		require.Error(t, a.RemovePolicy("g", "g", make([]string, 7)))
		require.NoError(t, a.RemoveFilteredPolicy("g", "g", 0, "u:a", "", "t"))
		require.Equal(t, []string{"g u:a role:x t2", "p u:a t k view own allow"}, rules(t, a))
		require.NoError(t, a.RemoveFilteredPolicy("p", "p", 2, "k", "view"))
		require.NoError(t, a.RemoveFilteredPolicy("p", "p", 2, "k", "view"), "again")
		require.Error(t, a.RemoveFilteredPolicy("g", "g", 0))
		require.Error(t, a.RemoveFilteredPolicy("g", "g", 0, "", ""))
		require.Error(t, a.RemoveFilteredPolicy("g", "g", 5, "a", "b"))
		require.Error(t, a.RemoveFilteredPolicy("g", "g", -1, "a"))
		require.Equal(t, []string{"g u:a role:x t2"}, rules(t, a))

		m, err := model.NewModelFromString(rbac.Model)
		require.NoError(t, err)
		require.NoError(t, m.AddPolicy("p", "p", []string{"u:a", "t", "k", "view", "own", "allow"}))
		require.NoError(t, m.AddPolicy("g", "g2", []string{"own", "dept"}))
		require.NoError(t, a.SavePolicy(m))
		require.ElementsMatch(t, []string{"p u:a t k view own allow", "g2 own dept"}, rules(t, a))
		m.ClearPolicy()
		require.NoError(t, a.LoadPolicy(m))
		require.Len(t, m["p"]["p"].Policy, 1)
		require.Len(t, m["g"]["g2"].Policy, 1)
	})
}

// Other adapters leave the fields that a row does not have as NULL, and some let
// a row be there twice.
func TestATableOfAnotherAdapter(t *testing.T) {
	sqldbtest.Each(t, func(t *testing.T, db *sql.DB) {
		otherTable(t, db, "INTEGER PRIMARY KEY")
		for i, row := range []string{
			"'p', 'role:x', 't', 'k', 'view', 'own', 'allow'", "'p', 'role:x', 't', 'k', 'view', 'own', 'allow'",
			"'g', 'u:a', 'role:x', 't', NULL, NULL, NULL", "'g', 'u:a', 'role:x', 't', '', '', ''", "'g', 'u:a', 'role:x', 't', '', NULL, ''",
		} {
			_, err := db.ExecContext(t.Context(), fmt.Sprintf(`INSERT INTO casbin_rule (id, ptype, v0, v1, v2, v3, v4, v5) VALUES (%d, %s)`, i+1, row))
			require.NoError(t, err)
		}
		a, err := rbacsql.New(t.Context(), db, testKeys, nil)
		if strings.HasSuffix(t.Name(), "postgres") { // which does not number such rows; the error says what to do
			require.ErrorContains(t, err, "ALTER TABLE casbin_rule ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (START WITH N)")
			_, err = db.ExecContext(t.Context(), `ALTER TABLE casbin_rule ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (START WITH 6)`)
			require.NoError(t, err)
			a, err = rbacsql.New(t.Context(), db, testKeys, nil)
		}
		require.NoError(t, err)
		_, err = a.Load(t.Context())
		require.ErrorIs(t, err, rbacsql.ErrUnversioned)
		_, err = rbac.New(t.Context(), a, quiet())
		require.ErrorIs(t, err, rbacsql.ErrUnversioned)
		require.ErrorIs(t, a.AddPolicy("g", "g", []string{"u:mallory", "role:x", "t"}), rbacsql.ErrUnversioned)
		v, err := a.Adopt(t.Context(), "taken over")
		require.NoError(t, err)
		require.Equal(t, int64(1), v.Number)
		require.Len(t, rules(t, a), 2)
		e, err := rbac.New(t.Context(), a, quiet())
		require.NoError(t, err)
		roles, _, err := e.Resolve(t.Context(), "t", "a")
		require.NoError(t, err)
		require.Equal(t, []string{"x"}, roles)
		require.NoError(t, e.GrantRole(crmguard.System(t.Context(), "t", "test"), "t", "b", "x"))
		require.NoError(t, e.RevokeRole(t.Context(), "t", "a", "x"))
		require.Equal(t, []string{"p role:x t k view own allow", "g u:b role:x t"}, rules(t, a))
	})
}

func otherTable(t *testing.T, db *sql.DB, id string) {
	t.Helper()
	_, err := db.ExecContext(t.Context(), `DROP TABLE IF EXISTS casbin_rule`)
	require.NoError(t, err)
	_, err = db.ExecContext(t.Context(), `CREATE TABLE casbin_rule (id `+id+`, ptype VARCHAR(100), v0 VARCHAR(100), v1 VARCHAR(100),
		v2 VARCHAR(100), v3 VARCHAR(100), v4 VARCHAR(100), v5 VARCHAR(100))`)
	require.NoError(t, err)
}

func TestTablesWithoutNumberedRowsAreRefused(t *testing.T) {
	sqldbtest.Each(t, func(t *testing.T, db *sql.DB) {
		bad := []string{"TEXT PRIMARY KEY", "BIGINT PRIMARY KEY", "INTEGER", "VARCHAR(36) DEFAULT 'x'"}
		good := "INTEGER PRIMARY KEY AUTOINCREMENT"
		if strings.HasSuffix(t.Name(), "postgres") {
			good = "BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY"
		}
		for _, id := range bad {
			otherTable(t, db, id)
			_, err := rbacsql.New(t.Context(), db, testKeys, nil)
			require.ErrorContains(t, err, "the column id of casbin_rule", id)
		}
		otherTable(t, db, good)
		a, err := rbacsql.New(t.Context(), db, testKeys, nil)
		require.NoError(t, err, "an empty table needs no adoption")
		require.NoError(t, a.AddPolicy("g", "g", []string{"u:a", "role:x", "t"}))
		require.Len(t, rules(t, a), 1)
	})
}

// However many add the same row at once, it is there once; however many remove it,
// one has.
func TestARowIsThereOnce(t *testing.T) {
	sqldbtest.Each(t, func(t *testing.T, db *sql.DB) {
		a := open(t, db, nil, "")
		add := func(int) (any, error) { return nil, a.AddPolicy("g", "g", []string{"u:a", "role:x", "t"}) }
		racetest.Run(t, add)
		require.Len(t, rules(t, a), 1)
		require.Len(t, history(t, a), 1)
		racetest.Run(t, func(int) (any, error) { return nil, a.RemoveFilteredPolicy("g", "g", 0, "u:a") })
		require.Empty(t, rules(t, a))
		require.Len(t, history(t, a), 2)

		// Whoever changes what they have looked at wins once.
		was, err := a.Load(t.Context())
		require.NoError(t, err)
		require.Equal(t, 1, racetest.Winners(t, func(int) (bool, error) {
			_, err := a.Change(t.Context(), was, [][]string{{"g", "u:a", "role:x", "t"}}, nil)
			if errors.Is(err, rbac.ErrChanged) {
				return false, nil
			}
			return err == nil, err
		}))
		require.Len(t, rules(t, a), 1)

		// planted fault: who does not compare the version, in a table without its index, leaves copies
		_, err = db.ExecContext(t.Context(), `DROP INDEX casbin_rule_row`)
		require.NoError(t, err)
		was.Version.Number++
		_, err = a.Change(t.Context(), was, [][]string{{"g", "u:a", "role:x", "t"}}, nil)
		require.NoError(t, err)
		require.Len(t, rules(t, a), 2)
	})
}

func history(t testing.TB, a *rbacsql.Adapter) []rbac.Version {
	t.Helper()
	versions, err := a.History(t.Context(), 0, 100)
	require.NoError(t, err)
	return versions
}

func TestNewRefuses(t *testing.T) {
	_, err := rbacsql.New(t.Context(), sqldbtest.SQLite(t), nil, nil)
	require.ErrorContains(t, err, "NewWithoutKeys")
	_, err = rbacsql.New(t.Context(), nil, testKeys, nil)
	require.Error(t, err)
	_, err = rbacsql.New(t.Context(), sqldbtest.SQLite(t), testKeys, &rbacsql.Options{TablePrefix: `x"; DROP TABLE y`})
	require.ErrorContains(t, err, "prefix")
}
