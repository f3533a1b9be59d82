package rbacsql_test

import (
	"database/sql"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/internal/sqldb/sqldbtest"
	"github.com/crmguard/crmguard/rbac"
)

// A grant that ends is a row like others in the table, is a version, ends in every
// process by itself, and is taken by Revoke.
func TestGrantsThatEndInTheTable(t *testing.T) {
	sqldbtest.Each(t, func(t *testing.T, db *sql.DB) {
		a := open(t, db, nil, rbac.StarterPolicy())
		var now atomic.Int64
		now.Store(time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC).Unix())
		o := quiet()
		o.Clock = func() time.Time { return time.Unix(now.Load(), 0) }
		one, err := rbac.New(t.Context(), a, o)
		require.NoError(t, err)
		job := crmguard.System(t.Context(), "default", "deputies")
		end := time.Date(2026, 12, 31, 18, 0, 0, 0, time.UTC)
		require.NoError(t, one.GrantRoleUntil(job, "default", "boris", "head", end))
		require.NoError(t, one.GrantRoleUntil(job, "default", "vera", "head", end))
		require.Contains(t, rules(t, a), "p2 u:boris role:head default 2026-12-31T18:00:00Z")
		two, err := rbac.New(t.Context(), a, o)
		require.NoError(t, err)
		require.Equal(t, one.Version(), two.Version())
		got, err := one.Revoke(job, "default", "vera")
		require.NoError(t, err)
		require.Equal(t, 1, got.Count)
		version := two.Version()
		for _, test := range []struct {
			at   time.Time
			want []string
		}{{end.Add(-time.Second), []string{"head", "seller"}}, {end, nil}} {
			now.Store(test.at.Unix())
			roles, _, err := two.Resolve(job, "default", "boris")
			require.NoError(t, err)
			require.Equal(t, test.want, roles)
		}
		require.Equal(t, version, two.Version())
	})
}
