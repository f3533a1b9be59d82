package audittest

import (
	"context"
	"iter"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/mod/sumdb/note"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/internal/racetest"
)

// sound is an anchor that does its duties; faulty ones neglect one each.
type sound struct {
	v note.Verifier

	mu    sync.Mutex
	notes []audit.Checkpoint
}

func (s *sound) Keep(_ context.Context, n []byte) error {
	c, err := audit.OpenCheckpoint(n, s.v)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.notes = append(s.notes, c)
	return nil
}

func (s *sound) Newest(context.Context) ([]byte, time.Time, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.notes) == 0 {
		return nil, time.Time{}, nil
	}
	return slices.MaxFunc(s.notes, func(a, b audit.Checkpoint) int { return int(a.Size - b.Size) }).Note, time.Now(), nil
}

func (s *sound) All(context.Context) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		for _, c := range s.notes {
			if !yield(c.Note, nil) {
				return
			}
		}
	}
}

type lastOnly struct{ *sound }

func (l lastOnly) Newest(context.Context) ([]byte, time.Time, error) {
	if len(l.notes) == 0 {
		return nil, time.Time{}, nil
	}
	return l.notes[len(l.notes)-1].Note, time.Now(), nil
}

type timeless struct{ *sound }

func (s timeless) Newest(ctx context.Context) ([]byte, time.Time, error) {
	n, _, err := s.sound.Newest(ctx)
	return n, time.Time{}, err
}

type emptyIsSomething struct{ *sound }

func (emptyIsSomething) Newest(context.Context) ([]byte, time.Time, error) {
	return []byte{}, time.Now(), nil
}

type onceOnly struct{ *sound }

func (o onceOnly) Keep(ctx context.Context, n []byte) error {
	for _, c := range o.notes {
		if string(c.Note) == string(n) {
			return audit.ErrMoved
		}
	}
	return o.sound.Keep(ctx, n)
}

type trusting struct{ *sound }

func (s trusting) Keep(_ context.Context, n []byte) error {
	s.notes = append(s.notes, audit.Checkpoint{Size: int64(len(s.notes)), Note: n})
	return nil
}

type forgetful struct{ *sound }

func (f forgetful) Keep(ctx context.Context, n []byte) error {
	err := f.sound.Keep(ctx, n)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.notes = f.notes[max(0, len(f.notes)-20):]
	return err
}

type silent struct{ audit.Anchor }

// Each duty notices the faults that are planted against it.
func TestAnchorFaults(t *testing.T) {
	fine := func(v note.Verifier) *sound { return &sound{v: v} }
	RunAnchor(t, func(_ *testing.T, v note.Verifier) audit.Anchor { return fine(v) })
	for duty, faults := range map[string][]func(v note.Verifier) audit.Anchor{
		anchorDuties[0].name: {func(v note.Verifier) audit.Anchor { return emptyIsSomething{fine(v)} }},
		anchorDuties[1].name: {
			func(v note.Verifier) audit.Anchor { return lastOnly{fine(v)} },
			func(v note.Verifier) audit.Anchor { return timeless{fine(v)} },
		},
		anchorDuties[2].name: {func(v note.Verifier) audit.Anchor { return onceOnly{fine(v)} }},
		anchorDuties[3].name: {func(v note.Verifier) audit.Anchor { return trusting{fine(v)} }},
		anchorDuties[4].name: {
			func(v note.Verifier) audit.Anchor { return forgetful{fine(v)} },
			func(v note.Verifier) audit.Anchor { return silent{fine(v)} },
		},
		anchorDuties[5].name: {func(v note.Verifier) audit.Anchor { return forgetful{fine(v)} }},
	} {
		i := slices.IndexFunc(anchorDuties, func(d anchorDuty) bool { return d.name == duty })
		for _, open := range faults {
			require.False(t, racetest.Passes(func(tt require.TestingT) { anchorDuties[i].check(tt, t.Context(), open) }), duty)
		}
	}
}
