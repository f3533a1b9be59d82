package racetest_test

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/internal/racetest"
)

// Nobody returns before all have begun, or this test would not end.
func TestAllTryAtOnce(t *testing.T) {
	var here sync.WaitGroup
	here.Add(racetest.Racers)
	numbers := racetest.Run(t, func(n int) (int, error) {
		here.Done()
		here.Wait()
		return n, nil
	})
	require.Len(t, numbers, racetest.Racers)
	for want, n := range numbers {
		require.Equal(t, want, n)
	}
}

func TestWinners(t *testing.T) {
	var taken atomic.Bool
	require.Equal(t, 1, racetest.Winners(t, func(int) (bool, error) { return taken.CompareAndSwap(false, true), nil }))

	// The planted fault: everybody has looked before anybody takes.
	var looked sync.WaitGroup
	looked.Add(racetest.Racers)
	var loose atomic.Bool
	require.Equal(t, racetest.Racers, racetest.Winners(t, func(int) (bool, error) {
		free := !loose.Load()
		looked.Done()
		looked.Wait()
		loose.Store(true)
		return free, nil
	}))
}

func TestPasses(t *testing.T) {
	require.True(t, racetest.Passes(func(t require.TestingT) { require.True(t, true) }))
	require.False(t, racetest.Passes(func(t require.TestingT) { require.True(t, false) }))
	require.False(t, racetest.Passes(func(t require.TestingT) { t.Errorf("and goes on") }))
	require.False(t, racetest.Passes(func(t require.TestingT) {
		racetest.Run(t, func(n int) (bool, error) {
			if n == racetest.Racers-1 {
				return false, errors.New("broken")
			}
			return true, nil
		})
	}))
}
