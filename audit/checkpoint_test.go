package audit_test

import (
	"context"
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/audit"
)

type asked struct {
	*audit.Memory
	times int
}

func (a *asked) Checkpoints(ctx context.Context, after int64, n int) ([]audit.Checkpoint, error) {
	a.times++
	return a.Memory.Checkpoints(ctx, after, n)
}

// The newest of many checkpoints is found without reading all of them.
func TestLastCheckpoint(t *testing.T) {
	s := &asked{Memory: audit.NewMemory()}
	put := func(size int64) {
		c := audit.Checkpoint{Size: size, Note: []byte("note")}
		require.NoError(t, s.Append(t.Context(), audit.Batch{Checkpoint: &c}))
	}
	last, err := audit.LastCheckpoint(t.Context(), s)
	require.NoError(t, err)
	require.Nil(t, last)
	for size := int64(0); size < 20_000; size += 1 + size%17 {
		put(size)
		s.times = 0
		last, err := audit.LastCheckpoint(t.Context(), s)
		require.NoError(t, err)
		require.Equal(t, size, last.Size)
		require.Less(t, s.times, 80)
	}
	for _, size := range []int64{1 << 40, 1 << 62, math.MaxInt64 - 1, math.MaxInt64} {
		put(size)
		last, err := audit.LastCheckpoint(t.Context(), s)
		require.NoError(t, err)
		require.Equal(t, size, last.Size)
	}
}
