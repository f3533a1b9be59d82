package signin

import (
	"crypto/sha256"
	"fmt"
	"math"
	"net/netip"
	"strings"
	"sync"
	"time"
)

const (
	firstPause = time.Second
	// How long pauses of passwords grow.
	longestPause = time.Minute
	// How long pauses of codes grow, for who knows the password but is a stranger
	// where they are. It is longer than that of any Factors, which count for the
	// person everywhere, so that those pauses are over when the person comes.
	longestPauseOfCodes = time.Hour
	// The first pause of codes from one network. It is as much longer than that for
	// all strangers together as it takes for one network never to use up their room.
	firstPauseOfCodes = time.Minute

	// A bucket is about 100 bytes, so a flood of names costs at most some MiB.
	maxBuckets = 50_000
)

type key [16]byte

// loginKey keeps no login in memory, and no long one either. A network's zero
// value stands for all of them.
func loginKey(login string, network key) key {
	sum := sha256.Sum256(append(network[:], strings.ToLower(strings.TrimSpace(login))...))
	return key(sum[:16])
}

// codeKey names who may guess codes.
func codeKey(parts ...string) key {
	sum := sha256.Sum256(fmt.Appendf(nil, "%q", parts))
	return key(sum[:16])
}

// networkKey takes the first bits of an IPv6 address: a customer has a /64 at the
// least, often a /48.
func networkKey(addr netip.Addr, bits int) key {
	addr = addr.Unmap().WithZone("")
	if addr.Is6() {
		if p, err := addr.Prefix(bits); err == nil {
			addr = p.Addr()
		}
	}
	return key(addr.As16())
}

// pauses counts attempts that have not succeeded, and makes whoever has too many
// wait longer and longer.
type pauses struct {
	free  int           // attempts without a pause
	first time.Duration // the pause after them; each next one is twice as long

	// No pause is longer, and a bucket forgets one attempt in this time, so that
	// who guesses no faster than that from elsewhere cannot make a person wait.
	longest time.Duration

	mu      sync.Mutex
	buckets map[key]*bucket
}

type bucket struct {
	attempts float64 // at the time of the last one
	last     time.Time
}

// level is what is left of the attempts at a time.
func (p *pauses) level(b *bucket, now time.Time) float64 {
	return max(0, b.attempts-float64(max(0, now.Sub(b.last)))/float64(p.longest))
}

func newPauses(free int, first, longest time.Duration) *pauses {
	return &pauses{free: free, first: first, longest: longest, buckets: make(map[key]*bucket)}
}

// wait returns how long to wait before the next attempt, and counts none.
func (p *pauses) wait(k key, now time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	b := p.buckets[k]
	if b == nil {
		return 0
	}
	return p.left(b, now)
}

// left is what is left of the pause after the last attempt.
func (p *pauses) left(b *bucket, now time.Time) time.Duration {
	if now.Before(b.last) { // the clock was set back: nothing is forgotten, and nobody waits for the old time
		b.last = now
	}
	return max(0, p.pause(p.level(b, now))-now.Sub(b.last))
}

// take counts an attempt, or returns how long to wait before the next one; an
// attempt that has to wait is not counted, so that the pause ends.
func (p *pauses) take(k key, now time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	b := p.buckets[k]
	if b == nil {
		p.makeRoom(now)
		b = &bucket{last: now}
		p.buckets[k] = b
	}
	if wait := p.left(b, now); wait > 0 {
		return wait
	}
	b.attempts, b.last = p.level(b, now)+1, now
	return 0
}

// pause is 0 for the free attempts, then 1, 2, 4 … times the first one, after the
// last attempt. What has been forgotten of an attempt counts only once it is a whole
// one.
func (p *pauses) pause(level float64) time.Duration {
	over := int(math.Ceil(level)) - p.free
	if over < 0 {
		return 0
	}
	return min(p.first<<min(over, 20), p.longest)
}

// giveBack uncounts one attempt.
func (p *pauses) giveBack(k key) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if b := p.buckets[k]; b != nil {
		b.attempts = max(0, b.attempts-1)
	}
}

// counted are the buckets in which an attempt is counted.
type counted []struct {
	in *pauses
	k  key
}

// take counts an attempt in all of them, or in none and returns how long to wait.
// It asks all of them first, because what is taken and given back has started a new
// pause. Only to attempts at the same moment can that still happen.
func (c counted) take(now time.Time) (wait time.Duration) {
	for _, b := range c {
		wait = max(wait, b.in.wait(b.k, now))
	}
	if wait > 0 {
		return wait
	}
	for i, b := range c {
		if wait := b.in.take(b.k, now); wait > 0 {
			c[:i].giveBack()
			return wait
		}
	}
	return 0
}

// giveBack uncounts the attempt. Earlier failures stay: whoever has an account
// could otherwise guess at others' without end.
func (c counted) giveBack() {
	for _, b := range c {
		b.in.giveBack(b.k)
	}
}

// makeRoom drops what is forgotten, and if that is not enough the emptiest of a
// few: a flood of names, one attempt each, pushes out its own buckets first.
func (p *pauses) makeRoom(now time.Time) {
	if len(p.buckets) < maxBuckets {
		return
	}
	const look = 64
	var victim key
	lowest := math.Inf(1)
	n := 0
	for k, b := range p.buckets { // in random order
		level := p.level(b, now)
		if level == 0 {
			delete(p.buckets, k)
		} else if level < lowest {
			victim, lowest = k, level
		}
		if n++; n == look {
			break
		}
	}
	if len(p.buckets) >= maxBuckets {
		delete(p.buckets, victim)
	}
}
