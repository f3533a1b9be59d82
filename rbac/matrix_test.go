package rbac

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
)

const matrixPolicy = `
p, role:seller, acme, contacts, view, own, allow
p, role:seller, acme, contacts, view, shared, allow
p, role:seller, acme, contacts, delete, own, allow
p, role:head, acme, contacts, delete, tree, deny
p, role:head, acme, contacts, view, all, allow
p, role:head, acme, contacts, view, shared, deny
p, unit:north, acme, contacts#phone, reveal, all, allow
p, u:anna, acme, contacts, export, all, allow
g, role:head, role:seller, acme
g, u:anna, role:head, acme
p, role:king, globex, contacts, erase, all, allow
`

func TestMatrix(t *testing.T) {
	e := engineFromCSV(t, matrixPolicy, nil)
	m, err := e.Matrix(t.Context(), "acme")
	require.NoError(t, err)
	require.Equal(t, []string{"role:head", "role:seller", "unit:north"}, m.Holders)
	said := map[string][]string{}
	for _, o := range m.Objects {
		for _, r := range o.Rights {
			for _, c := range r.Cells {
				said[o.Object+" "+string(r.Action)] = append(said[o.Object+" "+string(r.Action)], c.String())
			}
		}
	}
	require.Equal(t, map[string][]string{
		"contacts delete":       {"no", "own", "no"},
		"contacts view":         {"all, not shared", "own, shared", "no"},
		"contacts export":       {"no", "no", "no"}, // a person's
		"contacts#phone reveal": {"no", "no", "all"},
	}, said)
	require.Len(t, m.Objects, 2)
	require.Equal(t, "contacts#phone", m.Objects[1].Object, "sorted")

	head := m.Objects[0].Rights[2].Cells[0]
	require.Equal(t, []Scope{All}, head.Allow)
	require.Len(t, head.Rules, 4, "its own, and the seller's")
	require.Equal(t, []string{"role:head"}, head.Rules[0].Path)
	require.Equal(t, []string{"role:head", "role:seller"}, head.Rules[3].Path)
	require.Equal(t, "policy.csv:2", head.Rules[2].Where)

	none, err := e.Matrix(t.Context(), "nobody")
	require.NoError(t, err)
	require.Empty(t, none)
	stranger := crmguard.WithSubject(t.Context(), crmguard.Subject{Tenant: "globex", ID: "zoe", Kind: crmguard.KindEmployee})
	_, err = e.Matrix(stranger, "acme")
	require.Error(t, err, "another tenant's")
}

// TestMatrixSaysWhatRightsAre: a cell allows just the relations that a person with that role
// alone has.
func TestMatrixSaysWhatRightsAre(t *testing.T) {
	e := engineFromCSV(t, matrixPolicy, nil)
	policy := e.current.Load()
	checked := 0
	matrix := policy.matrix("acme")
	for _, o := range matrix.Objects {
		for _, r := range o.Rights {
			for i, c := range r.Cells {
				var m masks
				for _, scope := range c.Allow {
					m.allow |= within(scope)
				}
				for _, scope := range c.Deny {
					m.deny |= within(scope)
				}
				holder := matrix.Holders[i]
				require.Equal(t, policy.rights("acme", holder, 0)[right{o.Object, string(r.Action)}], m.yes(), "%s %s %s", holder, r.Action, o.Object)
				checked++
			}
		}
	}
	require.Equal(t, 12, checked)
}
