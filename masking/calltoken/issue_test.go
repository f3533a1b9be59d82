package calltoken

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
)

func TestIssueRefuses(t *testing.T) {
	i := newRig().issuer(t)
	foreign, whole, kind := phoneOf17, phoneOf17, phoneOf17
	foreign.Tenant, whole.Field, kind.ID = "globex", "", ""
	narrow := anna
	narrow.Scopes = make([]string, maxScopes+1)
	long := anna
	long.Device = strings.Repeat("x", maxText+1)
	wide := anna
	for range maxScopes {
		wide.Scopes = append(wide.Scopes, strings.Repeat("s", maxText))
	}
	for name, tc := range map[string]struct {
		ctx         context.Context
		client, leg string
	}{
		"nobody":            {t.Context(), "c17", "101"},
		"no subject":        {crmguard.WithAct(t.Context(), crmguard.Call, phoneOf17), "c17", "101"},
		"no act":            {crmguard.WithSubject(t.Context(), anna), "c17", "101"},
		"another act":       {acting(anna, crmguard.View, phoneOf17), "c17", "101"},
		"another's act":     {crmguard.WithSubject(acting(crmguard.Subject{Tenant: "acme", ID: "boris", Kind: crmguard.KindEmployee}, crmguard.Call, phoneOf17), anna), "c17", "101"},
		"foreign tenant":    {acting(anna, crmguard.Call, foreign), "c17", "101"},
		"no field":          {acting(anna, crmguard.Call, whole), "c17", "101"},
		"no record":         {acting(anna, crmguard.Call, kind), "c17", "101"},
		"no client":         {acting(anna, crmguard.Call, phoneOf17), "", "101"},
		"no leg":            {acting(anna, crmguard.Call, phoneOf17), "c17", ""},
		"a feature code":    {acting(anna, crmguard.Call, phoneOf17), "c17", "*72101"},
		"a leg with more":   {acting(anna, crmguard.Call, phoneOf17), "c17", "101\r\nX: y"},
		"too many scopes":   {acting(narrow, crmguard.Call, phoneOf17), "c17", "101"},
		"a long text":       {acting(long, crmguard.Call, phoneOf17), "c17", "101"},
		"too much in all":   {acting(wide, crmguard.Call, phoneOf17), "c17", "101"},
		"no UTF-8":          {acting(anna, crmguard.Call, phoneOf17), "c\xff", "101"},
		"incomplete":        {acting(crmguard.Subject{Tenant: "acme", ID: "anna"}, crmguard.Call, phoneOf17), "c17", "101"},
		"a client too long": {acting(anna, crmguard.Call, phoneOf17), strings.Repeat("c", maxText+1), "101"},
	} {
		_, err := i.Issue(tc.ctx, tc.client, tc.leg)
		require.Error(t, err, name)
	}
}

func TestConstructorsRefuse(t *testing.T) {
	r := newRig()
	_, err := NewIssuer(nil, nil)
	require.Error(t, err)
	_, err = NewIssuer(r.keys, nil)
	require.NoError(t, err)
	for _, d := range []time.Duration{-1, time.Millisecond, maxValidity + 1} {
		_, err = NewIssuer(r.keys, &IssuerOptions{Validity: d})
		require.Error(t, err, d)
	}
	_, err = NewResolver(r.keys, r.calls, r.rights, r.journal, r.host, r.line, nil)
	require.NoError(t, err)
	_, err = NewResolver(r.keys, r.calls, nil, r.journal, r.host, r.line, nil)
	require.Error(t, err)
}
