package audit

import (
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
	"github.com/transparency-dev/merkle/testonly"
	"golang.org/x/mod/sumdb/tlog"
)

// Another implementation makes the same proofs, accepts them, and refuses the same
// corruptions: those that its own tests try.

func oracleLog(t *testing.T, n int) (*Memory, *testonly.Tree) {
	t.Helper()
	m, oracle, p := NewMemory(), testonly.New(rfc6962.DefaultHasher), start([16]byte{1})
	for i := range n {
		rec := fmt.Appendf(nil, "record %d", i)
		m.rows = append(m.rows, p.add(rec))
		oracle.AppendData(rec)
	}
	return m, oracle
}

func hashList(raw [][]byte) []tlog.Hash {
	hashes := make([]tlog.Hash, len(raw))
	for i, h := range raw {
		hashes[i] = tlog.Hash(h)
	}
	return hashes
}

// corruptions are what is not a proof any more.
func corruptions(good []tlog.Hash, root, older tlog.Hash) map[string][]tlog.Hash {
	bad := map[string][]tlog.Hash{
		"trailing root":  append(slices.Clone(good), root),
		"preceding root": append([]tlog.Hash{root}, good...),
		"trailing older": append(slices.Clone(good), older),
		"trailing zero":  append(slices.Clone(good), tlog.Hash{}),
	}
	for i := range good {
		changed := slices.Clone(good)
		changed[i][0] ^= 8
		bad[fmt.Sprintf("bit of hash %d", i)] = changed
		bad[fmt.Sprintf("hash %d removed", i)] = slices.Delete(slices.Clone(good), i, i+1)
		bad[fmt.Sprintf("hash %d twice", i)] = slices.Insert(slices.Clone(good), i, good[i])
		if i > 0 {
			swapped := slices.Clone(good)
			swapped[i-1], swapped[i] = swapped[i], swapped[i-1]
			bad[fmt.Sprintf("hashes %d and %d swapped", i-1, i)] = swapped
		}
	}
	return bad
}

func TestInclusionAgainstOracle(t *testing.T) {
	const n = 40
	m, oracle := oracleLog(t, n)
	hasher := rfc6962.DefaultHasher
	for size := int64(1); size <= n; size++ {
		root := oracle.HashAt(uint64(size))
		for seq := range size {
			path, err := tlog.ProveRecord(size, seq, hashReader(t.Context(), m))
			require.NoError(t, err)
			want, err := oracle.InclusionProof(uint64(seq), uint64(size))
			require.NoError(t, err)
			require.Equal(t, hashList(want), []tlog.Hash(path))

			leaf := tlog.RecordHash(m.rows[seq].Record)
			// both says whether our check and the oracle's accept; they must agree.
			both := func(p []tlog.Hash, size, seq int64, leaf tlog.Hash, root []byte) bool {
				raw := make([][]byte, len(p))
				for i := range p {
					raw[i] = p[i][:]
				}
				theirs := proof.VerifyInclusion(hasher, uint64(seq), uint64(size), leaf[:], raw, root) == nil
				ours := tlog.CheckRecord(p, size, tlog.Hash(root), seq, leaf) == nil
				require.Equal(t, theirs, ours, "entry %d of %d", seq, size)
				return ours
			}
			require.True(t, both(path, size, seq, leaf, root))
			for what, bad := range corruptions(path, tlog.Hash(root), leaf) {
				require.False(t, both(bad, size, seq, leaf, root), "%s, entry %d of %d", what, seq, size)
			}
			for _, other := range []int64{seq - 1, seq + 1, seq ^ 2} {
				require.False(t, both(path, size, other, leaf, root), "as entry %d", other)
			}
			for _, other := range []int64{size * 2, size / 2} {
				both(path, other, seq, leaf, root) // a path of one length may fit several sizes: the checkpoint binds the size
			}
			require.False(t, both(path, size, seq, tlog.RecordHash([]byte("x")), root))
			require.False(t, both(path, size, seq, leaf, hasher.EmptyRoot()))
		}
	}
}

func TestConsistencyAgainstOracle(t *testing.T) {
	const n = 40
	m, oracle := oracleLog(t, n)
	for to := int64(0); to <= n; to++ {
		for from := int64(0); from <= to; from++ {
			hashes, err := ProveConsistency(t.Context(), m, from, to)
			require.NoError(t, err)
			want, err := oracle.ConsistencyProof(uint64(from), uint64(to))
			require.NoError(t, err)
			require.Len(t, hashes, len(want), "from %d to %d", from, to)
			path := make([]tlog.Hash, len(hashes))
			for i := range hashes {
				require.Equal(t, want[i], hashes[i][:])
				path[i] = hashes[i]
			}
			old, root := oracle.HashAt(uint64(from)), oracle.HashAt(uint64(to))
			both := func(p []tlog.Hash, old, root []byte) bool {
				raw := make([][]byte, len(p))
				for i := range p {
					raw[i] = p[i][:]
				}
				theirs := proof.VerifyConsistency(rfc6962.DefaultHasher, uint64(from), uint64(to), raw, old, root) == nil
				if from == 0 || from == to {
					return theirs
				}
				ours := tlog.CheckTree(p, to, tlog.Hash(root), from, tlog.Hash(old)) == nil
				require.Equal(t, theirs, ours, "from %d to %d", from, to)
				return ours
			}
			require.True(t, both(path, old, root))
			if from == 0 || from == to {
				continue
			}
			for what, bad := range corruptions(path, tlog.Hash(root), tlog.Hash(old)) {
				require.False(t, both(bad, old, root), "%s, from %d to %d", what, from, to)
			}
			require.False(t, both(path, root, old))
		}
	}
	_, err := ProveConsistency(t.Context(), m, 3, 2)
	require.Error(t, err)
	_, err = ProveConsistency(t.Context(), m, -1, 2)
	require.Error(t, err)
	_, err = ProveConsistency(t.Context(), m, n, n+1)
	require.Error(t, err)
}
