package audit_test

import (
	"bytes"
	"context"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/mod/sumdb/note"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/internal/journaltest"
)

// meanwhile is a store in which something happens before one of the next reads.
type meanwhile struct {
	*audit.Memory
	reads int // until then
	do    func()
}

func (m *meanwhile) Read(ctx context.Context, from int64, n int) ([]audit.Row, error) {
	if do := m.do; do != nil && m.reads == 0 {
		m.do = nil
		do()
	}
	m.reads--
	return m.Memory.Read(ctx, from, n)
}

// What retention removes while somebody reads it was not tampered with.
func TestPrunedMeanwhile(t *testing.T) {
	for name, c := range map[string]func(t *testing.T, s *meanwhile, a *aging) error{
		"a proof": func(t *testing.T, s *meanwhile, a *aging) error {
			s.reads = 1
			_, err := audit.ProveStore(t.Context(), s, a.verifier, 100)
			require.ErrorIs(t, err, audit.ErrPruned)
			return err
		},
		"an extract": func(t *testing.T, s *meanwhile, a *aging) error {
			log, err := audit.New(t.Context(), s, journaltest.NewSealer(), a.signer, a.verifier, &audit.Options{Clock: func() time.Time { return a.now }})
			require.NoError(t, err)
			defer func() { require.NoError(t, log.Close()) }()
			s.reads = 20
			_, err = log.Extract(admin(t), audit.Query{Tenant: "acme"}, new(bytes.Buffer))
			require.ErrorIs(t, err, audit.ErrPruned)
			return err
		},
		"another removal": func(t *testing.T, s *meanwhile, a *aging) error {
			log, err := audit.New(t.Context(), s, journaltest.NewSealer(), a.signer, a.verifier, &audit.Options{Clock: func() time.Time { return a.now }})
			require.NoError(t, err)
			defer func() { require.NoError(t, log.Close()) }()
			s.reads = 1
			_, err = log.Prune(admin(t), a.now)
			require.ErrorContains(t, err, "meanwhile")
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := audit.NewMemory()
			a := days(t, m, 3)
			s := &meanwhile{Memory: m, reads: 1 << 20, do: func() { require.EqualValues(t, 768, a.prune(t, 3).To) }}
			err := c(t, s, a)
			require.Nil(t, s.do, "nothing happened meanwhile")
			require.Error(t, err)
			require.NotErrorAs(t, err, new(*audit.BrokenError))
		})
	}
}

// unsteady is a store that once does not answer what was pruned.
type unsteady struct {
	*audit.Memory
	asked int
}

func (u *unsteady) Pruned(ctx context.Context) (audit.Pruning, error) {
	if u.asked++; u.asked == 1 {
		return audit.Pruning{}, context.DeadlineExceeded
	}
	return u.Memory.Pruned(ctx)
}

// Who cannot learn what retention removed does not say that it is missing.
func TestPrunedIsNotKnown(t *testing.T) {
	m := audit.NewMemory()
	a := days(t, m, 3)
	require.EqualValues(t, 768, a.prune(t, 3).To)
	seqs, errs := takeAll(audit.ReadStore(t.Context(), &unsteady{Memory: m}, a.verifier, nil, -1))
	require.Empty(t, seqs)
	require.Len(t, errs, 1)
	require.ErrorIs(t, errs[0], context.DeadlineExceeded)

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var failed error
	for e, err := range audit.FollowStore(ctx, &unsteady{Memory: m}, a.verifier, nil, -1) {
		require.NotErrorAs(t, err, new(*audit.BrokenError))
		if err == nil {
			require.EqualValues(t, 768, e.Seq, "it goes on behind what was removed")
			break
		}
		failed = err
	}
	require.ErrorIs(t, failed, context.DeadlineExceeded)
}

// A verification that begins where an earlier one ended begins behind what was removed
// while it looked for that place.
func TestResumedWherePruned(t *testing.T) {
	for reads := range 5 { // as many as it takes to find the place
		m := audit.NewMemory()
		a := days(t, m, 3)
		s := &meanwhile{Memory: m, reads: reads, do: func() { require.EqualValues(t, 768, a.prune(t, 3).To) }}
		r, err := audit.VerifyStore(t.Context(), s, a.verifier, &audit.VerifyOptions{Resume: string(a.notes[0]), Clock: func() time.Time { return a.now }})
		require.NoError(t, err)
		require.Nil(t, s.do, "nothing happened meanwhile")
		require.Equal(t, audit.Unanchored, r.Verdict, r.Detail)
		require.EqualValues(t, 768, r.Pruned)
	}
}

// Who has not looked for as long as retention keeps entries goes on behind what it removed.
func TestAnotherProcessPrunes(t *testing.T) {
	m := audit.NewMemory()
	a := days(t, m, 1)
	idle, err := audit.New(t.Context(), m, journaltest.NewSealer(), a.signer, a.verifier, &audit.Options{Clock: func() time.Time { return a.now }})
	require.NoError(t, err)
	a.day(t)
	a.day(t)
	require.EqualValues(t, 768, a.prune(t, 3).To)
	require.NoError(t, idle.Record(t.Context(), journaltest.Event(1)))
	require.NoError(t, idle.Close())
	r, err := a.Verify(t.Context(), a.verifier, nil)
	require.NoError(t, err)
	require.True(t, r.OK(), r.Detail)
}

// forgetful is a store in which something happens before somebody looks for an entry.
type forgetful struct {
	*audit.Memory
	do func()
}

func (f *forgetful) Find(ctx context.Context, q audit.Query) ([]audit.Row, error) {
	if do := f.do; do != nil {
		f.do = nil
		do()
	}
	return f.Memory.Find(ctx, q)
}

// Who records an event again that retention removes at this moment is not told that another
// one is in its place.
func TestRecordedAgainWhileItIsPruned(t *testing.T) {
	m := audit.NewMemory()
	a := days(t, m, 3)
	s := &forgetful{Memory: m}
	log, err := audit.New(t.Context(), s, journaltest.NewSealer(), a.signer, a.verifier, &audit.Options{Clock: func() time.Time { return a.now }})
	require.NoError(t, err)
	e := smallEvent(3)
	e.Time = firstDay
	require.NoError(t, log.Record(t.Context(), e), "it is there")
	s.do = func() { require.EqualValues(t, 768, a.prune(t, 3).To) }
	require.NoError(t, log.Record(t.Context(), e))
	require.Nil(t, s.do)
	require.NoError(t, log.Close())
	page, err := audit.FindStore(t.Context(), m, audit.Query{Tenant: "acme", Event: e.ID})
	require.NoError(t, err)
	require.Len(t, page.Entries, 1)
	require.GreaterOrEqual(t, page.Entries[0].Seq, int64(768), "the first one is gone, so it was recorded")
}

// lateSigner says when it is asked for the first time, and signs when it is let.
type lateSigner struct {
	note.Signer
	asked, gate chan struct{}
	once        sync.Once
}

func (l *lateSigner) Sign(b []byte) ([]byte, error) {
	l.once.Do(func() { close(l.asked) })
	<-l.gate
	return l.Signer.Sign(b)
}

// signLate records an entry and has it signed only when sign is called, which waits for that.
func (a *aging) signLate(t *testing.T) (sign func()) {
	t.Helper()
	signer := &lateSigner{Signer: a.signer, asked: make(chan struct{}), gate: make(chan struct{})}
	now := a.now
	slow, err := audit.New(t.Context(), a.store, journaltest.NewSealer(), signer, a.verifier, &audit.Options{Clock: func() time.Time { return now }})
	require.NoError(t, err)
	e := journaltest.Event(1)
	e.ID = "the last of the day"
	require.NoError(t, slow.Record(t.Context(), e))
	closed := make(chan error)
	go func() { closed <- slow.Close() }()
	<-signer.asked
	return func() {
		close(signer.gate)
		require.NoError(t, <-closed)
	}
}

// A checkpoint whose signature takes so long that retention has removed its entries is not
// kept: nobody could compare it any more.
func TestSignedWhenPruned(t *testing.T) {
	a := days(t, audit.NewMemory(), 1)
	sign := a.signLate(t)
	a.day(t)
	a.day(t)
	require.EqualValues(t, 768, a.prune(t, 3).To)
	sign()
	r, err := a.Verify(t.Context(), a.verifier, nil)
	require.NoError(t, err)
	require.Equal(t, audit.Unanchored, r.Verdict, r.Detail)
}

// pruningSigner does something before it signs what is pruned.
type pruningSigner struct {
	note.Signer
	do func()
}

func (p *pruningSigner) Sign(b []byte) ([]byte, error) {
	if do := p.do; do != nil && bytes.HasPrefix(b, []byte("crmguard audit pruned")) {
		p.do = nil
		do()
	}
	return p.Signer.Sign(b)
}

// A checkpoint that is signed late, while its entries are about to be removed, has the hashes
// kept that lead to it.
func TestSignedWhilePruning(t *testing.T) {
	a := days(t, audit.NewMemory(), 1)
	a.signer = &pruningSigner{a.signer, a.signLate(t)}
	a.day(t)
	a.day(t)
	_, err := a.Prune(admin(t), firstDay.AddDate(0, 0, 3).Add(-time.Hour))
	require.ErrorContains(t, err, "signed meanwhile")
	require.EqualValues(t, 768, a.prune(t, 3).To)
	r, err := a.Verify(t.Context(), a.verifier, nil)
	require.NoError(t, err)
	require.Equal(t, audit.Unanchored, r.Verdict, r.Detail)
}

// unfound has every entry already, and finds none.
type unfound struct{ *audit.Memory }

func (b *unfound) Append(ctx context.Context, batch audit.Batch) error {
	if len(batch.Rows) > 0 && batch.Rows[0].Keys.Tenant == "acme" {
		return &audit.DuplicateError{Index: []int{0}}
	}
	return b.Memory.Append(ctx, batch)
}

func (b *unfound) Find(context.Context, audit.Query) ([]audit.Row, error) { return nil, nil }

// What the store says to have, and never finds, is a conflict and not tried for ever.
func TestDuplicateThatIsNeverFound(t *testing.T) {
	signer, verifier := journaltest.Signer(t)
	log, err := audit.New(t.Context(), &unfound{audit.NewMemory()}, journaltest.NewSealer(), signer, verifier, nil)
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	require.ErrorAs(t, log.Record(ctx, smallEvent(1)), new(*audit.ConflictError))
	require.NoError(t, log.Close())
}
