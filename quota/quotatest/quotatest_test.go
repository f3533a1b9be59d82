package quotatest

import (
	"context"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/internal/racetest"
	"github.com/crmguard/crmguard/quota"
)

// faulty is a store that changes what goes in and out.
type faulty struct {
	*quota.Memory
	in     func(t *quota.Taking)
	out    func(t *quota.Taking, taken *quota.Taken)
	refund func(t *quota.Taking, fired []quota.Fired) []quota.Fired
	read   func(r *quota.Reading)
}

func (s *faulty) Take(ctx context.Context, t quota.Taking) (quota.Taken, error) {
	t.Items, t.Limits = slices.Clone(t.Items), slices.Clone(t.Limits)
	if s.in != nil {
		s.in(&t)
	}
	taken, err := s.Memory.Take(ctx, t)
	if s.out != nil {
		s.out(&t, &taken)
	}
	return taken, err
}

func (s *faulty) Return(ctx context.Context, t quota.Taking, fired []quota.Fired) error {
	if s.refund != nil {
		fired = s.refund(&t, fired)
	}
	return s.Memory.Return(ctx, t, fired)
}

func (s *faulty) Read(ctx context.Context, tenant, person string, day quota.Day) (quota.Reading, error) {
	r, err := s.Memory.Read(ctx, tenant, person, day)
	if s.read != nil {
		s.read(&r)
	}
	return r, err
}

func on(change func(s *faulty)) func() quota.Store {
	return func() quota.Store {
		s := &faulty{Memory: quota.NewMemory()}
		change(s)
		return s
	}
}

func in(change func(t *quota.Taking)) func() quota.Store {
	return on(func(s *faulty) { s.in = change })
}

// Each store here breaks one promise. The suite must notice by the rule that is
// named, which shows that the rule looks.
func TestSuiteNoticesFaults(t *testing.T) {
	for _, tc := range []struct {
		rule  string
		fault func() quota.Store
	}{
		{"nothing is counted yet", on(func(s *faulty) {
			s.read = func(r *quota.Reading) { r.Counters[quota.AttemptsCounter] = quota.Count{} }
		})},
		{"distinct items count, and what was seen is free", in(func(t *quota.Taking) {
			for i, item := range t.Items {
				t.Items[i] = strings.ToLower(item)
			}
		})},
		{"a batch is taken whole or not at all", newTakesOneByOne},
		{"all limits have room or none is used", in(func(t *quota.Taking) { t.Limits = t.Limits[:1] })},
		{"without items each limit counts one", in(func(t *quota.Taking) {
			if len(t.Items) == 0 {
				t.Items = []string{"query"}
			}
		})},
		{"refusals count as attempts, and end in nothing new", in(func(t *quota.Taking) { t.Attempts.Hard = 0 })},
		{"a refusal by another check is an attempt and nothing else", newForgetsRefusals},
		{"a refusal by another check is an attempt and nothing else", on(func(s *faulty) {
			s.out = func(t *quota.Taking, taken *quota.Taken) {
				if len(t.Limits) == 0 {
					taken.Refused = quota.AttemptsCounter
				}
			}
		})},
		{"each threshold passes once", newTellsAgain},
		{"asking takes nothing", in(func(t *quota.Taking) { t.Ask = false })},
		{"a later day begins empty", in(func(t *quota.Taking) { t.Day = today })},
		{"a tenant's day never goes backwards, for nobody", newDayOfPerson},
		{"persons, tenants and counters are apart", in(func(t *quota.Taking) { t.Tenant, t.Person = "acme", t.Tenant+t.Person })},
		{"a holder gives back what nobody else has asked for", newForgetsOpeners},
		{"a holder gives back what nobody else has asked for", on(func(s *faulty) {
			s.refund = func(t *quota.Taking, fired []quota.Fired) []quota.Fired { t.Holder = 7; return fired }
		})},
		{"a threshold can be armed again", on(func(s *faulty) {
			s.refund = func(*quota.Taking, []quota.Fired) []quota.Fired { return nil }
		})},
		{"many items are counted like few", in(func(t *quota.Taking) { t.Items = t.Items[:min(len(t.Items), 500)] })},
		{"of many that ask at once, as many pass as there is room", newLooksFirst},
		{"of many that pass a threshold at once, one tells", newLooksFirst},
		{"of many refusals at once, each counts and each threshold tells once", newForgetsRefusals},
		{"of many refusals at once, each counts and each threshold tells once", newLooksFirst},
		{"of many that give back the same, one does", on(func(s *faulty) {
			var calls atomic.Int64
			s.refund = func(t *quota.Taking, fired []quota.Fired) []quota.Fired { t.Holder = 7 + calls.Add(1)%2; return fired }
		})},
		{"nothing is given back that somebody has opened meanwhile", newForgetsOpeners},
	} {
		t.Run(tc.rule, func(t *testing.T) {
			for _, r := range rules {
				if r.name == tc.rule {
					passes := func(s quota.Store) bool {
						return racetest.Passes(func(inner require.TestingT) { r.check(t.Context(), inner, s) })
					}
					require.True(t, passes(quota.NewMemory()), "the store without fault passes")
					faulty := tc.fault()
					require.False(t, passes(faulty), "%T passes", faulty)
					return
				}
			}
			t.Fatal("no such rule")
		})
	}
}

// takesOneByOne takes of a batch what there is room for.
type takesOneByOne struct{ *quota.Memory }

func newTakesOneByOne() quota.Store { return &takesOneByOne{quota.NewMemory()} }

func (s *takesOneByOne) Take(ctx context.Context, t quota.Taking) (taken quota.Taken, err error) {
	for _, item := range t.Items {
		one := t
		one.Items = []string{item}
		if taken, err = s.Memory.Take(ctx, one); err != nil || taken.Refused != "" {
			return taken, err
		}
	}
	return taken, nil
}

// forgetsRefusals takes what there is to take, and nothing is taken by a refusal.
type forgetsRefusals struct{ *quota.Memory }

func newForgetsRefusals() quota.Store { return &forgetsRefusals{quota.NewMemory()} }

func (s *forgetsRefusals) Take(ctx context.Context, t quota.Taking) (quota.Taken, error) {
	if len(t.Limits) == 0 {
		return quota.Taken{Day: t.Day}, nil
	}
	return s.Memory.Take(ctx, t)
}

// tellsAgain forgets which thresholds have told.
type tellsAgain struct{ *quota.Memory }

func newTellsAgain() quota.Store { return &tellsAgain{quota.NewMemory()} }

func (s *tellsAgain) Take(ctx context.Context, t quota.Taking) (quota.Taken, error) {
	taken, err := s.Memory.Take(ctx, t)
	if err == nil && len(taken.Fired) > 0 {
		silent := t
		silent.Items = nil
		err = s.Return(ctx, silent, taken.Fired)
	}
	return taken, err
}

// dayOfPerson knows the last day of each person, not the tenant's.
type dayOfPerson struct {
	mu     sync.Mutex
	stores map[string]*quota.Memory
}

func newDayOfPerson() quota.Store { return &dayOfPerson{stores: map[string]*quota.Memory{}} }

func (s *dayOfPerson) of(person string) *quota.Memory {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stores[person] == nil {
		s.stores[person] = quota.NewMemory()
	}
	return s.stores[person]
}

func (s *dayOfPerson) Take(ctx context.Context, t quota.Taking) (quota.Taken, error) {
	return s.of(t.Person).Take(ctx, t)
}

func (s *dayOfPerson) Return(ctx context.Context, t quota.Taking, fired []quota.Fired) error {
	return s.of(t.Person).Return(ctx, t, fired)
}

func (s *dayOfPerson) Read(ctx context.Context, tenant, person string, day quota.Day) (quota.Reading, error) {
	return s.of(person).Read(ctx, tenant, person, day)
}

// forgetsOpeners does not take an item from its holder when another act opens it.
type forgetsOpeners struct{ *quota.Memory }

func newForgetsOpeners() quota.Store { return &forgetsOpeners{quota.NewMemory()} }

func (s *forgetsOpeners) Take(ctx context.Context, t quota.Taking) (quota.Taken, error) {
	t.Holder = 7
	return s.Memory.Take(ctx, t)
}

func (s *forgetsOpeners) Return(ctx context.Context, t quota.Taking, fired []quota.Fired) error {
	t.Holder = 7
	return s.Memory.Return(ctx, t, fired)
}

// looksFirst asks whether there is room and takes in another step: everybody looks
// before anybody acts.
type looksFirst struct {
	*quota.Memory
	looked sync.WaitGroup
}

func newLooksFirst() quota.Store {
	s := &looksFirst{Memory: quota.NewMemory()}
	s.looked.Add(racetest.Racers)
	return s
}

func (s *looksFirst) Take(ctx context.Context, t quota.Taking) (quota.Taken, error) {
	if t.Day < today { // the one before the race
		return s.Memory.Take(ctx, t)
	}
	r, err := s.Read(ctx, t.Tenant, t.Person, t.Day)
	if err != nil {
		return quota.Taken{}, err
	}
	s.looked.Done()
	s.looked.Wait()
	attempts := r.Counters[quota.AttemptsCounter]
	var counts []quota.Count
	t.Limits = slices.Clone(t.Limits)
	for _, l := range t.Limits { // one or none
		counts = append(counts, r.Counters[l.Counter])
	}
	taken := quota.Taken{Day: t.Day}
	taken.Refused, taken.Fired = t.Decide(&attempts, counts, []int{len(t.Items)})
	for i := range t.Limits {
		t.Limits[i].Soft, t.Limits[i].Hard = 0, quota.MaxHard
	}
	_, err = s.Memory.Take(ctx, t)
	return taken, err
}
