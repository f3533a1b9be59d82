package audit

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/mod/sumdb/tlog"
)

// Whatever its length, a message has the hash that others compute, and no other.
func TestHasher(t *testing.T) {
	fast, plain := newHasher(), newHasher()
	require.NotNil(t, fast.state, "the marshalled state of SHA-256 has another form: verifying takes longer")
	plain.state = nil
	for name, h := range map[string]*hasher{"state": fast, "sum": plain} {
		t.Run(name, func(t *testing.T) {
			left, right := [32]byte{1}, [32]byte{2}
			for n := range 300 {
				record := bytes.Repeat([]byte{byte(n)}, n)
				leaf := [32]byte(tlog.RecordHash(record))
				node, chain := [32]byte(tlog.NodeHash(left, leaf)), chainNext(right, leaf)
				require.True(t, h.isLeaf(&leaf, record), "%d bytes", n)
				require.True(t, h.isNode(&node, &left, &leaf))
				require.True(t, h.isChain(&chain, &right, &leaf))

				leaf[n%32] ^= 1
				require.False(t, h.isLeaf(&leaf, record), "%d bytes", n)
				require.False(t, h.isNode(&node, &left, &leaf))
				require.False(t, h.isChain(&chain, &right, &leaf))
				left, right = node, chain
			}
		})
	}
}

func TestPad(t *testing.T) {
	for n := range 200 {
		padded := pad(make([]byte, n))
		require.Zero(t, len(padded)%64)
		require.Less(t, len(padded), n+9+64)
		require.Equal(t, byte(0x80), padded[n])
		require.Equal(t, int64(n)*8, int64At(padded, len(padded)-8))
	}
}
