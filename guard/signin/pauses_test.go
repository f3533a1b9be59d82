package signin

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestPausesStayBounded(t *testing.T) {
	p := newPauses(1, firstPause, longestPause)
	now := time.Now()
	var victim key
	copy(victim[:], "victim")
	for range 5 { // the one that guesses hardest
		p.take(victim, now)
		now = now.Add(5 * time.Second)
	}
	now = now.Add(-5 * time.Second)
	require.Positive(t, p.take(victim, now))
	for i := range 2 * maxBuckets {
		var k key
		binary.BigEndian.PutUint64(k[8:], uint64(i)+1)
		p.take(k, now)
	}
	require.LessOrEqual(t, len(p.buckets), maxBuckets)
	require.Positive(t, p.take(victim, now), "a flood of names does not wash away who is paused")
}

func TestClockSetBackLocksNobodyOut(t *testing.T) {
	now := time.Now()
	p := newPauses(2, firstPause, longestPause)
	require.Zero(t, p.take(key{}, now))
	require.Zero(t, p.take(key{}, now.Add(-24*time.Hour)), "one attempt is free on any clock")

	for range 4 {
		p.take(key{1}, now)
	}
	back := now.Add(-24 * time.Hour)
	require.Positive(t, p.take(key{1}, back), "nothing is forgotten")
	require.Zero(t, p.take(key{1}, back.Add(longestPause)), "and nobody waits for the old time")
}

// Pauses double; one 32 comes twice because a minute of waiting forgets an attempt.
func TestPausesGrow(t *testing.T) {
	p := newPauses(2, firstPause, longestPause)
	now := time.Now()
	var waits []time.Duration
	for range 10 {
		for p.take(key{}, now) == 0 {
			now = now.Add(time.Microsecond)
		}
		wait := p.take(key{}, now)
		waits = append(waits, wait.Round(time.Second))
		now = now.Add(wait)
	}
	require.Equal(t, []time.Duration{1, 2, 4, 8, 16, 32, 32, 60, 60, 60}, func() (s []time.Duration) {
		for _, w := range waits {
			s = append(s, w/time.Second)
		}
		return s
	}())
}

// An attempt that is not counted starts no pause, in none of its buckets.
func TestWhoWaitsIsNotPausedAnew(t *testing.T) {
	now := time.Now()
	narrow, wide := newPauses(3, firstPauseOfCodes, longestPauseOfCodes), newPauses(3, firstPause, longestPauseOfCodes)
	mine := counted{{narrow, key{1}}, {wide, key{2}}}
	for range 4 {
		require.Zero(t, mine.take(now))
		now = now.Add(2 * firstPauseOfCodes)
	}
	for wide.take(key{2}, now) == 0 { // strangers elsewhere
	}
	require.Zero(t, narrow.wait(key{1}, now))
	require.Positive(t, mine.take(now))
	require.Zero(t, narrow.wait(key{1}, now))
	require.Zero(t, narrow.take(key{1}, now))
}

func TestNetworkKey(t *testing.T) {
	require.Equal(t, networkKey(netip.MustParseAddr("10.1.2.3"), 64), networkKey(netip.MustParseAddr("::ffff:10.1.2.3"), 64))
	require.NotEqual(t, networkKey(netip.MustParseAddr("10.1.2.3"), 64), networkKey(netip.MustParseAddr("10.1.2.4"), 64))
	require.Equal(t, networkKey(netip.MustParseAddr("2001:db8::1"), 64), networkKey(netip.MustParseAddr("2001:db8::2"), 64))
	require.Equal(t, networkKey(netip.MustParseAddr("fe80::1%eth0"), 64), networkKey(netip.MustParseAddr("fe80::1%eth1"), 64))
	require.Equal(t, networkKey(netip.MustParseAddr("2001:db8:1:2::1"), 48), networkKey(netip.MustParseAddr("2001:db8:1:3::1"), 48))
	require.NotEqual(t, loginKey("a", key{}), loginKey("a", key{1}))
	require.Equal(t, loginKey(" Anna ", key{}), loginKey("anna", key{}))
}

func TestHomesStayBounded(t *testing.T) {
	h := newHomes()
	now := time.Now()
	for i := range maxHomes + 100 {
		var k key
		binary.BigEndian.PutUint64(k[8:], uint64(i))
		h.add(k, now)
	}
	require.Len(t, h.last, maxHomes)
	h.add(key{1}, now)
	require.True(t, h.has(key{1}, now.Add(homeFor-1)))
	require.False(t, h.has(key{1}, now.Add(homeFor)))
}
