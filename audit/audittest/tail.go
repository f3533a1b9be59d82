package audittest

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/internal/racetest"
)

// keepsTail holds a store to [audit.Tail], if it is one.
func keepsTail(t require.TestingT, ctx context.Context, s audit.Store) {
	tails, ok := s.(audit.Tail)
	if !ok {
		return
	}
	tail := func(want []byte) {
		for range 2 {
			got, err := tails.Tail(ctx)
			require.NoError(t, err)
			require.Equal(t, want, got)
			for i := range got {
				got[i] ^= 1 // it is the caller's
			}
		}
	}
	all := rows(t, ctx, 2+racetest.Racers)
	tail(nil)
	empty := head(t, ctx, s)
	one := []byte("one")
	require.NoError(t, s.Append(ctx, audit.Batch{After: empty, Rows: all[:1], Tail: one}))
	one[0] ^= 1
	tail([]byte("one"))
	require.ErrorIs(t, s.Append(ctx, audit.Batch{After: empty, Rows: all[:1], Tail: []byte("refused")}), audit.ErrMoved)
	tail([]byte("one"))
	require.NoError(t, s.Append(ctx, audit.Batch{After: head(t, ctx, s), Checkpoint: &audit.Checkpoint{Size: 1, Note: []byte("note")}}))
	tail([]byte("one"))
	long := bytes.Repeat([]byte{0, 0xff}, 2000)
	require.NoError(t, s.Append(ctx, audit.Batch{After: head(t, ctx, s), Rows: all[1:2], Tail: long}))
	tail(long)

	// Of many that want to go on, the one that did leaves what it brought.
	at := head(t, ctx, s)
	won := racetest.Run(t, func(i int) (bool, error) {
		row := all[2+i]
		row.Seq, row.Hashes = 2, row.Hashes[:1]
		err := s.Append(ctx, audit.Batch{After: at, Rows: []audit.Row{row}, Tail: fmt.Append(nil, "racer ", i)})
		if errors.Is(err, audit.ErrMoved) {
			return false, nil
		}
		return err == nil, err
	})
	for i := range won {
		if won[i] {
			tail(fmt.Append(nil, "racer ", i))
		}
	}
}
