package rbacsql_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/internal/sqldb/sqldbtest"
	"github.com/crmguard/crmguard/rbac"
)

// sellers gives so many people a role, as one version.
func sellers(n int) [][]string {
	rules := make([][]string, n)
	for i := range rules {
		rules[i] = []string{fmt.Sprintf("u:p%d", i), "role:seller", "default"}
	}
	return rules
}

func BenchmarkLoad(b *testing.B) {
	for _, n := range []int{100, 10_000, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			a := open(b, sqldbtest.SQLite(b), nil, rbac.StarterPolicy())
			require.NoError(b, a.AddPolicies("g", "g", sellers(n)))
			for b.Loop() {
				_, err := a.Load(b.Context())
				require.NoError(b, err)
			}
		})
	}
}

func BenchmarkHead(b *testing.B) {
	a := open(b, sqldbtest.SQLite(b), nil, rbac.StarterPolicy())
	for b.Loop() {
		_, err := a.Head(b.Context())
		require.NoError(b, err)
	}
}

func BenchmarkGrantRole(b *testing.B) {
	for _, n := range []int{100, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			a := open(b, sqldbtest.SQLite(b), nil, rbac.StarterPolicy())
			require.NoError(b, a.AddPolicies("g", "g", sellers(n)))
			e, err := rbac.New(b.Context(), a, quiet())
			require.NoError(b, err)
			job := crmguard.System(b.Context(), "default", "bench")
			i := 0
			for b.Loop() {
				i++
				require.NoError(b, e.GrantRole(job, "default", fmt.Sprintf("new%d", i), "seller"))
			}
		})
	}
}

// Watched decisions ask the clock too; neither allocates.
func BenchmarkCheck(b *testing.B) {
	for _, watched := range []bool{false, true} {
		b.Run(fmt.Sprintf("watched=%v", watched), func(b *testing.B) {
			e := watchedEngine(b, watched)
			s, contacts := employee("default", "p7"), crmguard.Resource{Tenant: "default", Kind: "contacts"}
			b.ReportAllocs()
			for b.Loop() {
				if err := e.Check(b.Context(), s, crmguard.List, contacts); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func watchedEngine(tb testing.TB, watched bool) *rbac.Engine {
	tb.Helper()
	a := open(tb, sqldbtest.SQLite(tb), nil, rbac.StarterPolicy())
	require.NoError(tb, a.AddPolicies("g", "g", sellers(100)))
	e, err := rbac.New(tb.Context(), a, quiet())
	require.NoError(tb, err)
	if watched {
		ctx, cancel := context.WithCancel(tb.Context())
		done := make(chan error)
		began := e.Status().Looked
		go func() { done <- e.Watch(ctx, &rbac.WatchOptions{Every: 24 * time.Hour, MaxAge: 48 * time.Hour}) }()
		tb.Cleanup(func() { cancel(); require.NoError(tb, <-done) })
		require.Eventually(tb, func() bool { return e.Status().Looked.After(began) }, moment, time.Millisecond)
	}
	return e
}

func TestWatchedChecksAllocateNothing(t *testing.T) {
	e := watchedEngine(t, true)
	s, contacts := employee("default", "p7"), crmguard.Resource{Tenant: "default", Kind: "contacts"}
	require.Zero(t, testing.AllocsPerRun(1000, func() {
		if err := e.Check(context.Background(), s, crmguard.List, contacts); err != nil {
			t.Fatal(err)
		}
	}))
}
