// Package quotatest tells whether a quota.Store keeps to its contract.
//
//	func TestStore(t *testing.T) {
//		quotatest.Run(t, func(t *testing.T) quota.Store { return mystore.New(…) })
//	}
package quotatest

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/quota"
)

// Run tests stores that open returns empty, one for each rule.
func Run(t *testing.T, open func(t *testing.T) quota.Store) {
	for _, r := range rules {
		t.Run(r.name, func(t *testing.T) { r.check(t.Context(), t, open(t)) })
	}
}

// A rule fails t when the store breaks it.
type rule struct {
	name  string
	check func(ctx context.Context, t require.TestingT, s quota.Store)
}

var rules = []rule{
	{"nothing is counted yet", nothing},
	{"distinct items count, and what was seen is free", distinctItems},
	{"a batch is taken whole or not at all", batches},
	{"all limits have room or none is used", allLimits},
	{"without items each limit counts one", queries},
	{"refusals count as attempts, and end in nothing new", attempts},
	{"a refusal by another check is an attempt and nothing else", refusals},
	{"each threshold passes once", thresholds},
	{"asking takes nothing", asking},
	{"a later day begins empty", laterDay},
	{"a tenant's day never goes backwards, for nobody", dayBack},
	{"persons, tenants and counters are apart", apart},
	{"a holder gives back what nobody else has asked for", giveBack},
	{"a threshold can be armed again", rearm},
	{"many items are counted like few", large},
	{"of many that ask at once, as many pass as there is room", takeRace},
	{"of many that pass a threshold at once, one tells", thresholdRace},
	{"of many refusals at once, each counts and each threshold tells once", refusalRace},
	{"of many that give back the same, one does", returnRace},
	{"nothing is given back that somebody has opened meanwhile", giveBackRace},
}

const today quota.Day = 20_500

var (
	view   = quota.Limit{Counter: "records view contacts", Soft: 3, Hard: 5}
	reveal = quota.Limit{Counter: "records reveal contacts", Hard: 2}
	tries  = quota.Limit{Counter: quota.AttemptsCounter, Soft: 2, Hard: 4}
	plenty = quota.Limit{Counter: quota.AttemptsCounter, Hard: quota.MaxHard}
)

// by anna of acme, of today, toward view.
func taking(items ...string) quota.Taking {
	return quota.Taking{Tenant: "acme", Person: "anna", Day: today, Items: items, Limits: []quota.Limit{view}, Attempts: plenty}
}

func with(t quota.Taking, change func(t *quota.Taking)) quota.Taking {
	change(&t)
	return t
}

func take(ctx context.Context, t require.TestingT, s quota.Store, what quota.Taking) quota.Taken {
	taken, err := s.Take(ctx, what)
	require.NoError(t, err)
	return taken
}

func mustTake(ctx context.Context, t require.TestingT, s quota.Store, what quota.Taking) {
	require.Empty(t, take(ctx, t, s, what).Refused, "%v", what.Items)
}

func mustRefuse(ctx context.Context, t require.TestingT, s quota.Store, what quota.Taking) {
	require.NotEmpty(t, take(ctx, t, s, what).Refused, "%v", what.Items)
}

// counts reads what anna's counters show today, without thresholds.
func counts(ctx context.Context, t require.TestingT, s quota.Store) map[string]int {
	return countsOf(ctx, t, s, "acme", "anna")
}

func countsOf(ctx context.Context, t require.TestingT, s quota.Store, tenant, person string) map[string]int {
	r, err := s.Read(ctx, tenant, person, today)
	require.NoError(t, err)
	n := map[string]int{}
	for name, c := range r.Counters {
		if c.N != 0 {
			n[name] = c.N
		}
	}
	return n
}

func nothing(ctx context.Context, t require.TestingT, s quota.Store) {
	r, err := s.Read(ctx, "acme", "anna", today)
	require.NoError(t, err)
	require.Equal(t, quota.Reading{Day: today, Counters: map[string]quota.Count{}}, r)
	require.NoError(t, s.Return(ctx, with(taking("a"), func(t *quota.Taking) { t.Holder = 1 }), nil))
	require.Empty(t, counts(ctx, t, s))
}

func distinctItems(ctx context.Context, t require.TestingT, s quota.Store) {
	for range 3 {
		for _, item := range []string{"a", "b", "Ä", "c", " c"} {
			require.Equal(t, today, take(ctx, t, s, taking(item)).Day)
		}
	}
	require.Equal(t, map[string]int{view.Counter: 5}, counts(ctx, t, s))
	require.Equal(t, view.Counter, take(ctx, t, s, taking("d")).Refused)
	require.Equal(t, view.Counter, take(ctx, t, s, taking("A")).Refused, "another letter is another item")
	mustTake(ctx, t, s, taking("a", "b"))
}

func batches(ctx context.Context, t require.TestingT, s quota.Store) {
	mustTake(ctx, t, s, taking("a", "b", "c"))
	mustRefuse(ctx, t, s, taking("a", "d", "e", "f"))
	require.Equal(t, 3, counts(ctx, t, s)[view.Counter])
	mustTake(ctx, t, s, taking("c", "d", "e"))
	require.Equal(t, 5, counts(ctx, t, s)[view.Counter])
	mustRefuse(ctx, t, s, taking("a", "f"))
	mustTake(ctx, t, s, taking("e", "d", "c", "b", "a"))
}

func allLimits(ctx context.Context, t require.TestingT, s quota.Store) {
	both := func(items ...string) quota.Taking {
		return with(taking(items...), func(t *quota.Taking) { t.Limits = []quota.Limit{view, reveal} })
	}
	mustTake(ctx, t, s, taking("a", "b"))
	mustTake(ctx, t, s, both("a", "b")) // seen for one, new for the other
	require.Equal(t, map[string]int{view.Counter: 2, reveal.Counter: 2}, counts(ctx, t, s))
	require.Equal(t, reveal.Counter, take(ctx, t, s, both("c")).Refused)
	require.Equal(t, 2, counts(ctx, t, s)[view.Counter], "no limit counts what another refused")
	mustTake(ctx, t, s, taking("c"))
	mustRefuse(ctx, t, s, both("c"))
	mustTake(ctx, t, s, both("b"))
}

func queries(ctx context.Context, t require.TestingT, s quota.Store) {
	search := quota.Limit{Counter: "queries search contacts", Hard: 3}
	query := with(taking(), func(t *quota.Taking) { t.Limits = []quota.Limit{search} })
	for range search.Hard {
		mustTake(ctx, t, s, query)
	}
	require.Equal(t, search.Counter, take(ctx, t, s, query).Refused)
	require.Equal(t, map[string]int{search.Counter: 3, quota.AttemptsCounter: 1}, counts(ctx, t, s))
}

func attempts(ctx context.Context, t require.TestingT, s quota.Store) {
	limited := func(items ...string) quota.Taking {
		return with(taking(items...), func(t *quota.Taking) { t.Attempts = tries })
	}
	mustTake(ctx, t, s, limited("a", "b", "c", "d", "e"))
	for range tries.Hard {
		require.Equal(t, view.Counter, take(ctx, t, s, limited("f")).Refused)
	}
	other := with(limited("x"), func(t *quota.Taking) { t.Limits = []quota.Limit{reveal} })
	require.Equal(t, quota.AttemptsCounter, take(ctx, t, s, other).Refused, "there would be room")
	require.Equal(t, quota.AttemptsCounter, take(ctx, t, s, with(other, func(t *quota.Taking) { t.Items = nil })).Refused)
	mustTake(ctx, t, s, limited("a", "e"))
	require.Equal(t, map[string]int{view.Counter: 5, quota.AttemptsCounter: tries.Hard + 2}, counts(ctx, t, s))
	other.Attempts.Hard = 0
	mustTake(ctx, t, s, other) // attempts without a norm stop nothing
}

// refused is a refusal of anna by another check.
func refused() quota.Taking {
	return quota.Taking{Tenant: "acme", Person: "anna", Day: today, Attempts: tries}
}

func refusals(ctx context.Context, t require.TestingT, s quota.Store) {
	limited := func(items ...string) quota.Taking {
		return with(taking(items...), func(t *quota.Taking) { t.Attempts = tries })
	}
	mustTake(ctx, t, s, with(refused(), func(t *quota.Taking) { t.Day-- }))
	mustTake(ctx, t, s, limited("a"))
	var fired []quota.Fired
	for range tries.Hard {
		taken := take(ctx, t, s, refused())
		require.Equal(t, quota.Taken{Day: today, Fired: taken.Fired}, taken)
		fired = append(fired, taken.Fired...)
	}
	mustTake(ctx, t, s, limited("a"))
	require.Equal(t, quota.AttemptsCounter, take(ctx, t, s, with(limited("b"), func(t *quota.Taking) { t.Ask = true })).Refused)
	taken := take(ctx, t, s, refused())
	require.Empty(t, taken.Refused, "it refuses nothing itself")
	require.Equal(t, []quota.Fired{{Counter: quota.AttemptsCounter, Level: quota.Soft, Count: 3}}, fired)
	require.Equal(t, map[string]int{view.Counter: 1, quota.AttemptsCounter: tries.Hard + 2}, counts(ctx, t, s))
	require.Empty(t, countsOf(ctx, t, s, "acme", "boris"))
	require.Empty(t, countsOf(ctx, t, s, "other", "anna"))
	mustTake(ctx, t, s, with(limited("b"), func(t *quota.Taking) { t.Day++ }))
	mustTake(ctx, t, s, with(refused(), func(t *quota.Taking) { t.Attempts.Soft, t.Attempts.Hard = 0, 0 })) // counted without a norm, too
	r, err := s.Read(ctx, "acme", "anna", today)
	require.NoError(t, err)
	require.Equal(t, quota.Reading{Day: today + 1, Counters: map[string]quota.Count{view.Counter: {N: 1}, quota.AttemptsCounter: {N: 1}}}, r, "in the tenant's day")
}

func thresholds(ctx context.Context, t require.TestingT, s quota.Store) {
	limited := func(items ...string) quota.Taking {
		return with(taking(items...), func(t *quota.Taking) { t.Attempts = tries })
	}
	var fired []quota.Fired
	for _, items := range [][]string{{"a"}, {"b", "c"}, {"a", "b", "c"}, {"d", "e"}, {"e"}, {"f", "g"}, {"f"}, {"g"}, {"h"}, {"i"}, {"j"}, {"a"}} {
		fired = append(fired, take(ctx, t, s, limited(items...)).Fired...)
	}
	require.Equal(t, []quota.Fired{
		{Counter: view.Counter, Level: quota.Soft, Count: 5},          // d, e
		{Counter: view.Counter, Level: quota.Hard, Count: 7},          // f, g
		{Counter: quota.AttemptsCounter, Level: quota.Soft, Count: 3}, // g
		{Counter: quota.AttemptsCounter, Level: quota.Hard, Count: 5}, // i
	}, fired)
	r, err := s.Read(ctx, "acme", "anna", today)
	require.NoError(t, err)
	require.Equal(t, map[string]quota.Count{
		view.Counter:          {N: 5, Fired: quota.Soft | quota.Hard},
		quota.AttemptsCounter: {N: 6, Fired: quota.Soft | quota.Hard},
	}, r.Counters)
}

func asking(ctx context.Context, t require.TestingT, s quota.Store) {
	ask := func(items ...string) quota.Taking {
		return with(taking(items...), func(t *quota.Taking) { t.Ask = true })
	}
	mustTake(ctx, t, s, ask("a", "b", "c", "d", "e"))
	require.Empty(t, counts(ctx, t, s))
	mustTake(ctx, t, s, taking("a", "b", "c", "d", "e"))
	mustTake(ctx, t, s, ask("e"))
	require.Equal(t, []quota.Fired{{Counter: view.Counter, Level: quota.Hard, Count: 6}}, take(ctx, t, s, ask("f")).Fired)
	mustRefuse(ctx, t, s, taking("f"))
	require.Equal(t, map[string]int{view.Counter: 5, quota.AttemptsCounter: 2}, counts(ctx, t, s))
}

func laterDay(ctx context.Context, t require.TestingT, s quota.Store) {
	yesterday := func(items ...string) quota.Taking {
		return with(taking(items...), func(t *quota.Taking) { t.Day-- })
	}
	mustTake(ctx, t, s, yesterday("a", "b", "c", "d", "e"))
	mustRefuse(ctx, t, s, yesterday("f"))
	require.Empty(t, counts(ctx, t, s))
	taken := take(ctx, t, s, taking("a", "b", "c", "f"))
	require.Empty(t, taken.Refused)
	require.Equal(t, []quota.Fired{{Counter: view.Counter, Level: quota.Soft, Count: 4}}, taken.Fired, "thresholds begin anew")
	require.Equal(t, map[string]int{view.Counter: 4}, counts(ctx, t, s))
}

func dayBack(ctx context.Context, t require.TestingT, s quota.Store) {
	on := func(person string, day quota.Day, items ...string) quota.Taking {
		return with(taking(items...), func(t *quota.Taking) { t.Person, t.Day = person, day })
	}
	mustTake(ctx, t, s, on("anna", today-3, "a"))
	mustTake(ctx, t, s, on("boris", today, "a", "b", "c", "d", "e"))
	for _, back := range []quota.Day{today - 1, today - 3, today - 400} {
		taken := take(ctx, t, s, on("boris", back, "f"))
		require.NotEmpty(t, taken.Refused)
		require.Equal(t, today, taken.Day)
	}
	taken := take(ctx, t, s, on("anna", today-3, "b")) // the day of her first card, who was not there since
	require.Equal(t, today, taken.Day)
	require.Equal(t, map[string]int{view.Counter: 1}, counts(ctx, t, s))
	r, err := s.Read(ctx, "acme", "anna", today-3)
	require.NoError(t, err)
	require.Equal(t, quota.Reading{Day: today, Counters: map[string]quota.Count{view.Counter: {N: 1}}}, r)
	require.Equal(t, today-2, take(ctx, t, s, with(on("anna", today-2, "b"), func(t *quota.Taking) { t.Tenant = "other" })).Day)
}

func apart(ctx context.Context, t require.TestingT, s quota.Store) {
	mustTake(ctx, t, s, taking("a", "b", "c", "d", "e"))
	mustRefuse(ctx, t, s, taking("f"))
	for _, change := range []func(t *quota.Taking){
		func(t *quota.Taking) { t.Person = "boris" },
		func(t *quota.Taking) { t.Tenant = "other" },
		func(t *quota.Taking) { t.Tenant, t.Person = "acm", "eanna" },
		func(t *quota.Taking) { t.Limits = []quota.Limit{{Counter: "records view deals", Hard: 1}} },
	} {
		mustTake(ctx, t, s, with(taking("f"), change))
	}
	require.Equal(t, map[string]int{view.Counter: 5, "records view deals": 1, quota.AttemptsCounter: 1}, counts(ctx, t, s))
	require.Equal(t, map[string]int{view.Counter: 1}, countsOf(ctx, t, s, "acme", "boris"))
	require.Equal(t, map[string]int{view.Counter: 1}, countsOf(ctx, t, s, "other", "anna"))
}

func giveBack(ctx context.Context, t require.TestingT, s quota.Store) {
	both := []quota.Limit{view, reveal}
	held := func(holder int64, items ...string) quota.Taking {
		return with(taking(items...), func(t *quota.Taking) { t.Holder, t.Limits = holder, both })
	}
	mustTake(ctx, t, s, taking("a"))
	mustTake(ctx, t, s, held(7, "a", "b"))
	require.Equal(t, map[string]int{view.Counter: 2, reveal.Counter: 2}, counts(ctx, t, s))
	require.NoError(t, s.Return(ctx, held(8, "a", "b"), nil))
	require.NoError(t, s.Return(ctx, held(0, "a", "b"), nil))
	require.NoError(t, s.Return(ctx, with(held(7, "a", "b"), func(t *quota.Taking) { t.Person = "boris" }), nil))
	require.Equal(t, map[string]int{view.Counter: 2, reveal.Counter: 2}, counts(ctx, t, s), "others give nothing back")
	for range 2 {
		require.NoError(t, s.Return(ctx, held(7, "a", "b", "c"), nil))
		require.Equal(t, map[string]int{view.Counter: 1}, counts(ctx, t, s), "a was there before")
	}

	mustTake(ctx, t, s, held(7, "b", "c"))
	mustTake(ctx, t, s, held(7, "b", "c")) // the same act again
	mustTake(ctx, t, s, taking("b"))       // somebody opens b
	mustTake(ctx, t, s, held(8, "c"))      // another act opens c
	require.NoError(t, s.Return(ctx, held(7, "b", "c"), nil))
	require.NoError(t, s.Return(ctx, held(8, "c"), nil))
	require.Equal(t, 3, counts(ctx, t, s)[view.Counter])

	mustTake(ctx, t, s, held(9, "d"))
	mustRefuse(ctx, t, s, taking("d", "x", "y", "z")) // opens nothing
	mustTake(ctx, t, s, with(taking("d"), func(t *quota.Taking) { t.Ask = true }))
	require.NoError(t, s.Return(ctx, held(9, "d"), nil))
	require.Equal(t, 3, counts(ctx, t, s)[view.Counter])

	mustTake(ctx, t, s, with(held(10, "e"), func(t *quota.Taking) { t.Limits = both[:1] }))
	mustTake(ctx, t, s, with(taking("f"), func(t *quota.Taking) { t.Day++ }))
	require.NoError(t, s.Return(ctx, held(10, "e"), nil), "the day is over")
	r, err := s.Read(ctx, "acme", "anna", today)
	require.NoError(t, err)
	require.Equal(t, 1, r.Counters[view.Counter].N)
}

func rearm(ctx context.Context, t require.TestingT, s quota.Store) {
	mustTake(ctx, t, s, taking("a", "b", "c", "d"))
	require.NoError(t, s.Return(ctx, taking(), []quota.Fired{{Counter: view.Counter, Level: quota.Soft}}))
	require.Len(t, take(ctx, t, s, taking("e")).Fired, 1)
	for range 2 {
		require.Len(t, take(ctx, t, s, taking("f")).Fired, 1)
		require.Empty(t, take(ctx, t, s, taking("f")).Fired)
		require.NoError(t, s.Return(ctx, taking(), []quota.Fired{{Counter: view.Counter, Level: quota.Hard}}))
	}
	r, err := s.Read(ctx, "acme", "anna", today)
	require.NoError(t, err)
	require.Equal(t, quota.Count{N: 5, Fired: quota.Soft}, r.Counters[view.Counter], "the other threshold stays")
	limited := with(taking("f"), func(t *quota.Taking) { t.Attempts.Soft = 1 })
	require.Len(t, take(ctx, t, s, limited).Fired, 2)
	require.NoError(t, s.Return(ctx, taking(), []quota.Fired{{Counter: quota.AttemptsCounter, Level: quota.Soft}}))
	require.Equal(t, []quota.Fired{{Counter: quota.AttemptsCounter, Level: quota.Soft, Count: 6}}, take(ctx, t, s, limited).Fired)
}

// large is an export.
func large(ctx context.Context, t require.TestingT, s quota.Store) {
	var items []string
	for i := range 2345 {
		items = append(items, fmt.Sprint("c", i))
	}
	all := with(taking(items...), func(t *quota.Taking) { t.Limits, t.Holder = []quota.Limit{{Counter: "x", Hard: 3000}}, 5 })
	mustTake(ctx, t, s, with(all, func(t *quota.Taking) { t.Items = slices.Clone(items[1000:1100]); t.Holder = 0 }))
	mustTake(ctx, t, s, all)
	mustTake(ctx, t, s, all)
	require.Equal(t, map[string]int{"x": 2345}, counts(ctx, t, s))
	mustRefuse(ctx, t, s, with(all, func(t *quota.Taking) { t.Limits = []quota.Limit{{Counter: "y", Hard: 2344}} }))
	require.NoError(t, s.Return(ctx, all, nil))
	require.Equal(t, map[string]int{"x": 100, quota.AttemptsCounter: 1}, counts(ctx, t, s))
}
