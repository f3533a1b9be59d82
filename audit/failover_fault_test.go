package audit_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/internal/journaltest"
)

// grown is how many goroutines 300 calls leave behind while the store hangs.
func grown(t *testing.T, r *rig, to crmguard.Recorder) int {
	t.Helper()
	require.Error(t, r.Record(t.Context(), act(crmguard.Export, "")))
	before := runtime.NumGoroutine()
	var wg sync.WaitGroup
	for range 300 {
		wg.Go(func() { _ = to.Record(t.Context(), act(crmguard.Export, "")) })
	}
	wg.Wait()
	return runtime.NumGoroutine() - before
}

// Calls that hang are bounded. A planted fault, a goroutine for each call, is noticed.
func TestHungCallsAreBounded(t *testing.T) {
	r := newRig(t, audit.FailoverOptions{})
	goOn := r.store.hang(t)
	require.Less(t, grown(t, r, r.Failover), 20)
	naive := crmguard.RecorderFunc(func(ctx context.Context, e crmguard.Event) error {
		go func() { _ = r.log.Record(context.WithoutCancel(ctx), e) }()
		return errors.New("too late")
	})
	require.Greater(t, grown(t, r, naive), 200)
	goOn()
}

// copies is how many entries there are of an event whose acknowledgement was lost.
func copies(t *testing.T, record func(r *rig) error) int {
	t.Helper()
	r := newRig(t, audit.FailoverOptions{})
	r.store.mu.Lock()
	r.store.err, r.store.after = errDown, true
	r.store.mu.Unlock()
	require.NoError(t, record(r))
	r.until(t, func() bool { return r.Status().OK() })
	return len(r.events(t))
}

// An entry is there once. A planted fault, recording again without its ID, is noticed.
func TestOnlyOnce(t *testing.T) {
	require.Equal(t, 1, copies(t, func(r *rig) error {
		err := r.Record(t.Context(), act(crmguard.SignIn, ""))
		r.store.set(nil, nil)
		return err
	}))
	require.Equal(t, 2, copies(t, func(r *rig) error {
		_ = r.log.Record(t.Context(), act(crmguard.SignIn, ""))
		r.store.set(nil, nil)
		return r.log.Record(t.Context(), act(crmguard.SignIn, ""))
	}))
}

// Fifty goroutines record each event under all policies while the store comes and
// goes: each event is there once or counted, and each actor's are in order.
func TestFailoverRaced(t *testing.T) {
	r := newRig(t, audit.FailoverOptions{})
	ctx, stop := context.WithCancel(t.Context())
	var flapping sync.WaitGroup
	flapping.Go(func() {
		for down := true; ctx.Err() == nil; down = !down {
			r.store.set(map[bool]error{true: errDown}[down], nil)
			time.Sleep(time.Millisecond)
		}
		r.store.set(nil, nil)
	})
	var wg sync.WaitGroup
	for w := range 50 {
		wg.Go(func() {
			for i := range 20 {
				for _, a := range []crmguard.Action{crmguard.SignIn, crmguard.View} {
					e := act(a, fmt.Sprint(a, "-", w, "-", i))
					e.Subject.ID = fmt.Sprint("person-", w)
					if err := r.Record(t.Context(), e); err != nil {
						t.Errorf("%s: %v", e.ID, err)
					}
				}
			}
		})
	}
	wg.Wait()
	stop()
	flapping.Wait()
	r.until(t, func() bool { return r.Status().OK() })
	counted, seen, next := 0, 0, map[string]int{}
	for before := int64(0); ; {
		page, err := r.log.Find(t.Context(), audit.Query{Tenant: "acme", Limit: 500, Before: before})
		require.NoError(t, err)
		for _, e := range page.Entries { // the newest first
			gap, ok := audit.GapOf(e.Event)
			switch {
			case ok:
				counted += gap.Count
			case e.Event.Action == crmguard.View:
				seen++
			default:
				who := e.Event.Subject.ID
				want := 19 - next[who]
				require.Equal(t, fmt.Sprint("sign-in-", who[len("person-"):], "-", want), e.Event.ID)
				next[who]++
			}
		}
		if before = page.Next; before == 0 {
			break
		}
	}
	require.Equal(t, 1000, seen+counted)
	require.Len(t, next, 50)
	for who, n := range next {
		require.Equal(t, 20, n, who)
	}
}

// Close waits for nothing that hangs, and keeps what it was given.
func TestCloseWhileHung(t *testing.T) {
	r := newRig(t, audit.FailoverOptions{})
	goOn := r.store.hang(t)
	require.NoError(t, r.Record(t.Context(), act(crmguard.Revoke, "r")))
	require.NoError(t, r.Record(t.Context(), act(crmguard.View, "v")))
	require.NoError(t, r.Failover.Close())
	require.NoError(t, r.Failover.Close())
	goOn()
	r.open(t, audit.FailoverOptions{})
	r.until(t, func() bool { return r.Status().OK() })
	require.Len(t, r.events(t), 2)
}

// What another event took the place of is set aside; it holds nobody up.
func TestConflictInSpool(t *testing.T) {
	r := spooledRig(t, 2)
	other := act(crmguard.Export, "spooled-0")
	require.NoError(t, r.log.Record(t.Context(), other))
	require.Equal(t, []string{"spooled-0", "spooled-1"}, r.replayed(t))
	require.Equal(t, 1, r.Status().Left)
	require.ErrorAs(t, r.Record(t.Context(), act(crmguard.SignIn, "spooled-0")), new(*audit.ConflictError))
}

// More actors than there are counters are counted all the same.
func TestCountersAreBounded(t *testing.T) {
	r := newRig(t, audit.FailoverOptions{})
	r.store.set(errDown, nil)
	require.Error(t, r.Record(t.Context(), act(crmguard.Export, "")))
	for i := range 5000 {
		e := act(crmguard.View, "")
		e.Subject.ID = fmt.Sprint("person-", i)
		require.NoError(t, r.Record(t.Context(), e))
	}
	r.store.set(nil, nil)
	r.until(t, func() bool { return r.Status().OK() })
	total := 0
	for before := int64(0); ; {
		page, err := r.log.Find(t.Context(), audit.Query{Tenant: "acme", Kind: audit.GapKind, Limit: 500, Before: before})
		require.NoError(t, err)
		for _, e := range page.Entries {
			gap, ok := audit.GapOf(e.Event)
			require.True(t, ok)
			total += gap.Count
		}
		if before = page.Next; before == 0 {
			break
		}
	}
	require.Equal(t, 5000, total)
}

func BenchmarkFailover(b *testing.B) {
	for name, direct := range map[string]bool{"log": true, "failover": false} {
		b.Run(name, func(b *testing.B) {
			j := openBench(b)
			var to crmguard.Recorder = j
			if !direct {
				f, err := audit.NewFailover(j, b.TempDir(), nil)
				require.NoError(b, err)
				defer f.Close() //nolint:errcheck // of a benchmark
				to = f
			}
			b.ReportAllocs()
			for b.Loop() {
				if err := to.Record(b.Context(), act(crmguard.View, "")); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func openBench(b *testing.B) *audit.Log {
	b.Helper()
	signer, verifier := journaltest.Signer(b)
	l, err := audit.New(b.Context(), audit.NewMemory(), journaltest.NewSealer(), signer, verifier, nil)
	require.NoError(b, err)
	b.Cleanup(func() { _ = l.Close() })
	return l
}
