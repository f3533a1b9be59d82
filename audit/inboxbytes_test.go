package audit

import (
	"context"
	"encoding/hex"
	"flag"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Sets of numbers behave like a slow set.
func TestSpans(t *testing.T) {
	const most = 40
	random := func() (s spans, slow [most]bool) {
		for range rand.IntN(8) {
			from := rand.Int64N(most)
			to := min(from+rand.Int64N(8), most)
			s.add(from, to)
			for i := from; i < to; i++ {
				slow[i] = true
			}
		}
		return s, slow
	}
	check := func(s spans, want func(i int) bool) {
		var slow spans
		for i := most - 1; i >= 0; i-- {
			if want(i) {
				slow.add(int64(i), int64(i+1))
			}
		}
		require.True(t, slices.Equal(slow, s), "%v instead of %v", s, slow)
		c := cutter{b: appendSpans(nil, s)}
		require.True(t, slices.Equal(s, c.spans()))
		require.False(t, c.failed)
		require.Empty(t, c.b)
	}
	for range 3000 {
		a, slowA := random()
		b, slowB := random()
		check(a, func(i int) bool { return slowA[i] })
		check(a.minus(b), func(i int) bool { return slowA[i] && !slowB[i] })
		check(a.both(b), func(i int) bool { return slowA[i] && slowB[i] })
		union := a.clone()
		union.addAll(b)
		check(union, func(i int) bool { return slowA[i] || slowB[i] })
		require.Equal(t, union.count(), a.count()+b.minus(a).count())
	}
	require.Equal(t, "3-5,9", spans{{3, 6}, {9, 10}}.String())
}

const goldenInbox = "testdata/inbox-v1.hex"

// What version 1 seals for the inbox, line by line: heartbeat, account, MAC.
func TestGoldenInbox(t *testing.T) {
	log, node := [16]byte{1}, [16]byte{2}
	beat := &pulseOf{n: 3, next: 12, open: true, committed: spans{{0, 4}, {6, 7}}, void: spans{{4, 6}}, doubtful: spans{{9, 10}}}
	a := &account{version: 5, nodes: map[[16]byte]*nodeAccount{node: {
		beat: 3, next: 12, seen: 1_700_000_000_000_000, open: true,
		committed: beat.committed, done: spans{{0, 7}}, doubtful: beat.doubtful, told: spans{{8, 9}},
	}}}
	p := start(log)
	p.add(smallBody)
	mark := (&tailing{store: noTail{}, key: &tailKey{key: [32]byte{3}, sealed: []byte("sealed")}}).seal(&p, 5)
	lines := []string{
		hex.EncodeToString(beat.append(append([]byte{beatVersion}, log[:]...))),
		hex.EncodeToString(a.append(nil, log)),
		hex.EncodeToString(mark),
	}
	if flag.Lookup("update").Value.String() == "true" {
		require.NoError(t, os.WriteFile(goldenInbox, []byte(strings.Join(lines, "\n")+"\n"), 0o644))
	}
	want, err := os.ReadFile(goldenInbox)
	require.NoError(t, err)
	require.Equal(t, string(want), strings.Join(lines, "\n")+"\n")

	plain, err := hex.DecodeString(lines[0])
	require.NoError(t, err)
	read, err := parseBeat(log, plain)
	require.NoError(t, err)
	require.Equal(t, beat, read)
	plain, err = hex.DecodeString(lines[1])
	require.NoError(t, err)
	stored, err := parseAccount(log, plain)
	require.NoError(t, err)
	require.Equal(t, a.nodes, stored.nodes)
	_, err = parseAccount([16]byte{9}, plain)
	require.Error(t, err, "of another log")
}

type noTail struct{}

func (noTail) Tail(context.Context) ([]byte, error) { return nil, nil }

// What parses is the one form of what it says.
func FuzzInboxBytes(f *testing.F) {
	content, err := os.ReadFile(goldenInbox)
	require.NoError(f, err)
	for line := range strings.Lines(string(content)) {
		b, err := hex.DecodeString(strings.TrimSpace(line))
		require.NoError(f, err)
		f.Add(b)
	}
	log := [16]byte{1}
	f.Fuzz(func(t *testing.T, b []byte) {
		if p, err := parseBeat(log, b); err == nil {
			require.Equal(t, b, p.append(append([]byte{beatVersion}, log[:]...)))
		}
		if a, err := parseAccount(log, b); err == nil {
			require.Len(t, a.append(nil, log), len(b))
		}
	})
}
