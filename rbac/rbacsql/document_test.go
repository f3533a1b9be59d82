package rbacsql

import (
	"bytes"
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/crmguardtest"
	"github.com/crmguard/crmguard/rbac"
)

var update = flag.Bool("update", false, "write testdata/v1.txt anew")

func goldenDocument() document {
	d := document{Version: rbac.Version{
		Number: 7, Time: time.Date(2026, 2, 16, 9, 30, 0, 123456000, time.UTC), Tenant: "acme", Author: "олег", Reason: "sellers may export",
		Added:   [][]string{{"p", "role:seller", "acme", "contacts", "export", "own", "allow"}, {"g", "u:anna", "role:seller", "acme"}},
		Removed: [][]string{{"g", "u:boris", "role:seller", "acme"}},
	}}
	d.Digest = rbac.Digest(d.Added)
	d.changes = changesOf(&d.Version)
	return d
}

// The bytes that MACs are made of must not change, or nobody reads their policy any more.
func TestGolden(t *testing.T) {
	d := goldenDocument()
	added, err := rulesJSON(d.Added)
	require.NoError(t, err)
	removed, err := rulesJSON(d.Removed)
	require.NoError(t, err)
	var b bytes.Buffer
	fmt.Fprintf(&b, "added   %s\nremoved %s\nchanges %s\n", added, removed, d.changes)
	for _, whole := range []bool{false, true} {
		d.Whole = whole
		fmt.Fprintf(&b, "\nwhole %v\n%s", whole, hex.Dump(d.authenticated()))
	}
	if *update {
		require.NoError(t, os.WriteFile("testdata/v1.txt", b.Bytes(), 0o600))
	}
	want, err := os.ReadFile("testdata/v1.txt")
	require.NoError(t, err)
	require.Equal(t, string(want), b.String())
}

// Each part of a version is in the bytes of its MAC.
func TestEveryPartIsAuthenticated(t *testing.T) {
	keys := crmguardtest.NewKeys()
	of := func(keys crmguard.Authenticator, tenant, document string) *versions {
		return &versions{tables: tables{keys: keys, tenant: tenant}, document: document}
	}
	a := of(keys, "acme", policyDocument)
	good := goldenDocument()
	require.NoError(t, a.seal(t.Context(), &good))
	require.NoError(t, a.verify(t.Context(), &good))
	for name, change := range map[string]func(d *document){
		"number":  func(d *document) { d.Number++ },
		"time":    func(d *document) { d.Time = d.Time.Add(time.Microsecond) },
		"tenant":  func(d *document) { d.Tenant = "globex" },
		"author":  func(d *document) { d.Author = "anna" },
		"between": func(d *document) { d.Tenant, d.Author = "acmeо", "лег" },
		"reason":  func(d *document) { d.Reason = "" },
		"digest":  func(d *document) { d.Digest = rbac.Digest(nil) },
		"whole":   func(d *document) { d.Whole = true },
		"changes": func(d *document) { d.changes = "" },
		"no MAC":  func(d *document) { d.mac = nil },
		"zero":    func(d *document) { d.Number = 0 },
		"beyond":  func(d *document) { d.Number = maxVersion + 1 },
	} {
		bad := good
		change(&bad)
		require.ErrorIs(t, a.verify(t.Context(), &bad), ErrTampered, name)
	}
	require.ErrorIs(t, of(keys, "globex", policyDocument).verify(t.Context(), &good), ErrTampered, "another tenant's keys")
	require.ErrorIs(t, of(keys, "acme", departmentsDocument+"acme").verify(t.Context(), &good), ErrTampered, "another document")

	keys.Fail(os.ErrDeadlineExceeded)
	err := a.verify(t.Context(), &good)
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	require.NotErrorIs(t, err, ErrTampered, "that nobody knows")
}

// What the database holds as rows is either exactly what the version changed, or refused.
func FuzzRows(f *testing.F) {
	d := goldenDocument()
	added, err := rulesJSON(d.Added)
	require.NoError(f, err)
	removed, err := rulesJSON(d.Removed)
	require.NoError(f, err)
	f.Add([]byte(added), []byte(removed))
	f.Add([]byte(removed), []byte(added))
	f.Add([]byte(`[]`), []byte(`null`))
	f.Add([]byte(`[["g",null]]`), []byte(`{}`))
	f.Add([]byte(added+" "), []byte("\n"+removed))
	f.Fuzz(func(t *testing.T, added, removed []byte) {
		d := goldenDocument()
		wantAdded, wantRemoved := d.Added, d.Removed
		d.Added, d.Removed = nil, nil
		if d.read(added, removed) == nil {
			require.Equal(t, wantAdded, d.Added)
			require.Equal(t, wantRemoved, d.Removed)
		}
	})
}
