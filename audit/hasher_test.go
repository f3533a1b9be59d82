package audit

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/mod/sumdb/tlog"
)

// A hasher that is used again has nothing of what it hashed before.
func TestHasher(t *testing.T) {
	h := newHasher()
	left := [32]byte{1}
	for n := range 300 {
		record := bytes.Repeat([]byte{byte(n)}, (n*7)%300)
		leaf := [32]byte(tlog.RecordHash(record))
		node := [32]byte(tlog.NodeHash(left, leaf))
		require.True(t, h.isLeaf(&leaf, record), "%d bytes", n)
		require.True(t, h.isNode(&node, &left, &leaf))

		leaf[n%32] ^= 1
		require.False(t, h.isLeaf(&leaf, record), "%d bytes", n)
		require.False(t, h.isNode(&node, &left, &leaf))
		left = node
	}
}
