package encryptsql_test

import (
	"crypto/rand"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/encrypt/encryptsql"
	"github.com/crmguard/crmguard/internal/sqldb/sqldbtest"
)

// BenchmarkReencrypt seals 5,000 people anew on PostgreSQL, each under a key of its own, with the keys in
// a SQLite file as they would be, and compares that with UPDATEs of the same size, row by row in
// transactions of as many rows.
func BenchmarkReencrypt(b *testing.B) {
	const n, batch = 5000, 500
	db := sqldbtest.Postgres(b)
	keys, err := encryptsql.OpenSQLite(b.Context(), filepath.Join(b.TempDir(), "keys", "keys.db"), true)
	require.NoError(b, err)
	b.Cleanup(func() { require.NoError(b, keys.Close()) })
	c, err := openCRM(b.Context(), db, keys, filepath.Join(b.TempDir(), "kek.json"))
	require.NoError(b, err)
	c.fill(b, n, true)
	rate := func(b *testing.B) { b.ReportMetric(float64(n*b.N)/b.Elapsed().Seconds(), "rows/s") }

	b.Run("plain UPDATEs", func(b *testing.B) {
		for b.Loop() {
			for from := 0; from < n; from += batch {
				tx, err := db.Begin()
				require.NoError(b, err)
				statement, err := tx.Prepare(`UPDATE people SET phone_sealed = $1 WHERE tenant = 'acme' AND id = $2`)
				require.NoError(b, err)
				for i := from; i < from+batch; i++ {
					value := make([]byte, 53)
					_, _ = rand.Read(value)
					_, err := statement.Exec(value, personID(i))
					require.NoError(b, err)
				}
				require.NoError(b, tx.Commit())
			}
		}
		rate(b)
	})
	b.Run("one UPDATE for all rows of a batch", func(b *testing.B) {
		for b.Loop() {
			for from := 0; from < n; from += batch {
				values := make([]string, batch)
				args := make([]any, 0, 2*batch)
				for i := range values {
					value := make([]byte, 53)
					_, _ = rand.Read(value)
					values[i] = fmt.Sprintf(`($%d, CAST($%d AS bytea))`, 2*i+1, 2*i+2)
					args = append(args, personID(from+i), value)
				}
				_, err := db.Exec(`UPDATE people SET phone_sealed = v.value FROM (VALUES `+strings.Join(values, `, `)+`) AS v (id, value)
					WHERE tenant = 'acme' AND people.id = v.id`, args...)
				require.NoError(b, err)
			}
		}
		rate(b)
	})
	_, err = db.Exec(`DELETE FROM people`)
	require.NoError(b, err)
	c.fill(b, n, true)
	b.Run("Reencrypt", func(b *testing.B) {
		for b.Loop() {
			b.StopTimer()
			for i := range n {
				_, err := c.keys.Rotate(system(), personScope(i))
				require.NoError(b, err)
			}
			b.StartTimer()
			report, err := c.table.Reencrypt(system(), "acme", c.rows, nil)
			require.NoError(b, err)
			require.Equal(b, n, report.Changed)
		}
		rate(b)
	})
}
