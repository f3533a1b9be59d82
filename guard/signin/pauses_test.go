package signin

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestPausesStayBounded(t *testing.T) {
	p := newPauses(1)
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
	p := newPauses(2)
	now := time.Now()
	for range 4 {
		p.take(key{}, now)
	}
	require.LessOrEqual(t, p.take(key{}, now.Add(-24*time.Hour)), longestPause)
}

func TestNetworkKey(t *testing.T) {
	require.Equal(t, networkKey(netip.MustParseAddr("10.1.2.3")), networkKey(netip.MustParseAddr("::ffff:10.1.2.3")))
	require.NotEqual(t, networkKey(netip.MustParseAddr("10.1.2.3")), networkKey(netip.MustParseAddr("10.1.2.4")))
	require.Equal(t, networkKey(netip.MustParseAddr("2001:db8::1")), networkKey(netip.MustParseAddr("2001:db8::2")))
	require.Equal(t, networkKey(netip.MustParseAddr("fe80::1%eth0")), networkKey(netip.MustParseAddr("fe80::1%eth1")))
	require.NotEqual(t, loginKey("a", key{}), loginKey("a", key{1}))
	require.Equal(t, loginKey(" Anna ", key{}), loginKey("anna", key{}))
}
