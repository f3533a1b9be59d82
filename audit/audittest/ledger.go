package audittest

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/internal/racetest"
)

var (
	nodeA = strings.Repeat("a", 32)
	nodeB = strings.Repeat("b", 32)
)

func beat(node string, n int64, body string) audit.Beat {
	return audit.Beat{Node: node, N: n, Body: []byte(body)}
}

func beats(t require.TestingT, ctx context.Context, l audit.Ledger, n int) []audit.Beat {
	list, err := l.Beats(ctx, n)
	require.NoError(t, err)
	return list
}

func beatsOnce(t require.TestingT, ctx context.Context, s InboxStore, _ *sql.DB) {
	l, ok := s.(audit.Ledger)
	if !ok {
		return
	}
	require.Empty(t, beats(t, ctx, l, 10))
	first := beat(nodeA, 1, "one")
	require.NoError(t, l.Beat(ctx, first))
	first.Body[0] ^= 1
	require.NoError(t, l.Beat(ctx, beat(nodeA, 1, "another")))
	for range 2 { // reading takes none out, and what is returned is the caller's
		list := beats(t, ctx, l, 10)
		require.Equal(t, []audit.Beat{beat(nodeA, 1, "one")}, list)
		list[0].Body[0] ^= 1
	}
	racetest.Run(t, func(i int) (bool, error) { return true, l.Beat(ctx, beat(nodeB, 1, fmt.Sprint("racer ", i))) })
	require.Len(t, beats(t, ctx, l, 10), 2)
}

func beatsInOrder(t require.TestingT, ctx context.Context, s InboxStore, _ *sql.DB) {
	l, ok := s.(audit.Ledger)
	if !ok {
		return
	}
	for _, n := range []int64{2, 12, 1, 11, 3} {
		require.NoError(t, l.Beat(ctx, beat(nodeA, n, "x")))
		require.NoError(t, l.Beat(ctx, beat(nodeB, n+100, "x")))
	}
	of := map[string][]int64{}
	for _, b := range beats(t, ctx, l, 100) {
		of[b.Node] = append(of[b.Node], b.N)
	}
	require.Equal(t, map[string][]int64{nodeA: {1, 2, 3, 11, 12}, nodeB: {101, 102, 103, 111, 112}}, of)
	require.Len(t, beats(t, ctx, l, 3), 3)
}

func beatsTaken(t require.TestingT, ctx context.Context, s InboxStore, _ *sql.DB) {
	l, ok := s.(audit.Ledger)
	if !ok {
		return
	}
	all := rows(t, ctx, 1)
	for n := range int64(3) {
		require.NoError(t, l.Beat(ctx, beat(nodeA, n+1, "x")))
	}
	at := head(t, ctx, s)
	wrong := at
	wrong.Size, wrong.Last = 1, all[0].Hashes[0]
	taken := []audit.Beat{{Node: nodeA, N: 1}, {Node: nodeA, N: 2}, {Node: nodeB, N: 1}} // the last was removed by somebody else
	require.ErrorIs(t, s.Append(ctx, audit.Batch{After: wrong, Rows: all, Beats: taken}), audit.ErrMoved)
	require.Len(t, beats(t, ctx, l, 10), 3)
	require.NoError(t, s.Append(ctx, audit.Batch{After: at, Rows: all, Beats: taken}))
	require.Equal(t, []audit.Beat{beat(nodeA, 3, "x")}, beats(t, ctx, l, 10))
	require.NoError(t, s.Append(ctx, audit.Batch{After: head(t, ctx, s), Beats: []audit.Beat{{Node: nodeA, N: 3}}}), "without rows")
	require.Empty(t, beats(t, ctx, l, 10))
}

func account(t require.TestingT, ctx context.Context, l audit.Ledger) audit.Account {
	a, err := l.Account(ctx)
	require.NoError(t, err)
	return a
}

func change(after, version int64, body string) *audit.AccountChange {
	return &audit.AccountChange{After: after, Account: audit.Account{Version: version, Body: []byte(body)}}
}

func accountSwaps(t require.TestingT, ctx context.Context, s InboxStore, _ *sql.DB) {
	l, ok := s.(audit.Ledger)
	if !ok {
		return
	}
	all := rows(t, ctx, 2)
	require.Equal(t, audit.Account{}, account(t, ctx, l))
	appended := func(rows []audit.Row, c *audit.AccountChange) error {
		return s.Append(ctx, audit.Batch{After: head(t, ctx, s), Rows: rows, Account: c})
	}
	require.ErrorIs(t, appended(all[:1], change(1, 2, "there is none yet")), audit.ErrMoved)
	require.Equal(t, audit.Account{}, account(t, ctx, l))
	require.Zero(t, head(t, ctx, s).Size, "nothing of a refused batch is kept")
	require.NoError(t, appended(all[:1], change(0, 1, "one")))
	got := account(t, ctx, l)
	require.Equal(t, audit.Account{Version: 1, Body: []byte("one")}, got)
	got.Body[0] ^= 1
	require.ErrorIs(t, appended(all[1:], change(0, 1, "again")), audit.ErrMoved)
	require.Equal(t, audit.Account{Version: 1, Body: []byte("one")}, account(t, ctx, l))
	require.EqualValues(t, 1, head(t, ctx, s).Size)
	require.NoError(t, appended(nil, change(1, 2, "two")), "without rows")
	require.NoError(t, appended(all[1:], nil))
	require.Equal(t, audit.Account{Version: 2, Body: []byte("two")}, account(t, ctx, l))
}

func accountRaced(t require.TestingT, ctx context.Context, s InboxStore, _ *sql.DB) {
	l, ok := s.(audit.Ledger)
	if !ok {
		return
	}
	for version := range int64(2) { // the first one, and one in its place
		at := head(t, ctx, s)
		won := racetest.Run(t, func(i int) (bool, error) {
			err := s.Append(ctx, audit.Batch{After: at, Account: change(version, version+1, fmt.Sprint("racer ", i))})
			if errors.Is(err, audit.ErrMoved) {
				return false, nil
			}
			return err == nil, err
		})
		require.Equal(t, 1, racetest.Count(won))
		for i := range won {
			if won[i] {
				require.Equal(t, audit.Account{Version: version + 1, Body: fmt.Append(nil, "racer ", i)}, account(t, ctx, l))
			}
		}
	}
}
