package calltokentest

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/internal/racetest"
	"github.com/crmguard/crmguard/masking/calltoken"
)

func TestMemory(t *testing.T) {
	Run(t, func(*testing.T) calltoken.Store { return calltoken.NewMemory() })
}

// faulty is a store that changes what goes in and out.
type faulty struct {
	*calltoken.Memory
	begin  func(c *calltoken.Call, before *time.Time)
	begun  func(c *calltoken.Call, first *bool)
	settle func(tenant, id string) (string, string)
	found  func(err error) error
	late   *sync.WaitGroup // everybody looks before anybody acts
}

func (s *faulty) Begin(ctx context.Context, c calltoken.Call, before time.Time) (calltoken.Call, bool, error) {
	if s.begin != nil {
		s.begin(&c, &before)
	}
	if s.late != nil {
		_, err := s.Memory.Find(ctx, c.Tenant, c.ID)
		s.late.Done()
		s.late.Wait()
		return c, err != nil, nil
	}
	stored, first, err := s.Memory.Begin(ctx, c, before)
	if s.begun != nil {
		s.begun(&stored, &first)
	}
	return stored, first, err
}

func (s *faulty) Settle(ctx context.Context, tenant, id string, state calltoken.State) (bool, error) {
	if s.settle != nil {
		tenant, id = s.settle(tenant, id)
	}
	return s.Memory.Settle(ctx, tenant, id, state)
}

func (s *faulty) Find(ctx context.Context, tenant, id string) (calltoken.Call, error) {
	c, err := s.Memory.Find(ctx, tenant, id)
	if s.found != nil {
		err = s.found(err)
	}
	return c, err
}

// settlesAgain settles what is settled.
type settlesAgain struct{ *calltoken.Memory }

func (s *settlesAgain) Settle(ctx context.Context, tenant, id string, state calltoken.State) (bool, error) {
	c, err := s.Find(ctx, tenant, id)
	if err != nil {
		return false, nil //nolint:nilerr // there is nothing to settle
	}
	_, err = s.Memory.Settle(ctx, tenant, id, state)
	return c.State >= calltoken.Ringing, err
}

func newLate() *faulty {
	s := &faulty{Memory: calltoken.NewMemory(), late: &sync.WaitGroup{}}
	s.late.Add(racetest.Racers)
	return s
}

// Each store here breaks one promise. The suite must notice by the rule that is
// named, which shows that the rule looks.
func TestSuiteNoticesFaults(t *testing.T) {
	memory := calltoken.NewMemory
	for _, tc := range []struct {
		rule  string
		store calltoken.Store
	}{
		{"a call begins once", &faulty{Memory: memory(), begun: func(_ *calltoken.Call, first *bool) { *first = true }}},
		{"a call begins once", &faulty{Memory: memory(), begin: func(c *calltoken.Call, _ *time.Time) { c.Begun = c.Begun.Truncate(time.Second) }}},
		{"a call begins once", &faulty{Memory: memory(), begun: func(c *calltoken.Call, _ *bool) { c.Person = "boris" }}},
		{"tenants and ids are apart", &faulty{Memory: memory(), begin: func(c *calltoken.Call, _ *time.Time) { c.ID = strings.ToLower(c.ID) }}},
		{"tenants and ids are apart", &faulty{Memory: memory(), begin: func(c *calltoken.Call, _ *time.Time) { c.ID, c.Tenant = c.Tenant+c.ID, "" }}},
		{"a call settles once", &settlesAgain{memory()}},
		{"a call settles once", &faulty{Memory: memory(), settle: func(tenant, _ string) (string, string) { return tenant, "ended" }}},
		{"a call that is not there is not found", &faulty{Memory: memory(), found: func(error) error { return nil }}},
		{"a call that is not there is not found", &faulty{Memory: memory(), settle: func(_, id string) (string, string) { return "globex", id }}},
		{"what began before may go, what is younger stays", &faulty{Memory: memory(), begin: func(_ *calltoken.Call, before *time.Time) { *before = before.Add(time.Minute) }}},
		{"of many that begin a call at once, one is first", newLate()},
		{"of many that settle a call at once, one settles", &settlesAgain{memory()}},
	} {
		t.Run(tc.rule, func(t *testing.T) {
			for _, r := range rules {
				if r.name == tc.rule {
					passes := func(s calltoken.Store) bool {
						return racetest.Passes(func(inner require.TestingT) { r.check(t.Context(), inner, s) })
					}
					require.True(t, passes(calltoken.NewMemory()), "the store without fault passes")
					require.False(t, passes(tc.store), "the fault passes")
					return
				}
			}
			t.Fatal("no such rule")
		})
	}
}
