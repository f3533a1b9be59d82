package quota

import "context"

// SweepRows is how many items of days that are over [Store.Take] removes at most,
// beyond twice as many as it adds.
const SweepRows = 100

// Store counts. It knows nothing of acts and zones. Suite quota/quotatest tells
// whether a store keeps to this.
//
// A tenant's day is the latest that any Take of the tenant has named. What was
// counted on earlier days does not count any more and is removed, a bounded number
// with each Take.
type Store interface {
	// Take counts all of t or, if one norm has no room, only that it refused:
	// see [Taking.Decide]. It counts in the tenant's day if that is later than
	// t.Day. Atomic: of two for one person, one sees the other. What was counted is
	// reported, so a store does not give up half way when ctx ends.
	Take(ctx context.Context, t Taking) (Taken, error)

	// Return removes the items of t that t.Holder still holds from each of t.Limits
	// and lets the thresholds in fired pass again, all in t.Day. Atomic.
	Return(ctx context.Context, t Taking, fired []Fired) error

	// Read returns what a person's counters show, on day or on the tenant's day if
	// that is later.
	Read(ctx context.Context, tenant, person string, day Day) (Reading, error)
}

// Taking is what is to be counted.
type Taking struct {
	Tenant, Person string
	Day            Day
	Items          []string // distinct; none: each of Limits counts one more
	Limits         []Limit  // of distinct counters; none, and no Items: a refusal by another check
	Attempts       Limit    // counts refusals, in AttemptsCounter; Hard 0: without end

	// Holder, if not 0, may give back with Return what this Taking adds, until a
	// Taking with another Holder, or none, asks for the same item.
	Holder int64

	Ask bool // add nothing, but count a refusal
}

// Limit is a norm as stores see it.
type Limit struct {
	Counter    string
	Soft, Hard int
}

// Level is a threshold of a norm. Levels add up to a set.
type Level uint8

// The thresholds.
const (
	Soft Level = 1 << iota
	Hard
)

// String returns "soft" or "hard".
func (l Level) String() string {
	if l == Soft {
		return "soft"
	}
	return "hard"
}

// Count is what a counter shows.
type Count struct {
	N     int
	Fired Level // thresholds that have told
}

// Taken is what a Take came to.
type Taken struct {
	Day     Day     // in which it was counted
	Refused string  // counter that had no room; empty: everything was taken
	Fired   []Fired // thresholds that were passed for the first time
}

// Fired is a threshold that was passed.
type Fired struct {
	Counter string
	Level   Level
	Count   int // with what was taken; with what was refused, for Hard
}

// Reading is what the counters of a person show.
type Reading struct {
	Day      Day
	Counters map[string]Count // those that were used
}

// Decide is what a store does in the middle of Take. attempts and counts are what
// the counters of t.Attempts and t.Limits show, and fresh is how many of t.Items are
// new to each of t.Limits; without items it is not looked at. Decide changes what the
// counters show. The store writes that, and unless it was refused or t.Ask is set,
// the items.
//
// Nothing new is taken when so much was refused that t.Attempts has no room.
// Whatever is not new is taken without being counted. Without limits there is nothing
// to take: it counts one refusal more, and refuses nothing itself.
func (t *Taking) Decide(attempts *Count, counts []Count, fresh []int) (refused string, fired []Fired) {
	if len(t.Limits) == 0 {
		return "", t.attempt(attempts, nil)
	}
	need := func(i int) int {
		if len(t.Items) == 0 {
			return 1
		}
		return fresh[i]
	}
	anything := false
	for i := range t.Limits {
		anything = anything || need(i) > 0
	}
	switch {
	case !anything:
		return "", nil
	case t.Attempts.Hard > 0 && attempts.N >= t.Attempts.Hard:
		refused = AttemptsCounter
	default:
		for i, l := range t.Limits {
			if need(i) > 0 && counts[i].N+need(i) > l.Hard {
				refused = l.Counter
				fired = counts[i].pass(fired, l, Hard, counts[i].N+need(i))
				break
			}
		}
	}
	if refused != "" {
		return refused, t.attempt(attempts, fired)
	}
	if t.Ask {
		return "", nil
	}
	for i, l := range t.Limits {
		counts[i].N += need(i)
		if need(i) > 0 && l.Soft > 0 && counts[i].N > l.Soft {
			fired = counts[i].pass(fired, l, Soft, counts[i].N)
		}
	}
	return "", fired
}

// attempt counts a refusal.
func (t *Taking) attempt(attempts *Count, fired []Fired) []Fired {
	attempts.N++
	if l := t.Attempts; l.Soft > 0 && attempts.N > l.Soft {
		fired = attempts.pass(fired, l, Soft, attempts.N)
	}
	if l := t.Attempts; l.Hard > 0 && attempts.N > l.Hard {
		fired = attempts.pass(fired, l, Hard, attempts.N)
	}
	return fired
}

// pass notes that a threshold was passed, the first time.
func (c *Count) pass(fired []Fired, l Limit, level Level, count int) []Fired {
	if c.Fired&level != 0 {
		return fired
	}
	c.Fired |= level
	return append(fired, Fired{l.Counter, level, count})
}
