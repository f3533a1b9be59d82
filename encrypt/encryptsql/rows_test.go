package encryptsql_test

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"
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
			Sealed: map[string]string{"phone": "phone_sealed", "note": "note_sealed"}, Legacy: map[string]string{"phone": "phone"}},
		create: `CREATE TABLE contacts (tenant TEXT NOT NULL, id TEXT NOT NULL, client TEXT, phone TEXT, phone_sealed BYTEA, note_sealed BYTEA, PRIMARY KEY (tenant, id))`,
		insert: `INSERT INTO contacts (tenant, id, client, phone_sealed, note_sealed, phone) VALUES ($1, $2, $3, $4, $5, $6)
			ON CONFLICT (tenant, id) DO UPDATE SET client = $3, phone_sealed = $4, note_sealed = $5, phone = $6`,
	},
	"numbers and odd names": {
		layout: encryptsql.Layout{Table: `Our "Contacts"`, Tenant: "Tenant", Record: "Id", Client: "of Client",
			Sealed: map[string]string{"phone": "select", "note": `a"; --`}, Legacy: map[string]string{"phone": "phone"}},
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
			_, err := tx.Exec(insert, tenant, r.Record, r.Client, value(r.Sealed["phone"], false), value(r.Sealed["note"], false), value(r.Legacy["phone"], true))
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

func TestLayoutsAreChecked(t *testing.T) {
	sqldbtest.Each(t, func(t *testing.T, db *sql.DB) {
		_, err := db.Exec(`CREATE TABLE contacts (id TEXT PRIMARY KEY, phone TEXT, phone_sealed BYTEA)`)
		require.NoError(t, err)
		fine := func() encryptsql.Layout {
			return encryptsql.Layout{Table: "contacts", Record: "id", Sealed: map[string]string{"phone": "phone_sealed"}, Legacy: map[string]string{"phone": "phone"}}
		}
		_, err = encryptsql.NewRows(t.Context(), db, fine())
		require.NoError(t, err)
		for name, spoil := range map[string]func(l *encryptsql.Layout){
			"no table":            func(l *encryptsql.Layout) { l.Table = "" },
			"another table":       func(l *encryptsql.Layout) { l.Table = "deals" },
			"another schema":      func(l *encryptsql.Layout) { l.Table = "nowhere.contacts" },
			"three parts":         func(l *encryptsql.Layout) { l.Table = "a.b.c" },
			"more than a name":    func(l *encryptsql.Layout) { l.Table = `contacts; DROP TABLE contacts` },
			"no record":           func(l *encryptsql.Layout) { l.Record = "" },
			"no such record":      func(l *encryptsql.Layout) { l.Record = "ID2" },
			"no such client":      func(l *encryptsql.Layout) { l.Client = "client" },
			"no such tenant":      func(l *encryptsql.Layout) { l.Tenant = "tenant" },
			"nothing":             func(l *encryptsql.Layout) { l.Sealed, l.Legacy = nil, nil },
			"no such column":      func(l *encryptsql.Layout) { l.Sealed["phone"] = "fax_sealed" },
			"a text in quotes":    func(l *encryptsql.Layout) { l.Sealed["phone"] = `phone" IS NULL OR "phone` },
			"plain, not sealed":   func(l *encryptsql.Layout) { l.Legacy["note"] = "note" },
			"one column, twice":   func(l *encryptsql.Layout) { l.Legacy["phone"] = "phone_sealed" },
			"a zero byte":         func(l *encryptsql.Layout) { l.Sealed["phone"] = "phone\x00" },
			"a name without end":  func(l *encryptsql.Layout) { l.Sealed["phone"] = strings.Repeat("p", 64) },
			"one for two":         func(l *encryptsql.Layout) { l.Sealed["note"] = "phone_sealed" },
			"empty column's name": func(l *encryptsql.Layout) { l.Sealed["phone"] = "" },
		} {
			layout := fine()
			spoil(&layout)
			_, err := encryptsql.NewRows(t.Context(), db, layout)
			require.Error(t, err, name)
		}
		_, err = db.Exec(`SELECT id FROM contacts`)
		require.NoError(t, err)
	})
	t.Run("sealed bytes are bytes", func(t *testing.T) {
		db := sqldbtest.Postgres(t)
		_, err := db.Exec(`CREATE TABLE contacts (id TEXT PRIMARY KEY, phone_sealed TEXT)`)
		require.NoError(t, err)
		_, err = encryptsql.NewRows(t.Context(), db, encryptsql.Layout{Table: "contacts", Record: "id", Sealed: map[string]string{"phone": "phone_sealed"}})
		require.ErrorContains(t, err, "BYTEA")
	})
}

// A table of one tenant has no column for it.
func TestRowsOfOneTenant(t *testing.T) {
	sqldbtest.Each(t, func(t *testing.T, db *sql.DB) {
		_, err := db.Exec(`CREATE TABLE contacts (id TEXT PRIMARY KEY, phone_sealed BYTEA)`)
		require.NoError(t, err)
		_, err = db.Exec(`INSERT INTO contacts VALUES ('1', $1)`, []byte("old"))
		require.NoError(t, err)
		rows, err := encryptsql.NewRows(t.Context(), db, encryptsql.Layout{Table: "contacts", Record: "id", Sealed: map[string]string{"phone": "phone_sealed"}})
		require.NoError(t, err)
		page, err := rows.Page(t.Context(), "acme", "", 10)
		require.NoError(t, err)
		want := encrypt.Row{Record: "1", Client: "1", Sealed: map[string][]byte{"phone": []byte("old")}}
		require.Equal(t, []encrypt.Row{want}, page)
		stale, err := rows.Swap(t.Context(), "acme", []encrypt.Change{{Was: want, Sealed: map[string][]byte{"phone": []byte("new")}}}, nil)
		require.NoError(t, err)
		require.Empty(t, stale)
		page, err = rows.Get(t.Context(), "acme", []string{"1"})
		require.NoError(t, err)
		require.Equal(t, "new", string(page[0].Sealed["phone"]))
	})
}

// Whoever writes the CRM's database puts into the index what is no id. That no such row is there
// is no reason for a job to stop, nor is it another row.
func TestWhatIsNoIDHasNoRow(t *testing.T) {
	planted := []string{"x", "", "01", " 1", "1.0", "99999999999999999999", "-1", "1; --", "é", "3"}
	for typ, id := range map[string]string{"BIGINT": "1", "UUID": "1b4e28ba-2fa1-11d2-883f-0016d3cca427", "TEXT": "one"} {
		t.Run(typ, func(t *testing.T) {
			sqldbtest.Each(t, func(t *testing.T, db *sql.DB) {
				_, err := db.Exec(`CREATE TABLE contacts (id ` + typ + ` PRIMARY KEY, phone_sealed BYTEA)`)
				require.NoError(t, err)
				_, err = db.Exec(`INSERT INTO contacts VALUES ($1, $2)`, id, []byte("sealed"))
				require.NoError(t, err)
				rows, err := encryptsql.NewRows(t.Context(), db, encryptsql.Layout{Table: "contacts", Record: "id", Sealed: map[string]string{"phone": "phone_sealed"}})
				require.NoError(t, err)
				found, err := rows.Get(t.Context(), "acme", append(slices.Insert(slices.Clone(planted), 4, id), strings.ToUpper(id)+" "))
				require.NoError(t, err)
				require.Len(t, found, 1)
				require.Equal(t, id, found[0].Record)
				found, err = rows.Get(t.Context(), "acme", planted)
				require.NoError(t, err)
				require.Empty(t, found)

				gone, cancel := context.WithCancel(t.Context())
				cancel()
				_, err = rows.Get(gone, "acme", planted)
				require.Error(t, err)
			})
		})
	}
}

// A job that takes part of a table for all of it would say that everything is sealed.
func TestRecordsOfManyTypes(t *testing.T) {
	uuid := func(i int) any { return fmt.Sprintf("1b4e28ba-2fa1-11d2-883f-%012d", i) }
	number := func(i int) any { return i }
	bytes := func(i int) any { return []byte{'i', byte('0' + i)} }
	for name, test := range map[string]struct {
		typ string
		id  func(i int) any
		sql map[string]bool // by dialect: false is refused
	}{
		"letters of a length":     {"CHAR(36)", uuid, map[string]bool{"sqlite": true, "postgres": true}},
		"padded":                  {"CHAR(40)", uuid, map[string]bool{"sqlite": true, "postgres": true}},
		"letters up to a length":  {"VARCHAR(36)", uuid, map[string]bool{"sqlite": true, "postgres": true}},
		"bits":                    {"BIT(4)", func(i int) any { return fmt.Sprintf("%04b", i) }, map[string]bool{"postgres": true}},
		"UUID":                    {"UUID", uuid, map[string]bool{"sqlite": true, "postgres": true}},
		"numbers":                 {"BIGINT", number, map[string]bool{"sqlite": true, "postgres": true}},
		"numbers with a fraction": {"NUMERIC(10,2)", func(i int) any { return float64(i) + 0.25 }, map[string]bool{"sqlite": true, "postgres": true}},
		"bytes":                   {"BYTEA", bytes, map[string]bool{"sqlite": false, "postgres": true}},
		"bytes among texts":       {"TEXT", bytes, map[string]bool{"sqlite": false}},
		"texts without a type":    {"", uuid, map[string]bool{"sqlite": true}},
		"numbers without a type":  {"", number, map[string]bool{"sqlite": false}},
		"numbers in a blob":       {"BLOB", number, map[string]bool{"sqlite": false}},
	} {
		t.Run(name, func(t *testing.T) {
			for dialect, open := range map[string]func(testing.TB) *sql.DB{"sqlite": sqldbtest.SQLite, "postgres": sqldbtest.Postgres} {
				fine, has := test.sql[dialect]
				if !has {
					continue
				}
				t.Run(dialect, func(t *testing.T) {
					db := open(t)
					_, err := db.Exec(`CREATE TABLE contacts (tenant CHAR(10), id ` + test.typ + ` UNIQUE, phone_sealed BYTEA)`)
					require.NoError(t, err)
					for i := range 7 {
						_, err = db.Exec(`INSERT INTO contacts VALUES ('acme', $1, $2)`, test.id(i), []byte("old"))
						require.NoError(t, err)
					}
					rows, err := encryptsql.NewRows(t.Context(), db, encryptsql.Layout{Table: "contacts", Tenant: "tenant", Record: "id", Sealed: map[string]string{"phone": "phone_sealed"}})
					require.NoError(t, err)
					var records []string
					for len(records) < 8 {
						after := ""
						if len(records) > 0 {
							after = records[len(records)-1]
						}
						page, err := rows.Page(t.Context(), "acme", after, 2)
						if !fine {
							require.ErrorContains(t, err, "declare the column INTEGER or TEXT")
							return
						}
						require.NoError(t, err)
						if len(page) == 0 {
							break
						}
						for _, row := range page {
							require.NotContains(t, records, row.Record)
							records = append(records, row.Record)
						}
					}
					require.Len(t, records, 7)
					found, err := rows.Get(t.Context(), "acme", records)
					require.NoError(t, err)
					require.Len(t, found, 7)
					stale, err := rows.Swap(t.Context(), "acme", []encrypt.Change{{Was: found[3], Sealed: map[string][]byte{"phone": []byte("new")}}}, nil)
					require.NoError(t, err)
					require.Empty(t, stale)
				})
			}
		})
	}
}

// SQLite compares no text with a number in a column without a type: there would be no rows.
func TestTenantsWithoutAType(t *testing.T) {
	for typ, strict := range map[string]string{"": "", "BLOB": "", "INTEGER": "", "TEXT": "", "DECIMAL(5)": "", "ANY": " STRICT"} {
		db := sqldbtest.SQLite(t)
		_, err := db.Exec(`CREATE TABLE contacts (tenant ` + typ + `, id TEXT PRIMARY KEY, phone_sealed BLOB)` + strict)
		require.NoError(t, err)
		_, err = db.Exec(`INSERT INTO contacts VALUES (7, '1', x'00'), (8, '2', x'00')`)
		require.NoError(t, err)
		rows, err := encryptsql.NewRows(t.Context(), db, encryptsql.Layout{Table: "contacts", Tenant: "tenant", Record: "id", Sealed: map[string]string{"phone": "phone_sealed"}})
		require.NoError(t, err)
		page, err := rows.Page(t.Context(), "7", "", 10)
		require.NoError(t, err)
		require.Len(t, page, 1, "%q", typ)
		stale, err := rows.Swap(t.Context(), "7", []encrypt.Change{{Was: page[0], Sealed: map[string][]byte{"phone": []byte("new")}}}, nil)
		require.NoError(t, err)
		require.Empty(t, stale)
	}
}

// PostgreSQL has NULL after the last record, where no page would come to it.
func TestARowWithoutARecordIsNoticed(t *testing.T) {
	sqldbtest.Each(t, func(t *testing.T, db *sql.DB) {
		_, err := db.Exec(`CREATE TABLE contacts (id TEXT UNIQUE, phone_sealed BYTEA)`)
		require.NoError(t, err)
		_, err = db.Exec(`INSERT INTO contacts VALUES ('1', NULL), ('2', NULL), (NULL, $1)`, []byte("+7 912 345-67-89"))
		require.NoError(t, err)
		rows, err := encryptsql.NewRows(t.Context(), db, encryptsql.Layout{Table: "contacts", Record: "id", Sealed: map[string]string{"phone": "phone_sealed"}})
		require.NoError(t, err)
		_, err = rows.Page(t.Context(), "acme", "", 1)
		require.ErrorContains(t, err, "a row has no record")
	})
}

// A job waits for nobody, and so is in no deadlock with a host's transaction.
func TestLockedRowsAreStale(t *testing.T) {
	db := sqldbtest.Postgres(t)
	_, err := db.Exec(`CREATE TABLE contacts (id TEXT PRIMARY KEY, phone_sealed BYTEA)`)
	require.NoError(t, err)
	_, err = db.Exec(`INSERT INTO contacts VALUES ('1', 'old'), ('2', 'old')`)
	require.NoError(t, err)
	rows, err := encryptsql.NewRows(t.Context(), db, encryptsql.Layout{Table: "contacts", Record: "id", Sealed: map[string]string{"phone": "phone_sealed"}})
	require.NoError(t, err)
	host, err := db.Begin()
	require.NoError(t, err)
	defer host.Rollback()
	_, err = host.Exec(`UPDATE contacts SET phone_sealed = 'edited' WHERE id = '1'`)
	require.NoError(t, err)
	page, err := rows.Page(t.Context(), "acme", "", 10)
	require.NoError(t, err)
	var changes []encrypt.Change
	for _, row := range page {
		changes = append(changes, encrypt.Change{Was: row, Sealed: map[string][]byte{"phone": []byte("new")}})
	}
	stale, err := rows.Swap(t.Context(), "acme", changes, nil)
	require.NoError(t, err)
	require.Equal(t, []string{"1"}, stale)
	require.NoError(t, host.Commit())
	stale, err = rows.Swap(t.Context(), "acme", changes[:1], nil)
	require.NoError(t, err)
	require.Equal(t, []string{"1"}, stale, "it is not as it was any more")
}
