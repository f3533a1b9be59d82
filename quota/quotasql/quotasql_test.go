package quotasql_test

import (
	"context"
	"database/sql"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/internal/sqldb/sqldbtest"
	"github.com/crmguard/crmguard/quota"
	"github.com/crmguard/crmguard/quota/quotasql"
	"github.com/crmguard/crmguard/quota/quotatest"
)

func open(t *testing.T, db *sql.DB, o *quotasql.Options) *quotasql.Store {
	t.Helper()
	s, err := quotasql.New(t.Context(), db, o)
	require.NoError(t, err)
	return s
}

func TestStore(t *testing.T) {
	t.Run("sqlite", func(t *testing.T) {
		quotatest.Run(t, func(t *testing.T) quota.Store { return open(t, sqldbtest.SQLite(t), nil) })
	})
	t.Run("postgres", func(t *testing.T) {
		quotatest.Run(t, func(t *testing.T) quota.Store { return open(t, sqldbtest.Postgres(t), nil) })
	})
}

const today quota.Day = 20_500

func taking(items ...string) quota.Taking {
	return quota.Taking{
		Tenant: "acme", Person: "anna", Day: today, Items: items,
		Limits:   []quota.Limit{{Counter: "records view contacts", Soft: 1, Hard: 3}},
		Attempts: quota.Limit{Counter: quota.AttemptsCounter},
	}
}

func mustTake(t *testing.T, s quota.Store, what quota.Taking) {
	t.Helper()
	taken, err := s.Take(t.Context(), what)
	require.NoError(t, err)
	require.Empty(t, taken.Refused)
}

func scan[T any](t *testing.T, db *sql.DB, query string) (value T) {
	t.Helper()
	require.NoError(t, db.QueryRow(query).Scan(&value))
	return value
}

// What docs/formats/quota.md specifies.
func TestRows(t *testing.T) {
	sqldbtest.Each(t, func(t *testing.T, db *sql.DB) {
		s := open(t, db, nil)
		mustTake(t, s, taking("c1"))
		held := taking("c2", "c3")
		held.Holder = 9
		mustTake(t, s, held)
		_, err := s.Take(t.Context(), taking("c4"))
		require.NoError(t, err)
		var got strings.Builder
		for _, query := range []string{
			`SELECT 'day', tenant, CAST(day AS TEXT), '', '', '', '' FROM crmguard_quota_days`,
			`SELECT 'count', tenant, CAST(day AS TEXT), person, counter, CAST(n AS TEXT), CAST(fired AS TEXT) FROM crmguard_quota_counts ORDER BY counter`,
			`SELECT 'item', tenant, CAST(day AS TEXT), person, counter, item, CAST(holder AS TEXT) FROM crmguard_quota_items ORDER BY item`,
		} {
			rows, err := db.Query(query)
			require.NoError(t, err)
			for rows.Next() {
				var f [7]string
				require.NoError(t, rows.Scan(&f[0], &f[1], &f[2], &f[3], &f[4], &f[5], &f[6]))
				got.WriteString(strings.TrimRight(strings.Join(f[:], "|"), "|") + "\n")
			}
			require.NoError(t, rows.Err())
		}
		want, err := os.ReadFile("testdata/v1.txt")
		require.NoError(t, err)
		require.Equal(t, string(want), got.String())
	})
}

// Rows of days that are over go, in steps, and those of other tenants stay.
func TestOldDaysAreSwept(t *testing.T) {
	sqldbtest.Each(t, func(t *testing.T, db *sql.DB) {
		s := open(t, db, &quotasql.Options{TablePrefix: "acme_"})
		const items = `SELECT COUNT(*) FROM acme_quota_items WHERE tenant = 'acme'`
		many := taking()
		for i := range 3*quota.SweepRows + 7 {
			many.Items = append(many.Items, "old"+strconv.Itoa(i))
		}
		many.Limits[0].Hard = quota.MaxHard
		many.Day -= 2
		mustTake(t, s, many)
		many.Tenant = "other"
		mustTake(t, s, many)
		left := scan[int](t, db, items)
		for i := 0; left > i; i++ {
			one := taking("new" + strconv.Itoa(i))
			one.Person = "person" + strconv.Itoa(i)
			mustTake(t, s, one)
			now := scan[int](t, db, items)
			require.LessOrEqual(t, left-now, quota.SweepRows+2, "a bounded number at a time")
			require.Less(t, i, 5)
			if left = now; left == i+1 {
				break
			}
		}
		require.Zero(t, scan[int](t, db, `SELECT COUNT(*) FROM acme_quota_counts WHERE tenant = 'acme' AND day < 20500`))
		require.Equal(t, 3*quota.SweepRows+7, scan[int](t, db, `SELECT COUNT(*) FROM acme_quota_items WHERE tenant = 'other'`))
	})
}

// A client who hangs up is counted, or is not let through.
func TestHangingUp(t *testing.T) {
	sqldbtest.Each(t, func(t *testing.T, db *sql.DB) {
		s := open(t, db, nil)
		ctx, hangUp := context.WithCancel(t.Context())
		hangUp()
		_, err := s.Take(ctx, taking("c1"))
		require.ErrorIs(t, err, context.Canceled)
		require.Error(t, s.Return(ctx, taking("c1"), nil))
		require.Zero(t, scan[int](t, db, `SELECT COUNT(*) FROM crmguard_quota_items`))
	})
}

// What cannot be read stops, and is not taken for nothing.
func TestBrokenRowsOpenNothing(t *testing.T) {
	for name, broken := range map[string]string{
		"count":     `UPDATE crmguard_quota_counts SET n = 'x' WHERE counter <> 'attempts'`,
		"attempts":  `UPDATE crmguard_quota_counts SET n = 'x' WHERE counter = 'attempts'`,
		"threshold": `UPDATE crmguard_quota_counts SET fired = 1000`,
		"day":       `UPDATE crmguard_quota_days SET day = 'x'`,
		"far day":   `UPDATE crmguard_quota_days SET day = 99999999999`,
		"holder":    `UPDATE crmguard_quota_items SET holder = 'x'`,
		"no table":  `DROP TABLE crmguard_quota_items`,
	} {
		t.Run(name, func(t *testing.T) {
			db := sqldbtest.SQLite(t) // keeps values of any type
			s := open(t, db, nil)
			mustTake(t, s, taking("c1"))
			_, err := db.Exec(broken)
			require.NoError(t, err)
			_, err = s.Take(t.Context(), taking("c1", "c2"))
			require.ErrorContains(t, err, "quotasql: ")
		})
	}
	t.Run("closed", func(t *testing.T) {
		sqldbtest.Each(t, func(t *testing.T, db *sql.DB) {
			s := open(t, db, nil)
			require.NoError(t, db.Close())
			_, err := s.Take(t.Context(), taking("c1"))
			require.ErrorContains(t, err, "quotasql: take: ")
			require.ErrorContains(t, s.Return(t.Context(), taking("c1"), nil), "quotasql: return: ")
			_, err = s.Read(t.Context(), "acme", "anna", today)
			require.ErrorContains(t, err, "quotasql: read: ")
			_, err = quotasql.New(t.Context(), db, nil)
			require.ErrorContains(t, err, "quotasql: ")
		})
	})
}

// Names that PostgreSQL cannot keep are refused there, and no statement is built of
// any.
func TestNames(t *testing.T) {
	sqldbtest.Each(t, func(t *testing.T, db *sql.DB) {
		s := open(t, db, nil)
		mustTake(t, s, taking("c1'); DROP TABLE crmguard_quota_items; --", `"`, "Ä"))
		require.Equal(t, 3, scan[int](t, db, `SELECT COUNT(*) FROM crmguard_quota_items`))
		for _, odd := range []string{"a\x00b", "a\xff"} {
			what := taking("c9")
			what.Person = odd
			if _, err := s.Take(t.Context(), what); err == nil {
				_, err = s.Take(t.Context(), what)
				require.NoError(t, err)
				r, err := s.Read(t.Context(), "acme", odd, today)
				require.NoError(t, err)
				require.Equal(t, 1, r.Counters["records view contacts"].N, "what is kept is found again")
			}
		}
	})
}

func BenchmarkTake(b *testing.B) {
	for name, db := range map[string]func(testing.TB) *sql.DB{"sqlite": sqldbtest.SQLite, "postgres": sqldbtest.Postgres} {
		b.Run(name, func(b *testing.B) {
			s, err := quotasql.New(b.Context(), db(b), nil)
			require.NoError(b, err)
			what := taking("")
			what.Limits[0].Hard = quota.MaxHard
			for _, tt := range []struct {
				name string
				item func(n int) string
			}{{"new", strconv.Itoa}, {"seen", func(int) string { return "0" }}} {
				b.Run(tt.name, func(b *testing.B) {
					n := 0
					for b.Loop() {
						what.Items[0] = tt.item(n)
						n++
						if _, err := s.Take(b.Context(), what); err != nil {
							b.Fatal(err)
						}
					}
				})
			}
		})
	}
}
