package audit

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/transparency-dev/merkle/compact"
	"github.com/transparency-dev/merkle/rfc6962"
	"golang.org/x/mod/sumdb/tlog"
)

// Two independent implementations agree on every root, and on the hashes that
// proofs are made of.
func TestTreeAgainstOracles(t *testing.T) {
	factory := compact.RangeFactory{Hash: rfc6962.DefaultHasher.HashChildren}
	oracle := factory.NewEmptyRange(0)
	p := start([16]byte{1})
	require.Equal(t, rfc6962.DefaultHasher.EmptyRoot(), slices.Clone(hashBytes(p.root())))
	var stored []tlog.Hash
	reader := tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		hashes := make([]tlog.Hash, len(indexes))
		for i, index := range indexes {
			hashes[i] = stored[index]
		}
		return hashes, nil
	})
	m := NewMemory()
	for n := range int64(300) {
		rec := fmt.Appendf(nil, "record %d", n)
		row := p.add(rec)
		want, err := tlog.StoredHashes(n, rec, reader)
		require.NoError(t, err)
		require.Equal(t, hashCount(n), len(row.Hashes))
		for i, h := range want {
			require.Equal(t, [32]byte(h), row.Hashes[i])
		}
		stored = append(stored, want...)
		m.rows = append(m.rows, row)

		require.NoError(t, oracle.Append(rfc6962.DefaultHasher.HashLeaf(rec), nil))
		root, err := oracle.GetRootHash(nil)
		require.NoError(t, err)
		require.Equal(t, root, hashBytes(p.root()), "size %d", n+1)
		tree, err := tlog.TreeHash(n+1, reader)
		require.NoError(t, err)
		require.Equal(t, tree, p.root())

		restored, err := at(t.Context(), m, p.log, n+1)
		require.NoError(t, err)
		require.Equal(t, p, restored, "read back from the rows")
	}
}

func hashBytes(h tlog.Hash) []byte { return h[:] }

func TestChainDependsOnEverything(t *testing.T) {
	a, b := start([16]byte{1}), start([16]byte{2})
	require.NotEqual(t, a.last, b.last, "the log")
	x, y := a.clone(), a.clone()
	x.add(NumberedRecord(x.log, 1, x.last))
	y.add(NumberedRecord(y.log, 2, y.last))
	require.NotEqual(t, x.last, y.last, "the record")
	x.add(NumberedRecord(x.log, 3, x.last))
	y.add(NumberedRecord(y.log, 3, y.last))
	require.NotEqual(t, x.last, y.last, "what came before")
	require.Equal(t, start([16]byte{1}), a, "a clone goes on by itself")
}

func BenchmarkAdd(b *testing.B) {
	record := make([]byte, 300)
	for i := range record {
		record[i] = byte(rand.Uint32())
	}
	p := start([16]byte{})
	b.SetBytes(int64(len(record)))
	b.ReportAllocs()
	for b.Loop() {
		p.add(record)
	}
}
