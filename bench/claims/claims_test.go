package main

import (
	"bytes"
	"context"
	"errors"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// fixed is a claim whose sides always measure the same.
func fixed(name string, d direction, limit, ours, peer float64) claim {
	return claim{name: name, unit: "ns", direction: d, limit: limit, open: func(context.Context, *servers) (trial, error) {
		t := trial{ours: constant(ours)}
		if peer != 0 {
			t.peer = constant(peer)
		}
		return t, nil
	}}
}

func constant(value float64) measurement {
	return func(context.Context) (float64, error) { return value, nil }
}

func TestLines(t *testing.T) {
	for name, c := range map[string]struct {
		claim claim
		want  string
	}{
		"met":           {fixed("a.b", atMost, 1.6, 150, 100), "a.b ours=150ns peer=100ns ratio=1.50 goal=<=1.6 ok\n"},
		"just met":      {fixed("a.b", atMost, 1.5, 150, 100), "a.b ours=150ns peer=100ns ratio=1.50 goal=<=1.5 ok\n"},
		"slow":          {fixed("a.b", atMost, 1.6, 1610, 1000), "a.b ours=1610ns peer=1000ns ratio=1.61 goal=<=1.6 SHORT\n"},
		"throughput":    {fixed("a.b", atLeast, 0.4, 4, 10), "a.b ours=4.00ns peer=10.0ns ratio=0.40 goal=>=0.4 ok\n"},
		"too little":    {fixed("a.b", atLeast, 0.4, 3.9, 10), "a.b ours=3.90ns peer=10.0ns ratio=0.39 goal=>=0.4 SHORT\n"},
		"ceiling":       {fixed("a.b", atMost, 250, 249.6, 0), "a.b ours=250ns peer=none ratio=none goal=<=250 ok\n"},
		"above ceiling": {fixed("a.b", atMost, 250, 251, 0), "a.b ours=251ns peer=none ratio=none goal=<=250 SHORT\n"},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			fell, err := run(t.Context(), &out, []claim{c.claim}, nil)
			require.NoError(t, err)
			require.Equal(t, c.want, out.String())
			require.Equal(t, strings.HasSuffix(c.want, "SHORT\n"), fell == 1)
		})
	}
}

// A side that does four times the work is noticed, though nothing is fixed.
func TestSlowSideIsShort(t *testing.T) {
	var sink int
	work := func(n int) func() error {
		return func() error {
			for i := range n {
				sink += i * i
			}
			return nil
		}
	}
	slow := claim{name: "slow", unit: "ns", direction: atMost, limit: 2, open: func(context.Context, *servers) (trial, error) {
		return trial{ours: perOp(work(40_000)), peer: perOp(work(10_000))}, nil
	}}
	var out bytes.Buffer
	fell, err := run(t.Context(), &out, []claim{slow}, nil)
	require.NoError(t, err)
	require.Equal(t, 1, fell, out.String())
	require.NotZero(t, sink)
}

func TestOnlyAndList(t *testing.T) {
	claims := func() []claim {
		broken := claim{name: "b.broken", direction: atMost, limit: 1, open: func(context.Context, *servers) (trial, error) {
			return trial{}, errors.New("cannot be opened")
		}}
		return []claim{fixed("a.one", atMost, 1, 1, 1), fixed("a.two", atMost, 2, 1, 1), broken}
	}
	var out bytes.Buffer
	_, err := run(t.Context(), &out, claims(), []string{"-only", "a."})
	require.NoError(t, err)
	require.Equal(t, 2, strings.Count(out.String(), "\n"))

	out.Reset()
	_, err = run(t.Context(), &out, claims(), []string{"-list"})
	require.NoError(t, err)
	require.Equal(t, "a.one goal=<=1\na.two goal=<=2\nb.broken goal=<=1\n", out.String())

	_, err = run(t.Context(), &out, claims(), []string{"-only", "c."})
	require.ErrorContains(t, err, "no such claim")
	_, err = run(t.Context(), &out, claims(), []string{"a.one"})
	require.ErrorContains(t, err, "no such claim")
	_, err = run(t.Context(), &out, claims(), nil)
	require.ErrorContains(t, err, "b.broken: cannot be opened")
}

// Ours and the peer are measured in turn, so that a machine that slows down
// slows both; medians leave out single bad rounds.
func TestTurnsAndMedians(t *testing.T) {
	var order strings.Builder
	closed := 0
	values := map[string][]float64{
		"o": {2, 2, 2, 900, 2, 2, 2, 800, 2},
		"p": {1, 1, 700, 1, 1, 1, 1, 1, 1},
	}
	side := func(name string) measurement {
		round := 0
		return func(context.Context) (float64, error) {
			order.WriteString(name)
			round++
			return values[name][round-1], nil
		}
	}
	c := claim{direction: atMost, limit: 2, open: func(context.Context, *servers) (trial, error) {
		return trial{ours: side("o"), peer: side("p"), close: func() error { closed++; return nil }}, nil
	}}
	r, err := c.measure(t.Context(), &servers{})
	require.NoError(t, err)
	require.Equal(t, result{ours: 2, peer: 1, ratio: 2}, r)
	require.Equal(t, "oppooppooppooppoop", order.String())
	require.Equal(t, 1, closed)
}

func TestErrorsEndTheMeasurement(t *testing.T) {
	bad := errors.New("bad")
	for name, side := range map[string]trial{
		"ours": {ours: perOp(func() error { return bad }), peer: constant(1)},
		"peer": {ours: constant(1), peer: perOp(func() error { return bad })},
	} {
		c := claim{open: func(context.Context, *servers) (trial, error) { return side, nil }}
		_, err := c.measure(t.Context(), &servers{})
		require.ErrorIs(t, err, bad, name)
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := fixed("a", atMost, 1, 1, 1).measure(cancelled, &servers{})
	require.ErrorIs(t, err, context.Canceled)
}

func TestNames(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range allClaims() {
		require.Regexp(t, regexp.MustCompile(`^[a-z]+\.[a-z-]+$`), c.name)
		require.False(t, seen[c.name], c.name)
		seen[c.name] = true
	}
}

// Every claim runs, however fast this machine is.
func TestClaimsOpen(t *testing.T) {
	for size, small := range map[*int]int{
		&manyClients: 2_000, &manyTenants: 20, &manyCached: 400, &manyCalls: 20_000, &coldPages: 10, &reencrypted: 1_000,
		&verifiedEntries: 640, &provenAmong: 10_000, &rememberedNot: 20_000,
		&checkedRules: 1_000, &manyRules: 2_000, &filteredContacts: 60_000, &filteredSellers: 400,
	} {
		full := *size
		*size = small
		t.Cleanup(func() { *size = full })
	}
	all := crmContacts
	lines := bytes.SplitAfter(all, []byte("\n"))
	crmContacts = bytes.Join(lines[:min(len(lines), 600)], nil)
	t.Cleanup(func() { crmContacts = all })
	for _, c := range allClaims() {
		t.Run(c.name, func(t *testing.T) {
			var s servers
			opened, err := c.open(t.Context(), &s)
			require.NoError(t, err)
			_, err = opened.ours(t.Context())
			require.NoError(t, err)
			if opened.peer != nil {
				_, err = opened.peer(t.Context())
				require.NoError(t, err)
			}
			if opened.close != nil {
				require.NoError(t, opened.close())
			}
			require.NoError(t, s.stop())
		})
	}
}
