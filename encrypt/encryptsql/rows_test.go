package encryptsql_test

import (
	"database/sql"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/encrypt/encryptsql"
	"github.com/crmguard/crmguard/encrypt/encrypttest"
	"github.com/crmguard/crmguard/internal/sqldb/sqldbtest"
)

// layouts of tables of a CRM, with the statement that makes each.
var layouts = map[string]struct {
	layout encryptsql.Layout
	create string
	insert string
}{
	"text": {
		layout: encryptsql.Layout{Table: "contacts", Tenant: "tenant", Record: "id", Client: "client",
			Sealed: map[string]string{"phone": "phone_sealed", "note": "note_sealed"}, Plain: map[string]string{"phone": "phone"}},
		create: `CREATE TABLE contacts (tenant TEXT NOT NULL, id TEXT NOT NULL, client TEXT, phone TEXT, phone_sealed BYTEA, note_sealed BYTEA, PRIMARY KEY (tenant, id))`,
		insert: `INSERT INTO contacts (tenant, id, client, phone_sealed, note_sealed, phone) VALUES ($1, $2, $3, $4, $5, $6)
			ON CONFLICT (tenant, id) DO UPDATE SET client = $3, phone_sealed = $4, note_sealed = $5, phone = $6`,
	},
	"numbers and odd names": {
		layout: encryptsql.Layout{Table: `Our "Contacts"`, Tenant: "Tenant", Record: "Id", Client: "of Client",
			Sealed: map[string]string{"phone": "select", "note": `a"; --`}, Plain: map[string]string{"phone": "phone"}},
		create: `CREATE TABLE "Our ""Contacts""" ("Tenant" VARCHAR(100) NOT NULL, "Id" BIGINT NOT NULL PRIMARY KEY, "of Client" BIGINT, phone VARCHAR(50), "select" BYTEA, "a""; --" BYTEA)`,
		insert: `INSERT INTO "Our ""Contacts""" ("Tenant", "Id", "of Client", "select", "a""; --", phone) VALUES ($1, CAST($2 AS BIGINT), CAST($3 AS BIGINT), $4, $5, $6)
			ON CONFLICT ("Id") DO UPDATE SET "of Client" = CAST($3 AS BIGINT), "select" = $4, "a""; --" = $5, phone = $6`,
	},
}

func put(t *testing.T, db *sql.DB, insert string) func(tenant string, rows ...encrypt.Row) {
	return func(tenant string, rows ...encrypt.Row) {
		t.Helper()
		tx, err := db.Begin()
		require.NoError(t, err)
		defer tx.Rollback()
		for _, r := range rows {
			value := func(b []byte, text bool) any {
				switch {
				case b == nil:
					return nil
				case text:
					return string(b)
				}
				return b
			}
			_, err := tx.Exec(insert, tenant, r.Record, r.Client, value(r.Sealed["phone"], false), value(r.Sealed["note"], false), value(r.Plain["phone"], true))
			require.NoError(t, err)
		}
		require.NoError(t, tx.Commit())
	}
}

func TestRows(t *testing.T) {
	for name, open := range map[string]func(testing.TB) *sql.DB{"sqlite": sqldbtest.SQLite, "postgres": sqldbtest.Postgres} {
		for shape, l := range layouts {
			t.Run(name+", "+shape, func(t *testing.T) {
				encrypttest.Rows(t, func(t *testing.T) encrypttest.RowsTable {
					db := open(t)
					_, err := db.Exec(l.create)
					require.NoError(t, err)
					rows, err := encryptsql.NewRows(t.Context(), db, l.layout)
					require.NoError(t, err)
					return encrypttest.RowsTable{Rows: rows, Put: put(t, db, l.insert)}
				})
			})
		}
	}
}
