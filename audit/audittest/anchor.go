package audittest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"iter"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/internal/racetest"
)

// RunAnchor tests an anchor that can be read. Open returns an empty one that keeps what
// v signs; it must stay usable until the end of the test that it is opened for.
func RunAnchor(t *testing.T, open func(t *testing.T, v note.Verifier) audit.Anchor) {
	for _, d := range anchorDuties {
		t.Run(d.name, func(t *testing.T) {
			d.check(t, t.Context(), func(v note.Verifier) audit.Anchor { return open(t, v) })
		})
	}
}

type anchorDuty struct {
	name  string
	check func(t require.TestingT, ctx context.Context, open func(note.Verifier) audit.Anchor)
}

var anchorDuties = []anchorDuty{
	{"an empty anchor has no newest checkpoint", anchorEmpty},
	{"the newest checkpoint is that of the most entries", anchorNewest},
	{"the same checkpoint may come again", anchorAgain},
	{"what another key signed is refused", anchorStranger},
	{"all that was kept is told", anchorAll},
	{"fifty may keep at once", anchorRaced},
}

// signed makes a key and checkpoints of these sizes.
func signedSizes(t require.TestingT, sizes ...int) (list [][]byte, v note.Verifier) {
	secret, public, err := note.GenerateKey(rand.Reader, "crm.example/journal")
	require.NoError(t, err)
	signer, err := note.NewSigner(secret)
	require.NoError(t, err)
	v, err = note.NewVerifier(public)
	require.NoError(t, err)
	for _, size := range sizes {
		n, err := note.Sign(&note.Note{Text: fmt.Sprintf("%s/%x\n%d\n%s\n", signer.Name(), [16]byte{1}, size, tlog.RecordHash(fmt.Append(nil, size)))}, signer)
		require.NoError(t, err)
		list = append(list, n)
	}
	return list, v
}

func anchorEmpty(t require.TestingT, ctx context.Context, open func(note.Verifier) audit.Anchor) {
	_, v := signedSizes(t)
	n, at, err := open(v).Newest(ctx)
	require.NoError(t, err)
	require.Nil(t, n)
	require.Zero(t, at)
}

func anchorNewest(t require.TestingT, ctx context.Context, open func(note.Verifier) audit.Anchor) {
	list, v := signedSizes(t, 1, 300, 25)
	a := open(v)
	for i, newest := range []int{0, 1, 1} {
		require.NoError(t, a.Keep(ctx, list[i]))
		n, at, err := a.Newest(ctx)
		require.NoError(t, err)
		require.Equal(t, string(list[newest]), string(n))
		require.WithinDuration(t, time.Now(), at, time.Minute)
	}
}

func anchorAgain(t require.TestingT, ctx context.Context, open func(note.Verifier) audit.Anchor) {
	list, v := signedSizes(t, 7)
	a := open(v)
	for range 3 {
		require.NoError(t, a.Keep(ctx, list[0]))
	}
	n, _, err := a.Newest(ctx)
	require.NoError(t, err)
	require.Equal(t, string(list[0]), string(n))
}

func anchorStranger(t require.TestingT, ctx context.Context, open func(note.Verifier) audit.Anchor) {
	list, v := signedSizes(t, 7)
	strange, _ := signedSizes(t, 99)
	a := open(v)
	require.NoError(t, a.Keep(ctx, list[0]))
	require.Error(t, a.Keep(ctx, strange[0]))
	require.Error(t, a.Keep(ctx, []byte("no checkpoint")))
	n, _, err := a.Newest(ctx)
	require.NoError(t, err)
	require.Equal(t, string(list[0]), string(n))
}

func anchorAll(t require.TestingT, ctx context.Context, open func(note.Verifier) audit.Anchor) {
	sizes := make([]int, 300) // more than a page
	for i := range sizes {
		sizes[i] = 1 + i*7919%300
	}
	list, v := signedSizes(t, sizes...)
	a := open(v)
	for _, c := range list {
		require.NoError(t, a.Keep(ctx, c))
	}
	require.ElementsMatch(t, list, allOf(t, ctx, a))
}

// allOf is what an anchor tells of all that it kept.
func allOf(t require.TestingT, ctx context.Context, a audit.Anchor) [][]byte {
	h, ok := a.(interface {
		All(ctx context.Context) iter.Seq2[[]byte, error]
	})
	require.True(t, ok, "it has no method All")
	var all [][]byte
	for c, err := range h.All(ctx) {
		require.NoError(t, err)
		all = append(all, c)
	}
	return all
}

func anchorRaced(t require.TestingT, ctx context.Context, open func(note.Verifier) audit.Anchor) {
	sizes := make([]int, racetest.Racers)
	for i := range sizes {
		sizes[i] = i
	}
	list, v := signedSizes(t, sizes...)
	a := open(v)
	errs := make([]error, len(list))
	var wg sync.WaitGroup
	for i, c := range list {
		wg.Go(func() { errs[i] = a.Keep(ctx, c) })
	}
	wg.Wait()
	require.NoError(t, errors.Join(errs...))
	require.ElementsMatch(t, list, allOf(t, ctx, a))
}
