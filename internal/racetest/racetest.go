// Package racetest lets many goroutines try at the same moment what may happen once,
// and runs a check without failing the test that looks at the check.
package racetest

import (
	"runtime"
	"sync"

	"github.com/stretchr/testify/require"
)

// Racers is how many goroutines try at once.
const Racers = 50

// Run calls try in [Racers] goroutines at once, each with a number of its own from 0,
// and returns what they returned. An error of one fails t.
func Run[T any](t require.TestingT, try func(n int) (T, error)) []T {
	got := make([]T, Racers)
	errs := make([]error, Racers)
	var wg sync.WaitGroup
	begin := make(chan struct{})
	for n := range Racers {
		wg.Go(func() {
			<-begin
			got[n], errs[n] = try(n)
		})
	}
	close(begin)
	wg.Wait()
	for _, err := range errs {
		require.NoError(t, err)
	}
	return got
}

// Winners runs try like [Run] and returns how many won.
func Winners(t require.TestingT, try func(n int) (bool, error)) int {
	return Count(Run(t, try))
}

// Count returns how many of those who tried won.
func Count(won []bool) int {
	n := 0
	for _, w := range won {
		if w {
			n++
		}
	}
	return n
}

// Passes reports whether check passes, on a t of its own: so a test shows that a
// check notices a planted fault.
func Passes(check func(t require.TestingT)) bool {
	var t recorder
	done := make(chan struct{})
	go func() { // FailNow ends the goroutine
		defer close(done)
		check(&t)
	}()
	<-done
	return !t.failed
}

type recorder struct{ failed bool }

func (r *recorder) Errorf(string, ...any) { r.failed = true }

func (r *recorder) FailNow() {
	r.failed = true
	runtime.Goexit()
}
