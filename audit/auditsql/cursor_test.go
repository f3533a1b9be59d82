package auditsql_test

import (
	"database/sql"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/audit/auditout"
	"github.com/crmguard/crmguard/audit/auditsql"
	"github.com/crmguard/crmguard/internal/sqldb/sqldbtest"
)

func TestCursor(t *testing.T) {
	sqldbtest.Each(t, func(t *testing.T, db *sql.DB) {
		var c auditout.Cursor
		c, err := auditsql.NewCursor(t.Context(), db, "siem", nil)
		require.NoError(t, err)
		other, err := auditsql.NewCursor(t.Context(), db, "files", nil)
		require.NoError(t, err)
		at := func(c auditout.Cursor) (first byte, seq int64) {
			log, seq, err := c.Load(t.Context())
			require.NoError(t, err)
			return log[0], seq
		}
		check := func(wantLog byte, wantSeq int64) {
			t.Helper()
			log, seq := at(c)
			require.Equal(t, wantLog, log)
			require.Equal(t, wantSeq, seq)
		}
		check(0, -1)
		require.NoError(t, c.Save(t.Context(), [16]byte{1}, 7))
		check(1, 7)
		require.NoError(t, c.Save(t.Context(), [16]byte{1}, 5))
		check(1, 7) // it does not go back
		require.NoError(t, c.Save(t.Context(), [16]byte{1}, 8))
		check(1, 8)
		require.NoError(t, c.Save(t.Context(), [16]byte{2}, 0))
		check(2, 0) // another log begins anew
		_, seq := at(other)
		require.EqualValues(t, -1, seq)

		_, err = db.Exec(`UPDATE crmguard_audit_cursors SET seq = -3`)
		require.NoError(t, err)
		_, _, err = c.Load(t.Context())
		require.ErrorContains(t, err, "was changed")
		for _, name := range []string{"", strings.Repeat("x", 101)} {
			_, err = auditsql.NewCursor(t.Context(), db, name, nil)
			require.Error(t, err)
		}
	})
}
