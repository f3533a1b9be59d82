package mfa

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var noon = time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)

func TestPausesGrow(t *testing.T) {
	var b Budget
	now := noon
	var waits []time.Duration
	for range 20 {
		next, wait := b.take(now)
		waits = append(waits, wait)
		if wait > 0 {
			_, tooEarly := b.take(now.Add(wait - time.Microsecond))
			require.Positive(t, tooEarly)
			now = now.Add(wait)
			next, wait = b.take(now)
			require.Zero(t, wait, "who waits as long as told is let try")
		}
		b = next
	}
	require.Equal(t, []time.Duration{0, 0, 0, 0, 0, 1e9, 2e9, 4e9, 8e9, 16e9, 32e9, 64e9, 128e9, 256e9}, waits[:14])
	for _, wait := range waits {
		require.LessOrEqual(t, wait, longestPause)
	}
}

// Whoever guesses as fast as is let for a year, day and night, stays below what
// the documentation says.
func TestGuessesOfAYear(t *testing.T) {
	var b Budget
	now, guesses := noon, 0
	for now.Before(noon.AddDate(1, 0, 0)) {
		next, wait := b.take(now)
		if wait > 0 {
			now = now.Add(wait)
			continue
		}
		b = next
		guesses++
	}
	require.Less(t, guesses, 365*24*4+40)
	require.Greater(t, guesses, 365*24*3, "it is a pause, not a lock")
}

// Waiting is over whenever it is, whatever was done meanwhile: attempts that
// have to wait are not counted.
func TestAttemptsThatWaitAreNotCounted(t *testing.T) {
	var b Budget
	for range freeAttempts {
		b, _ = b.take(noon)
	}
	for range 1000 {
		next, wait := b.take(noon)
		require.Equal(t, time.Second, wait)
		require.Equal(t, b, next)
	}
	_, wait := b.take(noon.Add(time.Second))
	require.Zero(t, wait)
}

func TestAttemptsAreForgotten(t *testing.T) {
	var b Budget
	for range freeAttempts {
		b, _ = b.take(noon)
	}
	_, wait := b.take(noon)
	require.Positive(t, wait)
	for n := range freeAttempts {
		later := b
		for range n + 1 {
			later, wait = later.take(noon.Add(time.Duration(n+1) * forgetEvery))
			require.Zero(t, wait, "after %d quarters of an hour", n+1)
		}
	}
}

func TestGiveBack(t *testing.T) {
	b, _ := Budget{}.take(noon)
	once := b
	for range 100 {
		var wait time.Duration
		b, wait = b.take(noon)
		require.Zero(t, wait, "who is always right never waits")
		b = b.giveBack()
		require.Equal(t, once, b, "earlier attempts stay counted")
	}
	require.Equal(t, Budget{}, Budget{}.giveBack())
}

func TestClockSetBackLocksNobodyOut(t *testing.T) {
	var b Budget
	for range 3 {
		b, _ = b.take(noon)
	}
	yesterday := noon.Add(-24 * time.Hour)
	taken := 0
	for range 50 {
		next, wait := b.take(yesterday)
		if wait == 0 {
			taken++
		}
		b = next
	}
	require.Equal(t, freeAttempts-3, taken, "attempts stay counted")
	_, wait := b.take(yesterday)
	require.LessOrEqual(t, wait, longestPause)

	// A little earlier is another node, whose clock is slow.
	_, wait = b.take(yesterday.Add(-time.Minute))
	require.Equal(t, time.Minute+time.Second, wait)
}

func TestClockSetForward(t *testing.T) {
	var b Budget
	for range 30 {
		if next, wait := b.take(noon); wait == 0 {
			b = next
		}
	}
	next, wait := b.take(noon.AddDate(10, 0, 0))
	require.Zero(t, wait)
	require.Equal(t, noon.AddDate(10, 0, 0).Add(forgetEvery), next.Empty)
}

// Budgets that somebody wrote into the database make nobody wait longer than
// any other.
func FuzzBudget(f *testing.F) {
	f.Add(int64(0), int64(0), noon.UnixMicro())
	f.Add(int64(-1<<63), int64(1<<63-1), noon.UnixMicro())
	f.Add(int64(1<<63-1), int64(-1<<63), noon.UnixMicro())
	f.Add(int64(1<<63-1), noon.UnixMicro(), noon.UnixMicro())
	f.Fuzz(func(t *testing.T, empty, last, at int64) {
		b := Budget{Empty: time.UnixMicro(empty).UTC(), Last: time.UnixMicro(last).UTC()}
		now := time.UnixMicro(at % (1 << 52)).UTC()
		next, wait := b.take(now)
		if wait < 0 || wait > 2*longestPause {
			t.Fatalf("%v at %v: wait %v", b, now, wait)
		}
		if wait == 0 && !next.Last.Equal(now) {
			t.Fatalf("%v at %v: not counted: %v", b, now, next)
		}
		next.giveBack()
	})
}
