package doctest_test

import (
	"context"
	"database/sql"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	_ "modernc.org/sqlite"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/encrypt/encryptsql"
	"github.com/crmguard/crmguard/internal/sqldb"
)

// What sqlc generates, as far as docs/guides/sqlc.md needs it.

type DBTX interface {
	ExecContext(context.Context, string, ...any) (sql.Result, error)
	QueryContext(context.Context, string, ...any) (*sql.Rows, error)
	QueryRowContext(context.Context, string, ...any) *sql.Row
}

type Queries struct{ db DBTX }

func (q *Queries) WithTx(tx *sql.Tx) *Queries { return &Queries{tx} }

type Contact struct {
	ID          string `encrypt:",record"`
	Name        string
	PhoneSealed []byte `encrypt:"phone,sealed"`
}

type CreateContactParams struct {
	ID          string
	Name        string
	PhoneSealed []byte
}

func (q *Queries) CreateContact(ctx context.Context, arg CreateContactParams) error {
	_, err := q.db.ExecContext(ctx, `INSERT INTO contacts (id, name, phone_sealed) VALUES ($1, $2, $3)`, arg.ID, arg.Name, arg.PhoneSealed)
	return err
}

func (q *Queries) ListContacts(ctx context.Context) ([]Contact, error) {
	rows, err := q.db.QueryContext(ctx, `SELECT id, name, phone_sealed FROM contacts ORDER BY id`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var items []Contact
	for rows.Next() {
		var i Contact
		if err := rows.Scan(&i.ID, &i.Name, &i.PhoneSealed); err != nil {
			return nil, err
		}
		items = append(items, i)
	}
	return items, rows.Err()
}

// What the host writes.

// Client is a contact with its phone in the clear.
type Client struct {
	Contact
	Phone string `encrypt:"phone,index=phone"`
}

// clients is what the rest of the program uses instead of Queries.
type clients struct {
	db      *sql.DB
	queries *Queries
	table   *encrypt.Table[Client]
	index   encrypt.Index
}

func (c *clients) Create(ctx context.Context, tenant string, rows ...*Client) error {
	entries, err := c.table.Seal(ctx, tenant, rows...) // before BEGIN: it may write to the key store
	if err != nil {
		return err
	}
	tx, err := c.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() // does nothing after Commit
	queries := c.queries.WithTx(tx)
	for _, row := range rows {
		if err := queries.CreateContact(ctx, CreateContactParams{row.ID, row.Name, row.PhoneSealed}); err != nil {
			return err
		}
	}
	if err := c.index.Put(ctx, tx, entries); err != nil {
		return err
	}
	return tx.Commit()
}

func (c *clients) List(ctx context.Context, tenant string) ([]*Client, error) {
	found, err := c.queries.ListContacts(ctx)
	if err != nil {
		return nil, err
	}
	rows := make([]*Client, len(found))
	for i := range found {
		rows[i] = &Client{Contact: found[i]}
	}
	return rows, c.table.Open(ctx, tenant, rows...) // the error names rows that did not open; the others did
}

func TestSqlcGuide(t *testing.T) {
	ctx := crmguard.System(t.Context(), "default", "test")
	db, err := sqldb.OpenSQLite(ctx, filepath.Join(t.TempDir(), "crm.db"))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	_, err = db.ExecContext(ctx, `CREATE TABLE contacts (id TEXT PRIMARY KEY, name TEXT NOT NULL, phone_sealed BLOB)`)
	require.NoError(t, err)
	index, err := encryptsql.NewIndex(ctx, db, nil)
	require.NoError(t, err)
	keys := guideKeys(t, index)
	table, err := encrypt.NewTable[Client](keys, "contacts", nil)
	require.NoError(t, err)
	c := &clients{db, &Queries{db}, table, index}

	require.NoError(t, c.Create(ctx, "default", &Client{Contact{ID: "17", Name: "Anna"}, "+79161234567"}))
	rows, err := c.List(ctx, "default")
	require.NoError(t, err)
	require.Equal(t, "+79161234567", rows[0].Phone)
	require.NotContains(t, string(rows[0].PhoneSealed), "7916")
	ids, err := table.Find(ctx, "default", "phone", "phone", "+7 916 123-45-67")
	require.NoError(t, err)
	require.Equal(t, []string{"17"}, ids)
}

func guideKeys(t *testing.T, index encrypt.Index) *encrypt.Keyring {
	t.Helper()
	kek, err := encrypt.OpenKeyFile(filepath.Join(t.TempDir(), "kek.json"), "data", true)
	require.NoError(t, err)
	keys, err := encrypt.New(kek, encrypt.NewMemory(), &encrypt.Options{Index: index})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, keys.Close()) })
	return keys
}
