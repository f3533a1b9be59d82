package rbac

import (
	"encoding/csv"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/casbin/casbin/v2"
	"github.com/casbin/casbin/v2/model"
	stringadapter "github.com/casbin/casbin/v2/persist/string-adapter"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
)

// casbinExamples is the folder of Casbin's own examples.
func casbinExamples(t testing.TB) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", "github.com/casbin/casbin/v2").Output()
	require.NoError(t, err)
	return filepath.Join(strings.TrimSpace(string(out)), "examples")
}

// example is one of Casbin's: a model and the rows of a policy.
type example struct {
	enforcer *casbin.Enforcer
	rows     [][]string
}

func openExample(t testing.TB, dir, modelName, policyName string) example {
	t.Helper()
	m, p := filepath.Join(dir, modelName+"_model.conf"), filepath.Join(dir, policyName+"_policy.csv")
	e, err := casbin.NewEnforcer(m, p)
	require.NoError(t, err)
	text, err := os.ReadFile(p)
	require.NoError(t, err)
	r := csv.NewReader(strings.NewReader(string(text)))
	r.TrimLeadingSpace, r.FieldsPerRecord = true, -1
	rows, err := r.ReadAll()
	require.NoError(t, err)
	return example{e, rows}
}

// tokens are the names of what the model is asked with, such as sub, obj, act.
func (x example) tokens() []string {
	var names []string
	for _, token := range x.enforcer.GetModel()["r"]["r"].Tokens {
		names = append(names, strings.TrimPrefix(token, "r_"))
	}
	return names
}

// values are what rows of type p or g say where the model has a name.
func (x example) values(name string) []string {
	var found []string
	tokens := x.enforcer.GetModel()["p"]["p"].Tokens
	for _, row := range x.rows {
		switch {
		case row[0] == "p":
			if i := slices.Index(tokens, "p_"+name); i >= 0 && i+1 < len(row) {
				found = append(found, row[i+1])
			}
		case name == "sub" && row[0] == "g":
			found = append(found, row[1])
		case name == "obj" && row[0] == "g2":
			found = append(found, row[1])
		}
	}
	slices.Sort(found)
	return slices.Compact(found)
}

var actionsOfExamples = map[string]crmguard.Action{"read": crmguard.View, "write": crmguard.Update}

// rules are the rows in this package's model: a name that somebody has is a role, the
// others are persons, and everything is about all records.
func (x example) rules() (text string, persons []string) {
	tokens := x.enforcer.GetModel()["p"]["p"].Tokens
	roles := map[string]bool{}
	for _, row := range x.rows {
		if row[0] == "g" {
			roles[row[2]] = true
		}
	}
	identity := func(name string) string {
		if roles[name] {
			return rolePrefix + strings.TrimPrefix(name, rolePrefix)
		}
		return personPrefix + name
	}
	var b strings.Builder
	for _, row := range x.rows {
		field := func(name, otherwise string) string {
			if i := slices.Index(tokens, "p_"+name); i >= 0 {
				return row[i+1]
			}
			return otherwise
		}
		if row[0] == "g" {
			fmt.Fprintf(&b, "g, %s, %s, %s\n", identity(row[1]), identity(row[2]), append(row, "default")[3])
			continue
		}
		fmt.Fprintf(&b, "p, %s, %s, %s, %s, all, %s\n", identity(row[1]), field("dom", "default"), field("obj", ""), actionsOfExamples[field("act", "")], field("eft", "allow"))
	}
	for _, name := range x.values("sub") {
		if !roles[name] {
			persons = append(persons, name)
		}
	}
	return b.String(), append(persons, "nobody")
}

// The examples of Casbin that say who may do what to which kind, some with tenants,
// some with rules that deny, have Casbin's answers in this model too.
func TestCasbinsExamples(t *testing.T) {
	dir := casbinExamples(t)
	for _, name := range [][2]string{
		{"basic", "basic"}, {"rbac", "rbac"}, {"rbac", "rbac_with_hierarchy"}, {"rbac_with_deny", "rbac_with_deny"},
		{"rbac_with_domains", "rbac_with_domains"}, {"rbac_with_domains", "rbac_with_hierarchy_with_domains"},
	} {
		t.Run(name[1], func(t *testing.T) {
			x := openExample(t, dir, name[0], name[1])
			text, persons := x.rules()
			e := engineFromCSV(t, text, nil)
			tenants, withTenant := []string{"default"}, slices.Contains(x.tokens(), "dom")
			if withTenant {
				tenants = append(x.values("dom"), "elsewhere")
			}
			asked, yes := 0, 0
			for _, id := range persons {
				for _, tenant := range tenants {
					for _, kind := range append(x.values("obj"), "other") {
						for word, action := range actionsOfExamples {
							values := []any{id, kind, word}
							if withTenant {
								values = []any{id, tenant, kind, word}
							}
							want, err := x.enforcer.Enforce(values...)
							require.NoError(t, err)
							s := crmguard.Subject{Tenant: tenant, ID: id, Kind: crmguard.KindEmployee}
							err = e.Check(t.Context(), s, action, crmguard.Resource{Tenant: tenant, Kind: kind, ID: "1"})
							require.Equal(t, want, err == nil, "%q: %v", values, err)
							asked++
							if want {
								yes++
							}
						}
					}
				}
			}
			require.NotZero(t, yes)
			require.Less(t, yes, asked)
		})
	}
}

// requestOf answers a model that is asked with these names.
func requestOf(tokens []string) Request {
	return func(s crmguard.Subject, a crmguard.Action, r crmguard.Resource) ([]any, error) {
		of := map[string]any{"sub": s.ID, "dom": r.Tenant, "obj": r.Kind, "act": string(a)}
		var values []any
		for _, token := range tokens {
			values = append(values, of[token])
		}
		return values, nil
	}
}

// Examples with patterns, priorities, addresses and roles of resources do not fit into
// this model. Wrapped they have Casbin's answers.
func TestCasbinsOtherExamplesWrapped(t *testing.T) {
	dir := casbinExamples(t)
	for _, name := range [][2]string{
		{"basic_with_root", "basic"}, {"basic_without_resources", "basic_without_resources"}, {"basic_without_users", "basic_without_users"},
		{"comment", "basic"}, {"keymatch", "keymatch"}, {"keymatch2", "keymatch2"}, {"ipmatch", "ipmatch"}, {"glob", "glob"},
		{"priority", "priority"}, {"rbac_with_not_deny", "rbac_with_deny"},
		{"rbac_with_resource_roles", "rbac_with_resource_roles"}, {"rbac_with_domains", "rbac_with_domains"}, {"rbac_model_in_multi_line", "rbac"},
	} {
		t.Run(name[0]+", "+name[1], func(t *testing.T) {
			if name[0] == "rbac_model_in_multi_line" {
				name[0] = "rbac" // its file has no suffix
			}
			x := openExample(t, dir, name[0], name[1])
			w, err := Wrap(openExample(t, dir, name[0], name[1]).enforcer, requestOf(x.tokens()))
			require.NoError(t, err)
			words := func(token string, more ...string) []string { return append(x.values(token), more...) }
			yes := 0
			for _, id := range words("sub", "nobody", "root", "192.168.2.1", "10.0.3.4") {
				for _, tenant := range words("dom", "default") {
					for _, kind := range words("obj", "other", "/alice_data/resource1", "/bob_data/x", "/foo/bar", "data1") {
						for _, word := range words("act", "GET", "POST", "read", "write") {
							of := map[string]any{"sub": id, "dom": tenant, "obj": kind, "act": word}
							var values []any
							for _, token := range x.tokens() {
								values = append(values, of[token])
							}
							want, wantErr := x.enforcer.Enforce(values...)
							s := crmguard.Subject{Tenant: tenant, ID: id, Kind: crmguard.KindEmployee}
							err := w.Check(t.Context(), s, crmguard.Action(word), crmguard.Resource{Tenant: tenant, Kind: kind})
							require.Equal(t, wantErr == nil && want, err == nil, "%q: %v", values, err)
							if err == nil {
								yes++
							}
						}
					}
				}
			}
			require.NotZero(t, yes)
		})
	}
}

const plainModel = `[request_definition]
r = sub, obj, act
[policy_definition]
p = sub, obj, act
[role_definition]
g = _, _
[policy_effect]
e = some(where (p.eft == allow))
[matchers]
m = g(r.sub, p.sub) && r.obj == p.obj && r.act == p.act && check(r.obj)
`

func wrapped(t testing.TB, policy string, request Request) *Wrapped {
	t.Helper()
	m, err := model.NewModelFromString(plainModel)
	require.NoError(t, err)
	e, err := casbin.NewEnforcer(m, stringadapter.NewAdapter(policy))
	require.NoError(t, err)
	e.AddFunction("check", func(values ...any) (any, error) {
		switch values[0] {
		case "fails":
			return nil, errors.New("the database is away")
		case "panics":
			panic("on purpose")
		}
		return true, nil
	})
	if request == nil {
		request = requestOf([]string{"sub", "obj", "act"})
	}
	w, err := Wrap(e, request)
	require.NoError(t, err)
	return w
}

const wrappedPolicy = `p, anna, contacts, view
p, anna, fails, view
p, anna, panics, view
p, api, contacts, view
p, api, contacts, export
g, boris, anna`

func TestWrappedRefuses(t *testing.T) {
	w := wrapped(t, wrappedPolicy, nil)
	foreign, noKind, system := card, card, person("system:x")
	foreign.Tenant, noKind.Kind = "other", ""
	scoped, forAnna := person("anna"), person("api")
	scoped.Scopes, forAnna.OnBehalfOf = []string{"deals:view"}, "anna"
	ctx := t.Context()
	require.NoError(t, w.Check(ctx, person("anna"), crmguard.View, card))
	require.NoError(t, w.Check(ctx, person("boris"), crmguard.View, card))
	require.NoError(t, w.Check(ctx, forAnna, crmguard.View, card))
	requireDenied(t, w.Check(ctx, forAnna, crmguard.Export, card), "no-rule")
	requireDenied(t, w.Check(ctx, person("anna"), crmguard.Export, card), "no-rule")
	requireDenied(t, w.Check(ctx, scoped, crmguard.View, card), "scope")
	requireDenied(t, w.Check(ctx, system, crmguard.View, card), "system-name")
	require.Error(t, w.Check(ctx, person("anna"), crmguard.View, foreign))
	require.Error(t, w.Check(ctx, person("anna"), crmguard.View, noKind))
	require.Error(t, w.Check(ctx, crmguard.Subject{}, "", crmguard.Resource{}))
	for kind, want := range map[string]string{"fails": "the database is away", "panics": "on purpose"} {
		require.ErrorContains(t, w.Check(ctx, person("anna"), crmguard.View, crmguard.Resource{Tenant: "acme", Kind: kind}), want)
	}

	// What the host makes of the question can fail, too.
	for name, request := range map[string]Request{
		"an error": func(crmguard.Subject, crmguard.Action, crmguard.Resource) ([]any, error) {
			return nil, errors.New("no")
		},
		"a panic": func(crmguard.Subject, crmguard.Action, crmguard.Resource) ([]any, error) { panic("no") },
		"too few": func(crmguard.Subject, crmguard.Action, crmguard.Resource) ([]any, error) { return []any{"anna"}, nil },
		"nothing": func(crmguard.Subject, crmguard.Action, crmguard.Resource) ([]any, error) { return nil, nil },
	} {
		require.Error(t, wrapped(t, wrappedPolicy, request).Check(ctx, person("anna"), crmguard.View, card), name)
	}
	_, err := Wrap(nil, requestOf(nil))
	require.Error(t, err)
	_, err = Wrap(&casbin.Enforcer{}, nil)
	require.Error(t, err)
}

// Nobody says what is shared with whom a subject acts for, so it must not matter.
func TestWrappedAsksWithAndWithoutShares(t *testing.T) {
	for rule, want := range map[string]bool{"true": false, "false": false, "*": true} {
		w := wrapped(t, "p, api, contacts, view\np, anna, contacts, view", func(s crmguard.Subject, a crmguard.Action, r crmguard.Resource) ([]any, error) {
			kind := r.Kind
			if s.ID == "anna" && rule != "*" && fmt.Sprint(r.Shared) != rule {
				kind = "nothing"
			}
			return []any{s.ID, kind, string(a)}, nil
		})
		s := person("api")
		s.OnBehalfOf = "anna"
		require.Equal(t, want, w.Check(t.Context(), s, crmguard.View, card) == nil, rule)
	}
}

// Casbin's enforcers may not be changed while they decide; Change sees to it.
func TestWrappedChangesUnderLoad(t *testing.T) {
	w := wrapped(t, wrappedPolicy, nil)
	before := w.Version()
	require.Len(t, before, len(engineFromCSV(t, goodRule, nil).Version()))
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 200 {
				_ = w.Check(t.Context(), person("boris"), crmguard.View, card)
				_ = w.Version()
			}
		})
	}
	for i := range 50 {
		require.NoError(t, w.Change(func(e *casbin.Enforcer) error {
			var err error
			if i%2 == 0 {
				_, err = e.RemoveGroupingPolicy("boris", "anna")
			} else {
				_, err = e.AddGroupingPolicy("boris", "anna")
			}
			return err
		}))
		require.Equal(t, i%2 == 1, w.Check(t.Context(), person("boris"), crmguard.View, card) == nil, "a change shows in the next decision")
		require.Equal(t, i%2 == 1, w.Version() == before)
	}
	wg.Wait()
	failed := errors.New("halfway")
	require.ErrorIs(t, w.Change(func(e *casbin.Enforcer) error {
		_, _ = e.AddPolicy("x", "y", "z")
		return failed
	}), failed)
	require.NotEqual(t, before, w.Version(), "what was changed is told")
	require.Panics(t, func() { _ = w.Change(func(*casbin.Enforcer) error { panic("on purpose") }) })
	require.NoError(t, w.Check(t.Context(), person("anna"), crmguard.View, card), "the lock is free")
}

// The cache of a CachedEnforcer is left out: it would still say yes.
func TestWrappedHasNoCache(t *testing.T) {
	m, err := model.NewModelFromString(strings.Replace(plainModel, " && check(r.obj)", "", 1))
	require.NoError(t, err)
	cached, err := casbin.NewCachedEnforcer(m, stringadapter.NewAdapter(wrappedPolicy))
	require.NoError(t, err)
	w, err := Wrap(cached.Enforcer, requestOf([]string{"sub", "obj", "act"}))
	require.NoError(t, err)
	ok, err := cached.Enforce("boris", "contacts", "view")
	require.NoError(t, err)
	require.True(t, ok)
	require.NoError(t, w.Check(t.Context(), person("boris"), crmguard.View, card))
	require.NoError(t, w.Change(func(e *casbin.Enforcer) error { _, err := e.DeleteRoleForUser("boris", "anna"); return err }))
	requireDenied(t, w.Check(t.Context(), person("boris"), crmguard.View, card), "no-rule")
	ok, err = cached.Enforce("boris", "contacts", "view")
	require.NoError(t, err)
	require.True(t, ok, "what Casbin's cache says")
}
