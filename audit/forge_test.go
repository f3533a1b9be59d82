package audit_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/mod/sumdb/note"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/internal/journaltest"
	"github.com/crmguard/crmguard/internal/racetest"
)

// Whoever writes the store removes checkpoints and makes the rest right again.
func TestCheckpointsRemoved(t *testing.T) {
	good, signer, verifier := history(t, 11)
	pinned := verify(t, good, verifier).Checkpoint
	later := func(days int) *audit.Options {
		return &audit.Options{Clock: func() time.Time { return time.Now().AddDate(0, 0, days) }}
	}
	open := func(f *fixed, o *audit.Options) (*audit.Log, error) {
		return audit.New(t.Context(), f.memory(t), journaltest.NewSealer(), signer, verifier, o)
	}
	against := func(f *fixed, pinned string) audit.Report {
		r, err := audit.VerifyStore(t.Context(), f, verifier, keptNow(pinned))
		require.NoError(t, err)
		return r
	}
	require.Equal(t, audit.Intact, against(good, pinned).Verdict)
	require.EqualValues(t, 11, against(good, pinned).Pinned)

	none := good.clone()
	rewrite(t, none, none.head.Log, 2)
	first := none.clone()
	none.checkpoints, first.checkpoints = nil, first.checkpoints[:1]
	require.Zero(t, first.checkpoints[0].Size)

	require.Equal(t, audit.CannotVerify, verify(t, none, verifier).Verdict)
	require.Equal(t, audit.Forked, against(none, pinned).Verdict)
	_, err := open(none, nil)
	requireBroken(t, err)
	require.ErrorContains(t, err, "no checkpoint")

	require.Equal(t, audit.Forked, against(first, pinned).Verdict, "what was kept outside tells, however clever the forgery is")
	_, err = open(first, later(30))
	requireBroken(t, err)
	log, err := open(first, &audit.Options{Clock: later(30).Clock, AcceptUnsigned: true})
	require.NoError(t, err, "the host says that it looked")
	require.NoError(t, log.Close())

	log, err = open(first, later(1))
	require.NoError(t, err, "what a crash leaves is signed when the machine is repaired")
	r, err := log.Verify(t.Context(), verifier, nil)
	require.NoError(t, err)
	require.Contains(t, []audit.Verdict{audit.CannotVerify, audit.Unanchored}, r.Verdict, "it is signed at once")
	require.NoError(t, log.Close())

	short := good.clone()
	short.rows, short.checkpoints = short.rows[:8], short.checkpoints[:3]
	short.head.Size, short.head.Last = 8, short.rows[7].Hashes[0]
	require.True(t, verify(t, short, verifier).OK(), "cut with its checkpoint: not seen without a pin")
	require.Equal(t, audit.Truncated, against(short, pinned).Verdict)
	require.Equal(t, audit.Intact, against(good, verify(t, short, verifier).Checkpoint).Verdict, "an old pin fits a longer log")

	other, _, otherVerifier := history(t, 3)
	require.Equal(t, audit.CannotVerify, against(good, verify(t, other, otherVerifier).Checkpoint).Verdict, "a stranger's pin")
	foreign := other.clone()
	require.Equal(t, audit.Restored, against(good, string(checkpointOf(t, foreign, signer))).Verdict)
}

// The tail that is older, or longer, than a log leaves unsigned is not right.
func TestOverdueTail(t *testing.T) {
	good, _, verifier := history(t, 11)
	f := good.clone()
	f.checkpoints = f.checkpoints[:2]
	require.True(t, verify(t, f, verifier).OK(), "for a moment")
	f.rows = audit.Aged(f.head.Log, f.rows, 2*time.Hour)
	f.head.Last = f.rows[10].Hashes[0]
	signer, v := journaltest.Signer(t)
	for i := range f.checkpoints {
		f.checkpoints[i].Note = checkpointOf(t, &fixed{head: f.head, rows: f.rows[:f.checkpoints[i].Size]}, signer)
	}
	r := verify(t, f, v)
	require.Equal(t, audit.CannotVerify, r.Verdict, r.Detail)
	require.EqualValues(t, 4, r.At)
}

func requireBroken(t *testing.T, err error) {
	t.Helper()
	_, ok := errors.AsType[*audit.BrokenError](err)
	require.True(t, ok, "%v", err)
}

// memory is a store in use with this content.
func (f *fixed) memory(t *testing.T) audit.Store {
	t.Helper()
	return audit.MemoryOf(f.head.Log, f.rows, f.checkpoints)
}

func TestConflict(t *testing.T) {
	j := open(t, audit.NewMemory())
	e := journaltest.Event(1)
	require.NoError(t, j.Record(t.Context(), e))
	again := e
	again.Private = []crmguard.Private{{Client: e.Private[0].Client, Name: "old", Value: []byte("sealed anew")}}
	require.NoError(t, j.Record(t.Context(), again), "sealed values are not compared")
	again.Time = time.Time{}
	require.NoError(t, j.Record(t.Context(), again), "nor is a time that the log sets")
	for name, change := range map[string]func(*crmguard.Event){
		"subject": func(e *crmguard.Event) { e.Subject.ID = "eve" },
		"reason":  func(e *crmguard.Event) { e.Reason = "other" },
		"time":    func(e *crmguard.Event) { e.Time = e.Time.Add(time.Second) },
		"fields":  func(e *crmguard.Event) { e.Fields = nil },
		"client":  func(e *crmguard.Event) { e.Private = nil },
	} {
		other := e
		change(&other)
		conflict, ok := errors.AsType[*audit.ConflictError](j.Record(t.Context(), other))
		require.True(t, ok, name)
		require.Equal(t, &audit.ConflictError{Tenant: "acme", ID: e.ID, Outcome: e.Outcome}, conflict)
	}
	require.Len(t, j.rows(t), 1)
}

func TestNamesAndTimesThatAreRefused(t *testing.T) {
	j := open(t, audit.NewMemory())
	for name, change := range map[string]func(*crmguard.Event){
		"tenant":         func(e *crmguard.Event) { e.Subject.Tenant, e.Resource.Tenant = "a\xff", "a\xff" },
		"id":             func(e *crmguard.Event) { e.ID = "a\x00" },
		"subject":        func(e *crmguard.Event) { e.Subject.ID = "a\xff" },
		"client":         func(e *crmguard.Event) { e.Private[0].Client = "a\xff" },
		"digest":         func(e *crmguard.Event) { e.Subject.Tenant, e.Resource.Tenant = "sha256:a", "sha256:a" },
		"year 1":         func(e *crmguard.Event) { e.Time = time.Time{}.Add(500) },
		"1969":           func(e *crmguard.Event) { e.Time = time.Unix(-1, 0) },
		"1970":           func(e *crmguard.Event) { e.Time = time.Unix(0, 500) },
		"10000":          func(e *crmguard.Event) { e.Time = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC) },
		"far":            func(e *crmguard.Event) { e.Time = time.Unix(1<<60, 0) },
		"signed in 1969": func(e *crmguard.Event) { e.Subject.AuthenticatedAt = time.Unix(-1, 0) },
		"many values":    func(e *crmguard.Event) { e.Private = make([]crmguard.Private, 257) },
	} {
		e := journaltest.Event(1)
		change(&e)
		require.Error(t, j.Record(t.Context(), e), name)
	}
	require.Empty(t, j.rows(t))
	e := journaltest.Event(1)
	e.Time = e.Time.Add(1500)
	require.NoError(t, j.Record(t.Context(), e))
	require.True(t, j.verify(t).OK())
}

// gateSigner signs when it is let.
type gateSigner struct {
	note.Signer
	gate chan struct{}
}

func (s gateSigner) Sign(b []byte) ([]byte, error) {
	<-s.gate
	return s.Signer.Sign(b)
}

func TestSlowSignerHoldsNobodyUp(t *testing.T) {
	signer, verifier := journaltest.Signer(t)
	slow := gateSigner{signer, make(chan struct{}, 1)}
	slow.gate <- struct{}{} // for the checkpoint of the empty log
	log, err := audit.New(t.Context(), audit.NewMemory(), journaltest.NewSealer(), slow, verifier, &audit.Options{CheckpointEvery: time.Millisecond})
	require.NoError(t, err)
	for i := range 50 {
		require.NoError(t, log.Record(t.Context(), journaltest.Event(i)))
		time.Sleep(time.Millisecond)
	}
	close(slow.gate)
	require.NoError(t, log.Close())
	r, err := log.Verify(t.Context(), verifier, nil)
	require.NoError(t, err)
	require.Zero(t, r.Unsigned())
}

// A checkpoint of this size that says something else was planted.
func TestPlantedCheckpoint(t *testing.T) {
	signer, verifier := journaltest.Signer(t)
	store := audit.NewMemory()
	log, err := audit.New(t.Context(), store, journaltest.NewSealer(), signer, verifier, nil)
	require.NoError(t, err)
	require.NoError(t, store.Append(t.Context(), audit.Batch{Checkpoint: &audit.Checkpoint{Size: 1, Note: []byte("planted")}}))
	require.NoError(t, log.Record(t.Context(), journaltest.Event(0)))
	requireBroken(t, log.Close())
}

// wrongIndex is a store that names rows which are not there.
type wrongIndex struct{ audit.Store }

func (w wrongIndex) Append(ctx context.Context, b audit.Batch) error {
	if len(b.Rows) > 0 {
		return &audit.DuplicateError{Index: []int{7, -1}}
	}
	return w.Store.Append(ctx, b)
}

func TestWrongIndexIsAnError(t *testing.T) {
	j := open(t, wrongIndex{audit.NewMemory()})
	require.ErrorContains(t, j.Record(t.Context(), journaltest.Event(0)), "names row 7 of 1")
}

// What a process left that crashed beside another is signed by the other.
func TestSignsForOthers(t *testing.T) {
	signer, verifier := journaltest.Signer(t)
	store := audit.NewMemory()
	log, err := audit.New(t.Context(), store, journaltest.NewSealer(), signer, verifier, &audit.Options{CheckpointEvery: time.Millisecond})
	require.NoError(t, err)
	defer func() { require.NoError(t, log.Close()) }()
	never := gateSigner{signer, make(chan struct{})}
	crashed, err := audit.New(t.Context(), store, journaltest.NewSealer(), never, verifier, nil)
	require.NoError(t, err)
	require.NoError(t, crashed.Record(t.Context(), journaltest.Event(0)))
	require.Eventually(t, func() bool {
		r, err := log.Verify(t.Context(), verifier, nil)
		require.NoError(t, err)
		return r.Signed == 1
	}, 10*time.Second, time.Millisecond)
	close(never.gate)
	require.NoError(t, crashed.Close())
}

// brokenSigner fails until it is mended.
type brokenSigner struct {
	note.Signer
	broken *atomic.Bool
}

func (s brokenSigner) Sign(b []byte) ([]byte, error) {
	if s.broken.Load() {
		return nil, errors.New("the signer is away")
	}
	return s.Signer.Sign(b)
}

func TestFailingSignerIsToldOfOnce(t *testing.T) {
	signer, verifier := journaltest.Signer(t)
	away := brokenSigner{signer, &atomic.Bool{}}
	logged := &racetest.Buffer{}
	log, err := audit.New(t.Context(), audit.NewMemory(), journaltest.NewSealer(), away, verifier,
		&audit.Options{CheckpointEvery: time.Millisecond, Logger: slog.New(slog.NewTextHandler(logged, nil))})
	require.NoError(t, err)
	away.broken.Store(true)
	require.NoError(t, log.Record(t.Context(), journaltest.Event(0)))
	require.Eventually(t, func() bool { return strings.Contains(logged.String(), "signer is away") }, 10*time.Second, time.Millisecond)
	for i := range 20 {
		require.NoError(t, log.Record(t.Context(), journaltest.Event(i)))
		time.Sleep(time.Millisecond)
	}
	require.Equal(t, 1, strings.Count(logged.String(), "signer is away"))
	away.broken.Store(false)
	require.NoError(t, log.Close(), "the last attempt does not wait")
}

// keptNow is a checkpoint that was kept outside a moment ago.
func keptNow(note string) *audit.VerifyOptions {
	return &audit.VerifyOptions{Kept: []audit.Kept{{Note: []byte(note), At: time.Now()}}}
}
