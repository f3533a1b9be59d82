package encryptsql_test

import (
	"database/sql"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/encrypt/encryptsql"
	"github.com/crmguard/crmguard/internal/sqldb/sqldbtest"
	"github.com/crmguard/crmguard/internal/uptime"
)

// The last index is taken from the tags: no entry is left, nor the key that made them.
func TestTheLastIndexIsGone(t *testing.T) {
	type indexed struct {
		ID         string `encrypt:",record"`
		Mail       string `encrypt:"mail,index=email:unique,index=domain"`
		MailSealed []byte `encrypt:"mail,sealed"`
	}
	type plain struct {
		ID         string `encrypt:",record"`
		Mail       string `encrypt:"mail"`
		MailSealed []byte `encrypt:"mail,sealed"`
	}
	sqldbtest.Each(t, func(t *testing.T, db *sql.DB) {
		var days atomic.Int64
		passed := func() time.Duration { return time.Duration(days.Load()) * 24 * time.Hour }
		t.Cleanup(uptime.Move(passed))
		_, err := db.Exec(`CREATE TABLE people (id BIGINT PRIMARY KEY, mail_sealed BYTEA)`)
		require.NoError(t, err)
		index, err := encryptsql.NewIndex(t.Context(), db, nil)
		require.NoError(t, err)
		store, err := encryptsql.New(t.Context(), db, nil) // in one database for once
		require.NoError(t, err)
		kek, err := encrypt.OpenKeyFile(t.TempDir()+"/kek.json", "", true)
		require.NoError(t, err)
		now := time.Now()
		keys, err := encrypt.New(kek, store, &encrypt.Options{Index: index, Clock: func() time.Time { return now.Add(passed()) }})
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, keys.Close()) })
		before, err := encrypt.NewTable[indexed](keys, "people", nil)
		require.NoError(t, err)
		ctx := system()
		for i := range 12 {
			p := &indexed{ID: fmt.Sprint(i + 1), Mail: fmt.Sprintf("%d@example.com", i)}
			entries, err := before.Seal(ctx, "acme", p)
			require.NoError(t, err)
			_, err = db.Exec(`INSERT INTO people VALUES ($1, $2)`, i+1, p.MailSealed)
			require.NoError(t, err)
			require.NoError(t, index.Put(ctx, db, entries))
		}
		rows, err := encryptsql.NewRows(ctx, db, encryptsql.Layout{Table: "people", Record: "id", Sealed: map[string]string{"mail": "mail_sealed"}})
		require.NoError(t, err)
		table, err := encrypt.NewTable[plain](keys, "people", nil)
		require.NoError(t, err)
		left := func() (n int) {
			require.NoError(t, db.QueryRow(`SELECT COUNT(*) FROM crmguard_index`).Scan(&n))
			return n
		}
		for days.Load() < 92 {
			days.Add(1)
			_, err := table.MaintainIndex(ctx, "acme", rows, &encrypt.JobOptions{Batch: 5})
			require.NoError(t, err)
			if days.Load() == 89 {
				require.Equal(t, 24, left())
			}
		}
		require.Zero(t, left())
		for _, name := range []string{"email", "domain"} {
			records, err := store.Load(ctx, []encrypt.Scope{encrypt.IndexScope("acme", "people", "mail", name)})
			require.NoError(t, err)
			require.Len(t, records, 1, name)
			require.EqualValues(t, 2, records[0].Version, name)
		}
	})
}
