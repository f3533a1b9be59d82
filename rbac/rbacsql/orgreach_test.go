package rbacsql_test

import (
	"database/sql"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/internal/sqldb/sqldbtest"
	"github.com/crmguard/crmguard/rbac"
)

// companyOf is a company in which mallory is a member of north and heads its two teams.
func companyOf(change func(u *rbac.Units)) rbac.Units {
	u := rbac.Units{
		Parent:  map[string]string{"north": "all", "south": "all", "north-1": "north", "north-2": "north"},
		Members: map[string][]string{"mallory": {"north"}, "anna": {"south"}},
		Heads:   map[string][]string{"mallory": {"north-1", "north-2"}, "boss": {"all"}},
	}
	change(&u)
	return u
}

// Whoever may change departments reaches no more by it than before.
func TestNobodyPlacesThemselves(t *testing.T) {
	mallory := crmguard.Subject{Tenant: "acme", ID: "mallory", Kind: crmguard.KindEmployee}
	sqldbtest.Each(t, func(t *testing.T, db *sql.DB) {
		org := orgOf(t, db, nil)
		job := crmguard.System(t.Context(), "acme", "test")
		v, err := org.Replace(job, "acme", 0, companyOf(func(*rbac.Units) {}), "a job places anybody")
		require.NoError(t, err)
		after := v.Number
		for name, test := range map[string]struct {
			change func(u *rbac.Units)
			detail string // of the denial; empty: it is allowed
		}{
			"head of all":               {func(u *rbac.Units) { u.Heads["mallory"] = append(u.Heads["mallory"], "all") }, "head of all"},
			"head of the own one":       {func(u *rbac.Units) { u.Heads["mallory"] = append(u.Heads["mallory"], "north") }, "head of north"},
			"member of one below":       {func(u *rbac.Units) { u.Members["mallory"] = []string{"north", "north-1"} }, "member of north-1"},
			"member elsewhere":          {func(u *rbac.Units) { u.Members["mallory"] = []string{"south"} }, "member of south"},
			"another one below":         {func(u *rbac.Units) { u.Parent["south"] = "north-1" }, "head of south"},
			"one above below, a circle": {func(u *rbac.Units) { u.Parent["all"] = "north" }, "superior of all"},
			"a new one below":           {func(u *rbac.Units) { u.Parent["forgotten"] = "north" }, "superior of forgotten"},
			"a new one elsewhere":       {func(u *rbac.Units) { u.Parent["west"] = "all" }, ""},
			"somebody else":             {func(u *rbac.Units) { u.Heads["anna"] = []string{"south"} }, ""},
			"less":                      {func(u *rbac.Units) { delete(u.Heads, "mallory") }, ""},
			"the own one elsewhere":     {func(u *rbac.Units) { u.Parent["north"] = "south" }, ""},
		} {
			t.Run(name, func(t *testing.T) {
				for _, s := range []crmguard.Subject{mallory, {Tenant: "acme", ID: "assistant", Kind: crmguard.KindIntegration, OnBehalfOf: "mallory"}} {
					ctx := crmguard.WithSubject(t.Context(), s)
					v, err := org.Replace(ctx, "acme", after, companyOf(test.change), "tidy")
					if test.detail == "" {
						require.NoError(t, err)
						v, err = org.Replace(job, "acme", v.Number, companyOf(func(*rbac.Units) {}), "as before")
						require.NoError(t, err)
						after = v.Number
						continue
					}
					var denial *crmguard.Denial
					require.ErrorAs(t, err, &denial)
					require.Equal(t, []string{"rbac", "self-grant", "u:mallory: " + test.detail}, []string{denial.By, denial.Code, denial.Detail})
				}
			})
		}
		// In two steps neither: what was taken out comes back elsewhere.
		ctx := crmguard.WithSubject(t.Context(), mallory)
		v, err = org.Replace(ctx, "acme", after, companyOf(func(u *rbac.Units) { delete(u.Parent, "south"); delete(u.Members, "anna") }), "closed")
		require.NoError(t, err)
		_, err = org.Replace(ctx, "acme", v.Number, companyOf(func(u *rbac.Units) { u.Parent["south"] = "north" }), "opened")
		var denial *crmguard.Denial
		require.ErrorAs(t, err, &denial)
		units, err := org.Load(ctx, "acme")
		require.NoError(t, err)
		require.NotContains(t, units.Parent, "south")
	})
}
