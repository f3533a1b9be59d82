package audit_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net/netip"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/internal/journaltest"
)

// take reads n entries, or errors, off a tail.
func take(t *testing.T, tail iter.Seq2[audit.Entry, error], n int) (seqs []int64, errs []error) {
	t.Helper()
	if n == 0 {
		return nil, nil
	}
	for e, err := range tail {
		seqs = append(seqs, e.Seq)
		if err != nil {
			errs = append(errs, err)
		}
		if len(seqs) == n {
			return seqs, errs
		}
	}
	require.Failf(t, "the tail ended early", "after %v", seqs)
	return nil, nil
}

func upTo(n int64) []int64 {
	list := make([]int64, n)
	for i := range list {
		list[i] = int64(i)
	}
	return list
}

// Readers of all speeds see what many writers record, in order and once.
func TestFollowSeesAllInOrder(t *testing.T) {
	const entries = 600
	j := open(t, audit.NewMemory())
	results := make(chan []int64, 3)
	for speed := range 3 {
		go func() {
			var seqs []int64
			for e, err := range j.FollowAll(t.Context(), -1) {
				if err != nil {
					break
				}
				if speed > 0 && len(seqs)%(100*speed) == 0 {
					time.Sleep(time.Millisecond)
				}
				if seqs = append(seqs, e.Seq); len(seqs) == entries {
					break
				}
			}
			results <- seqs
		}()
	}
	errs := make(chan error, 6)
	for w := range 6 {
		go func() {
			var err error
			for i := range entries / 6 {
				e := journaltest.Event(i % 60)
				e.ID = fmt.Sprintf("%d-%d", w, i)
				err = errors.Join(err, j.Record(t.Context(), e))
			}
			errs <- err
		}()
	}
	for range 6 {
		require.NoError(t, <-errs)
	}
	for range 3 {
		require.Equal(t, upTo(entries), <-results)
	}
}

func TestFollowFiltersAndEnds(t *testing.T) {
	j := open(t, audit.NewMemory())
	for i := range 12 {
		require.NoError(t, j.Record(t.Context(), journaltest.Event(i)))
	}
	for name, c := range map[string]struct {
		query audit.Query
		after int64
		want  []int64
	}{
		"a person":              {audit.Query{Tenant: "acme", Subject: "anna"}, -1, []int64{0, 3, 6, 9}},
		"after an entry":        {audit.Query{Tenant: "acme", Subject: "anna"}, 3, []int64{6, 9}},
		"an address":            {audit.Query{Tenant: "acme", Addr: netip.MustParseAddr("::ffff:192.0.2.7")}, 4, []int64{5, 8, 9}},
		"a client":              {audit.Query{Tenant: "acme", Client: "client-1"}, -1, []int64{1, 5, 9}},
		"of another tenant":     {audit.Query{Tenant: "other"}, -1, nil},
		"from the distant past": {audit.Query{Tenant: "acme", Record: "1"}, -50, []int64{1, 6, 11}},
	} {
		seqs, errs := take(t, j.Follow(t.Context(), c.query, c.after), len(c.want))
		require.Equal(t, c.want, seqs, name)
		require.Empty(t, errs, name)
	}
	for _, err := range j.Follow(t.Context(), audit.Query{}, -1) {
		require.ErrorContains(t, err, "needs a tenant")
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	for _, err := range j.FollowAll(cancelled, -1) {
		require.Fail(t, "it has ended", "%v", err)
	}
	// What is recorded before Close is seen, and then the tail ends.
	seen := make(chan int64)
	go func() {
		n := int64(0)
		for e, err := range j.FollowAll(context.WithoutCancel(t.Context()), -1) {
			if err == nil {
				n = e.Seq
			}
		}
		seen <- n
	}()
	require.NoError(t, j.Record(t.Context(), journaltest.Event(12)))
	require.NoError(t, j.Close())
	require.EqualValues(t, 12, <-seen)
}

// rereading is a store whose Read does what it is told to.
type rereading struct {
	audit.Store
	rows func([]audit.Row, int64) ([]audit.Row, error)
	held atomic.Int64 // rows handed out by the last call
}

func (r *rereading) Read(ctx context.Context, from int64, n int) ([]audit.Row, error) {
	rows, err := r.Store.Read(ctx, from, n)
	if err != nil {
		return nil, err
	}
	r.held.Store(int64(len(rows)))
	if r.rows == nil {
		return rows, nil
	}
	return r.rows(rows, from)
}

// Damaged and missing entries are told of and passed, once a checkpoint covers them;
// rows planted ahead of the log are not followed.
func TestFollowPassesWhatCannotBeRead(t *testing.T) {
	undecodable := func(rows []audit.Row, from int64) ([]audit.Row, error) {
		for i := range rows {
			if rows[i].Seq == 3 {
				rows[i].Record = make([]byte, 70_000)
			}
		}
		return rows, nil
	}
	another := func(rows []audit.Row, from int64) ([]audit.Row, error) {
		for i := range rows {
			if rows[i].Seq == 4 {
				rows[i].Record = rows[i-1].Record
			}
		}
		return rows, nil
	}
	missing := func(rows []audit.Row, from int64) ([]audit.Row, error) {
		return slices.DeleteFunc(rows, func(r audit.Row) bool { return r.Seq == 2 || r.Seq == 3 }), nil
	}
	damaged := func(rows []audit.Row, from int64) ([]audit.Row, error) {
		if from == 5 {
			return nil, &audit.BrokenError{Seq: 5, Detail: "damaged"}
		}
		return rows[:max(0, min(len(rows), int(5-from)))+len(rows)*min(1, int(from/6))], nil
	}
	for name, c := range map[string]struct {
		rows func([]audit.Row, int64) ([]audit.Row, error)
		want []int64
	}{
		"undecodable": {undecodable, upTo(8)},
		"another":     {another, upTo(8)},
		"missing":     {missing, []int64{0, 1, 3, 4, 5, 6, 7}},
		"damaged":     {damaged, upTo(8)},
	} {
		t.Run(name, func(t *testing.T) {
			s := &rereading{Store: audit.NewMemory()}
			j := open(t, s)
			for i := range 8 {
				require.NoError(t, j.Record(t.Context(), journaltest.Event(i)))
			}
			require.NoError(t, j.Close()) // and so all is signed
			s.rows = c.rows
			var seqs []int64
			var errs []error
			for e, err := range j.FollowAll(t.Context(), -1) {
				seqs = append(seqs, e.Seq)
				if err != nil {
					errs = append(errs, err)
				}
			}
			require.Equal(t, c.want, seqs)
			require.Len(t, errs, 1)
			_, ok := errors.AsType[*audit.BrokenError](errs[0])
			require.True(t, ok)
		})
	}
	t.Run("planted ahead", func(t *testing.T) {
		s := &rereading{Store: audit.NewMemory()}
		j := open(t, s)
		for i := range 3 {
			require.NoError(t, j.Record(t.Context(), journaltest.Event(i)))
		}
		var planted atomic.Bool
		planted.Store(true)
		s.rows = func(rows []audit.Row, from int64) ([]audit.Row, error) {
			if planted.Load() && len(rows) == 0 && from == 3 {
				return []audit.Row{{Seq: 1_000_000, Record: []byte("planted")}}, nil
			}
			return rows, nil
		}
		next, stop := iter.Pull2(j.FollowAll(t.Context(), -1))
		defer stop()
		for i := range 3 {
			e, err, _ := next()
			require.NoError(t, err)
			require.EqualValues(t, i, e.Seq)
		}
		go func() {
			planted.Store(false) // the log itself reads the store, too
			_ = j.Record(t.Context(), journaltest.Event(3))
		}()
		e, err, _ := next()
		require.NoError(t, err)
		require.EqualValues(t, 3, e.Seq, "what was planted does not make it skip what comes")
	})
}

// A store that fails is told of, skips nothing and is tried again. A store that
// loses a row on the way, the planted fault, is noticed.
func TestFollowGoesOnAfterTheStoreFailed(t *testing.T) {
	s := &rereading{Store: audit.NewMemory()}
	j := open(t, s)
	for i := range 4 {
		require.NoError(t, j.Record(t.Context(), journaltest.Event(i)))
	}
	failures := 1
	s.rows = func(rows []audit.Row, from int64) ([]audit.Row, error) {
		if failures > 0 {
			failures--
			return nil, errors.New("down")
		}
		return rows, nil
	}
	seqs, errs := take(t, j.FollowAll(t.Context(), -1), 5)
	require.Equal(t, []int64{-1, 0, 1, 2, 3}, seqs)
	require.Len(t, errs, 1)
	require.ErrorContains(t, errs[0], "down")

	s.rows = func(rows []audit.Row, from int64) ([]audit.Row, error) {
		return slices.DeleteFunc(rows, func(r audit.Row) bool { return r.Seq == 1 }), nil
	}
	require.NoError(t, j.Close())
	_, errs = take(t, j.FollowAll(t.Context(), -1), 3)
	require.Len(t, errs, 1, "a loss does not pass unnoticed")
}

// A reader that stands still holds one page, however much is recorded meanwhile.
func TestFollowHoldsLittle(t *testing.T) {
	s := &rereading{Store: audit.NewMemory()}
	j := open(t, s)
	for i := range 500 {
		e := journaltest.Event(i % 60)
		e.ID = fmt.Sprint(i)
		require.NoError(t, j.Record(t.Context(), e))
	}
	next, stop := iter.Pull2(j.FollowAll(t.Context(), -1))
	defer stop()
	_, err, _ := next()
	require.NoError(t, err)
	require.LessOrEqual(t, s.held.Load(), int64(64))
}

func TestReadingIsAnEntry(t *testing.T) {
	j := open(t, audit.NewMemory())
	for i := range 6 {
		require.NoError(t, j.Record(t.Context(), journaltest.Event(i)))
	}
	boss := crmguard.Subject{Tenant: "acme", ID: "boss", Kind: crmguard.KindEmployee}
	ctx := crmguard.WithSubject(t.Context(), boss)
	readings := func() []audit.Entry {
		page, err := j.Find(t.Context(), audit.Query{Tenant: "acme", Action: audit.ActRead})
		require.NoError(t, err)
		return page.Entries
	}
	page, err := j.Read(ctx, audit.Query{Tenant: "acme", Subject: "anna", From: journaltest.Event(0).Time})
	require.NoError(t, err)
	require.Len(t, page.Entries, 2)
	require.Len(t, readings(), 1, "and finding this made no other")
	e := readings()[0].Event
	require.Equal(t, []string{"from", "subject=anna"}, e.Fields)
	require.Equal(t, 2, e.Count)
	require.Equal(t, "boss", e.Subject.ID)

	// What is typed and not found may be a client's name.
	page, err = j.Read(ctx, audit.Query{Tenant: "acme", Client: "Erika Mustermann", Record: "+49301234567"})
	require.NoError(t, err)
	require.Empty(t, page.Entries)
	require.Equal(t, []string{"client", "record"}, readings()[0].Event.Fields)
	for _, row := range j.rows(t) {
		require.NotContains(t, string(row.Record), "Mustermann")
		require.NotContains(t, string(row.Record), "+49301234567")
	}

	// To read readings is a reading, too: one each time.
	for want := range 3 {
		page, err = j.Read(ctx, audit.Query{Tenant: "acme", Action: audit.ActRead})
		require.NoError(t, err)
		require.Len(t, page.Entries, 2+want)
	}

	tail, err := j.Watch(ctx, audit.Query{Tenant: "acme", Subject: "anna"}, -1)
	require.NoError(t, err)
	seqs, _ := take(t, tail, 2)
	require.Equal(t, []int64{0, 3}, seqs)
	require.Equal(t, []string{"subject", "live"}, readings()[0].Event.Fields)
	require.Len(t, readings(), 6)
}

func TestNobodyReadsUnrecorded(t *testing.T) {
	j := open(t, audit.NewMemory())
	require.NoError(t, j.Record(t.Context(), journaltest.Event(0)))
	query := audit.Query{Tenant: "acme"}
	for name, subject := range map[string]crmguard.Subject{
		"nobody":         {},
		"another tenant": {Tenant: "other", ID: "boss", Kind: crmguard.KindEmployee},
	} {
		ctx := crmguard.WithSubject(t.Context(), subject)
		_, err := j.Read(ctx, query)
		_, denied := errors.AsType[*crmguard.Denial](err)
		require.True(t, denied, name)
		_, err = j.Watch(ctx, query, -1)
		_, denied = errors.AsType[*crmguard.Denial](err)
		require.True(t, denied, name)
	}
	_, err := j.Read(t.Context(), query)
	require.Error(t, err)
	ctx := crmguard.WithSubject(t.Context(), crmguard.Subject{Tenant: "acme", ID: "boss", Kind: crmguard.KindEmployee})
	require.NoError(t, j.Close())
	page, err := j.Read(ctx, query)
	require.ErrorIs(t, err, audit.ErrClosed)
	require.Empty(t, page.Entries)
	_, err = j.Watch(ctx, query, -1)
	require.ErrorIs(t, err, audit.ErrClosed)
}

// A tool reads without the log, and without its keys.
func TestFollowStore(t *testing.T) {
	j := open(t, audit.NewMemory())
	for i := range 6 {
		require.NoError(t, j.Record(t.Context(), journaltest.Event(i)))
	}
	anna := &audit.Query{Tenant: "acme", Subject: "anna"}
	seqs, errs := take(t, audit.FollowStore(t.Context(), j.store, j.verifier, nil, 3), 2)
	require.Equal(t, []int64{4, 5}, seqs)
	require.Empty(t, errs)
	tail := audit.FollowStore(t.Context(), j.store, j.verifier, anna, -1)
	for range 2 { // each range begins anew
		seqs, _ = take(t, tail, 2)
		require.Equal(t, []int64{0, 3}, seqs)
	}
	for query, want := range map[*audit.Query][]int64{nil: upTo(6), anna: {0, 3}, {Tenant: "globex"}: nil} {
		seqs, errs = takeAll(audit.ReadStore(t.Context(), j.store, j.verifier, query, -1))
		require.Equal(t, want, seqs)
		require.Empty(t, errs)
	}
	for _, entries := range []iter.Seq2[audit.Entry, error]{
		audit.FollowStore(t.Context(), j.store, j.verifier, &audit.Query{}, -1), audit.ReadStore(t.Context(), j.store, j.verifier, &audit.Query{}, -1),
	} {
		_, errs = takeAll(entries)
		require.Len(t, errs, 1)
		require.ErrorContains(t, errs[0], "needs a tenant")
	}
}

// takeAll reads to the end.
func takeAll(entries iter.Seq2[audit.Entry, error]) (seqs []int64, errs []error) {
	for e, err := range entries {
		if err != nil {
			errs = append(errs, err)
			continue
		}
		seqs = append(seqs, e.Seq)
	}
	return seqs, errs
}

// Whoever reads up to the present is told at once of what nobody signed yet, and of a
// store that fails.
func TestReadStoreDoesNotWait(t *testing.T) {
	store := &rereading{Store: audit.NewMemory()}
	j := open(t, store)
	for i := range 4 {
		require.NoError(t, j.Record(t.Context(), journaltest.Event(i)))
	}
	store.rows = func(rows []audit.Row, _ int64) ([]audit.Row, error) {
		return slices.DeleteFunc(rows, func(r audit.Row) bool { return r.Seq == 1 || r.Seq == 2 }), nil
	}
	seqs, errs := takeAll(audit.ReadStore(t.Context(), store, j.verifier, nil, -1))
	require.Equal(t, []int64{0, 3}, seqs)
	require.Len(t, errs, 1)
	require.ErrorContains(t, errs[0], "broken at entry 1")
	store.rows = func([]audit.Row, int64) ([]audit.Row, error) { return nil, errors.New("pulled out") }
	seqs, errs = takeAll(audit.ReadStore(t.Context(), store, j.verifier, nil, -1))
	require.Empty(t, seqs)
	require.Len(t, errs, 1)
	require.ErrorContains(t, errs[0], "pulled out")
}

// What retention removed is passed in silence; what is merely gone is not.
func TestFollowAfterPrune(t *testing.T) {
	a := days(t, audit.NewMemory(), 4)
	removed := a.prune(t, 2)
	require.Positive(t, removed.To)
	for e, err := range a.FollowAll(t.Context(), -1) {
		require.NoError(t, err)
		require.Equal(t, removed.To, e.Seq)
		break
	}
	gone := &rereading{Store: audit.NewMemory()}
	j := open(t, gone)
	for i := range 4 {
		require.NoError(t, j.Record(t.Context(), journaltest.Event(i)))
	}
	require.NoError(t, j.Close())
	gone.rows = func(rows []audit.Row, _ int64) ([]audit.Row, error) {
		return slices.DeleteFunc(rows, func(r audit.Row) bool { return r.Seq < 2 }), nil
	}
	seqs, errs := take(t, j.FollowAll(t.Context(), -1), 3)
	require.Equal(t, []int64{1, 2, 3}, seqs)
	require.Len(t, errs, 1)
}
