package encryptsql_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/encrypt/encryptsql"
	"github.com/crmguard/crmguard/encrypt/encrypttest"
	"github.com/crmguard/crmguard/internal/sqldb"
)

type oldContact struct {
	ID     string  `encrypt:",record"`
	Phone  string  `encrypt:"phone"`
	Legacy *string `encrypt:"phone,legacy"`
	Sealed []byte  `encrypt:"phone,sealed"`
}

// Somebody writes the tables of the key store, and has no KEK.
func TestWhoHasNoKEKAddsNoPlaintext(t *testing.T) {
	ctx := crmguard.System(t.Context(), "acme", "migrate")
	dir := t.TempDir()
	require.NoError(t, os.Chmod(dir, 0o700)) //nolint:gosec // a folder
	file := filepath.Join(dir, "keys.db")
	kek, err := encrypt.OpenKeyFile(filepath.Join(dir, "kek.json"), "", true)
	require.NoError(t, err)
	store, err := encryptsql.OpenSQLite(ctx, file, true)
	require.NoError(t, err)
	defer func() { require.NoError(t, store.Close()) }()
	k, err := encrypt.New(kek, store, nil)
	require.NoError(t, err)
	table, err := encrypt.NewTable[oldContact](k, "contacts", nil)
	require.NoError(t, err)
	rows := encrypttest.NewMemoryRows()
	for _, id := range []string{"c1", "c2"} {
		rows.Put("acme", encrypt.Row{Record: id, Client: id, Sealed: map[string][]byte{}, Legacy: map[string][]byte{"phone": []byte("+7 1")}})
	}
	_, err = table.Collect(ctx, "acme", rows, nil)
	require.NoError(t, err)
	db, err := sqldb.OpenSQLite(ctx, file)
	require.NoError(t, err)
	defer func() { require.NoError(t, db.Close()) }()
	plain := "+7 999 planted"
	open := func(record string) error {
		row := &oldContact{ID: record, Legacy: &plain}
		err := table.Open(ctx, "acme", row)
		if err != nil {
			require.Empty(t, row.Phone)
		}
		return err
	}
	require.NoError(t, open("c1"), "it was collected")
	var mac []byte
	require.NoError(t, db.QueryRowContext(ctx, `SELECT mac FROM crmguard_keys_pending WHERE record = 'c1'`).Scan(&mac))
	add := func(record string) {
		_, err := db.ExecContext(ctx, `INSERT INTO crmguard_keys_pending (tenant, kind, field, record, mac) VALUES ('acme', 'contacts', 'phone', $1, $2)`, record, mac)
		require.NoError(t, err)
	}
	add("planted")
	require.ErrorIs(t, open("planted"), encrypt.ErrPlaintext, "while records are collected")
	_, err = table.Migrate(ctx, "acme", rows, nil)
	require.NoError(t, err)
	add("c1")
	require.ErrorIs(t, open("c1"), encrypt.ErrPlaintext, "the field is strict")
	_, found, err := store.HasPending(ctx, encrypt.PendingField{Tenant: "acme", Kind: "contacts", Field: "phone"}, []string{"c1"})
	require.NoError(t, err)
	require.Empty(t, found, "nor does the store say otherwise")
	rows.Put("acme", encrypt.Row{Record: "c1", Client: "c1", Sealed: map[string][]byte{}, Legacy: map[string][]byte{"phone": []byte(plain)}})
	_, err = table.Migrate(ctx, "acme", rows, nil)
	require.NoError(t, err)
	got, err := rows.Get(ctx, "acme", []string{"c1"})
	require.NoError(t, err)
	require.Nil(t, got[0].Sealed["phone"], "nor is it sealed")
}
