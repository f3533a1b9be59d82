package sqldb_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/internal/sqldb"
	"github.com/crmguard/crmguard/internal/sqldb/sqldbtest"
)

// PostgreSQL reads back what was put into an array, whatever it is.
func TestArray(t *testing.T) {
	db := sqldbtest.Postgres(t)
	texts := []string{"", "a", "NULL", "null", " ", "\t\n", `"`, `\`, `\"`, `a"b\c`, `\\""`, "{", "}", ",", "{},", "'", "$1", "Ж…🔒", `\x00`}
	for n := range len(texts) + 1 {
		var text, number sqldb.Array
		for i, s := range texts[:n] {
			text.Text(s)
			number.Number(int64(i - 3))
		}
		rows, err := db.Query(`SELECT t, n FROM unnest($1::TEXT[], $2::BIGINT[]) WITH ORDINALITY AS a (t, n, i) ORDER BY i`, text.String(), number.String())
		require.NoError(t, err)
		i := 0
		for ; rows.Next(); i++ {
			var s string
			var k int
			require.NoError(t, rows.Scan(&s, &k))
			require.Equal(t, texts[i], s)
			require.Equal(t, i-3, k)
		}
		require.NoError(t, rows.Err())
		require.NoError(t, rows.Close())
		require.Equal(t, n, i)
	}
}
