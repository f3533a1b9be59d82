package audit_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
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

type journal struct {
	*audit.Log
	store    audit.Store
	keys     *journaltest.Sealer
	verifier note.Verifier
	logged   *racetest.Buffer
}

func open(t *testing.T, s audit.Store) *journal {
	t.Helper()
	signer, verifier := journaltest.Signer(t)
	j := &journal{store: s, keys: journaltest.NewSealer(), verifier: verifier, logged: &racetest.Buffer{}}
	var err error
	j.Log, err = audit.New(t.Context(), s, j.keys, signer, verifier, &audit.Options{Logger: slog.New(slog.NewTextHandler(j.logged, nil))})
	require.NoError(t, err)
	t.Cleanup(func() { _ = j.Close() })
	return j
}

func (j *journal) rows(t *testing.T) []audit.Row {
	t.Helper()
	rows, err := j.store.Read(t.Context(), 0, 1<<20)
	require.NoError(t, err)
	return rows
}

func (j *journal) verify(t *testing.T) audit.Report {
	t.Helper()
	r, err := j.Verify(t.Context(), j.verifier, nil)
	require.NoError(t, err)
	return r
}

func TestRecordedIsFound(t *testing.T) {
	j := open(t, audit.NewMemory())
	e := journaltest.Event(1)
	require.NoError(t, j.Record(t.Context(), e))
	page, err := j.Find(t.Context(), audit.Query{Tenant: "acme", Subject: e.Subject.ID})
	require.NoError(t, err)
	require.Len(t, page.Entries, 1)
	require.Zero(t, page.Next)
	got := page.Entries[0]
	want := e
	want.Private = []crmguard.Private{{Client: e.Private[0].Client, Name: "old"}}
	require.Equal(t, want, got.Event, "all of the event comes back, except the private value")
	require.Equal(t, "acme", got.Tenant)

	ctx := crmguard.WithSubject(t.Context(), e.Subject)
	values, err := j.OpenPrivate(ctx, got)
	require.NoError(t, err)
	require.Equal(t, e.Private, values)

	_, err = j.OpenPrivate(t.Context(), got)
	require.Error(t, err, "nobody asks")
	foreign := e.Subject
	foreign.Tenant = "other"
	_, err = j.OpenPrivate(crmguard.WithSubject(t.Context(), foreign), got)
	require.Error(t, err, "another tenant asks")
}

func TestIdempotent(t *testing.T) {
	j := open(t, audit.NewMemory())
	e := journaltest.Event(1)
	racetest.Run(t, func(int) (any, error) { return nil, j.Record(t.Context(), e) })
	require.Len(t, j.rows(t), 1, "fifty records of one act are one entry")

	e.Outcome = crmguard.Failed
	require.NoError(t, j.Record(t.Context(), e))
	e.Subject.Tenant, e.Resource.Tenant = "other", "other"
	require.NoError(t, j.Record(t.Context(), e))
	require.Len(t, j.rows(t), 3, "another outcome and another tenant are other entries")

	e.ID, e.Time = "", time.Time{}
	for range 2 {
		require.NoError(t, j.Record(t.Context(), e))
	}
	page, err := j.Find(t.Context(), audit.Query{Tenant: "other"})
	require.NoError(t, err)
	require.Len(t, page.Entries, 3, "without an ID each is an act of its own")
	require.Regexp(t, `^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`, page.Entries[0].Event.ID)
	require.NotEqual(t, page.Entries[0].Event.ID, page.Entries[1].Event.ID)
	require.WithinDuration(t, time.Now(), page.Entries[0].Event.Time, time.Minute)
}

// looks counts what is read to find entries.
type looks struct {
	audit.Store
	rows atomic.Int64
}

func (a *looks) Find(ctx context.Context, q audit.Query) ([]audit.Row, error) {
	rows, err := a.Store.Find(ctx, q)
	a.rows.Add(int64(len(rows)))
	return rows, err
}

// Whoever uses an ID again holds up nobody, however long the journal is.
func TestAnIDUsedAgainCostsOneLook(t *testing.T) {
	s := &looks{Store: audit.NewMemory()}
	j := open(t, s)
	for i := range 50 {
		require.NoError(t, j.Record(t.Context(), act(crmguard.List, fmt.Sprint(i))))
	}
	other := act(crmguard.List, "7")
	other.Reason = "other"
	require.ErrorAs(t, j.Record(t.Context(), other), new(*audit.ConflictError))
	require.NoError(t, j.Record(t.Context(), act(crmguard.List, "7")))
	require.EqualValues(t, 2, s.rows.Load())
	page, err := j.Find(t.Context(), audit.Query{Tenant: "acme", Event: "7"})
	require.NoError(t, err)
	require.Len(t, page.Entries, 1)
	require.Equal(t, "7", page.Entries[0].Event.ID)
}

func TestEventsThatAreRefused(t *testing.T) {
	j := open(t, audit.NewMemory())
	for name, change := range map[string]func(*crmguard.Event){
		"no tenant":                func(e *crmguard.Event) { e.Subject.Tenant = "" },
		"no tenant of the object":  func(e *crmguard.Event) { e.Resource.Tenant = "" },
		"done in another tenant":   func(e *crmguard.Event) { e.Resource.Tenant = "other" },
		"nobody did it":            func(e *crmguard.Event) { e.Subject.ID = "" },
		"no kind of subject":       func(e *crmguard.Event) { e.Subject.Kind = 0 },
		"unknown kind":             func(e *crmguard.Event) { e.Subject.Kind = 9 },
		"no action":                func(e *crmguard.Event) { e.Action = "" },
		"no outcome":               func(e *crmguard.Event) { e.Outcome = 0 },
		"unknown outcome":          func(e *crmguard.Event) { e.Outcome = 6 },
		"negative count":           func(e *crmguard.Event) { e.Count = -1 },
		"refused, tenant unknown":  func(e *crmguard.Event) { e.Outcome, e.Subject.Tenant, e.Resource.Tenant = crmguard.Denied, "", "" },
		"refused, subject is half": func(e *crmguard.Event) { e.Outcome, e.Subject.Kind = crmguard.Denied, 0 },
	} {
		e := journaltest.Event(1)
		change(&e)
		require.Error(t, j.Record(t.Context(), e), name)
	}
	require.Empty(t, j.rows(t))
}

// An attempt to sign in without an account, and one on another tenant's record,
// must be kept.
func TestRefusalsOfStrangers(t *testing.T) {
	j := open(t, audit.NewMemory())
	unknown := crmguard.Event{Action: crmguard.SignIn, Outcome: crmguard.Denied, Reason: "no-account", Resource: crmguard.Resource{Tenant: "acme", Kind: "session"}}
	require.NoError(t, j.Record(t.Context(), unknown))
	foreign := journaltest.Event(1)
	foreign.Outcome, foreign.Resource.Tenant = crmguard.Denied, "other"
	require.NoError(t, j.Record(t.Context(), foreign))
	page, err := j.Find(t.Context(), audit.Query{Tenant: "acme", Outcome: crmguard.Denied})
	require.NoError(t, err)
	require.Len(t, page.Entries, 2)
	page, err = j.Find(t.Context(), audit.Query{Tenant: "other"})
	require.NoError(t, err)
	require.Empty(t, page.Entries, "the attempt is the business of the tenant whose subject tried")
}

// Texts that a request chooses neither fail the batch nor break a query.
func TestHostileTexts(t *testing.T) {
	j := open(t, audit.NewMemory())
	e := journaltest.Event(1)
	e.Resource.ID = "a\x00b\xff"
	require.NoError(t, j.Record(t.Context(), e))
	e = journaltest.Event(2)
	e.Resource.ID = strings.Repeat("x", 10_000)
	e.Private[0].Client = strings.Repeat("y", 1024)
	require.NoError(t, j.Record(t.Context(), e))
	for _, q := range []audit.Query{{Record: "a\x00b\xff"}, {Record: "a\uFFFDb\uFFFD"}, {Record: e.Resource.ID}, {Client: e.Private[0].Client}} {
		q.Tenant = "acme"
		page, err := j.Find(t.Context(), q)
		require.NoError(t, err)
		require.Len(t, page.Entries, 1)
	}
	require.True(t, j.verify(t).OK())
}

func TestErasedClients(t *testing.T) {
	j := open(t, audit.NewMemory())
	before := journaltest.Event(1)
	before.Private = append(before.Private, crmguard.Private{Client: "other", Name: "old", Value: []byte("stays")}, crmguard.Private{Name: "note", Value: []byte{}})
	require.NoError(t, j.Record(t.Context(), before))
	j.keys.Erase("acme", before.Private[0].Client)
	after := journaltest.Event(5) // about the same client
	require.NoError(t, j.Record(t.Context(), after), "an entry about an erased client is kept, without the value")

	ctx := crmguard.WithSubject(t.Context(), before.Subject)
	page, err := j.Find(ctx, audit.Query{Tenant: "acme", Client: before.Private[0].Client})
	require.NoError(t, err)
	require.Len(t, page.Entries, 2, "the timeline of the client still finds both")
	require.True(t, page.Entries[0].Sealed[0].Erased)
	values, err := j.OpenPrivate(ctx, page.Entries[0])
	require.ErrorIs(t, err, crmguard.ErrErased)
	require.Nil(t, values[0].Value)
	values, err = j.OpenPrivate(ctx, page.Entries[1])
	require.ErrorIs(t, err, crmguard.ErrErased)
	require.Nil(t, values[0].Value)
	require.Equal(t, "stays", string(values[1].Value))
	require.NotNil(t, values[2].Value, "an empty value is not an erased one")
	require.True(t, j.verify(t).OK(), "the journal verifies after a client was erased")
}

// Private values are nowhere in the clear: not in the store, errors or logs.
func TestPlaintextStaysOut(t *testing.T) {
	dir := t.TempDir()
	s, err := audit.OpenFile(dir)
	require.NoError(t, err)
	j := open(t, s)
	const secret = "+49 30 5550199 Herr Geheim"
	e := journaltest.Event(1)
	e.Private[0].Value = []byte(secret)
	require.NoError(t, j.Record(t.Context(), e))

	j.keys.Err = errors.New("the key store is down")
	e.ID = "event-2"
	err = j.Record(t.Context(), e)
	require.ErrorIs(t, err, j.keys.Err, "what cannot be sealed is not recorded")
	require.NotContains(t, err.Error(), "5550199")
	require.NoError(t, j.Close())
	require.NoError(t, s.Close())
	require.NotContains(t, readAll(t, dir), "5550199")
	require.NotContains(t, j.logged.String(), "5550199")
	require.NotContains(t, fmt.Sprintf("%v %+v %#v", e, e, e), "5550199")
	require.Contains(t, readAll(t, dir), "client-1", "ids are in the clear")
	require.Equal(t, secret, string(e.Private[0].Value), "the caller's event is untouched")
}

func TestPaging(t *testing.T) {
	j := open(t, audit.NewMemory())
	const n = 23
	for i := range n {
		require.NoError(t, j.Record(t.Context(), journaltest.Event(i)))
	}
	var got []int64
	q := audit.Query{Tenant: "acme", Limit: 5}
	for {
		page, err := j.Find(t.Context(), q)
		require.NoError(t, err)
		for _, e := range page.Entries {
			got = append(got, e.Seq)
		}
		require.NoError(t, j.Record(t.Context(), journaltest.Event(n+len(got))), "entries arrive meanwhile")
		if page.Next == 0 {
			break
		}
		q.Before = page.Next
	}
	require.Len(t, got, n)
	for i, seq := range got {
		require.EqualValues(t, n-1-i, seq, "nothing is shown twice or left out")
	}
	for _, bad := range []audit.Query{{}, {Tenant: "acme", Before: -1}, {Tenant: "acme", Limit: -1}} {
		_, err := j.Find(t.Context(), bad)
		require.Error(t, err)
	}
}

func TestNoInbox(t *testing.T) {
	j := open(t, audit.NewMemory())
	require.ErrorIs(t, j.InTx(t.Context(), nil, nil), audit.ErrNoInbox)
	_, err := j.RecordTx(t.Context(), nil, journaltest.Event(1))
	require.ErrorIs(t, err, audit.ErrNoInbox)
}

func TestRecordWithOpenTransaction(t *testing.T) {
	j := open(t, audit.NewMemory())
	require.ErrorIs(t, j.Record(audit.WithTx(t.Context()), journaltest.Event(1)), audit.ErrOpenTx)
}

func TestClose(t *testing.T) {
	j := open(t, audit.NewMemory())
	var wg sync.WaitGroup
	var kept sync.Map
	for i := range 200 {
		wg.Go(func() {
			if err := j.Record(t.Context(), journaltest.Event(i)); err == nil {
				kept.Store(fmt.Sprintf("event-%d", i), true)
			} else {
				require.ErrorIs(t, err, audit.ErrClosed)
			}
		})
		if i == 100 {
			wg.Go(func() { require.NoError(t, j.Close()) })
		}
	}
	wg.Wait()
	require.NoError(t, j.Close(), "a second time")
	require.ErrorIs(t, j.Record(t.Context(), journaltest.Event(1000)), audit.ErrClosed)
	rows := j.rows(t)
	for _, r := range rows {
		kept.Delete(r.Keys.Event)
	}
	kept.Range(func(k, _ any) bool { t.Errorf("%s was acknowledged and is not there", k); return true })
	report := j.verify(t)
	require.True(t, report.OK())
	require.Zero(t, report.Unsigned(), "the last checkpoint covers everything")
}

// slowStore holds appends back, so that a test can see what gathers.
type slowStore struct {
	audit.Store
	begin   chan struct{}
	proceed chan struct{}
	mu      sync.Mutex
	sizes   []int
	err     error
}

func (s *slowStore) Append(ctx context.Context, b audit.Batch) error {
	if len(b.Rows) > 0 {
		s.begin <- struct{}{}
		<-s.proceed
		s.mu.Lock()
		defer s.mu.Unlock()
		s.sizes = append(s.sizes, len(b.Rows))
		if s.err != nil {
			return s.err
		}
	}
	return s.Store.Append(ctx, b)
}

func TestGroupCommit(t *testing.T) {
	s := &slowStore{Store: audit.NewMemory(), begin: make(chan struct{}, 10), proceed: make(chan struct{})}
	j := open(t, s)
	var wg sync.WaitGroup
	wg.Go(func() { require.NoError(t, j.Record(t.Context(), journaltest.Event(0))) })
	<-s.begin
	for i := range 20 {
		wg.Go(func() { require.NoError(t, j.Record(t.Context(), journaltest.Event(10+i))) })
	}
	ctx, cancel := context.WithCancel(t.Context())
	gave := make(chan error)
	go func() { gave <- j.Record(ctx, journaltest.Event(1)) }()
	require.Eventually(t, func() bool { return audit.Queued(j.Log) == 21 }, 10*time.Second, time.Millisecond, "all of them, or the next flush would take a part")
	cancel()
	require.ErrorIs(t, <-gave, context.Canceled, "a caller may give up; its entry may still be written")
	s.proceed <- struct{}{}
	<-s.begin
	s.proceed <- struct{}{}
	wg.Wait()
	require.Len(t, s.sizes, 2, "twenty entries that came during a flush share the next one")

	s.err = errors.New("the disk is on fire")
	go func() { <-s.begin; s.proceed <- struct{}{} }()
	require.ErrorIs(t, j.Record(t.Context(), journaltest.Event(50)), s.err, "a failure reaches the caller")
	s.err = nil
	go func() { <-s.begin; s.proceed <- struct{}{} }()
	require.NoError(t, j.Record(t.Context(), journaltest.Event(50)))
}

// What becomes of an event that was recorded again depends on what the log holds, not on
// which of the repetitions came first.
func TestRepetitionsInOneBatchOfWhatIsThereAlready(t *testing.T) {
	s := &slowStore{Store: audit.NewMemory(), begin: make(chan struct{}, 10), proceed: make(chan struct{})}
	j := open(t, s)
	go func() { <-s.begin; s.proceed <- struct{}{} }()
	there := act(crmguard.List, "1")
	require.NoError(t, j.Record(t.Context(), there))
	other := there
	other.Reason = "other"

	var wg sync.WaitGroup
	wg.Go(func() { require.NoError(t, j.Record(t.Context(), act(crmguard.List, "2"))) })
	<-s.begin
	for i, record := range []func() error{
		func() error { return j.Record(t.Context(), other) },
		func() error { return j.Record(t.Context(), other) },
		func() error { return j.Record(t.Context(), there) },
	} {
		wg.Go(func() {
			if err := record(); i < 2 {
				require.ErrorAs(t, err, new(*audit.ConflictError), "it is not in the log")
			} else {
				require.NoError(t, err, "it is in the log")
			}
		})
		require.Eventually(t, func() bool { return audit.Queued(j.Log) == i+1 }, 10*time.Second, time.Millisecond)
	}
	go func() { <-s.begin; s.proceed <- struct{}{} }()
	s.proceed <- struct{}{}
	wg.Wait()
}

func TestCheckpointsWhileRunning(t *testing.T) {
	signer, verifier := journaltest.Signer(t)
	s := audit.NewMemory()
	log, err := audit.New(t.Context(), s, journaltest.NewSealer(), signer, verifier, &audit.Options{CheckpointEvery: time.Millisecond})
	require.NoError(t, err)
	defer func() { require.NoError(t, log.Close()) }()
	require.NoError(t, log.Record(t.Context(), journaltest.Event(0)))
	require.Eventually(t, func() bool {
		r, err := log.Verify(t.Context(), verifier, nil)
		require.NoError(t, err)
		require.True(t, r.OK())
		return r.Signed == 1
	}, 10*time.Second, time.Millisecond, "signed in time")

	seldom, err := audit.New(t.Context(), audit.NewMemory(), journaltest.NewSealer(), signer, verifier, &audit.Options{CheckpointEvery: time.Hour})
	require.NoError(t, err)
	defer func() { require.NoError(t, seldom.Close()) }()
	var wg sync.WaitGroup
	for w := range 16 {
		wg.Go(func() {
			for i := range 260 {
				e := journaltest.Event(w*1000 + i)
				require.NoError(t, seldom.Record(t.Context(), e))
			}
		})
	}
	wg.Wait()
	require.NoError(t, seldom.Record(t.Context(), journaltest.Event(99999)))
	require.Eventually(t, func() bool {
		r, err := seldom.Verify(t.Context(), verifier, nil)
		require.NoError(t, err)
		require.True(t, r.OK())
		return r.Signed >= 4096
	}, 10*time.Second, time.Millisecond, "signed after so many entries")
}

func TestNewRefuses(t *testing.T) {
	signer, verifier := journaltest.Signer(t)
	_, err := audit.New(t.Context(), nil, journaltest.NewSealer(), signer, verifier, nil)
	require.Error(t, err)
	_, err = audit.New(t.Context(), audit.NewMemory(), nil, signer, verifier, nil)
	require.Error(t, err)
	_, err = audit.New(t.Context(), audit.NewMemory(), journaltest.NewSealer(), nil, verifier, nil)
	require.Error(t, err)
}
