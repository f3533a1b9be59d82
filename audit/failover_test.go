package audit_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/mod/sumdb/note"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/internal/journaltest"
	"github.com/crmguard/crmguard/crmguardtest"
	"github.com/crmguard/crmguard/internal/racetest"
)

var errDown = errors.New("the store is down")

// outage is a store that fails or hangs when told to.
type outage struct {
	audit.Store
	mu       sync.Mutex
	err      error
	after    bool // it fails, but the entry is there
	gate     chan struct{}
	appended atomic.Int64
}

func (o *outage) set(err error, gate chan struct{}) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.err, o.gate = err, gate
}

func (o *outage) hangs() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.gate != nil
}

// hang returns what ends it; the end of the test does, too.
func (o *outage) hang(t *testing.T) (goOn func()) {
	gate := make(chan struct{})
	o.set(nil, gate)
	goOn = sync.OnceFunc(func() {
		o.set(nil, nil)
		close(gate)
	})
	t.Cleanup(goOn)
	return goOn
}

func (o *outage) Append(ctx context.Context, b audit.Batch) error {
	if len(b.Rows) == 0 {
		return o.Store.Append(ctx, b)
	}
	o.appended.Add(1)
	o.mu.Lock()
	err, gate, after := o.err, o.gate, o.after
	o.mu.Unlock()
	if gate != nil {
		<-gate // deaf to its context
	}
	if err != nil {
		if after {
			return errors.Join(o.Store.Append(ctx, b), err)
		}
		return err
	}
	return o.Store.Append(ctx, b)
}

// failing is a sealer that fails or hangs when told to.
type failing struct {
	*journaltest.Sealer
	mu   sync.Mutex
	err  error
	gate chan struct{}
}

func (s *failing) set(err error, gate chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err, s.gate = err, gate
}

func (s *failing) hangs() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.gate != nil
}

func (s *failing) hang(t *testing.T) (goOn func()) {
	gate := make(chan struct{})
	s.set(nil, gate)
	goOn = sync.OnceFunc(func() {
		s.set(nil, nil)
		close(gate)
	})
	t.Cleanup(goOn)
	return goOn
}

func (s *failing) fault() error {
	s.mu.Lock()
	err, gate := s.err, s.gate
	s.mu.Unlock()
	if gate != nil {
		<-gate
	}
	return err
}

func (s *failing) Seal(ctx context.Context, at crmguard.Place, b []byte) ([]byte, error) {
	if err := s.fault(); err != nil {
		return nil, err
	}
	return s.Sealer.Seal(ctx, at, b)
}

func (s *failing) Open(ctx context.Context, at crmguard.Place, b []byte) ([]byte, error) {
	if err := s.fault(); err != nil {
		return nil, err
	}
	return s.Sealer.Open(ctx, at, b)
}

// rig is a recorder before a log on a store, all of which can fail.
type rig struct {
	*audit.Failover
	log    *audit.Log
	store  *outage
	memory audit.Store
	keys   *failing
	clock  *crmguardtest.Clock
	dir    string
	logged *racetest.Buffer
	disk   atomic.Pointer[error]
	flush  atomic.Pointer[error]
	goOn   func() // ends what hangs; nil: nothing does

	signer   note.Signer
	verifier note.Verifier
}

func (r *rig) write(f *os.File, b []byte, at int64) (int, error) {
	if err := r.disk.Load(); err != nil {
		n, _ := f.WriteAt(b[:len(b)/2], at) // a full disk takes a part
		return n, *err
	}
	return f.WriteAt(b, at)
}

func (r *rig) sync(f *os.File) error {
	if err := r.flush.Load(); err != nil {
		return *err
	}
	return f.Sync()
}

func newRig(t *testing.T, o audit.FailoverOptions) *rig {
	t.Helper()
	memory := audit.NewMemory()
	r := &rig{
		memory: memory, store: &outage{Store: memory}, keys: &failing{Sealer: journaltest.NewSealer()},
		clock: crmguardtest.NewClock(time.Now()), dir: filepath.Join(t.TempDir(), "spool"), logged: &racetest.Buffer{},
	}
	r.signer, r.verifier = journaltest.Signer(t)
	r.reopenLog(t)
	r.open(t, o)
	return r
}

func (r *rig) reopenLog(t *testing.T) {
	t.Helper()
	log, err := audit.New(t.Context(), r.store, r.keys, r.signer, r.verifier, nil)
	require.NoError(t, err)
	t.Cleanup(func() { _ = log.Close() })
	r.log = log
}

func (r *rig) open(t *testing.T, o audit.FailoverOptions) {
	t.Helper()
	var err error
	o.Deadline = time.Minute // of what does not hang
	o.Clock, o.Logger = r.clock.Now, slog.New(slog.NewTextHandler(r.logged, nil))
	r.Failover, err = audit.NewFailoverWith(r.log, r.dir, &o, audit.Faults{Sync: r.sync, WriteAt: r.write, LogHangs: r.store.hangs, KeysHang: r.keys.hangs})
	require.NoError(t, err)
	t.Cleanup(func() { _ = r.Failover.Close() })
}

// events are what the journal says, in its order.
func (r *rig) events(t *testing.T) []crmguard.Event {
	t.Helper()
	page, err := r.log.Find(t.Context(), audit.Query{Tenant: "acme", Limit: 500})
	require.NoError(t, err)
	var events []crmguard.Event
	for _, e := range slices.Backward(page.Entries) {
		events = append(events, e.Event)
	}
	return events
}

func (r *rig) ids(t *testing.T) []string {
	t.Helper()
	var ids []string
	for _, e := range r.events(t) {
		ids = append(ids, e.ID)
	}
	return ids
}

func (r *rig) until(t *testing.T, what func() bool) {
	t.Helper()
	require.Eventually(t, what, 20*time.Second, time.Millisecond, "%+v", r.Status())
}

func act(a crmguard.Action, id string) crmguard.Event {
	return crmguard.Event{
		ID: id, Action: a, Outcome: crmguard.Done,
		Subject:  crmguard.Subject{Tenant: "acme", ID: "anna", Kind: crmguard.KindEmployee},
		Resource: crmguard.Resource{Tenant: "acme", Kind: "contacts", ID: "17"},
	}
}

func private(e crmguard.Event) crmguard.Event {
	e.Private = []crmguard.Private{{Client: "client-1", Name: "old", Value: []byte("+49301234567")}}
	return e
}

// While the log is down each class of action does what its policy says, and
// afterwards the journal has all of it, in order, once.
func TestFailover(t *testing.T) {
	r := newRig(t, audit.FailoverOptions{})
	require.NoError(t, r.Record(t.Context(), act(crmguard.Update, "before")))
	r.store.set(errDown, nil)
	require.ErrorIs(t, r.Record(t.Context(), act(crmguard.Export, "refused")), errDown)
	for i := range 5 {
		require.NoError(t, r.Record(t.Context(), private(act(crmguard.SignIn, fmt.Sprint("in-", i)))))
		require.NoError(t, r.Record(t.Context(), act(crmguard.Revoke, fmt.Sprint("out-", i))))
		require.NoError(t, r.Record(t.Context(), act(crmguard.View, fmt.Sprint("view-", i))))
	}
	down, ok := errors.AsType[*audit.DownError](r.Record(t.Context(), act(crmguard.Delete, "refused too")))
	if ok { // another call was trying just then
		require.False(t, down.Since.IsZero())
	}
	s := r.Status()
	require.True(t, s.Down)
	require.ErrorIs(t, s.Err, errDown)
	require.GreaterOrEqual(t, s.Spooled, 10)
	require.False(t, s.OK())
	r.store.set(nil, nil)
	r.until(t, func() bool { return r.Status().OK() })
	ids := r.ids(t)
	require.NotContains(t, ids, "refused")
	var spooled []string
	lost := 0
	for _, e := range r.events(t) {
		if g, ok := audit.GapOf(e); ok {
			require.Equal(t, "anna", g.Subject)
			require.Equal(t, crmguard.View, g.Action)
			require.False(t, g.To.Before(g.From))
			lost += g.Count
		} else if e.ID != "before" {
			spooled = append(spooled, e.ID)
		}
	}
	require.Equal(t, 5, lost)
	require.Equal(t, []string{"in-0", "out-0", "in-1", "out-1", "in-2", "out-2", "in-3", "out-3", "in-4", "out-4"}, spooled)
	require.NoError(t, r.Record(t.Context(), act(crmguard.Export, "after")))
	require.NoError(t, r.Failover.Close())
	left, err := os.ReadDir(r.dir)
	require.NoError(t, err)
	require.Len(t, left, 1, "only the lock is left: %v", left)
	require.ErrorIs(t, r.Record(t.Context(), act(crmguard.Export, "closed")), audit.ErrClosed)
}

// A store that hangs, deaf to its context, holds each caller for a deadline at most,
// and keeps no goroutine per call.
func TestHungStore(t *testing.T) {
	r := newRig(t, audit.FailoverOptions{})
	goOn := r.store.hang(t)
	require.ErrorContains(t, r.Record(t.Context(), act(crmguard.Export, "e")), "deadline")
	before := runtime.NumGoroutine()
	for i := range 200 {
		require.NoError(t, r.Record(t.Context(), act(crmguard.View, "")))
		require.NoError(t, r.Record(t.Context(), act(crmguard.Revoke, fmt.Sprint("r", i))))
	}
	var wg sync.WaitGroup
	for range 200 {
		wg.Go(func() { require.Error(t, r.Record(t.Context(), act(crmguard.Export, ""))) })
	}
	wg.Wait()
	require.Less(t, runtime.NumGoroutine(), before+20)
	require.LessOrEqual(t, r.store.appended.Load(), int64(2), "the log has one call under way, and no more")
	goOn()
	r.until(t, func() bool { return r.Status().OK() })
	there := map[string]int{}
	for _, id := range r.ids(t) {
		there[id]++
	}
	for i := range 200 {
		require.Equal(t, 1, there[fmt.Sprint("r", i)])
	}
}

// Keys that hang hold nobody for longer than two deadlines, and no more goroutines
// than there are places.
func TestHungKeys(t *testing.T) {
	r := newRig(t, audit.FailoverOptions{})
	goOn := r.keys.hang(t)
	require.Error(t, r.Record(t.Context(), private(act(crmguard.SignIn, "a"))))
	require.NoError(t, r.Record(t.Context(), private(act(crmguard.View, "b"))))
	require.NoError(t, r.Record(t.Context(), act(crmguard.Export, "c")), "the log works")
	goOn()
	require.NoError(t, r.Record(t.Context(), private(act(crmguard.SignIn, "a"))))
	r.until(t, func() bool { return r.Status().OK() })
	require.Equal(t, []string{"c", "a"}, slices.DeleteFunc(r.ids(t), func(id string) bool { return len(id) > 1 }))
}

// An entry whose acknowledgement was lost is there once.
func TestLostAcknowledgement(t *testing.T) {
	r := newRig(t, audit.FailoverOptions{})
	r.store.mu.Lock()
	r.store.err, r.store.after = errDown, true
	r.store.mu.Unlock()
	require.NoError(t, r.Record(t.Context(), private(act(crmguard.SignIn, ""))), "no ID of the caller's")
	r.store.set(nil, nil)
	r.until(t, func() bool { return r.Status().OK() })
	require.Len(t, r.events(t), 1)
	page, err := r.log.Find(t.Context(), audit.Query{Tenant: "acme"})
	require.NoError(t, err)
	values, err := r.log.OpenPrivate(crmguard.System(t.Context(), "acme", "test"), page.Entries[0])
	require.NoError(t, err)
	require.Equal(t, "+49301234567", string(values[0].Value))
}

// The end of an act whose beginning the journal has is spooled, whatever the act.
func TestEndOfABegunAct(t *testing.T) {
	r := newRig(t, audit.FailoverOptions{})
	begun := act(crmguard.Export, "e")
	begun.Outcome = crmguard.Attempted
	require.NoError(t, r.Record(t.Context(), begun))
	r.store.set(errDown, nil)
	require.Error(t, r.Record(t.Context(), act(crmguard.Export, "another")))
	require.NoError(t, r.Record(t.Context(), act(crmguard.Export, "e")))
	r.store.set(nil, nil)
	r.until(t, func() bool { return r.Status().OK() })
	require.Equal(t, []string{"e", "e"}, r.ids(t))
}

// What is wrong in itself is refused under each policy, also while the log is down.
func TestWrongEventsAreRefused(t *testing.T) {
	r := newRig(t, audit.FailoverOptions{})
	for _, down := range []error{nil, errDown} {
		r.store.set(down, nil)
		for _, a := range []crmguard.Action{crmguard.Export, crmguard.SignIn, crmguard.View} {
			e := act(a, "e")
			e.Subject.ID = ""
			require.ErrorContains(t, r.Record(t.Context(), e), "needs a subject")
			e = act(a, "e")
			e.Resource.Tenant = "other"
			require.ErrorContains(t, r.Record(t.Context(), e), "needs a tenant")
			require.ErrorIs(t, r.Record(audit.WithTx(t.Context()), act(a, "e")), audit.ErrOpenTx)
		}
	}
	require.Empty(t, r.events(t))
}

// Whatever a host says of it, ending access is spooled.
func TestRevokeIsNeverBlocked(t *testing.T) {
	for _, p := range []audit.Policy{audit.Block, audit.Spool, audit.DropCounted, 77} {
		r := newRig(t, audit.FailoverOptions{Policy: func(crmguard.Event) audit.Policy { return p }})
		r.store.set(errDown, nil)
		require.NoError(t, r.Record(t.Context(), act(crmguard.Revoke, "r")))
		if p == 77 {
			require.Error(t, r.Record(t.Context(), act(crmguard.View, "v")), "an unknown policy blocks")
		}
		r.store.set(nil, nil)
		r.until(t, func() bool { return r.Status().OK() })
		require.Contains(t, r.ids(t), "r")
	}
}

// Refusals of strangers from one address become two entries a minute, however many
// there are; those of people and those from elsewhere stand for themselves.
func TestStrangersAreAddedUp(t *testing.T) {
	r := newRig(t, audit.FailoverOptions{})
	knock := func(addr, reason string) {
		e := act(crmguard.SignIn, "")
		e.Subject = crmguard.Subject{Tenant: "acme", Addr: netip.MustParseAddr(addr)}
		e.Outcome, e.Reason = crmguard.Denied, reason
		require.NoError(t, r.Record(t.Context(), e))
	}
	for i := range 1000 {
		knock("192.0.2.7", "unknown")
		knock(fmt.Sprintf("2001:db8::%x", i+1), "unknown") // one network: whoever has it has all of it
	}
	knock("::ffff:192.0.2.7", "unknown")
	knock("192.0.2.7", "throttled")
	known := act(crmguard.SignIn, "")
	known.Outcome = crmguard.Denied
	require.NoError(t, r.Record(t.Context(), known))
	require.NoError(t, r.Record(t.Context(), known))
	require.Len(t, r.events(t), 5)
	require.Equal(t, 999+1+999, r.Status().Repeated)
	require.True(t, r.Status().OK())
	r.clock.Advance(time.Minute)
	r.until(t, func() bool { return r.Status().Repeated == 0 })
	counts := map[string]int{}
	for _, e := range r.events(t) {
		if e.Count > 0 {
			require.Len(t, e.Fields, 2)
			require.Empty(t, e.Resource.ID)
			counts[e.Subject.Addr.String()] += e.Count
		}
	}
	require.Equal(t, map[string]int{"192.0.2.7": 1000, "2001:db8::1": 999}, counts)

	knock("192.0.2.7", "unknown") // another minute
	require.Len(t, r.events(t), 8)
	knock("192.0.2.7", "unknown")
	require.NoError(t, r.Failover.Close())
	require.Len(t, r.events(t), 9, "Close tells the rest")
}

// Whoever has addresses without end fills neither disk nor memory.
func TestStrangersFromEverywhere(t *testing.T) {
	r := newRig(t, audit.FailoverOptions{})
	for i := range 10_000 {
		e := act(crmguard.View, "")
		e.Subject = crmguard.Subject{Tenant: "acme", Addr: netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})}
		e.Outcome = crmguard.Denied
		require.NoError(t, r.Record(t.Context(), e))
	}
	head, err := r.memory.Head(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 4097, head.Size, "%+v %s", r.Status(), r.logged.String())
	require.Equal(t, 10_000-4097, r.Status().Repeated)
}
