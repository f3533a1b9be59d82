package quota_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/quota"
	"github.com/crmguard/crmguard/quota/quotatest"
)

func TestMemory(t *testing.T) {
	quotatest.Run(t, func(*testing.T) quota.Store { return quota.NewMemory() })
}

// New people come every day and never again. The memory holds some days of them,
// not all.
func TestMemoryForgetsOldDays(t *testing.T) {
	m := quota.NewMemory()
	const perDay, days = 200, 60
	for day := range quota.Day(days) {
		for n := range perDay {
			_, err := m.Take(t.Context(), quota.Taking{
				Tenant: "acme", Person: fmt.Sprint(int(day), "-", n), Day: day, Items: []string{"c1"},
				Limits: []quota.Limit{{Counter: "x", Hard: 1}}, Attempts: quota.Limit{Counter: quota.AttemptsCounter},
			})
			require.NoError(t, err)
		}
		require.LessOrEqual(t, m.People(), 4*perDay)
	}
	r, err := m.Read(t.Context(), "acme", fmt.Sprint(days-1, "-0"), days-1)
	require.NoError(t, err)
	require.Equal(t, 1, r.Counters["x"].N)
}
