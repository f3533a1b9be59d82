package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"
)

// rounds is how often ours and the peer are measured in turn. Odd, so that the
// median is one of them.
const rounds = 9

// roundTime is how long one round of a [perOp] measurement takes.
const roundTime = 100 * time.Millisecond

// direction says which side of a limit is good.
type direction string

const (
	atMost  direction = "<="
	atLeast direction = ">="
)

// claim is a sentence of the README that can be measured.
type claim struct {
	name      string // PACKAGE.WHAT
	unit      string // of what is measured
	direction direction
	limit     float64 // of ours by the peer's; without a peer, of ours

	// open prepares the measurement. It is closed after the last round.
	open func(ctx context.Context, s *servers) (trial, error)
}

// trial is an open measurement.
type trial struct {
	ours   measurement
	peer   measurement // nil: the limit is a floor or ceiling of ours
	rounds int         // odd, of what varies much; 0: rounds
	close  func() error
}

// measurement measures once, in the claim's unit.
type measurement func(ctx context.Context) (float64, error)

// result holds medians; peer and ratio are 0 if there is no peer. The ratio is that of two
// neighbouring rounds, not of the medians: a machine that is now fast and now slow is the same
// for both of them.
type result struct{ ours, peer, ratio float64 }

func (c claim) measure(ctx context.Context, s *servers) (r result, err error) {
	t, err := c.open(ctx, s)
	if err != nil {
		return result{}, err
	}
	if t.close != nil {
		defer func() { err = errors.Join(err, t.close()) }()
	}
	var ours, peers []float64
	for round := range cmp.Or(t.rounds, rounds) {
		// Whoever goes first in one round goes second in the next.
		turns := []struct {
			measure measurement
			into    *[]float64
		}{{t.ours, &ours}, {t.peer, &peers}}
		if round%2 == 1 {
			slices.Reverse(turns)
		}
		for _, turn := range turns {
			if turn.measure == nil {
				continue
			}
			value, err := turn.measure(ctx)
			if err != nil {
				return result{}, err
			}
			*turn.into = append(*turn.into, value)
		}
		if ctx.Err() != nil {
			return result{}, ctx.Err()
		}
	}
	var ratios []float64
	for i, peer := range peers {
		if peer <= 0 {
			return result{}, fmt.Errorf("the peer measured %v", peer)
		}
		ratios = append(ratios, ours[i]/peer)
	}
	if len(peers) > 0 {
		r.peer, r.ratio = median(peers), median(ratios)
	}
	r.ours = median(ours)
	return r, nil
}

// compared is what the goal is about.
func (r result) compared() float64 {
	if r.peer == 0 {
		return r.ours
	}
	return r.ratio
}

func (c claim) met(r result) bool {
	if c.direction == atMost {
		return r.compared() <= c.limit
	}
	return r.compared() >= c.limit
}

func (c claim) goal() string { return string(c.direction) + strconv.FormatFloat(c.limit, 'g', -1, 64) }

func (c claim) line(r result) string {
	peer, ratio, verdict := "none", "none", "SHORT"
	if r.peer != 0 {
		peer, ratio = short(r.peer)+c.unit, strconv.FormatFloat(r.compared(), 'f', 2, 64)
	}
	if c.met(r) {
		verdict = "ok"
	}
	return fmt.Sprintf("%s ours=%s%s peer=%s ratio=%s goal=%s %s", c.name, short(r.ours), c.unit, peer, ratio, c.goal(), verdict)
}

// short prints about three digits, which is more than such measurements are
// worth.
func short(value float64) string {
	digits := 2
	for limit := 10.0; digits > 0 && value >= limit; limit *= 10 {
		digits--
	}
	return strconv.FormatFloat(value, 'f', digits, 64)
}

func median(values []float64) float64 {
	slices.Sort(values)
	return values[len(values)/2]
}

// batchTime is about how long calls are timed together, once warmUp has told how many are that.
const (
	batchTime = 2 * time.Millisecond
	warmUp    = 25 * time.Millisecond
)

// sideBySide compares calls that take nanoseconds, in turns so short that both sides meet
// the same machine, whose speed changes several times a second.
func sideBySide(ours, peer func() error) trial {
	const shorter = 10
	const turns = rounds*shorter | 1 // odd
	return trial{ours: perOpIn(roundTime/shorter, ours), peer: perOpIn(roundTime/shorter, peer), rounds: turns}
}

// perOp measures nanoseconds per call of op: the median of batches, so that whatever
// else the machine does for a moment is left out. The first round finds out how many
// calls make a batch, and so warms caches up.
func perOp(op func() error) measurement { return perOpIn(roundTime, op) }

func perOpIn(turn time.Duration, op func() error) measurement {
	calls := 0
	repeat := func(n int) (time.Duration, error) {
		start := time.Now()
		for range n {
			if err := op(); err != nil {
				return 0, err
			}
		}
		return time.Since(start), nil
	}
	return func(context.Context) (float64, error) {
		for n := 1; calls == 0; n *= 2 {
			took, err := repeat(n)
			if err != nil {
				return 0, err
			}
			if took >= warmUp {
				calls = max(1, int(float64(n)*float64(batchTime)/float64(took)))
			}
		}
		var batches []float64
		for start := time.Now(); time.Since(start) < turn; {
			took, err := repeat(calls)
			if err != nil {
				return 0, err
			}
			batches = append(batches, float64(took.Nanoseconds())/float64(calls))
		}
		return median(batches), nil
	}
}

// per divides what is measured.
func per(n int, m measurement) measurement {
	return func(ctx context.Context) (float64, error) {
		value, err := m(ctx)
		return value / float64(n), err
	}
}

// before prepares each round of a measurement.
func before(prepare func(), m measurement) measurement {
	return func(ctx context.Context) (float64, error) {
		prepare()
		return m(ctx)
	}
}

// counted is a measurement that counts and does not time: once is enough.
func counted(count func(ctx context.Context) (float64, error)) measurement {
	var known *float64
	return func(ctx context.Context) (float64, error) {
		if known != nil {
			return *known, nil
		}
		value, err := count(ctx)
		if err == nil {
			known = &value
		}
		return value, err
	}
}
