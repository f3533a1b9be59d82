package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/encrypt/encryptsql"
)

// makeContacts stores three sealed contacts of a tenant, the last of which was forgotten:
// contacts DB STORE KEK TENANT [PASSPHRASE]
func makeContacts(ctx context.Context, args []string) error {
	type contact struct {
		ID          string `encrypt:",record"`
		Phone       string `encrypt:"phone"`
		PhoneSealed []byte `encrypt:"phone,sealed"`
		Note        string `encrypt:"note"`
		NoteSealed  []byte `encrypt:"note,sealed"`
	}
	db, err := open(ctx, args[0])
	if err != nil {
		return err
	}
	defer db.Close() //nolint:errcheck // a fixture
	store, err := encryptsql.OpenSQLite(ctx, args[1], true)
	if err != nil {
		return err
	}
	defer store.Close() //nolint:errcheck // a fixture
	openKEK := func() (encrypt.RotatingKEK, error) { return encrypt.OpenKeyFile(args[2], "", true) }
	if len(args) > 4 {
		openKEK = func() (encrypt.RotatingKEK, error) {
			return encrypt.OpenPassphraseFile(args[2], "", []byte(args[4]), true)
		}
	}
	kek, err := openKEK()
	if err != nil {
		return err
	}
	keys, err := encrypt.New(kek, store, nil)
	if err != nil {
		return err
	}
	defer keys.Close() //nolint:errcheck // a fixture
	table, err := encrypt.NewTable[contact](keys, "contacts", nil)
	if err != nil {
		return err
	}
	ctx = crmguard.System(ctx, args[3], "fixture")
	if _, err := db.ExecContext(ctx, `CREATE TABLE contacts (tenant TEXT NOT NULL, id TEXT NOT NULL, phone TEXT, phone_sealed BYTEA, note_sealed BYTEA, PRIMARY KEY (tenant, id))`); err != nil {
		return err
	}
	for i := range 3 {
		c := &contact{ID: fmt.Sprint("c", i+1), Phone: "+7 912 345-67-89", Note: "tea"}
		if _, err := table.Seal(ctx, args[3], c); err != nil {
			return err
		}
		if _, err := db.ExecContext(ctx, `INSERT INTO contacts VALUES ($1, $2, NULL, $3, $4)`, args[3], c.ID, c.PhoneSealed, c.NoteSealed); err != nil {
			return err
		}
	}
	_, err = keys.Erase(ctx, args[3], "c3")
	return err
}

func TestScanProgress(t *testing.T) {
	var out bytes.Buffer
	s := &shownRows{out: &out, told: time.Now().Add(-time.Hour)}
	require.NoError(t, s.progress(t.Context(), encrypt.Report{Rows: 500}))
	require.NoError(t, s.progress(t.Context(), encrypt.Report{Rows: 1000}))
	s.end()
	require.Equal(t, "\r\x1b[K500 rows\r\x1b[K", out.String())
	silent := &shownRows{}
	require.NoError(t, silent.progress(t.Context(), encrypt.Report{Rows: 500}))
	silent.end()
}

func declaration(t *testing.T, table string) string {
	t.Helper()
	text, err := json.Marshal([]map[string]any{{"tenant": "acme", "kind": table, "table": table,
		"columns": map[string]string{"record": "id"}, "sealed": map[string]string{table: table}}})
	require.NoError(t, err)
	path := t.TempDir() + "/tables.json"
	require.NoError(t, os.WriteFile(path, text, 0o600))
	return path
}
