package encryptsql_test

import (
	"database/sql"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/encrypt/encryptsql"
	"github.com/crmguard/crmguard/internal/sqldb/sqldbtest"
)

func TestSummarize(t *testing.T) {
	sqldbtest.Each(t, func(t *testing.T, db *sql.DB) {
		ctx := t.Context()
		o := &encryptsql.Options{TablePrefix: "acme_"}
		_, err := encryptsql.Summarize(ctx, db, o)
		require.Error(t, err)
		require.Empty(t, tables(t, db), "nothing is made by looking")

		store, err := encryptsql.New(ctx, db, o)
		require.NoError(t, err)
		list, err := encryptsql.Summarize(ctx, db, o)
		require.NoError(t, err)
		require.Empty(t, list)

		at := func(day int) time.Time { return time.Date(2026, 3, day, 9, 0, 0, 0, time.UTC) }
		key := func(tenant string, purpose encrypt.Purpose, name string, version uint32, day int) encrypt.Record {
			return encrypt.Record{Scope: encrypt.Scope{Tenant: tenant, Purpose: purpose, Name: name}, Version: version,
				State: encrypt.Active, Wrapped: []byte("wrapped"), Messages: uint64(day), CreatedAt: at(day)} //nolint:gosec // small
		}
		for _, r := range []encrypt.Record{
			key("ёлка", encrypt.DataKey, "x", 1, 9),
			key("Zed", encrypt.DataKey, "x", 1, 9),
			key("acme", encrypt.TenantKeyset, "", 1, 1),
			key("acme", encrypt.DataKey, "", 1, 2),
			key("acme", encrypt.DataKey, "c1", 1, 3),
			key("acme", encrypt.DataKey, "c2", 1, 5),
			key("acme", encrypt.DataKey, "c2", 2, 6),
			key("acme", encrypt.DataKey, "c3", 1, 4),
			key("acme", encrypt.IndexKey, "8:contacts/phone", 1, 7),
		} {
			_, err := store.Insert(ctx, []encrypt.Record{r})
			require.NoError(t, err)
		}
		_, err = store.Advance(ctx, encrypt.Scope{Tenant: "acme", Purpose: encrypt.DataKey, Name: "c3"}, encrypt.Closing, at(8))
		require.NoError(t, err)

		list, err = encryptsql.Summarize(ctx, db, o)
		require.NoError(t, err)
		require.Equal(t, []encryptsql.Summary{
			{"Zed", encrypt.DataKey, true, 1, encrypt.Active, 1, at(9), at(9), 9},
			{"acme", encrypt.TenantKeyset, false, 1, encrypt.Active, 1, at(1), at(1), 1},
			{"acme", encrypt.DataKey, false, 1, encrypt.Active, 1, at(2), at(2), 2},
			{"acme", encrypt.DataKey, true, 1, encrypt.Active, 2, at(3), at(5), 5},
			{"acme", encrypt.DataKey, true, 1, encrypt.Closing, 1, at(4), at(4), 4},
			{"acme", encrypt.DataKey, true, 2, encrypt.Active, 1, at(6), at(6), 6},
			{"acme", encrypt.IndexKey, true, 1, encrypt.Active, 1, at(7), at(7), 7},
			{"ёлка", encrypt.DataKey, true, 1, encrypt.Active, 1, at(9), at(9), 9},
		}, list)

		for _, planted := range []string{"", "d", "x:c9"} {
			_, err = db.Exec(fmt.Sprintf(`INSERT INTO acme_keys VALUES ('acme', '%s', 1, 1, NULL, NULL, 0, 0, 0, 0)`, planted))
			require.NoError(t, err)
			_, err = encryptsql.Summarize(ctx, db, o)
			require.ErrorContains(t, err, "not the name of a key", "%q", planted)
			_, err = db.Exec(`DELETE FROM acme_keys WHERE name = $1`, planted)
			require.NoError(t, err)
		}
	})
}

func tables(t *testing.T, db *sql.DB) (names []string) {
	t.Helper()
	for _, query := range []string{
		`SELECT name FROM sqlite_master`,
		`SELECT tablename FROM pg_tables WHERE schemaname = current_schema()`,
	} {
		rows, err := db.Query(query)
		if err != nil {
			continue // the other database
		}
		for rows.Next() {
			var name string
			require.NoError(t, rows.Scan(&name))
			names = append(names, name)
		}
		require.NoError(t, rows.Err())
	}
	return names
}
