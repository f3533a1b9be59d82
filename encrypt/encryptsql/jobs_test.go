package encryptsql_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/encrypt/encryptsql"
	"github.com/crmguard/crmguard/internal/sqldb/sqldbtest"
)

// person is a row of the CRM of these tests.
type person struct {
	ID          string  `encrypt:",record"`
	Phone       string  `encrypt:"phone,index=phone"`
	PhoneLegacy *string `encrypt:"phone,legacy"`
	PhoneSealed []byte  `encrypt:"phone,sealed"`
	Version     int
}

var people = encryptsql.Layout{Table: "people", Tenant: "tenant", Record: "id",
	Sealed: map[string]string{"phone": "phone_sealed"}, Legacy: map[string]string{"phone": "phone"}}

const createPeople = `CREATE TABLE IF NOT EXISTS people (tenant TEXT NOT NULL, id TEXT NOT NULL, phone TEXT, phone_sealed BYTEA, version BIGINT NOT NULL DEFAULT 1, PRIMARY KEY (tenant, id))`

func personID(i int) string { return fmt.Sprintf("p%03d", i) }

func personScope(i int) encrypt.Scope {
	return encrypt.Scope{Tenant: "acme", Purpose: encrypt.DataKey, Name: personID(i)}
}

func system() context.Context { return crmguard.System(context.Background(), "acme", "test") }

// crm is one process of a CRM.
type crm struct {
	db    *sql.DB
	keys  *encrypt.Keyring
	index *encryptsql.Index
	table *encrypt.Table[person]
	rows  *encryptsql.Rows
}

func openCRM(ctx context.Context, db *sql.DB, keys encrypt.Store, kekPath string) (*crm, error) {
	kek, err := encrypt.OpenKeyFile(kekPath, "", true)
	if err != nil {
		return nil, err
	}
	if _, err := db.ExecContext(ctx, createPeople); err != nil {
		return nil, err
	}
	c := &crm{db: db}
	if c.index, err = encryptsql.NewIndex(ctx, db, nil); err != nil {
		return nil, err
	}
	if c.keys, err = encrypt.New(kek, keys, &encrypt.Options{Index: c.index}); err != nil {
		return nil, err
	}
	if c.table, err = encrypt.NewTable[person](c.keys, "people", nil); err != nil {
		return nil, err
	}
	c.rows, err = encryptsql.NewRows(ctx, db, people)
	return c, err
}

// fill stores n people, sealed or not.
func (c *crm) fill(t testing.TB, n int, sealed bool) {
	t.Helper()
	rows := make([]*person, n)
	for i := range rows {
		rows[i] = &person{ID: personID(i), Phone: fmt.Sprintf("+7 912 345-%04d", i)}
	}
	_, err := c.table.Seal(system(), "acme", rows...)
	require.NoError(t, err)
	tx, err := c.db.Begin()
	require.NoError(t, err)
	defer tx.Rollback()
	for _, p := range rows {
		value, plain := any(p.PhoneSealed), any(nil)
		if !sealed {
			value, plain = nil, p.Phone
		}
		_, err := tx.Exec(`INSERT INTO people (tenant, id, phone, phone_sealed) VALUES ('acme', $1, $2, $3)`, p.ID, plain, value)
		require.NoError(t, err)
	}
	require.NoError(t, tx.Commit())
}

func (c *crm) read(ctx context.Context) (list []*person, err error) {
	rows, err := c.db.QueryContext(ctx, `SELECT id, phone, phone_sealed, version FROM people WHERE tenant = 'acme' ORDER BY id`)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		p := &person{}
		if err := rows.Scan(&p.ID, &p.PhoneLegacy, &p.PhoneSealed, &p.Version); err != nil {
			return nil, err
		}
		list = append(list, p)
	}
	return list, errors.Join(rows.Err(), c.table.Open(ctx, "acme", list...))
}

// write edits one row as a CRM does: with the row version in WHERE.
func (c *crm) write(ctx context.Context, id, phone string) error {
	for {
		p := &person{ID: id}
		if err := c.db.QueryRowContext(ctx, `SELECT phone, phone_sealed, version FROM people WHERE tenant = 'acme' AND id = $1`, id).Scan(&p.PhoneLegacy, &p.PhoneSealed, &p.Version); err != nil {
			return err
		}
		if err := c.table.Open(ctx, "acme", p); err != nil {
			return err
		}
		p.Phone = phone
		entries, err := c.table.Seal(ctx, "acme", p)
		if err != nil {
			return err
		}
		tx, err := c.db.BeginTx(ctx, nil)
		if err != nil {
			return err
		}
		result, err := tx.ExecContext(ctx, `UPDATE people SET phone = NULL, phone_sealed = $1, version = version + 1 WHERE tenant = 'acme' AND id = $2 AND version = $3`, p.PhoneSealed, id, p.Version)
		if err != nil {
			return errors.Join(err, tx.Rollback())
		}
		if n, err := result.RowsAffected(); err != nil || n == 0 {
			if err := errors.Join(err, tx.Rollback()); err != nil {
				return err
			}
			continue // somebody else was faster
		}
		if err := c.index.Put(ctx, tx, entries); err != nil {
			return errors.Join(err, tx.Rollback())
		}
		return tx.Commit()
	}
}

// Everybody reads and writes on nodes of their own while keys rotate, the KEK turns and
// all is sealed anew, twice: no read fails and no write is lost.
func TestReencryptUnderLoad(t *testing.T) {
	db := sqldbtest.Postgres(t)
	store, err := encryptsql.New(t.Context(), sqldbtest.Postgres(t), nil)
	require.NoError(t, err)
	kek := filepath.Join(t.TempDir(), "kek.json")
	ctx := system()
	worker, err := openCRM(ctx, db, store, kek)
	require.NoError(t, err)
	const n = 60
	worker.fill(t, n, true)

	ended := make(chan struct{})
	var wg sync.WaitGroup
	var reads, writes atomic.Int64
	var last [n]string // each writer has people of its own
	for w := range 3 {
		node, err := openCRM(ctx, db, store, kek)
		require.NoError(t, err)
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-ended:
					return
				default:
				}
				number := w + 3*(i%(n/3))
				phone := fmt.Sprintf("writer %d edit %d", w, i)
				if err := node.write(ctx, personID(number), phone); err != nil {
					t.Errorf("write: %v", err)
					return
				}
				last[number] = phone
				writes.Add(1)
			}
		})
		wg.Go(func() {
			for {
				select {
				case <-ended:
					return
				default:
				}
				if list, err := node.read(ctx); err != nil || len(list) != n {
					t.Errorf("read: %v", err)
					return
				}
				reads.Add(1)
			}
		})
	}
	changed := 0
	reencrypt := func() {
		report, err := worker.table.Reencrypt(ctx, "acme", worker.rows, &encrypt.JobOptions{Batch: 20})
		require.NoError(t, err)
		require.Equal(t, n, report.Rows)
		require.True(t, report.OK() || report.Busy > 0, "%+v", report)
		changed += report.Changed
	}
	rotate := func() {
		for i := range n {
			_, err := worker.keys.Rotate(ctx, personScope(i))
			require.NoError(t, err)
		}
	}
	func() {
		defer wg.Wait()
		defer close(ended)
		rotate()
		reencrypt()
		var turning sync.WaitGroup
		turning.Go(func() {
			if _, err := worker.keys.Turn(ctx, nil); err != nil {
				t.Errorf("turn: %v", err)
			}
		})
		rotate()
		for range 5 {
			reencrypt()
		}
		turning.Wait()
		reencrypt()
	}()
	t.Logf("%d reads and %d writes beside %d rows sealed anew", reads.Load(), writes.Load(), changed)
	require.Positive(t, changed)
	require.Greater(t, reads.Load(), int64(10))
	require.Greater(t, writes.Load(), int64(50))

	// What others sealed before they knew the new versions is left for the next run.
	_, err = worker.table.Reencrypt(ctx, "acme", worker.rows, nil)
	require.NoError(t, err)
	fresh, err := openCRM(ctx, db, store, kek)
	require.NoError(t, err)
	list, err := fresh.read(ctx)
	require.NoError(t, err)
	for i, p := range list {
		require.EqualValues(t, 3, p.PhoneSealed[7], "%s is under the newest version", p.ID)
		if last[i] != "" {
			require.Equal(t, last[i], p.Phone, "the last write of %s", p.ID)
		}
	}
	report, err := fresh.table.Scan(ctx, "acme", fresh.rows, nil)
	require.NoError(t, err)
	require.True(t, report.OK(), "%+v", report)
}
