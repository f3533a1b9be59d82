package rbacsql_test

import (
	"context"
	"database/sql"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/internal/sqldb/sqldbtest"
	"github.com/crmguard/crmguard/rbac"
	"github.com/crmguard/crmguard/rbac/rbacsql"
)

// table is what somebody who can write the database works with.
type table struct {
	t  *testing.T
	db *sql.DB
}

func (d table) exec(query string, args ...any) {
	d.t.Helper()
	_, err := d.db.ExecContext(d.t.Context(), query, args...)
	require.NoError(d.t, err)
}

var bothTables = []string{"casbin_rule", "casbin_version"}

// dump keeps both tables aside, under a name; restore puts them back.
func (d table) dump(name string) {
	for _, table := range bothTables {
		d.exec(fmt.Sprintf(`CREATE TABLE %s_%s AS SELECT * FROM %s`, name, table, table))
	}
}

func (d table) restore(name string) {
	for _, table := range bothTables {
		d.exec(`DELETE FROM ` + table)
		d.exec(fmt.Sprintf(`INSERT INTO %s SELECT * FROM %s_%s`, table, name, table))
	}
}

// fit makes the newest version name the rows as they are.
func (d table) fit() {
	rows, err := d.db.QueryContext(d.t.Context(), `SELECT ptype, v0, v1, v2, v3, v4, v5 FROM casbin_rule`)
	require.NoError(d.t, err)
	defer func() { require.NoError(d.t, rows.Close()) }()
	var rules [][]string
	for rows.Next() {
		rule := make([]string, 7)
		require.NoError(d.t, rows.Scan(&rule[0], &rule[1], &rule[2], &rule[3], &rule[4], &rule[5], &rule[6]))
		for len(rule) > 1 && rule[len(rule)-1] == "" {
			rule = rule[:len(rule)-1]
		}
		rules = append(rules, rule)
	}
	require.NoError(d.t, rows.Err())
	d.exec(`UPDATE casbin_version SET digest = $1 WHERE number = (SELECT MAX(number) FROM casbin_version)`, rbac.Digest(rules))
}

// attacks are tried on a policy of four versions, of which the second one was dumped:
// mallory was owner in it. The fault is what lets an attack pass.
var attacks = map[string]struct {
	do    func(d table)
	want  error
	fault func(ctx context.Context, d table) (*rbacsql.Adapter, error)
}{
	"a row is added": {func(d table) {
		d.exec(`INSERT INTO casbin_rule (ptype, v0, v1, v2) VALUES ('g', 'u:mallory', 'role:owner', 'default')`)
	}, rbacsql.ErrTampered, withoutKeys},
	"a deputy is added": {func(d table) {
		d.exec(`INSERT INTO casbin_rule (ptype, v0, v1, v2, v3, v4) VALUES ('p3', 'u:mallory', 'u:oleg', 'default', '2001-01-01T00:00:00Z', '2999-01-01T00:00:00Z')`)
	}, rbacsql.ErrTampered, withoutKeys},
	"a row is changed": {func(d table) {
		d.exec(`UPDATE casbin_rule SET v1 = 'role:owner' WHERE v0 = 'u:anna'`)
	}, rbacsql.ErrTampered, withoutKeys},
	"a row is removed": {func(d table) {
		d.exec(`DELETE FROM casbin_rule WHERE v0 = 'u:anna'`)
	}, rbacsql.ErrTampered, withoutKeys},
	"the newest version is made to fit": {func(d table) {
		d.exec(`INSERT INTO casbin_rule (ptype, v0, v1, v2) VALUES ('g', 'u:mallory', 'role:owner', 'default')`)
		d.fit()
	}, rbacsql.ErrTampered, withoutKeys},
	"a version is made up": {func(d table) {
		d.exec(`INSERT INTO casbin_rule (ptype, v0, v1, v2) VALUES ('g', 'u:mallory', 'role:owner', 'default')`)
		d.exec(`INSERT INTO casbin_version SELECT document, 5, at, tenant, author, reason, digest, whole, added, removed, changes, mac FROM casbin_version WHERE number = 4`)
		d.fit()
	}, rbacsql.ErrTampered, withoutKeys},
	"an old version gets a new number": {func(d table) {
		d.restore("old")
		d.exec(`UPDATE casbin_version SET number = 5 WHERE number = 2`)
	}, rbacsql.ErrTampered, withoutKeys},
	"the MAC of another version": {func(d table) {
		d.exec(`UPDATE casbin_version SET digest = (SELECT digest FROM casbin_version WHERE number = 2), mac = (SELECT mac FROM casbin_version WHERE number = 2) WHERE number = 4`)
	}, rbacsql.ErrTampered, withoutKeys},
	"a version is counted down": {func(d table) {
		d.exec(`DELETE FROM casbin_version WHERE number > 2`)
		d.exec(`INSERT INTO casbin_rule (ptype, v0, v1, v2) VALUES ('g', 'u:mallory', 'role:owner', 'default')`)
	}, rbacsql.ErrOlder, withoutMarks},
	"both tables are replaced by an older dump": {func(d table) {
		d.restore("old")
	}, rbacsql.ErrOlder, withoutMarks},
	"both tables are emptied": {func(d table) {
		d.exec(`DELETE FROM casbin_rule`)
		d.exec(`DELETE FROM casbin_version`)
	}, rbacsql.ErrOlder, withoutMarks},
	"the versions are forgotten": {func(d table) {
		d.exec(`DELETE FROM casbin_version`)
	}, rbacsql.ErrOlder, func(ctx context.Context, d table) (*rbacsql.Adapter, error) {
		a, err := withoutMarks(ctx, d)
		if err == nil {
			_, err = a.Adopt(ctx, "whoever adopts without looking makes anything genuine")
		}
		return a, err
	}},
	"the policy of another tenant": {func(d table) {
		d.restore("foreign")
	}, rbacsql.ErrTampered, func(ctx context.Context, d table) (*rbacsql.Adapter, error) {
		return rbacsql.New(ctx, d.db, testKeys, &rbacsql.Options{Tenant: "globex"})
	}},
	"the policy of another installation": {func(d table) {
		d.restore("other")
	}, rbacsql.ErrTampered, func(ctx context.Context, d table) (*rbacsql.Adapter, error) {
		return rbacsql.New(ctx, d.db, secretKeys("of another"), nil)
	}},
}

// withoutKeys is a host that verifies nothing, and whose database says that it fits.
func withoutKeys(ctx context.Context, d table) (*rbacsql.Adapter, error) {
	d.fit()
	return rbacsql.NewWithoutKeys(ctx, d.db, nil)
}

// withoutMarks is a host that remembers nothing across a restart.
func withoutMarks(ctx context.Context, d table) (*rbacsql.Adapter, error) {
	if _, err := d.db.ExecContext(ctx, `DELETE FROM casbin_rule WHERE v0 = 'u:late'`); err != nil { // what version 3 and 4 brought
		return nil, err
	}
	return rbacsql.New(ctx, d.db, testKeys, nil)
}

// Whoever can write the database gets nobody's rights by it: neither from a process
// that runs nor from one that starts, nor with the help of the next change.
func TestWhoWritesTheDatabaseGetsNoRights(t *testing.T) {
	sqldbtest.Each(t, func(t *testing.T, db *sql.DB) {
		d := table{t, db}
		ctx := crmguard.System(t.Context(), "default", "test")
		for name, keys := range map[string]secretKeys{"foreign": testKeys, "other": "of another"} { // four versions each
			o := &rbacsql.Options{}
			if name == "foreign" {
				o.Tenant = "globex"
			}
			a, err := rbacsql.New(ctx, db, keys, o)
			require.NoError(t, err)
			for _, person := range []string{"u:mallory", "u:b", "u:c", "u:d"} {
				require.NoError(t, a.AddPolicies("p", "p", rowsOf(t, rbac.StarterPolicy())["p"]))
				require.NoError(t, a.AddPolicy("g", "g", []string{person, "role:owner", "default"}))
			}
			d.dump(name)
			for _, table := range bothTables {
				d.exec(`DELETE FROM ` + table)
			}
		}

		marks := &memoryMarks{}
		open := func() (*rbacsql.Adapter, error) {
			return rbacsql.New(ctx, db, testKeys, &rbacsql.Options{Marks: marks})
		}
		a, err := open()
		require.NoError(t, err)
		require.NoError(t, a.AddPolicies("p", "p", rowsOf(t, rbac.StarterPolicy())["p"]))
		require.NoError(t, a.AddPolicies("g", "g", [][]string{{"u:mallory", "role:owner", "default"}, {"u:anna", "role:seller", "default"}}))
		d.dump("old")
		require.NoError(t, a.RemovePolicy("g", "g", []string{"u:mallory", "role:owner", "default"}))
		require.NoError(t, a.AddPolicy("g", "g", []string{"u:late", "role:seller", "default"}))
		d.dump("good")
		running, err := rbac.New(ctx, a, quiet())
		require.NoError(t, err)
		good := running.Version()

		for name, attack := range attacks {
			t.Run(name, func(t *testing.T) {
				d := table{t, db}
				defer d.restore("good")
				attack.do(d)
				_, headErr := a.Head(ctx)
				_, loadErr := a.Load(ctx)
				require.ErrorIs(t, loadErr, attack.want, "a process that runs; head: %v", headErr)
				require.ErrorIs(t, running.Reload(ctx), attack.want)
				require.Equal(t, good, running.Version())
				require.ErrorIs(t, running.Status().Err, attack.want)

				// The next change does not make it genuine.
				require.ErrorIs(t, running.GrantRole(ctx, "default", "boris", "seller"), attack.want)
				_, err := running.Revoke(ctx, "default", "nobody")
				require.ErrorIs(t, err, attack.want)
				_, err = running.Replace(ctx, "default", 4, nil, "test")
				require.ErrorIs(t, err, attack.want)
				require.ErrorIs(t, a.AddPolicy("g", "g", []string{"u:boris", "role:seller", "default"}), attack.want)
				_, err = a.Load(ctx)
				require.ErrorIs(t, err, attack.want)
				require.ErrorContains(t, err, "Adapter.Adopt", "it says what to do")

				// A process that starts.
				again, err := open()
				require.NoError(t, err)
				_, err = rbac.New(ctx, again, quiet())
				require.ErrorIs(t, err, attack.want)

				// planted fault
				faulty, err := attack.fault(ctx, d)
				require.NoError(t, err)
				_, err = faulty.Load(ctx)
				require.NoError(t, err)
			})
		}
		require.NoError(t, running.Reload(ctx))
		require.NoError(t, running.Status().Err)
	})
}

func TestWhatWasChangedIsNamed(t *testing.T) {
	sqldbtest.Each(t, func(t *testing.T, db *sql.DB) {
		a := open(t, db, nil, rbac.StarterPolicy()+people2)
		table{t, db}.exec(`INSERT INTO casbin_rule (ptype, v0, v1, v2) VALUES ('g', 'u:mallory', 'role:owner', 'default')`)
		table{t, db}.exec(`DELETE FROM casbin_rule WHERE v0 = 'u:anna'`)
		_, err := a.Load(t.Context())
		require.ErrorContains(t, err, `added: "g, u:mallory, role:owner, default"; removed: "g, u:anna, role:seller, default"`)

		// After somebody has looked it is policy, and the way back is still there.
		before := len(history(t, a))
		v, err := a.Adopt(t.Context(), "it was me")
		require.NoError(t, err)
		require.Equal(t, int64(before+1), v.Number)
		require.Contains(t, rules(t, a), "g u:mallory role:owner default")
		was, err := a.At(t.Context(), int64(before))
		require.NoError(t, err)
		require.Contains(t, was, []string{"g", "u:anna", "role:seller", "default"})
		require.NotContains(t, was, []string{"g", "u:mallory", "role:owner", "default"})
	})
}

// Somebody puts an older state back on purpose, or clears away what an attacker made up.
func TestAdoptIsTheWayBack(t *testing.T) {
	sqldbtest.Each(t, func(t *testing.T, db *sql.DB) {
		d := table{t, db}
		marks := &memoryMarks{}
		a := open(t, db, &rbacsql.Options{Marks: marks}, rbac.StarterPolicy())
		d.dump("old")
		genuine := history(t, a)[0].Number
		old := rules(t, a)
		for range 3 {
			require.NoError(t, a.AddPolicy("g", "g", []string{fmt.Sprintf("u:p%d", len(rules(t, a))), "role:seller", "default"}))
		}
		highest := marks.highest["policy/default"]
		d.restore("old")
		d.exec(`INSERT INTO casbin_version SELECT document, 9000000, at, tenant, author, reason, digest, whole, added, removed, changes, mac FROM casbin_version WHERE number = 1`)
		d.exec(`INSERT INTO casbin_version SELECT document, -3, at, tenant, author, reason, digest, whole, added, removed, changes, mac FROM casbin_version WHERE number = 1`)
		_, err := a.Load(t.Context())
		require.ErrorIs(t, err, rbacsql.ErrTampered)
		_, err = a.Adopt(t.Context(), "")
		require.ErrorContains(t, err, "reason")
		v, err := a.Adopt(t.Context(), "the backup of Monday")
		require.NoError(t, err)
		require.Equal(t, highest+1, v.Number)
		require.Equal(t, old, rules(t, a))
		require.Equal(t, []int64{v.Number, genuine}, []int64{history(t, a)[0].Number, history(t, a)[1].Number}, "what was made up is forgotten")

		fresh, err := rbacsql.New(t.Context(), db, testKeys, &rbacsql.Options{Marks: marks})
		require.NoError(t, err)
		require.Equal(t, old, rules(t, fresh))
		require.NoError(t, fresh.AddPolicy("g", "g", []string{"u:a", "role:seller", "default"}))
	})
}

// Two states of the same number, as after a database was split in two.
func TestAnotherVersionOfTheSameNumber(t *testing.T) {
	sqldbtest.Each(t, func(t *testing.T, db *sql.DB) {
		d := table{t, db}
		a := open(t, db, nil, rbac.StarterPolicy())
		d.dump("fork")
		require.NoError(t, a.AddPolicy("g", "g", []string{"u:anna", "role:seller", "default"}))
		d.restore("fork")
		other, err := rbacsql.New(t.Context(), db, testKeys, nil)
		require.NoError(t, err)
		require.NoError(t, other.AddPolicy("g", "g", []string{"u:boris", "role:seller", "default"}))
		_, err = a.Head(t.Context())
		require.ErrorIs(t, err, rbacsql.ErrOlder)
		_, err = a.Load(t.Context())
		require.ErrorIs(t, err, rbacsql.ErrOlder)
	})
}

// What the history tells was made with the keys, or it is refused; nobody rolls back to
// what never was.
func TestTheHistoryIsGenuine(t *testing.T) {
	sqldbtest.Each(t, func(t *testing.T, db *sql.DB) {
		d := table{t, db}
		a := open(t, db, nil, rbac.StarterPolicy()+people2)
		n := int64(len(history(t, a)))
		require.NoError(t, a.AddPolicy("g", "g", []string{"u:late", "role:seller", "default"}))
		engine, err := rbac.New(t.Context(), a, quiet())
		require.NoError(t, err)
		d.dump("good")
		for name, query := range map[string]string{
			"author":  `UPDATE casbin_version SET author = 'anna' WHERE number = 2`,
			"tenant":  `UPDATE casbin_version SET tenant = 'acme' WHERE number = 2`,
			"reason":  `UPDATE casbin_version SET reason = 'because' WHERE number = 2`,
			"time":    `UPDATE casbin_version SET at = at + 1 WHERE number = 2`,
			"whole":   `UPDATE casbin_version SET whole = 1 - whole WHERE number = 2`,
			"rows":    `UPDATE casbin_version SET added = '[["g","u:mallory","role:owner","default"]]' WHERE number = 2`,
			"no rows": `UPDATE casbin_version SET added = 'x' WHERE number = 2`,
			"more":    `UPDATE casbin_version SET removed = '[["g","u:oleg","role:owner","default"]]' WHERE number = 2`,
			"changes": `UPDATE casbin_version SET changes = '' WHERE number = 2`,
			"missing": `DELETE FROM casbin_version WHERE number = 2`,
		} {
			t.Run(name, func(t *testing.T) {
				d := table{t, db}
				defer d.restore("good")
				d.exec(query)
				if name != "missing" {
					_, err := a.History(t.Context(), 0, 10)
					require.ErrorIs(t, err, rbacsql.ErrTampered)
				}
				_, err := a.At(t.Context(), n+1)
				require.ErrorIs(t, err, rbacsql.ErrTampered)
				_, err = engine.Rollback(crmguard.System(t.Context(), "default", "test"), "default", n+1, n+1, "test")
				require.ErrorIs(t, err, rbacsql.ErrTampered)
				_, err = a.Load(t.Context())
				require.NoError(t, err, "the policy in force does not depend on it")

				// planted fault: without the MAC, and with the digest of the changes put right, a
				// history is believed
				if name == "author" || name == "reason" {
					faulty, err := rbacsql.NewWithoutKeys(t.Context(), db, nil)
					require.NoError(t, err)
					_, err = faulty.At(t.Context(), n)
					require.NoError(t, err)
				}
			})
		}
		_, err = a.At(t.Context(), 99)
		require.ErrorContains(t, err, "no version 99")
		_, err = a.At(t.Context(), 0)
		require.Error(t, err)
		_, err = a.History(t.Context(), 0, 0)
		require.Error(t, err)
	})
}
