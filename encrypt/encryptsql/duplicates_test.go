package encryptsql_test

import (
	"database/sql"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/encrypt/encryptsql"
	"github.com/crmguard/crmguard/internal/sqldb/sqldbtest"
)

// The transaction that a duplicate spoils is made again without it, in a real database too.
func TestReindexOverDuplicates(t *testing.T) {
	type person struct {
		ID         string `encrypt:",record"`
		Mail       string `encrypt:"mail,index=email:unique"`
		MailSealed []byte `encrypt:"mail,sealed"`
	}
	sqldbtest.Each(t, func(t *testing.T, db *sql.DB) {
		_, err := db.Exec(`CREATE TABLE people (id BIGINT PRIMARY KEY, mail_sealed BYTEA)`)
		require.NoError(t, err)
		index, err := encryptsql.NewIndex(t.Context(), db, nil)
		require.NoError(t, err)
		kek, err := encrypt.OpenKeyFile(t.TempDir()+"/kek.json", "", true)
		require.NoError(t, err)
		keys, err := encrypt.New(kek, encrypt.NewMemory(), &encrypt.Options{Index: index})
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, keys.Close()) })
		table, err := encrypt.NewTable[person](keys, "people", nil)
		require.NoError(t, err)
		ctx := crmguard.System(t.Context(), "acme", "reindex")
		for i := range 12 {
			p := &person{ID: fmt.Sprint(i + 1), Mail: fmt.Sprintf("%d@example.com", i%5)}
			_, err := table.Seal(ctx, "acme", p)
			require.NoError(t, err)
			_, err = db.Exec(`INSERT INTO people VALUES ($1, $2)`, i+1, p.MailSealed)
			require.NoError(t, err)
		}
		rows, err := encryptsql.NewRows(ctx, db, encryptsql.Layout{Table: "people", Record: "id", Sealed: map[string]string{"mail": "mail_sealed"}})
		require.NoError(t, err)
		for range 2 {
			report, err := table.Reindex(ctx, "acme", rows, &encrypt.JobOptions{Batch: 4})
			require.NoError(t, err)
			require.Equal(t, 12, report.Changed)
			require.Len(t, report.Findings, 7)
			require.ErrorIs(t, report.Findings[0], encrypt.ErrDuplicate)
			found, err := table.Find(ctx, "acme", "mail", "email", "1@example.com")
			require.NoError(t, err)
			require.Equal(t, []string{"12", "2", "7"}, found)
		}
	})
}
