package rbacsql_test

import (
	"database/sql"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/internal/sqldb/sqldbtest"
	"github.com/crmguard/crmguard/rbac"
)

// A grant that ends is a row like others in the table, is a version, ends in every
// process by itself, and is taken by Revoke.
func TestGrantsThatEndInTheTable(t *testing.T) {
	sqldbtest.Each(t, func(t *testing.T, db *sql.DB) {
		a := open(t, db, nil, rbac.StarterPolicy())
		var now atomic.Int64
		now.Store(time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC).Unix())
		o := quiet()
		o.Clock = func() time.Time { return time.Unix(now.Load(), 0) }
		one, err := rbac.New(t.Context(), a, o)
		require.NoError(t, err)
		job := crmguard.System(t.Context(), "default", "deputies")
		end := time.Date(2026, 12, 31, 18, 0, 0, 0, time.UTC)
		require.NoError(t, one.GrantRoleUntil(job, "default", "boris", "head", end))
		require.NoError(t, one.GrantRoleUntil(job, "default", "vera", "head", end))
		require.Contains(t, rules(t, a), "p2 u:boris role:head default 2026-12-31T18:00:00Z")
		two, err := rbac.New(t.Context(), a, o)
		require.NoError(t, err)
		require.Equal(t, one.Version(), two.Version())
		got, err := one.Revoke(job, "default", "vera")
		require.NoError(t, err)
		require.Equal(t, 1, got.Count)
		version := two.Version()
		for _, test := range []struct {
			at   time.Time
			want []string
		}{{end.Add(-time.Second), []string{"head", "seller"}}, {end, nil}} {
			now.Store(test.at.Unix())
			roles, _, err := two.Resolve(job, "default", "boris")
			require.NoError(t, err)
			require.Equal(t, test.want, roles)
		}
		require.Equal(t, version, two.Version())
	})
}

const endingPolicy = `p, role:head, acme, contacts, view, all, allow
p, role:careful, acme, contacts, view, all, deny
g, u:oleg, role:head, acme
g, u:zoe, role:head, acme
p2, u:anna, role:head, acme, 2026-12-20T00:00:00Z
p2, u:boris, role:head, acme, 2026-12-10T00:00:00Z
p2, u:vera, role:head, acme, 2026-11-01T00:00:00Z
p2, u:zoe, role:careful, acme, 2026-12-15T00:00:00Z
`

// A whole policy with grants that end is judged at every moment that is still to come: nobody
// gives for longer than they have, nor brings back what has ended, nor ends early what
// denies; and what it gives ends without another change.
func TestReplaceWithGrantsThatEnd(t *testing.T) {
	sqldbtest.Each(t, func(t *testing.T, db *sql.DB) {
		a := open(t, db, nil, endingPolicy)
		var now atomic.Int64
		at := func(text string) {
			moment, err := time.Parse(time.RFC3339, text)
			require.NoError(t, err)
			now.Store(moment.Unix())
		}
		at("2026-12-01T00:00:00Z")
		o := quiet()
		o.Clock = func() time.Time { return time.Unix(now.Load(), 0) }
		e, err := rbac.New(t.Context(), a, o)
		require.NoError(t, err)
		rules := ruleList(t, endingPolicy)
		rule := func(text string) []string { return strings.Split(text, " ") }
		replace := func(author, was, is string) (rbac.Version, error) {
			next := slices.DeleteFunc(slices.Clone(rules), func(r []string) bool { return strings.Join(r, " ") == was })
			if is != "" {
				next = append(next, rule(is))
			}
			return e.Replace(crmguard.WithSubject(t.Context(), employee("acme", author)), "acme", e.Status().Stored.Number, next, "test")
		}
		card := crmguard.Resource{Tenant: "acme", Kind: "contacts", ID: "1"}
		may := func(id string) bool { return e.Check(t.Context(), employee("acme", id), crmguard.View, card) == nil }
		for _, test := range []struct{ name, author, was, is, code string }{
			{"as long as one's own", "anna", "", "p2 u:new role:head acme 2026-12-20T00:00:00Z", ""},
			{"a second longer", "anna", "", "p2 u:new role:head acme 2026-12-20T00:00:01Z", "lacks-right"},
			{"without end", "anna", "", "g u:new role:head acme", "lacks-right"},
			{"through a role", "anna", "", "g role:other role:head acme", "lacks-right"},
			{"one's own, longer", "anna", "p2 u:anna role:head acme 2026-12-20T00:00:00Z", "p2 u:anna role:head acme 2026-12-21T00:00:00Z", "self-grant"},
			{"somebody's, as long as one's own", "anna", "p2 u:boris role:head acme 2026-12-10T00:00:00Z", "p2 u:boris role:head acme 2026-12-20T00:00:00Z", ""},
			{"somebody's, longer", "anna", "p2 u:boris role:head acme 2026-12-10T00:00:00Z", "p2 u:boris role:head acme 2026-12-21T00:00:00Z", "lacks-right"},
			{"somebody's, shorter", "nobody", "p2 u:boris role:head acme 2026-12-10T00:00:00Z", "p2 u:boris role:head acme 2026-12-05T00:00:00Z", ""},
			{"what has ended, again", "nobody", "p2 u:vera role:head acme 2026-11-01T00:00:00Z", "p2 u:vera role:head acme 2026-12-02T00:00:00Z", "lacks-right"},
			{"what has ended, ended otherwise", "nobody", "p2 u:vera role:head acme 2026-11-01T00:00:00Z", "p2 u:vera role:head acme 2026-11-02T00:00:00Z", ""},
			{"one's own, with an end", "oleg", "g u:oleg role:head acme", "p2 u:oleg role:head acme 2026-12-09T00:00:00Z", ""},
			{"what denies, ended early", "nobody", "p2 u:zoe role:careful acme 2026-12-15T00:00:00Z", "p2 u:zoe role:careful acme 2026-12-05T00:00:00Z", "lacks-right"},
			{"what denies oneself, ended early", "zoe", "p2 u:zoe role:careful acme 2026-12-15T00:00:00Z", "", "self-grant"},
		} {
			before := e.Version()
			v, err := replace(test.author, test.was, test.is)
			if test.code != "" {
				var denial *crmguard.Denial
				require.ErrorAs(t, err, &denial, test.name)
				require.Equal(t, test.code, denial.Code, test.name)
				require.Equal(t, before, e.Version(), test.name)
				continue
			}
			require.NoError(t, err, test.name)
			require.Contains(t, v.Added, rule(test.is), test.name)
			person := strings.TrimPrefix(rule(test.is)[1], "u:")
			end, err := time.Parse(time.RFC3339, rule(test.is)[4])
			require.NoError(t, err)
			if end.Unix() > now.Load() {
				now.Store(end.Unix() - 1)
				require.True(t, may(person), test.name)
				now.Store(end.Unix())
			}
			require.False(t, may(person), test.name)
			at("2026-12-01T00:00:00Z")
			_, err = e.Replace(crmguard.System(t.Context(), "acme", "test"), "acme", v.Number, rules, "next case")
			require.NoError(t, err)
		}
		at("2027-01-01T00:00:00Z")
		_, err = replace("nobody", "p2 u:boris role:head acme 2026-12-10T00:00:00Z", "p2 u:boris role:head acme 2026-12-21T00:00:00Z")
		require.NoError(t, err, "all of it is over, so it gives nobody anything")
		require.False(t, may("boris"))
	})
}
