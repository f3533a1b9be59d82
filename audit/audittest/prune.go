package audittest

import (
	"context"
	"math/rand/v2"
	"slices"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/internal/racetest"
)

// prunes tests a store that is an [audit.Pruner].
func prunes(t require.TestingT, ctx context.Context, s audit.Store) {
	p, ok := s.(audit.Pruner)
	if !ok {
		return
	}
	all := rows(t, ctx, 600)
	add(t, ctx, s, all...)
	at := head(t, ctx, s)
	none, err := p.Pruned(ctx)
	require.NoError(t, err)
	require.Zero(t, none.Size)
	pruned := func(want int64) {
		got, err := p.Pruned(ctx)
		require.NoError(t, err)
		require.Equal(t, want, got.Size)
		left, err := s.Read(ctx, 0, 1000)
		require.NoError(t, err)
		require.Equal(t, all[want:], left)
		require.Equal(t, at, head(t, ctx, s), "the log stands where it stood")
		found, err := s.Find(ctx, audit.Query{Tenant: "acme", Subject: all[3].Keys.Subject, Limit: 500, Before: 400})
		require.NoError(t, err)
		for _, row := range found {
			require.GreaterOrEqual(t, row.Seq, want)
		}
	}
	nodes := []audit.Node{{Seq: 3, Level: 2, Hash: [32]byte{1}}, {Seq: 255, Level: 8, Hash: [32]byte{2}}}
	require.Error(t, p.Prune(ctx, audit.Pruning{Size: 600, Note: []byte("all")}, nodes), "the last row says where the log stands")
	pruned(0)
	left, err := p.Nodes(ctx, 0, 0, 10)
	require.NoError(t, err)
	require.Empty(t, left, "nothing of a prune that failed is kept")

	statements := racetest.Run(t, func(i int) (int, error) {
		return i, p.Prune(ctx, audit.Pruning{Size: 256, Note: []byte("first")}, nodes)
	})
	require.NotEmpty(t, statements)
	pruned(256)
	require.NoError(t, p.Prune(ctx, audit.Pruning{Size: 512, Note: []byte("second")}, []audit.Node{{Seq: 511, Level: 8}, {Seq: 511, Level: 9}}))
	require.NoError(t, p.Prune(ctx, audit.Pruning{Size: 256, Note: []byte("late")}, nil))
	pruned(512)
	got, err := p.Pruned(ctx)
	require.NoError(t, err)
	require.Equal(t, "second", string(got.Note))

	want := append(slices.Clone(nodes), audit.Node{Seq: 511, Level: 8}, audit.Node{Seq: 511, Level: 9})
	for _, c := range []struct {
		seq      int64
		level, n int
		want     []audit.Node
	}{
		{0, 0, 10, want}, {0, 0, 1, want[:1]}, {3, 2, 1, want[:1]}, {3, 3, 9, want[1:]}, {255, 8, 2, want[1:3]}, {511, 9, 5, want[3:]}, {512, 0, 5, nil},
	} {
		list, err := p.Nodes(ctx, c.seq, c.level, c.n)
		require.NoError(t, err)
		require.ElementsMatch(t, c.want, list)
		require.True(t, slices.IsSortedFunc(list, func(a, b audit.Node) int { return int(a.Seq-b.Seq)*100 + a.Level - b.Level }))
	}

	// An event that is gone may come again.
	again := all[rand.IntN(512)] //nolint:gosec // any will do
	again.Seq, again.Hashes = 600, again.Hashes[:1]
	require.NoError(t, s.Append(ctx, audit.Batch{After: at, Rows: []audit.Row{again}}))
}
