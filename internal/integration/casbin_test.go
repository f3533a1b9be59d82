package integration

import (
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/casbin/casbin/v3"
	"github.com/casbin/casbin/v3/model"
	fileadapter "github.com/casbin/casbin/v3/persist/file-adapter"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/rbac"
)

// The universe of the questions: a person called like a role, two tenants, records and
// a field of them, a section.
var (
	rightsTenants = []string{"acme", "Ромашка"}
	rightsPersons = []string{"anna", "Олег", "seller"}
	rightsRoles   = []string{"seller", "head", "r$1"}
	rightsScopes  = []string{"own", "dept", "tree", "headed", "shared", "all"}
)

// relations are what a person can be to a record, as Casbin is asked and as a record.
var relations = withShared(map[string]crmguard.Resource{
	"none": {Unit: "south"}, "own": {Owner: "*"}, "dept": {Unit: "north"}, "tree": {Unit: "north-1"},
	"headed": {Unit: "west"}, "dept+headed": {Unit: "east"}, "tree+headed": {Unit: "north-2"},
})

// withShared adds that each of them can be shared too.
func withShared(relations map[string]crmguard.Resource) map[string]crmguard.Resource {
	for relation, r := range maps.Clone(relations) {
		r.Shared = true
		if relation == "none" {
			relations["shared"] = r
		} else {
			relations[relation+"+shared"] = r
		}
	}
	return relations
}

// randomRights is a policy file: rules, roles of roles and of persons, in any order.
func randomRights(rnd *rand.Rand) string {
	pick := func(from []string) string { return from[rnd.IntN(len(from))] }
	var lines []string
	for range 12 + rnd.IntN(20) {
		subject := "role:" + pick(rightsRoles)
		if rnd.IntN(3) == 0 {
			subject = "u:" + pick(rightsPersons)
		}
		what := pick([]string{"contacts, view", "contacts, view", "contacts#phone, read"})
		effect := "allow"
		if rnd.IntN(6) == 0 {
			effect = "deny"
		}
		lines = append(lines, fmt.Sprintf("p, %s, %s, %s, %s, %s", subject, pick(rightsTenants), what, pick(rightsScopes), effect))
	}
	for _, tenant := range rightsTenants {
		lines = append(lines, "g, role:head, role:seller, "+tenant)
		for _, person := range rightsPersons {
			lines = append(lines, fmt.Sprintf("g, u:%s, role:%s, %s", person, pick(rightsRoles), tenant))
		}
	}
	rnd.Shuffle(len(lines), func(i, j int) { lines[i], lines[j] = lines[j], lines[i] })
	return strings.Join(lines, "\n") + "\n"
}

// Casbin v3 gives the answers of package rbac too, which is built on v2.
func TestRightsAreThoseOfCasbin3(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // the same run every time
	org := &rbac.StaticOrg{}
	for _, tenant := range rightsTenants {
		members, heads := map[string][]string{}, map[string][]string{}
		for _, person := range rightsPersons {
			members[person], heads[person] = []string{"north", "east"}, []string{"west", "east", "north-2"}
		}
		org.Set(tenant, rbac.Units{Parent: map[string]string{"north-1": "north", "north-2": "north"}, Members: members, Heads: heads})
	}
	asked, yes := 0, 0
	for range 60 {
		path := filepath.Join(t.TempDir(), "policy.csv")
		text := randomRights(rnd)
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		ours, err := rbac.FromCSV(t.Context(), path, &rbac.Options{Org: org, Logger: slog.New(slog.DiscardHandler)})
		require.NoError(t, err)
		m, err := model.NewModelFromString(rbac.Model)
		require.NoError(t, err)
		theirs, err := casbin.NewEnforcer(m, fileadapter.NewAdapter(path))
		require.NoError(t, err)
		_, err = theirs.AddNamedGroupingPolicies("g2", rbac.ScopeRows())
		require.NoError(t, err)
		for _, tenant := range rightsTenants {
			for _, id := range append([]string{"nobody"}, rightsPersons...) {
				for relation, r := range relations {
					for _, field := range []string{"", "phone"} {
						object, action := "contacts", "view"
						if field != "" {
							object, action = "contacts#phone", "read"
						}
						want, err := theirs.Enforce("u:"+id, tenant, object, action, relation)
						require.NoError(t, err)
						r.Tenant, r.Kind, r.ID, r.Field = tenant, "contacts", "17", field
						if r.Owner != "" {
							r.Owner = id
						}
						if id == "nobody" && r.Unit != "" {
							continue // is in no department, so this is not the relation
						}
						s := crmguard.Subject{Tenant: tenant, ID: id, Kind: crmguard.KindEmployee}
						err = ours.Check(t.Context(), s, crmguard.View, r)
						require.Equal(t, want, err == nil, "%s\n%s %s %s %s: %v", text, tenant, id, object, relation, err)
						asked++
						if want {
							yes++
						}
					}
				}
			}
		}
	}
	require.Greater(t, yes, asked*3/10)
	t.Logf("%d questions, %d allowed", asked, yes)
}
