package rbacsql_test

import (
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/crmguardtest"
	"github.com/crmguard/crmguard/internal/racetest"
	"github.com/crmguard/crmguard/internal/sqldb/sqldbtest"
	"github.com/crmguard/crmguard/rbac"
	"github.com/crmguard/crmguard/rbac/rbacsql"
)

// two companies share the policy; oleg and olga may do everything that their companies know of.
const companies = `p, role:owner, acme, contacts, view, all, allow
p, role:owner, acme, contacts, export, all, allow
p, role:owner, acme, section:rights, configure, all, allow
p, role:seller, acme, contacts, view, own, allow
p, role:owner, globex, contacts, view, all, allow
g, u:oleg, role:owner, acme
g, u:anna, role:seller, acme
g, u:olga, role:owner, globex
`

func employee(tenant, id string) crmguard.Subject {
	return crmguard.Subject{Tenant: tenant, ID: id, Kind: crmguard.KindEmployee}
}

// ruleList lists CSV rows, each with its type first.
func ruleList(t testing.TB, text string) (rules [][]string) {
	t.Helper()
	for kind, rows := range rowsOf(t, text) {
		for _, row := range rows {
			rules = append(rules, append([]string{kind}, row...))
		}
	}
	return rules
}

func ofTenant(rules []string, tenant string) (of []string) {
	for _, rule := range rules {
		if slices.Contains(strings.Fields(rule), tenant) {
			of = append(of, rule)
		}
	}
	slices.Sort(of)
	return of
}

// placesOf are the rules of a company's roles with where they stand.
func placesOf(t *testing.T, e *rbac.Engine) (places []string) {
	t.Helper()
	m, err := e.Matrix(t.Context(), "acme")
	require.NoError(t, err)
	for _, object := range m.Objects {
		for _, right := range object.Rights {
			for _, cell := range right.Cells {
				for _, rule := range cell.Rules {
					places = append(places, strings.Join(rule.Rule, ", ")+" in "+rule.Where)
				}
			}
		}
	}
	return places
}

func TestReplaceAndRollback(t *testing.T) {
	sqldbtest.Each(t, func(t *testing.T, db *sql.DB) {
		a := open(t, db, nil, companies)
		e, err := rbac.New(t.Context(), a, quiet())
		require.NoError(t, err)
		first := e.Status().Stored.Number
		require.Equal(t, int64(2), first)
		require.Equal(t, e.Version(), e.Status().Stored.Digest)
		before, globex := ofTenant(rules(t, a), "acme"), ofTenant(rules(t, a), "globex")
		oleg := crmguard.WithSubject(t.Context(), employee("acme", "oleg"))
		card := crmguard.Resource{Tenant: "acme", Kind: "contacts", ID: "1", Owner: "anna"}
		export := func(id string) error { return e.Check(t.Context(), employee("acme", id), crmguard.Export, card) }

		text := strings.Replace(companies, "p, role:seller, acme, contacts, view, own", "p, role:seller, acme, contacts, export, own, allow\np, role:seller, acme, contacts, view, own", 1)
		text = strings.Join(slices.DeleteFunc(strings.SplitAfter(text, "\n"), func(line string) bool { return strings.Contains(line, "globex") }), "")
		require.Error(t, export("anna"))
		places := placesOf(t, e)
		v, err := e.Replace(oleg, "acme", first, ruleList(t, text), "sellers export what is theirs")
		require.NoError(t, err)
		require.Subset(t, placesOf(t, e), places, "what stays keeps its place")
		require.NoError(t, export("anna"))
		require.Equal(t, rbac.Version{Number: first + 1, Time: v.Time, Tenant: "acme", Author: "oleg", Reason: "sellers export what is theirs", Digest: e.Version(),
			Added: [][]string{{"p", "role:seller", "acme", "contacts", "export", "own", "allow"}}}, v)
		require.Equal(t, globex, ofTenant(rules(t, a), "globex"))
		require.Equal(t, v.Number, e.Status().Stored.Number)
		again, err := e.Replace(oleg, "acme", v.Number, ruleList(t, text), "the same")
		require.NoError(t, err)
		require.Equal(t, v.Number, again.Number, "nothing changed, so there is no version")

		_, err = e.Rollback(oleg, "acme", v.Number-1, first, "back")
		require.ErrorIs(t, err, rbac.ErrChanged)
		back, err := e.Rollback(oleg, "acme", v.Number, first, "it was a mistake")
		require.NoError(t, err)
		require.Equal(t, v.Added, back.Removed)
		require.Error(t, export("anna"))
		require.Equal(t, before, ofTenant(rules(t, a), "acme"))
		require.Equal(t, history(t, a)[2].Digest, back.Digest, "the rows are those of then")

		// Who reads the history sees their own tenant.
		page, err := e.History(oleg, "acme", 0, 2)
		require.NoError(t, err)
		require.Equal(t, []int64{back.Number, v.Number}, []int64{page[0].Number, page[1].Number})
		require.Equal(t, "it was a mistake", page[0].Reason)
		page, err = e.History(oleg, "acme", v.Number, 50)
		require.NoError(t, err)
		require.Len(t, page, 2)
		olga := crmguard.WithSubject(t.Context(), employee("globex", "olga"))
		page, err = e.History(olga, "globex", 0, 50)
		require.NoError(t, err)
		require.NotEmpty(t, page)
		for _, v := range page {
			for _, rule := range slices.Concat(v.Added, v.Removed) {
				require.Contains(t, rule, "globex")
			}
		}
		_, err = e.History(olga, "acme", 0, 50)
		require.Error(t, err)
	})
}

func TestReplaceRefuses(t *testing.T) {
	a := open(t, sqldbtest.SQLite(t), nil, companies)
	e, err := rbac.New(t.Context(), a, quiet())
	require.NoError(t, err)
	n := e.Status().Stored.Number
	oleg := crmguard.WithSubject(t.Context(), employee("acme", "oleg"))
	job := crmguard.System(t.Context(), "acme", "setup")
	acme := ruleList(t, companies)
	acme = slices.DeleteFunc(acme, func(rule []string) bool { return slices.Contains(rule, "globex") })
	with := func(rule ...string) [][]string { return append(slices.Clone(acme), rule) }

	_, err = e.Replace(t.Context(), "acme", n, acme, "test")
	require.ErrorContains(t, err, "nobody acts")
	_, err = e.Replace(oleg, "globex", n, acme, "test")
	require.Error(t, err)
	_, err = e.Replace(oleg, "acme", n, acme, "")
	require.ErrorContains(t, err, "reason")
	_, err = e.Replace(oleg, "acme", n, with("g", "u:x", "role:seller", "acme"), "two\nlines")
	require.ErrorContains(t, err, "one line")
	var refused *rbac.PolicyError
	for name, rules := range map[string][][]string{
		"lint":           with("p", "role:x", "acme", "contacts", "view", "own", "Allow"),
		"foreign tenant": with("p", "role:x", "globex", "contacts", "view", "all", "allow"),
		"short":          with("p", "role:x"),
		"long":           with("p", "1", "2", "3", "4", "5", "6", "7"),
		"nothing":        with(),
		"scopes":         with("g2", "none", "own"),
	} {
		_, err = e.Replace(job, "acme", n, rules, "test")
		require.ErrorAs(t, err, &refused, name)
	}

	var denial *crmguard.Denial
	code := func(err error) string {
		t.Helper()
		require.ErrorAs(t, err, &denial)
		return denial.Code
	}
	for name, rule := range map[string][]string{
		"a right of one's own role":   {"p", "role:owner", "acme", "contacts", "delete", "all", "allow"},
		"a right of one's own":        {"p", "u:oleg", "acme", "contacts", "delete", "own", "allow"},
		"a role of one's own":         {"g", "u:oleg", "role:other", "acme"},
		"a role above one's own role": {"g", "role:owner", "role:other", "acme"},
	} {
		rules := append(with("p", "role:other", "acme", "deals", "view", "all", "allow"), rule)
		_, err := e.Replace(oleg, "acme", n, rules, "test")
		require.Contains(t, []string{"self-grant", "lacks-right"}, code(err), name)
	}
	_, err = e.Replace(oleg, "acme", n, with("p", "role:owner", "acme", "contacts", "delete", "all", "allow"), "test")
	require.Equal(t, "lacks-right", code(err), "the role comes first, and its owner lacks it too")
	_, err = e.Replace(oleg, "acme", n, with("p", "u:oleg", "acme", "contacts", "delete", "all", "allow"), "test")
	require.Equal(t, "self-grant", code(err))
	_, err = e.Replace(oleg, "acme", n, with("p", "role:seller", "acme", "deals", "view", "all", "allow"), "test")
	require.Equal(t, "lacks-right", code(err))
	narrow := employee("acme", "oleg")
	narrow.Scopes = []string{"section:rights:configure"}
	_, err = e.Replace(crmguard.WithSubject(t.Context(), narrow), "acme", n, with("p", "role:seller", "acme", "contacts", "export", "own", "allow"), "test")
	require.Equal(t, "lacks-right", code(err), "the credential is narrower than its owner")

	// A rule that denies is one's own shackle, too.
	denied := with("p", "u:oleg", "acme", "contacts", "export", "all", "deny")
	v, err := e.Replace(oleg, "acme", n, denied, "oleg exports nothing")
	require.NoError(t, err)
	_, err = e.Replace(oleg, "acme", v.Number, acme, "or does he")
	require.Equal(t, "self-grant", code(err))
	_, err = e.Replace(job, "acme", v.Number, acme, "a job needs no rights")
	require.NoError(t, err)

	csv, err := rbac.FromCSV(t.Context(), "../testdata/v1/policy.csv", quiet())
	require.NoError(t, err)
	_, err = csv.Replace(job, "acme", 0, acme, "test")
	require.ErrorIs(t, err, rbac.ErrNoVersions)
	_, err = csv.Rollback(job, "acme", 0, 1, "test")
	require.ErrorIs(t, err, rbac.ErrNoVersions)
	_, err = csv.History(job, "acme", 0, 1)
	require.ErrorIs(t, err, rbac.ErrNoVersions)
}

// Of fifty administrators at once one changes the policy, the others are told to look
// again; fifty who give roles all succeed, one version each.
func TestFiftyAdministrators(t *testing.T) {
	sqldbtest.Each(t, func(t *testing.T, db *sql.DB) {
		engines := make([]*rbac.Engine, 5) // as many processes
		for i := range engines {
			a := open(t, db, nil, companies)
			var err error
			engines[i], err = rbac.New(t.Context(), a, quiet())
			require.NoError(t, err)
		}
		a := open(t, db, nil, "")
		job := crmguard.System(t.Context(), "acme", "test")
		after := engines[0].Status().Stored.Number
		acme := slices.DeleteFunc(ruleList(t, companies), func(rule []string) bool { return slices.Contains(rule, "globex") })
		require.Equal(t, 1, racetest.Winners(t, func(n int) (bool, error) {
			rules := append(slices.Clone(acme), []string{"g", fmt.Sprintf("u:r%d", n), "role:seller", "acme"})
			_, err := engines[n%len(engines)].Replace(job, "acme", after, rules, "mine")
			if errors.Is(err, rbac.ErrChanged) {
				return false, nil
			}
			return err == nil, err
		}))
		require.Equal(t, after+1, history(t, a)[0].Number)

		racetest.Run(t, func(n int) (any, error) {
			return nil, engines[n%len(engines)].GrantRole(job, "acme", fmt.Sprintf("g%d", n), "seller")
		})
		require.Equal(t, after+1+racetest.Racers, history(t, a)[0].Number)
		removed := racetest.Run(t, func(n int) (int, error) {
			got, err := engines[n%len(engines)].Revoke(job, "acme", fmt.Sprintf("g%d", n/2))
			return got.Count, err
		})
		total := 0
		for _, n := range removed {
			total += n
		}
		require.Equal(t, racetest.Racers/2, total)
		for _, e := range engines {
			require.NoError(t, e.Reload(job))
			require.Equal(t, engines[0].Version(), e.Version())
		}
	})
}

func TestChangesAreInTheJournal(t *testing.T) {
	sqldbtest.Each(t, func(t *testing.T, db *sql.DB) {
		journal := crmguardtest.NewRecorder()
		clock := crmguardtest.NewClock(time.Date(2026, 2, 16, 9, 0, 0, 0, time.UTC))
		a := open(t, db, &rbacsql.Options{Tenant: "acme", Journal: journal, Clock: clock.Now, Logger: quiet().Logger}, companies)
		o := quiet()
		o.Journal = journal
		_, err := rbac.New(t.Context(), a, o)
		require.ErrorContains(t, err, "Options.Journal", "one of two would hear nothing")
		e, err := rbac.New(t.Context(), a, quiet())
		require.NoError(t, err)
		oleg := crmguard.WithSubject(t.Context(), employee("acme", "oleg"))
		seen := len(journal.Events())
		require.Equal(t, 4, seen, "before and after each of the first two versions")
		require.Equal(t, "system:policy", journal.Events()[0].Subject.ID, "nobody acted")
		next := func() (attempted, ended crmguard.Event) {
			t.Helper()
			events := journal.Events()
			require.Len(t, events, seen+2)
			attempted, ended = events[seen], events[seen+1]
			seen += 2
			require.Equal(t, crmguard.Attempted, attempted.Outcome)
			require.Equal(t, attempted.ID, ended.ID)
			return attempted, ended
		}

		require.NoError(t, e.GrantRole(rbac.WithReason(oleg, "stands in for Anna"), "acme", "boris", "seller"))
		before, after := next()
		require.Equal(t, crmguard.Grant, before.Action)
		require.Equal(t, crmguard.Resource{Tenant: "acme", Kind: "policy"}, before.Resource)
		require.Equal(t, []any{"oleg", "version:3", e.Version(), 1, clock.Now()}, []any{before.Subject.ID, before.Reason, before.Policy, before.Count, before.Time})
		require.Equal(t, []crmguard.Private{{Name: "reason", Value: []byte("stands in for Anna")}, {Name: "added", Value: []byte("g, u:boris, role:seller, acme\n")}}, before.Private)
		require.Equal(t, crmguard.Done, after.Outcome)
		require.Equal(t, "stands in for Anna", history(t, a)[0].Reason)
		require.Equal(t, clock.Now(), history(t, a)[0].Time)

		require.NoError(t, e.GrantRole(oleg, "acme", "boris", "seller"), "again")
		require.Len(t, journal.Events(), seen, "nothing changed")
		_, err = e.Revoke(oleg, "acme", "boris")
		require.NoError(t, err)
		before, _ = next()
		require.Equal(t, crmguard.Revoke, before.Action)
		require.Equal(t, "revoke", history(t, a)[0].Reason)

		// Somebody else is faster: the attempt failed, and the next one is another act.
		was, err := a.Load(oleg)
		require.NoError(t, err)
		require.NoError(t, e.RevokeRole(oleg, "acme", "anna", "seller"))
		next()
		_, err = a.Change(oleg, was, [][]string{{"g", "u:x", "role:seller", "acme"}}, nil)
		require.ErrorIs(t, err, rbac.ErrChanged)
		_, after = next()
		require.Equal(t, []any{crmguard.Failed, "changed-meanwhile"}, []any{after.Outcome, after.Reason})

		// A jammed journal stops what gives, and a rule that denies from being taken away; nothing else.
		require.NoError(t, a.AddPolicyCtx(oleg, "p", "p", []string{"u:oleg", "acme", "contacts", "export", "all", "deny"}))
		next()
		journal.Fail(errors.New("jammed"))
		n := history(t, a)[0].Number
		require.ErrorContains(t, e.GrantRole(oleg, "acme", "boris", "seller"), "jammed")
		require.ErrorContains(t, a.RemovePolicy("p", "p", []string{"u:oleg", "acme", "contacts", "export", "all", "deny"}), "jammed")
		require.Equal(t, n, history(t, a)[0].Number)
		got, err := e.Revoke(oleg, "acme", "oleg")
		require.NoError(t, err)
		require.Equal(t, 1, got.Count)
		require.Equal(t, n+1, history(t, a)[0].Number)
	})
}

// What the marks cannot remember is not in force.
func TestMarksThatFail(t *testing.T) {
	marks := &memoryMarks{}
	a := open(t, sqldbtest.SQLite(t), &rbacsql.Options{Marks: marks}, companies)
	e, err := rbac.New(t.Context(), a, quiet())
	require.NoError(t, err)
	marks.fail = errors.New("disk full")
	job := crmguard.System(t.Context(), "acme", "test")
	require.ErrorIs(t, e.GrantRole(job, "acme", "boris", "seller"), marks.fail)
	require.ErrorIs(t, e.Reload(job), marks.fail)
	_, err = a.Head(job)
	require.ErrorIs(t, err, marks.fail)
	marks.fail = nil
	require.NoError(t, e.GrantRole(job, "acme", "boris", "seller"))
	require.Equal(t, e.Status().Stored.Number, marks.highest["policy/default"])
}

// A process dies after it has stored a version and before the mark is raised: the next
// look raises it.
func TestAMarkThatLagsBehind(t *testing.T) {
	marks := &memoryMarks{}
	db := sqldbtest.SQLite(t)
	a := open(t, db, nil, companies) // without marks
	n := history(t, a)[0].Number
	late, err := rbacsql.New(t.Context(), db, testKeys, &rbacsql.Options{Marks: marks})
	require.NoError(t, err)
	_, err = late.Head(t.Context())
	require.NoError(t, err)
	require.Equal(t, n, marks.highest["policy/default"])
}
