package mfa

import "time"

// The budget is for guesses by somebody who knows the password: five at once,
// then one after 1, 2, 4 … seconds, in the long run four an hour. With three
// valid codes in a million that is one chance in 3,500 a day for each app.
const (
	freeAttempts = 5
	forgetEvery  = 15 * time.Minute // one attempt is forgotten in this time
	longestPause = 15 * time.Minute

	longestMemory = 24 * time.Hour // more than attempts add up to
)

// Budget counts a person's attempts that have not succeeded, over all factors.
// Times are UTC in whole microseconds; the zero value is a budget never used.
type Budget struct {
	Empty time.Time // when all attempts are forgotten
	Last  time.Time // when the last one was
}

// take returns the budget after one more attempt, or how long to wait before it.
// An attempt that has to wait is not counted, so that the pause ends.
func (b Budget) take(now time.Time) (Budget, time.Duration) {
	level := b.Empty.Sub(now)
	p := pause(b.Empty.Sub(b.Last))
	switch since := now.Sub(b.Last); {
	case since < -longestPause:
		// The clock was set back. Attempts stay counted, but nobody waits for it to
		// show that time again.
		level = b.Empty.Sub(b.Last)
	case p > 0 && since < p:
		return b, p - since
	}
	level = min(max(level, 0), longestMemory)
	return Budget{Empty: now.Add(level + forgetEvery), Last: now}, 0
}

// giveBack uncounts one attempt. Earlier ones stay: whoever signs in does not
// wash away what somebody else has guessed.
func (b Budget) giveBack() Budget {
	if !b.Empty.IsZero() {
		b.Empty = b.Empty.Add(-forgetEvery)
	}
	return b
}

// pause is 0 after the free attempts, then 1, 2, 4 … seconds. An attempt counts
// until it is wholly forgotten.
func pause(level time.Duration) time.Duration {
	if level <= (freeAttempts-1)*forgetEvery {
		return 0
	}
	over := (level-1)/forgetEvery - (freeAttempts - 1)
	return min(time.Second<<min(over, 10), longestPause)
}
