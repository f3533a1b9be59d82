package audit_test

import (
	"context"
	"errors"
	"iter"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/internal/journaltest"
	"github.com/crmguard/crmguard/internal/racetest"
)

// kept is an anchor that does what a test tells it.
type kept struct {
	mu    sync.Mutex
	notes [][]byte
	at    []time.Time
	err   error
	hang  chan struct{} // not nil: Keep waits for it, whatever its context says
	tries int
	write bool // only
}

func (k *kept) Keep(_ context.Context, note []byte) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if hang := k.hang; hang != nil {
		k.mu.Unlock()
		<-hang
		k.mu.Lock()
	}
	k.tries++
	if k.err != nil {
		return k.err
	}
	k.notes, k.at = append(k.notes, note), append(k.at, time.Now())
	return nil
}

func (k *kept) Newest(context.Context) ([]byte, time.Time, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.write {
		return nil, time.Time{}, errors.ErrUnsupported
	}
	if len(k.notes) == 0 {
		return nil, time.Time{}, nil
	}
	last := len(k.notes) - 1
	return k.notes[last], k.at[last], nil
}

func (k *kept) All(context.Context) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		k.mu.Lock()
		defer k.mu.Unlock()
		for _, n := range k.notes {
			if !yield(n, nil) {
				return
			}
		}
	}
}

func (k *kept) set(change func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	change()
}

func (k *kept) sizes(t *testing.T) []int64 {
	t.Helper()
	k.mu.Lock()
	defer k.mu.Unlock()
	var sizes []int64
	for _, n := range k.notes {
		size, err := audit.SizeOf(n)
		require.NoError(t, err)
		sizes = append(sizes, size)
	}
	return sizes
}

// anchored opens a log with these anchors, inside a bubble of time.
func anchored(t *testing.T, s audit.Store, o audit.Options) *journal {
	t.Helper()
	signer, verifier := journaltest.Signer(t)
	j := &journal{store: s, keys: journaltest.NewSealer(), verifier: verifier, logged: &racetest.Buffer{}}
	o.Logger = slog.New(slog.NewTextHandler(j.logged, nil))
	var err error
	j.Log, err = audit.New(t.Context(), s, j.keys, signer, verifier, &o)
	require.NoError(t, err)
	return j
}

func TestAnchorsGetEachCheckpoint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := &kept{}, &kept{}
		j := anchored(t, audit.NewMemory(), audit.Options{Anchors: []audit.Anchor{a, b}})
		synctest.Wait()
		require.Equal(t, []int64{0}, a.sizes(t), "also that of an empty log")
		for i := range 3 {
			require.NoError(t, j.Record(t.Context(), journaltest.Event(i)))
			time.Sleep(time.Minute + time.Second)
		}
		synctest.Wait()
		require.Equal(t, []int64{0, 1, 2, 3}, a.sizes(t))
		require.Equal(t, a.sizes(t), b.sizes(t))
		status := j.Anchors()
		require.Len(t, status, 2)
		require.EqualValues(t, 3, status[0].Size)
		require.Equal(t, "*audit_test.kept", status[0].Name)
		require.NoError(t, status[0].Err)
		require.Zero(t, status[0].FailingSince)
		require.WithinDuration(t, time.Now(), status[0].Kept, time.Minute)
		require.NoError(t, j.Record(t.Context(), journaltest.Event(4)))
		require.NoError(t, j.Close())
		require.Equal(t, []int64{0, 1, 2, 3, 4}, a.sizes(t), "Close hands over the last one")
	})
}

// What an anchor missed while no process ran, it gets from the next one.
func TestAnchorsCatchUp(t *testing.T) {
	good, signer, verifier := history(t, 5)
	a := &kept{}
	log, err := audit.New(t.Context(), good.memory(t), journaltest.NewSealer(), signer, verifier, &audit.Options{Anchors: []audit.Anchor{a}})
	require.NoError(t, err)
	require.NoError(t, log.Close())
	require.Equal(t, []int64{5}, a.sizes(t))
}

func TestFailingAnchor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		away, fine := &kept{err: errors.New("the other host is away")}, &kept{}
		j := anchored(t, audit.NewMemory(), audit.Options{Anchors: []audit.Anchor{away, fine}})
		began := time.Now()
		for i := range 30 {
			require.NoError(t, j.Record(t.Context(), journaltest.Event(i)), "entries are recorded")
			time.Sleep(time.Minute)
		}
		synctest.Wait()
		status := j.Anchors()
		require.ErrorContains(t, status[0].Err, "away")
		require.Equal(t, began, status[0].FailingSince.Round(time.Second))
		require.NoError(t, status[1].Err)
		require.Equal(t, 1, strings.Count(j.logged.String(), "was not kept outside"), "told of once")
		away.set(func() {
			require.Less(t, away.tries, 45, "left alone for a while after each failure")
			require.Greater(t, away.tries, 25)
			away.err = nil
		})
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		require.Equal(t, []int64{30}, away.sizes(t), "it gets the newest, not all that it missed")
		require.Equal(t, 1, strings.Count(j.logged.String(), "kept outside again"))
		require.Zero(t, j.Anchors()[0].FailingSince)
		require.NoError(t, j.Close())
	})
}

// An anchor that never answers, and does not listen to its context either, holds up
// neither entries nor the other anchors, nor Close for long.
func TestHangingAnchor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hung, fine := &kept{hang: make(chan struct{})}, &kept{}
		j := anchored(t, audit.NewMemory(), audit.Options{Anchors: []audit.Anchor{hung, fine}})
		for i := range 5 {
			require.NoError(t, j.Record(t.Context(), journaltest.Event(i)))
			time.Sleep(time.Minute)
		}
		began := time.Now()
		require.NoError(t, j.Close())
		require.LessOrEqual(t, time.Since(began), 5*time.Second)
		require.EqualValues(t, 5, slices.Max(fine.sizes(t)))
		close(hung.hang)
		synctest.Wait()
	})
}

// Planted: a store that hands its checkpoints to the anchor itself makes the log wait
// for it, and that is noticed.
func TestAnchorThatTheLogWaitsFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hung := &kept{hang: make(chan struct{})}
		signer, verifier := journaltest.Signer(t)
		done := make(chan error, 1)
		go func() {
			log, err := audit.New(t.Context(), &keepsInline{audit.NewMemory(), hung}, journaltest.NewSealer(), signer, verifier, nil)
			if err == nil {
				err = log.Close()
			}
			done <- err
		}()
		time.Sleep(time.Hour)
		require.Empty(t, done)
		close(hung.hang)
		require.NoError(t, <-done)
	})
}

// keepsInline hands checkpoints to an anchor where the log waits for it.
type keepsInline struct {
	audit.Store
	anchor audit.Anchor
}

func (k *keepsInline) Append(ctx context.Context, b audit.Batch) error {
	if b.Checkpoint != nil {
		if err := k.anchor.Keep(ctx, b.Checkpoint.Note); err != nil {
			return err
		}
	}
	return k.Store.Append(ctx, b)
}

func TestAnchorOptions(t *testing.T) {
	signer, verifier := journaltest.Signer(t)
	for _, o := range []audit.Options{{Anchors: []audit.Anchor{nil}}, {Heartbeat: 2 * time.Hour}} {
		_, err := audit.New(t.Context(), audit.NewMemory(), journaltest.NewSealer(), signer, verifier, &o)
		require.Error(t, err)
	}
}

// A silent log makes entries of its own, so that each checkpoint has its time.
func TestHeartbeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, store := &kept{}, audit.NewMemory()
		j := anchored(t, store, audit.Options{Anchors: []audit.Anchor{a}})
		require.NoError(t, j.Record(t.Context(), journaltest.Event(0)))
		time.Sleep(time.Hour)
		synctest.Wait()
		sizes := a.sizes(t)
		require.InDelta(t, 7, len(sizes), 2, "%v", sizes)
		require.Equal(t, slices.Compact(slices.Clone(sizes)), sizes, "no two of one size")
		require.NoError(t, j.Close())
		r, err := j.Verify(t.Context(), j.verifier, nil)
		require.NoError(t, err)
		require.True(t, r.OK(), r.Detail)

		rows := j.rows(t)
		last := rows[len(rows)-1]
		require.Equal(t, audit.ActHeartbeat, last.Keys.Action)
		require.WithinDuration(t, time.Now(), time.UnixMicro(last.Keys.Time), 12*time.Minute, "the newest checkpoint tells when it was made")
		page, err := j.Find(t.Context(), audit.Query{Tenant: "acme"})
		require.NoError(t, err)
		require.Len(t, page.Entries, 1, "no tenant sees them")
		page, err = j.Find(t.Context(), audit.Query{Tenant: "audit:" + r.Log})
		require.NoError(t, err)
		require.NotEmpty(t, page.Entries)
	})
}

// Of two processes that notice the silence, one makes the entry; and a log in use
// makes none.
func TestOneHeartbeatOfTwoProcesses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		signer, verifier := journaltest.Signer(t)
		store := audit.NewMemory()
		var logs [2]*audit.Log
		for i := range logs {
			var err error
			logs[i], err = audit.New(t.Context(), store, journaltest.NewSealer(), signer, verifier, nil)
			require.NoError(t, err)
		}
		for i := range 60 {
			require.NoError(t, logs[i%2].Record(t.Context(), journaltest.Event(i)))
			time.Sleep(time.Minute)
		}
		head, err := store.Head(t.Context())
		require.NoError(t, err)
		require.EqualValues(t, 60, head.Size, "in use: none")
		time.Sleep(time.Hour)
		head, err = store.Head(t.Context())
		require.NoError(t, err)
		require.InDelta(t, 65, head.Size, 1, "silent: one for both")
		for _, l := range logs {
			require.NoError(t, l.Close())
		}
	})
}

// Nobody but the log speaks for the log.
func TestTenantOfTheLog(t *testing.T) {
	j := open(t, audit.NewMemory())
	e := journaltest.Event(0)
	e.Subject.Tenant, e.Resource.Tenant = "audit:0a0b", "audit:0a0b"
	require.ErrorContains(t, j.Record(t.Context(), e), "log's own")
	e.Outcome, e.Subject = crmguard.Denied, crmguard.Subject{}
	require.ErrorContains(t, j.Record(t.Context(), e), "log's own")
}

func TestSizeOf(t *testing.T) {
	for text, want := range map[string]int64{"o\n0\nr\n": 0, "o\n17\nr\n": 17, "o\n017\nr": -1, "o\n-1\nr": -1, "o\n1": -1, "": -1, "o\n\n": -1} {
		size, err := audit.SizeOf([]byte(text))
		if want < 0 {
			require.Error(t, err, text)
			continue
		}
		require.NoError(t, err)
		require.Equal(t, want, size)
	}
}
