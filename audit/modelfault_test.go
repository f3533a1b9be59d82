package audit_test

import (
	"context"
	"flag"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/internal/racetest"
)

// fault is one that is planted into a life.
type fault struct {
	store     func(audit.Store) audit.Store
	deaf      bool
	remembers bool // keys are not erased
}

// losing is a store of which some methods lose something.
type losing struct {
	*audit.Memory
	found, read, prunes bool
}

func (s losing) Find(ctx context.Context, q audit.Query) ([]audit.Row, error) {
	rows, err := s.Memory.Find(ctx, q)
	if s.found && len(rows) > 2 {
		rows = append(rows[:1], rows[2:]...)
	}
	return rows, err
}

func (s losing) Read(ctx context.Context, from int64, n int) ([]audit.Row, error) {
	rows, err := s.Memory.Read(ctx, from, n)
	if s.read && len(rows) > 2 {
		rows = append(rows[:1:1], rows[2:]...)
	}
	return rows, err
}

func (s losing) Prune(ctx context.Context, p audit.Pruning, nodes []audit.Node) error {
	if s.prunes {
		return nil
	}
	return s.Memory.Prune(ctx, p, nodes)
}

// recorder takes what rapid says of a failure that was expected.
type recorder struct {
	testing.TB
	t require.TestingT
}

func (recorder) Helper()                     {}
func (recorder) Log(...any)                  {}
func (recorder) Logf(string, ...any)         {}
func (recorder) Failed() bool                { return false }
func (r recorder) Fail()                     { r.t.Errorf("") }
func (r recorder) FailNow()                  { r.t.FailNow() }
func (r recorder) Error(...any)              { r.t.Errorf("") }
func (r recorder) Errorf(f string, a ...any) { r.t.Errorf(f, a...) }
func (r recorder) Fatal(...any)              { r.t.FailNow() }
func (r recorder) Fatalf(string, ...any)     { r.t.FailNow() }

// The model notices what a log, a store or the keys do wrong.
func TestModelNoticesFaults(t *testing.T) {
	for name, value := range map[string]string{"rapid.shrinktime": "0s", "rapid.nofailfile": "true", "rapid.checks": "1000"} {
		f := flag.Lookup(name)
		before := f.Value.String()
		require.NoError(t, f.Value.Set(value))
		t.Cleanup(func() { require.NoError(t, f.Value.Set(before)) })
	}
	lossy := func(s losing) func(audit.Store) audit.Store {
		return func(store audit.Store) audit.Store {
			if memory, ok := store.(*audit.Memory); ok {
				s.Memory = memory
				return s
			}
			return store
		}
	}
	for name, f := range map[string]fault{
		"an entry is not found":          {store: lossy(losing{found: true})},
		"an entry is left out":           {store: lossy(losing{read: true})},
		"what is removed is still there": {store: lossy(losing{prunes: true})},
		"a hold is not heeded":           {deaf: true},
		"an erased client is readable":   {remembers: true},
	} {
		t.Run(name, func(t *testing.T) {
			require.False(t, racetest.Passes(func(tt require.TestingT) {
				rapid.Check(recorder{TB: t, t: tt}, func(r *rapid.T) { live(r, t, f) })
			}))
		})
	}
}
