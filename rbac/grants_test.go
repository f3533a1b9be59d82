package rbac

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/casbin/casbin/v2/model"
	"github.com/casbin/casbin/v2/persist"
	fileadapter "github.com/casbin/casbin/v2/persist/file-adapter"
	stringadapter "github.com/casbin/casbin/v2/persist/string-adapter"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
)

func as(ctx context.Context, s crmguard.Subject) context.Context { return crmguard.WithSubject(ctx, s) }

func TestGrantAndRevokeAreKept(t *testing.T) {
	path := policyFile(t, teamPolicy)
	e, err := FromCSV(t.Context(), path, quiet())
	require.NoError(t, err)
	ctx := as(t.Context(), person("oleg"))
	before := e.Version()

	require.NoError(t, e.GrantRole(ctx, "acme", "boris", "auditor"))
	require.NoError(t, e.Check(ctx, person("boris"), crmguard.View, card))
	granted := e.Version()
	require.NotEqual(t, before, granted)
	require.NoError(t, e.GrantRole(ctx, "acme", "boris", "auditor"), "again")
	require.Equal(t, granted, e.Version())

	again, err := FromCSV(t.Context(), path, quiet())
	require.NoError(t, err)
	require.Equal(t, granted, again.Version(), "another process reads the same")

	require.NoError(t, e.RevokeRole(ctx, "acme", "boris", "auditor"))
	require.NoError(t, e.RevokeRole(ctx, "acme", "boris", "auditor"), "again")
	requireDenied(t, e.Check(ctx, person("boris"), crmguard.View, card), "no-rule")
	require.Equal(t, before, e.Version())
	require.NoError(t, again.Reload(ctx))
	require.Equal(t, before, again.Version())
}

func TestRolesAreThoseThatCanBeGranted(t *testing.T) {
	e := engineFromCSV(t, teamPolicy+`
g, role:auditor, role:reader, acme
p, role:owner, globex, contacts, view, all, allow
`, nil)
	ctx := crmguard.System(t.Context(), "acme", "test")
	roles, err := e.Roles(ctx, "acme")
	require.NoError(t, err)
	require.Equal(t, []string{"auditor", "head", "reader", "seller"}, roles)
	for _, role := range append(roles, "owner", "anna", "role:head", "u:anna") {
		err := e.GrantRole(ctx, "acme", "boris", role)
		require.Equal(t, slices.Contains(roles, role), err == nil, role)
	}
	_, err = e.Roles(ctx, "globex")
	require.Error(t, err, "another tenant's")
	_, err = e.Roles(t.Context(), "")
	require.Error(t, err)
	roles, err = e.Roles(t.Context(), "initech")
	require.NoError(t, err)
	require.Empty(t, roles)
}

func TestNobodyGrantsToThemselves(t *testing.T) {
	e := engineFromCSV(t, teamPolicy, nil)
	anna, oleg := as(t.Context(), person("anna")), as(t.Context(), person("oleg"))
	requireDenied(t, e.GrantRole(anna, "acme", "anna", "auditor"), "self-grant")
	requireDenied(t, e.GrantRole(anna, "acme", "anna", "seller"), "self-grant")
	api := person("api")
	api.OnBehalfOf = "anna"
	requireDenied(t, e.GrantRole(as(t.Context(), api), "acme", "anna", "auditor"), "self-grant")

	require.Error(t, e.GrantRole(t.Context(), "acme", "boris", "auditor"), "nobody acts")
	require.Error(t, e.GrantRole(anna, "other", "boris", "auditor"), "foreign tenant")
	require.Error(t, e.GrantRole(anna, "", "boris", "auditor"))
	for _, role := range []string{"owner", "auditor ", "role:auditor", "", "u:oleg"} {
		require.Error(t, e.GrantRole(anna, "acme", "boris", role), "the policy has no role %q", role)
	}
	require.Error(t, e.GrantRole(anna, "acme", "", "auditor"))
	for _, id := range []string{"role:auditor", "u:boris", "bo,ris", "bo$$ris", "bo\nris"} {
		var refused *PolicyError
		require.ErrorAs(t, e.GrantRole(oleg, "acme", id, "auditor"), &refused, "%q", id)
	}
}

func TestRevokeTakesEverythingThatGives(t *testing.T) {
	path := policyFile(t, teamPolicy+`
p, u:anna, acme, contacts, export, all, allow
p, u:anna, acme, contacts, delete, all, deny
p, u:anna, other, contacts, export, all, allow
p, role:anna, acme, contacts, export, own, allow
g, u:anna, role:auditor, acme
g, u:anna, unit:north, acme
g, u:anna, role:x, other
`)
	e, err := FromCSV(t.Context(), path, quiet())
	require.NoError(t, err)
	require.NoError(t, e.Check(t.Context(), person("anna"), crmguard.Export, card))

	got, err := e.Revoke(t.Context(), "acme", "anna")
	require.NoError(t, err)
	require.Equal(t, crmguard.Revoked{What: "roles and rules", Count: 4}, got)
	for _, a := range []crmguard.Action{crmguard.List, crmguard.Export, crmguard.Create} {
		requireDenied(t, e.Check(t.Context(), person("anna"), a, crmguard.Resource{Tenant: "acme", Kind: "contacts"}), "no-rule")
	}
	requireDenied(t, e.Check(t.Context(), person("anna"), crmguard.Delete, card), "deny-rule")
	elsewhere := crmguard.Subject{Tenant: "other", ID: "anna", Kind: crmguard.KindEmployee}
	require.NoError(t, e.Check(t.Context(), elsewhere, crmguard.Export, crmguard.Resource{Tenant: "other", Kind: "contacts"}))
	require.NoError(t, e.Check(t.Context(), person("oleg"), crmguard.View, card))

	again, err := e.Revoke(t.Context(), "acme", "anna")
	require.NoError(t, err)
	require.Zero(t, again.Count)
	version := e.Version()
	require.NoError(t, e.Reload(t.Context()))
	require.Equal(t, version, e.Version(), "the file says the same")

	_, err = e.Revoke(t.Context(), "", "anna")
	require.Error(t, err)
	_, err = e.Revoke(t.Context(), "acme", "")
	require.Error(t, err)
	require.Error(t, e.RevokeRole(t.Context(), "acme", "anna", ""))
}

func TestFiftyGrantsAtOnceAreAllKept(t *testing.T) {
	path := policyFile(t, teamPolicy)
	e, err := FromCSV(t.Context(), path, quiet())
	require.NoError(t, err)
	before := e.current.Load().rows.len()
	ctx := crmguard.System(t.Context(), "acme", "test")
	errs := make([]error, 50)
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() { errs[i] = e.GrantRole(ctx, "acme", fmt.Sprintf("new%d", i/2), "seller") }) // each twice
	}
	wg.Wait()
	require.NoError(t, errors.Join(errs...))
	require.Equal(t, before+25, e.current.Load().rows.len())
	version := e.Version()
	require.NoError(t, e.Reload(ctx))
	require.Equal(t, version, e.Version())
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, 25, bytes.Count(text, []byte("u:new")), "each row is in the file once")
}

// failingStore keeps rows in memory and fails to write.
type failingStore struct {
	textSource
	err error
}

func (s *failingStore) AddPolicy(string, string, []string) error { return s.err }

func (s *failingStore) RemoveFilteredPolicy(string, string, int, ...string) error { return s.err }

func TestAStoreThatFailsGivesNothingAndKeepsNothing(t *testing.T) {
	store := &failingStore{textSource{text: teamPolicy}, errors.New("disk full")}
	e, err := New(t.Context(), store, quiet())
	require.NoError(t, err)
	ctx := as(t.Context(), person("oleg"))
	before := e.Version()
	require.ErrorIs(t, e.GrantRole(ctx, "acme", "boris", "auditor"), store.err)
	require.Equal(t, before, e.Version(), "what was not kept is not granted")

	got, err := e.Revoke(ctx, "acme", "oleg")
	require.ErrorIs(t, err, store.err)
	require.Equal(t, 1, got.Count)
	requireDenied(t, e.Check(ctx, person("oleg"), crmguard.View, card), "no-rule") // at once, whatever the store does
}

func TestARefusedReloadKeepsThePolicy(t *testing.T) {
	path := policyFile(t, teamPolicy)
	var log bytes.Buffer
	e, err := FromCSV(t.Context(), path, &Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
	require.NoError(t, err)
	before := e.Version()
	require.NoError(t, os.WriteFile(path, []byte(teamPolicy+"p, u:anna, acme, contacts, view, all, Allow\n"), 0o600))
	var refused *PolicyError
	require.ErrorAs(t, e.Reload(t.Context()), &refused)
	require.Equal(t, before, e.Version())
	require.NoError(t, e.Check(t.Context(), person("oleg"), crmguard.View, card))
	require.Contains(t, log.String(), "what is still stored")
	require.Contains(t, log.String(), "policy.csv:")

	require.NoError(t, os.Remove(path))
	require.ErrorIs(t, e.Reload(t.Context()), os.ErrNotExist)
	require.Equal(t, before, e.Version())
	require.NoError(t, os.WriteFile(path, []byte(goodRule), 0o600))
	require.NoError(t, e.Reload(t.Context()))
	require.NotEqual(t, before, e.Version())
}

// Casbin's own adapters, which know nothing of Rules.
func TestAnyCasbinAdapter(t *testing.T) {
	e, err := New(t.Context(), stringadapter.NewAdapter(teamPolicy), quiet())
	require.NoError(t, err)
	require.Equal(t, engineFromCSV(t, teamPolicy, nil).Version(), e.Version())
	require.NoError(t, e.Check(t.Context(), person("oleg"), crmguard.View, card))

	_, err = New(t.Context(), nil, nil)
	require.Error(t, err)
	_, err = FromCSV(t.Context(), filepath.Join(t.TempDir(), "missing.csv"), quiet())
	require.ErrorIs(t, err, os.ErrNotExist)
	_, err = New(t.Context(), fileadapter.NewAdapter(policyFile(t, goodRule+"\np, role:a, acme, contacts, view, own")), quiet())
	require.ErrorContains(t, err, "invalid policy rule size")
	var refused *PolicyError
	_, err = New(t.Context(), stringadapter.NewAdapter(goodRule+"\np, role:a, acme, contacts, view, own, Deny"), quiet())
	require.ErrorAs(t, err, &refused)
	require.Equal(t, "p row 2", refused.Findings[0].Where)
	_, err = New(t.Context(), brokenAdapter{}, quiet())
	require.ErrorContains(t, err, "panicked")
}

// brokenAdapter has a row without fields, at which Casbin's helper panics.
type brokenAdapter struct{ persist.Adapter }

func (brokenAdapter) LoadPolicy(m model.Model) error {
	return persist.LoadPolicyArray([]string{""}, m)
}
