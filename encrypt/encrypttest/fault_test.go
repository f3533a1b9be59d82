package encrypttest

import (
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/internal/racetest"
)

// fault is an implementation that neglects a duty.
type fault[T any] struct {
	duty, fault string
	open        func() T
}

// requireNoticed requires of each duty that it notices the faults planted for it, and that
// there are some.
func requireNoticed[T any](t *testing.T, duties []duty[T], faults []fault[T]) {
	t.Helper()
	for _, f := range faults {
		require.True(t, slices.ContainsFunc(duties, func(d duty[T]) bool { return d.name == f.duty }), "no duty %q", f.duty)
	}
	for _, d := range duties {
		of := slices.DeleteFunc(slices.Clone(faults), func(f fault[T]) bool { return f.duty != d.name })
		require.NotEmpty(t, of, "no fault is planted for %q", d.name)
		for _, f := range of {
			t.Run(f.fault+" against "+d.name, func(t *testing.T) {
				require.False(t, racetest.Passes(func(t require.TestingT) { d.check(t, f.open) }))
			})
		}
	}
}

// gathering returns what lets the first racers go on when all of them have come. So each
// has looked before any acts.
func gathering() (meet func()) {
	var calls atomic.Int64
	var all sync.WaitGroup
	all.Add(racetest.Racers)
	return func() {
		if calls.Add(1) <= racetest.Racers {
			all.Done()
			all.Wait()
		}
	}
}

// signal happens once, and can be waited for.
type signal struct {
	once sync.Once
	c    chan struct{}
}

func newSignal() *signal { return &signal{c: make(chan struct{})} }

func (s *signal) give() { s.once.Do(func() { close(s.c) }) }

func (s *signal) wait() { <-s.c }
