package rbacsql_test

import (
	"database/sql"
	"errors"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/crmguardtest"
	"github.com/crmguard/crmguard/internal/sqldb/sqldbtest"
	"github.com/crmguard/crmguard/rbac"
	"github.com/crmguard/crmguard/rbac/rbacsql"
)

// Anna may change the policy of acme, and lacks what owners have.
const lacking = companies + `p, role:admin, acme, contacts, view, own, allow
p, role:admin, acme, section:rights, configure, all, allow
g, u:vera, role:admin, acme
`

func requireLacks(t *testing.T, err error) {
	t.Helper()
	var denial *crmguard.Denial
	require.ErrorAs(t, err, &denial)
	require.Equal(t, "lacks-right", denial.Code)
}

// What was stored past the engine and refused gives nobody anything yet, so to keep it
// while the rest is mended is to grant it.
func TestReplaceGrantsWhatWasStoredAndRefused(t *testing.T) {
	sqldbtest.Each(t, func(t *testing.T, db *sql.DB) {
		a := open(t, db, nil, lacking)
		e, err := rbac.New(t.Context(), a, quiet())
		require.NoError(t, err)
		require.NoError(t, a.AddPolicies("g", "g", [][]string{{"u:mallory", "role:owner", "acme"}, {"u:mallory", "owner", "acme"}}))
		var refused *rbac.PolicyError
		require.ErrorAs(t, e.Reload(t.Context()), &refused)

		rules := slices.DeleteFunc(ruleList(t, lacking), func(rule []string) bool { return slices.Contains(rule, "globex") })
		vera := crmguard.WithSubject(t.Context(), employee("acme", "vera"))
		n := e.Status().Stored.Number
		more := append(slices.Clone(rules), []string{"g", "u:mallory", "role:owner", "acme"})
		requireLacks(t, e.MayReplace(vera, "acme", more))
		_, err = e.Replace(vera, "acme", n, more, "mended")
		requireLacks(t, err)
		require.NoError(t, e.MayReplace(vera, "acme", rules))
		require.Equal(t, n, e.Status().Stored.Number, "it was only asked")
		require.Error(t, e.MayReplace(vera, "globex", nil))
		require.Error(t, e.MayReplace(t.Context(), "acme", rules))
		_, err = e.Replace(vera, "acme", n, rules, "mended")
		require.NoError(t, err)
		require.Error(t, e.Check(t.Context(), employee("acme", "mallory"), crmguard.Export, crmguard.Resource{Tenant: "acme", Kind: "contacts"}))
	})
}

func TestRollbackGrantsWhatItBringsBack(t *testing.T) {
	a := open(t, sqldbtest.SQLite(t), nil, lacking)
	e, err := rbac.New(t.Context(), a, quiet())
	require.NoError(t, err)
	before := e.Status().Stored.Number
	vera := crmguard.WithSubject(t.Context(), employee("acme", "vera"))
	fewer := slices.DeleteFunc(ruleList(t, lacking), func(rule []string) bool {
		return slices.Contains(rule, "globex") || rule[0] == "p" && rule[1] == "role:owner"
	})
	_, err = e.Replace(vera, "acme", before, fewer, "a mistake")
	require.NoError(t, err, "to take is not to give")
	_, err = e.Rollback(vera, "acme", e.Status().Stored.Number, before, "it was")
	requireLacks(t, err)

	draft, err := e.Draft(vera, "acme", [][]string{{"p", "u:vera", "acme", "contacts", "export", "all", "allow"}})
	require.NoError(t, err, "to look is free")
	_, err = draft.Replace(vera, "acme", 0, nil, "test")
	require.ErrorIs(t, err, rbac.ErrNoVersions, "and a draft is stored nowhere")
	require.Error(t, e.Check(t.Context(), employee("acme", "vera"), crmguard.Export, crmguard.Resource{Tenant: "acme", Kind: "contacts"}))
}

// What taking a role gives is judged by the policy that is stored, not by the one that this
// process has read some time ago.
func TestToTakeARoleIsJudgedByWhatIsStored(t *testing.T) {
	const allowing = `p, u:anna, acme, contacts, export, all, allow
p, role:intern, acme, contacts, view, own, allow
g, u:anna, role:intern, acme
`
	const denying = allowing + "p, role:intern, acme, contacts, export, all, deny\n"
	export := crmguard.Resource{Tenant: "acme", Kind: "contacts"}
	anna := employee("acme", "anna")
	// stale is an engine that has not seen the second policy, which the other has stored.
	stale := func(t *testing.T, db *sql.DB, first, second string) (stale, other *rbac.Engine) {
		stale, err := rbac.New(t.Context(), open(t, db, nil, first), quiet())
		require.NoError(t, err)
		other, err = rbac.New(t.Context(), open(t, db, nil, ""), quiet())
		require.NoError(t, err)
		_, err = other.Replace(crmguard.System(t.Context(), "acme", "job"), "acme", other.Status().Stored.Number, ruleList(t, second), "interns")
		require.NoError(t, err)
		return stale, other
	}
	sqldbtest.Each(t, func(t *testing.T, db *sql.DB) {
		one, two := stale(t, db, allowing, denying)
		err := one.RevokeRole(crmguard.WithSubject(t.Context(), anna), "acme", "anna", "intern")
		var denial *crmguard.Denial
		require.ErrorAs(t, err, &denial)
		require.Equal(t, "self-grant", denial.Code)
		require.Error(t, one.Check(t.Context(), anna, crmguard.Export, export))
		require.NoError(t, two.Reload(t.Context()))
		require.Error(t, two.Check(t.Context(), anna, crmguard.Export, export))
		require.Equal(t, two.Version(), one.Version(), "what was on its way out is back")
	})
	sqldbtest.Each(t, func(t *testing.T, db *sql.DB) {
		one, two := stale(t, db, denying, allowing)
		require.Error(t, one.Check(t.Context(), anna, crmguard.Export, export))
		require.NoError(t, one.RevokeRole(crmguard.WithSubject(t.Context(), anna), "acme", "anna", "intern"), "it denies nothing any more")
		require.NoError(t, one.Check(t.Context(), anna, crmguard.Export, export))
		require.NoError(t, two.Reload(t.Context()))
		require.Equal(t, two.Version(), one.Version())
	})
}

// A role that denies is not taken without an entry, nor in this process before the store.
func TestToTakeARoleThatDeniesIsRecorded(t *testing.T) {
	sqldbtest.Each(t, func(t *testing.T, db *sql.DB) {
		journal := crmguardtest.NewRecorder()
		a := open(t, db, &rbacsql.Options{Journal: journal}, `p, u:anna, acme, contacts, export, all, allow
p, role:intern, acme, contacts, export, all, deny
p, role:trainee, acme, contacts, view, own, allow
g, u:anna, role:trainee, acme
g, u:anna, role:intern, acme
`)
		e, err := rbac.New(t.Context(), a, quiet())
		require.NoError(t, err)
		export := func() error {
			return e.Check(t.Context(), employee("acme", "anna"), crmguard.Export, crmguard.Resource{Tenant: "acme", Kind: "contacts"})
		}
		job := crmguard.System(t.Context(), "acme", "job")
		journal.Fail(errors.New("jammed"))
		require.ErrorContains(t, e.RevokeRole(job, "acme", "anna", "intern"), "jammed")
		require.Error(t, export())
		_, err = e.Replace(job, "acme", e.Status().Stored.Number, [][]string{
			{"p", "u:anna", "acme", "contacts", "export", "all", "allow"}, {"p", "role:intern", "acme", "contacts", "export", "all", "deny"},
		}, "fewer")
		require.ErrorContains(t, err, "jammed")
		require.NoError(t, e.RevokeRole(job, "acme", "anna", "trainee"), "that gives nothing")
		_, err = e.Revoke(job, "acme", "anna")
		require.NoError(t, err, "nor does taking all")
		require.Error(t, export())
	})
}
