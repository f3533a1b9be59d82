package quotatest

import (
	"context"
	"fmt"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/internal/racetest"
	"github.com/crmguard/crmguard/quota"
)

// takeRace also has everybody ask for the same items, which must count once, and
// begins a day.
func takeRace(ctx context.Context, t require.TestingT, s quota.Store) {
	limit := quota.Limit{Counter: view.Counter, Hard: 20}
	mustTake(ctx, t, s, with(taking("x"), func(t *quota.Taking) { t.Day-- }))
	passed := 0
	for _, taken := range racetest.Run(t, func(n int) (quota.Taken, error) {
		return s.Take(ctx, with(taking("same", fmt.Sprint("own", n)), func(t *quota.Taking) { t.Limits = []quota.Limit{limit} }))
	}) {
		if taken.Refused == "" {
			passed++
		}
	}
	require.Equal(t, limit.Hard-1, passed)
	require.Equal(t, map[string]int{limit.Counter: limit.Hard, quota.AttemptsCounter: racetest.Racers - passed}, counts(ctx, t, s))
}

func thresholdRace(ctx context.Context, t require.TestingT, s quota.Store) {
	limits := []quota.Limit{{Counter: view.Counter, Soft: 10, Hard: 20}}
	tries := quota.Limit{Counter: quota.AttemptsCounter, Soft: 3, Hard: 9}
	fired := map[string]int{}
	for _, taken := range racetest.Run(t, func(n int) (quota.Taken, error) {
		return s.Take(ctx, with(taking(fmt.Sprint(n)), func(t *quota.Taking) { t.Limits, t.Attempts = limits, tries }))
	}) {
		for _, f := range taken.Fired {
			fired[f.Counter+" "+f.Level.String()]++
		}
	}
	require.Equal(t, map[string]int{
		view.Counter + " soft": 1, view.Counter + " hard": 1,
		quota.AttemptsCounter + " soft": 1, quota.AttemptsCounter + " hard": 1,
	}, fired)
}

// refusalRace has half of those who ask refused by the norm, and half by another
// check.
func refusalRace(ctx context.Context, t require.TestingT, s quota.Store) {
	limit := quota.Limit{Counter: quota.AttemptsCounter, Soft: 5, Hard: 2 * racetest.Racers / 3}
	fired := map[quota.Fired]int{}
	for _, taken := range racetest.Run(t, func(n int) (quota.Taken, error) {
		what := with(refused(), func(t *quota.Taking) { t.Attempts = limit })
		if n%2 == 0 {
			what.Items, what.Limits = []string{"a", "b", "c", "d", "e", "f"}, []quota.Limit{view}
		}
		return s.Take(ctx, what)
	}) {
		for _, f := range taken.Fired {
			if f.Counter == quota.AttemptsCounter {
				fired[f]++
			}
		}
	}
	require.Equal(t, map[quota.Fired]int{
		{Counter: quota.AttemptsCounter, Level: quota.Soft, Count: limit.Soft + 1}: 1,
		{Counter: quota.AttemptsCounter, Level: quota.Hard, Count: limit.Hard + 1}: 1,
	}, fired)
	require.Equal(t, map[string]int{quota.AttemptsCounter: racetest.Racers}, counts(ctx, t, s))
}

// returnRace has one act give back what it took, and what another one holds, many
// times.
func returnRace(ctx context.Context, t require.TestingT, s quota.Store) {
	mine := with(taking("a", "b"), func(t *quota.Taking) { t.Holder = 7 })
	mustTake(ctx, t, s, mine)
	mustTake(ctx, t, s, with(taking("c"), func(t *quota.Taking) { t.Holder = 8 }))
	mine.Items = append(mine.Items, "c")
	racetest.Run(t, func(int) (any, error) { return nil, s.Return(ctx, mine, nil) })
	require.Equal(t, map[string]int{view.Counter: 1}, counts(ctx, t, s))
}

// giveBackRace has holders who give back what they took and others who open it.
func giveBackRace(ctx context.Context, t require.TestingT, s quota.Store) {
	limits := []quota.Limit{{Counter: view.Counter, Hard: 1000}}
	racetest.Run(t, func(n int) (quota.Taken, error) {
		what := with(taking(fmt.Sprint("item", n%10)), func(t *quota.Taking) { t.Limits = limits })
		if n%2 == 0 {
			what.Items = []string{fmt.Sprint("item", n%20/2)} // each item has holders and openers
			return s.Take(ctx, what)
		}
		what.Holder = int64(n)
		taken, err := s.Take(ctx, what)
		if err != nil {
			return taken, err
		}
		return taken, s.Return(ctx, what, nil)
	})
	require.Equal(t, map[string]int{view.Counter: 10}, counts(ctx, t, s), "every item was opened by somebody")
}
