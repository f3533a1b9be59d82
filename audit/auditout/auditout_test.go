package auditout_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"iter"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/mod/sumdb/note"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/auditout"
	"github.com/crmguard/crmguard/audit/internal/journaltest"
)

func openLog(t testing.TB, s audit.Store) (*audit.Log, note.Verifier) {
	t.Helper()
	signer, verifier := journaltest.Signer(t)
	log, err := audit.New(t.Context(), s, journaltest.NewSealer(), signer, verifier, nil)
	require.NoError(t, err)
	t.Cleanup(func() { _ = log.Close() })
	return log, verifier
}

func fill(t testing.TB, log *audit.Log, n int) {
	t.Helper()
	for i := range n {
		e := journaltest.Event(i % 60)
		e.ID = fmt.Sprint("event-", i, rand.Text())
		require.NoError(t, log.Record(t.Context(), e))
	}
}

// receiver is a sink in memory.
type receiver struct {
	mu    sync.Mutex
	seqs  []int64
	notes map[int64]string
	size  int // of the largest batch
	send  func(ctx context.Context, records []auditout.Record) error
}

func (r *receiver) Send(ctx context.Context, records []auditout.Record) error {
	if r.send != nil {
		if err := r.send(ctx, records); err != nil {
			return err
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, record := range records {
		r.seqs = append(r.seqs, record.Seq)
		if record.Note != "" {
			if r.notes == nil {
				r.notes = map[int64]string{}
			}
			r.notes[record.Seq] = record.Note
		}
	}
	r.size = max(r.size, len(records))
	return nil
}

func (r *receiver) got() []int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.seqs)
}

// cursor is one in memory, which may fail.
type cursor struct {
	mu   sync.Mutex
	log  [16]byte
	seq  int64
	save func(seq int64) error
}

func (c *cursor) Load(context.Context) ([16]byte, int64, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.log == ([16]byte{}) {
		return c.log, -1, nil
	}
	return c.log, c.seq, nil
}

func (c *cursor) Save(_ context.Context, log [16]byte, seq int64) error {
	if c.save != nil {
		if err := c.save(seq); err != nil {
			return err
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.log, c.seq = log, seq
	return nil
}

func newPump(t testing.TB, source auditout.Source, feeds ...auditout.Feed) *auditout.Pump {
	t.Helper()
	p, err := auditout.New(source, feeds, nil)
	require.NoError(t, err)
	return p
}

func upTo(n int64) []int64 {
	list := make([]int64, n)
	for i := range list {
		list[i] = int64(i)
	}
	return list
}

// All entries arrive in order, and after a restart those that come after.
func TestPumpDelivers(t *testing.T) {
	store := audit.NewMemory()
	log, verifier := openLog(t, store)
	fill(t, log, 300)
	sink := &receiver{}
	c, err := auditout.NewFileCursor(filepath.Join(t.TempDir(), "cursor"))
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	sink.send = func(_ context.Context, records []auditout.Record) error {
		if records[len(records)-1].Seq == 299 {
			defer cancel()
		}
		return nil
	}
	p := newPump(t, log, auditout.Feed{Name: "one", Sink: sink, Cursor: c})
	p.Run(ctx)
	require.Equal(t, upTo(300), sink.got())
	require.LessOrEqual(t, sink.size, 128)

	fill(t, log, 100)
	require.NoError(t, log.Close())
	sink.send = nil
	p = newPump(t, log, auditout.Feed{Name: "one", Sink: sink, Cursor: c})
	p.Run(t.Context()) // ends, because the journal did
	got := sink.got()
	require.Equal(t, upTo(400), distinct(got))
	require.Equal(t, []auditout.Status{{Name: "one", Sent: 399}}, p.Status(t.Context()))
	_ = verifier
}

func distinct(seqs []int64) []int64 {
	seqs = slices.Clone(seqs)
	slices.Sort(seqs)
	return slices.Compact(seqs)
}

// lost is what a feed loses that is killed again and again, at each step.
func lost(t *testing.T, wrap func(*receiver, *cursor) auditout.Feed) []int64 {
	t.Helper()
	const entries = 40
	log, _ := openLog(t, audit.NewMemory())
	fill(t, log, entries)
	require.NoError(t, log.Close())
	sink, c := &receiver{}, &cursor{}
	killed := errors.New("killed")
	for round := 0; ; round++ {
		ctx, cancel := context.WithCancel(t.Context())
		steps := 0
		step := func() error {
			if steps++; steps > round%4 && round < 60 {
				cancel()
				return killed
			}
			return nil
		}
		sink.send = func(context.Context, []auditout.Record) error { return step() }
		c.save = func(int64) error { return step() }
		p := newPump(t, log, wrap(sink, c))
		p.Run(ctx)
		done := ctx.Err() == nil
		cancel()
		if done {
			break
		}
	}
	var missing []int64
	for _, seq := range upTo(entries) {
		if !slices.Contains(sink.got(), seq) {
			missing = append(missing, seq)
		}
	}
	return missing
}

// early is the planted fault: it says that it has what it passes on later.
type early struct {
	*receiver
	waiting []auditout.Record
}

func (e *early) Send(ctx context.Context, records []auditout.Record) error {
	if len(e.waiting) > 0 {
		_ = e.receiver.Send(ctx, e.waiting)
	}
	e.waiting = slices.Clone(records)
	return nil
}

func TestKilledBetweenDeliveryAndCursor(t *testing.T) {
	require.Empty(t, lost(t, func(r *receiver, c *cursor) auditout.Feed {
		return auditout.Feed{Name: "siem", Sink: r, Cursor: c}
	}))
	require.NotEmpty(t, lost(t, func(r *receiver, c *cursor) auditout.Feed {
		return auditout.Feed{Name: "siem", Sink: &early{receiver: r}, Cursor: c}
	}), "planted fault")
}

// A receiver that hangs holds up neither who records nor another feed.
func TestAHungSinkStopsNobody(t *testing.T) {
	log, _ := openLog(t, audit.NewMemory())
	hangs := &receiver{send: func(ctx context.Context, _ []auditout.Record) error {
		<-ctx.Done()
		return ctx.Err()
	}}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	works := &receiver{send: func(_ context.Context, records []auditout.Record) error {
		if records[len(records)-1].Seq == 499 {
			cancel()
		}
		return nil
	}}
	p := newPump(t, log, auditout.Feed{Name: "hangs", Sink: hangs, Cursor: &cursor{}}, auditout.Feed{Name: "works", Sink: works, Cursor: &cursor{}})
	var running sync.WaitGroup
	running.Go(func() { p.Run(ctx) })
	fill(t, log, 500)
	running.Wait()
	require.Equal(t, upTo(500), works.got())
	require.Empty(t, hangs.got())
	status := p.Status(t.Context())
	require.EqualValues(t, -1, status[0].Sent)
	require.EqualValues(t, 500, status[0].Behind)
}

// What cannot be read, or is refused, goes out as a head; what is refused even so is
// skipped and counted.
func TestNothingSticks(t *testing.T) {
	log, _ := openLog(t, audit.NewMemory())
	fill(t, log, 12)
	require.NoError(t, log.Close())
	refuse := func(_ context.Context, records []auditout.Record) error {
		for _, r := range records {
			if r.Seq == 7 || r.Seq == 4 && r.Event.Request != "" {
				return fmt.Errorf("%w: too large", auditout.ErrRefused)
			}
		}
		return nil
	}
	sink, c := &receiver{send: refuse}, &cursor{}
	source := &damaged{Log: log, at: 9}
	p := newPump(t, source, auditout.Feed{Name: "siem", Sink: sink, Cursor: c})
	p.Run(t.Context())
	require.Equal(t, []int64{0, 1, 2, 3, 4, 5, 6, 8, 9, 10, 11}, sink.got())
	require.Contains(t, sink.notes[4], "refused")
	require.Contains(t, sink.notes[9], "broken at entry 9")
	require.Len(t, sink.notes, 2)
	require.Equal(t, []auditout.Status{{Name: "siem", Sent: 11, Noted: 2, Skipped: 1}}, p.Status(t.Context()))
}

// damaged is a journal of which one entry cannot be read.
type damaged struct {
	*audit.Log
	at int64
}

func (d *damaged) FollowAll(ctx context.Context, after int64) iter.Seq2[audit.Entry, error] {
	return func(yield func(audit.Entry, error) bool) {
		for e, err := range d.Log.FollowAll(ctx, after) {
			if e.Seq == d.at {
				e, err = audit.Entry{Seq: e.Seq}, &audit.BrokenError{Seq: e.Seq, Detail: "damaged"}
			}
			if !yield(e, err) {
				return
			}
		}
	}
}

// A receiver that fails is left alone for longer and longer, and the state tells
// since when; time is that of the test.
func TestBackoffAndStatus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, _ := openLog(t, audit.NewMemory())
		fill(t, log, 1)
		began := time.Now()
		var tries []time.Duration
		sink := &receiver{send: func(context.Context, []auditout.Record) error {
			tries = append(tries, time.Since(began))
			if len(tries) >= 10 {
				return nil
			}
			return errors.New("down")
		}}
		p := newPump(t, log, auditout.Feed{Name: "siem", Sink: sink, Cursor: &cursor{}})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var running sync.WaitGroup
		running.Go(func() { p.Run(ctx) })
		time.Sleep(100 * time.Second)
		s := p.Status(t.Context())[0]
		require.ErrorContains(t, s.Err, "down")
		require.EqualValues(t, -1, s.Sent)
		require.EqualValues(t, 1, s.Behind)
		require.GreaterOrEqual(t, s.Lag, 100*time.Second)
		require.WithinDuration(t, began, s.FailingSince, 2*time.Second)
		time.Sleep(5 * time.Minute)
		s = p.Status(t.Context())[0]
		require.NoError(t, s.Err)
		require.Zero(t, s.FailingSince)
		require.Zero(t, s.Lag)
		for i := 1; i < len(tries); i++ {
			gap := tries[i] - tries[i-1]
			require.LessOrEqual(t, gap, time.Minute+2*time.Second)
			require.GreaterOrEqual(t, gap, time.Second/2<<min(i-1, 5))
		}
		cancel()
		running.Wait()
		require.NoError(t, log.Close())
	})
}

// A journal that is shorter than what was delivered was cut off: nothing is sent. Of
// another journal everything is.
func TestTheCursorKnowsItsJournal(t *testing.T) {
	log, _ := openLog(t, audit.NewMemory())
	fill(t, log, 10)
	head, err := log.Head(t.Context())
	require.NoError(t, err)
	sink, c := &receiver{}, &cursor{log: head.Log, seq: 25}
	ctx, cancel := context.WithCancel(t.Context())
	p := newPump(t, log, auditout.Feed{Name: "siem", Sink: sink, Cursor: c})
	var running sync.WaitGroup
	running.Go(func() { p.Run(ctx) })
	require.Eventually(t, func() bool { return p.Status(t.Context())[0].Err != nil }, time.Minute, time.Millisecond)
	require.ErrorContains(t, p.Status(t.Context())[0].Err, "ends before it")
	cancel()
	running.Wait()
	require.Empty(t, sink.got())

	c.log[0]++
	require.NoError(t, log.Close())
	newPump(t, log, auditout.Feed{Name: "siem", Sink: sink, Cursor: c}).Run(t.Context())
	require.Equal(t, upTo(10), sink.got())
}

// behind is a journal that grows, and whose newest entry another process delivers, as soon
// as it was asked where it stands.
type behind struct {
	*audit.Log
	delivered func()
}

func (b *behind) Head(ctx context.Context) (audit.Head, error) {
	h, err := b.Log.Head(ctx)
	b.delivered()
	return h, err
}

// Of two processes that run a feed, the one that starts while the other delivers does not
// say that the journal was cut off.
func TestAnotherProcessDeliversMeanwhile(t *testing.T) {
	log, _ := openLog(t, audit.NewMemory())
	fill(t, log, 10)
	head, err := log.Head(t.Context())
	require.NoError(t, err)
	sink, c, loaded := &receiver{}, &cursor{log: head.Log, seq: 8}, make(chan struct{})
	source := &behind{log, sync.OnceFunc(func() {
		fill(t, log, 1)
		require.NoError(t, c.Save(t.Context(), head.Log, 10))
		close(loaded)
	})}
	p := newPump(t, source, auditout.Feed{Name: "siem", Sink: sink, Cursor: c})
	var running sync.WaitGroup
	running.Go(func() { p.Run(t.Context()) })
	<-loaded
	require.NoError(t, log.Close())
	running.Wait()
	require.Equal(t, []int64{9, 10}, sink.got(), "it began at once, and where its cursor stood")
}

func TestNewRefuses(t *testing.T) {
	log, _ := openLog(t, audit.NewMemory())
	good := auditout.Feed{Name: "a", Sink: &receiver{}, Cursor: &cursor{}}
	for name, feeds := range map[string][]auditout.Feed{
		"none": nil, "twice": {good, good}, "no name": {{Sink: good.Sink, Cursor: good.Cursor}},
		"no sink": {{Name: "a", Cursor: good.Cursor}}, "no cursor": {{Name: "a", Sink: good.Sink}},
	} {
		_, err := auditout.New(log, feeds, nil)
		require.Error(t, err, name)
	}
	_, err := auditout.New(nil, []auditout.Feed{good}, nil)
	require.Error(t, err)
}
