package mfa

import "time"

// The budget is for guesses by somebody who knows the password: five at once,
// then one after 1, 2, 4 … seconds, in the long run four an hour. With three
// valid codes in a million that is one chance in 3,500 a day for each app.
const (
	freeAttempts = 5
	forgetEvery  = 15 * time.Minute // one attempt is forgotten in this time
	longestPause = 15 * time.Minute
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
	if b.Last.Sub(now) > longestPause {
		// The clock was set back. Attempts stay counted, but nobody waits for the
		// clock to show that time again.
		b = Budget{Empty: now.Add(b.Empty.Sub(b.Last))}
	}
	level := max(0, b.Empty.Sub(now))
	if p := pause(level); p > 0 && now.Sub(b.Last) < p {
		return b, p - now.Sub(b.Last)
	}
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

// pause is 0 for the free attempts, then 1, 2, 4 … seconds.
func pause(level time.Duration) time.Duration {
	over := int(level/forgetEvery) - freeAttempts
	if over < 0 {
		return 0
	}
	return min(time.Second<<min(over, 10), longestPause)
}
