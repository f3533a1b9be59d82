package audit

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"time"

	"golang.org/x/mod/sumdb/note"
)

const (
	followPage  = 64          // rows that a reader holds: at most 4 MiB
	followEvery = time.Second // for entries of other processes; those of this one wake
)

// Follow returns the entries of one tenant that match q as they are chained, by
// whatever process: first those that are there after the entry numbered after (-1:
// from the first), in order, none left out and none twice, then each new one, until
// ctx ends or the Log is closed. Query's Before and Limit have no meaning here.
//
// A reader may take its time: what it has not read yet waits in the store. Follow
// looks at every entry after the given one, so the past is better read with Find.
//
// Entries that retention has removed are passed in silence. One that cannot be read,
// because somebody changed or removed it, holds nobody up: it is a *[BrokenError], and
// Entry.Seq is the last number that it stands for. Any other error is one of the store, with the number -1; nothing was skipped, and a
// loop that goes on tries again after a moment.
//
// Follow does not ask who wants to know, and leaves no trace: [Log.Watch] is for
// people.
func (l *Log) Follow(ctx context.Context, q Query, after int64) iter.Seq2[Entry, error] {
	if err := q.normalise(nil); err != nil {
		return failing(err)
	}
	return l.follow(ctx, &q, after)
}

// FollowAll is [Log.Follow] for the entries of all tenants and of the log itself: for
// whoever runs the installation, such as an export of all of it.
func (l *Log) FollowAll(ctx context.Context, after int64) iter.Seq2[Entry, error] {
	return l.follow(ctx, nil, after)
}

// FollowStore is [Log.Follow] for a log that need not be in use, and without keys: for
// tools that look at a journal from outside. A nil query is for the entries of all
// tenants. It ends with ctx only.
func FollowStore(ctx context.Context, s Store, v note.Verifier, q *Query, after int64) iter.Seq2[Entry, error] {
	f, err := outside(ctx, s, v, q, after)
	if err != nil {
		return failing(err)
	}
	return f.run(ctx, func() (<-chan struct{}, bool) { return nil, false })
}

// ReadStore is [FollowStore] up to where the log stands now. Nobody waits for what is
// to come, so what is damaged or missing is told at once, and an error of the store
// is the end.
func ReadStore(ctx context.Context, s Store, v note.Verifier, q *Query, after int64) iter.Seq2[Entry, error] {
	f, err := outside(ctx, s, v, q, after)
	if err != nil {
		return failing(err)
	}
	f.once = true
	return f.run(ctx, func() (<-chan struct{}, bool) { return nil, true })
}

// outside is a reader of a log that need not be in use.
func outside(ctx context.Context, s Store, v note.Verifier, q *Query, after int64) (follower, error) {
	f := follower{store: s, verify: v, logger: slog.New(slog.DiscardHandler), next: max(after, -1) + 1}
	if q != nil {
		asked := *q
		if err := asked.normalise(nil); err != nil {
			return f, err
		}
		f.query = &asked
	}
	head, err := s.Head(ctx)
	if _, broken := errors.AsType[*BrokenError](err); err != nil && !broken {
		return f, fmt.Errorf("audit: follow: %w", err)
	}
	f.log = head.Log
	return f, nil
}

// Head returns where the log stands, in its store.
func (l *Log) Head(ctx context.Context) (Head, error) { return l.store.Head(ctx) }

func failing(err error) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) { yield(Entry{Seq: -1}, err) }
}

func (l *Log) follow(ctx context.Context, q *Query, after int64) iter.Seq2[Entry, error] {
	f := follower{store: l.store, log: l.id, verify: l.verify, logger: l.logger, query: q, next: max(after, -1) + 1}
	return f.run(ctx, func() (<-chan struct{}, bool) { return l.growth.wait(), l.hasEnded() })
}

// follower is one reader, and where it is.
type follower struct {
	store  Store
	log    [16]byte
	verify note.Verifier
	logger *slog.Logger
	query  *Query // nil: all entries of all tenants
	next   int64
	once   bool  // it does not wait for more
	told   int64 // one more than the number at which it waits for a checkpoint, and said so
}

// run reads until ctx or the log ends. State returns what is closed when the log
// grows or ends, and whether it has ended.
func (f follower) run(ctx context.Context, state func() (grown <-chan struct{}, ended bool)) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		f := f // each range begins anew
		for ctx.Err() == nil {
			grown, ended := state() // before reading: what comes after that wakes
			read, goOn := f.page(ctx, yield)
			if !goOn {
				return
			}
			if read {
				continue
			}
			if ended {
				return
			}
			pauseFollowing(ctx, grown)
		}
	}
}

func pauseFollowing(ctx context.Context, grown <-chan struct{}) {
	poll := time.NewTimer(followEvery)
	defer poll.Stop()
	select {
	case <-grown:
	case <-poll.C:
	case <-ctx.Done():
	}
}

// page yields what the next rows say. It reports whether there were any, and whether
// the reader wants more.
func (f *follower) page(ctx context.Context, yield func(Entry, error) bool) (read, goOn bool) {
	rows, err := f.store.Read(ctx, f.next, followPage)
	broken, isBroken := errors.AsType[*BrokenError](err)
	switch {
	case isBroken:
		return f.over(ctx, broken, broken.Seq+1, yield)
	case ctx.Err() != nil:
		return false, true
	case err != nil:
		return false, yield(Entry{Seq: -1}, fmt.Errorf("audit: follow: %w", err))
	}
	for i := range rows {
		row := &rows[i]
		if row.Seq != f.next {
			missing := &BrokenError{Seq: f.next, Detail: fmt.Sprintf("it is missing, and so are all up to entry %d", row.Seq-1)}
			stepped, goOn := f.over(ctx, missing, row.Seq, yield)
			return stepped || i > 0, goOn
		}
		f.next++
		if !f.give(row, yield) {
			return true, false
		}
	}
	return len(rows) > 0, true
}

// over goes on at to, over entries that are damaged or missing: not before a signed
// checkpoint covers them, if it waits for more: what stands there may have been
// planted in front of entries that are yet to come.
func (f *follower) over(ctx context.Context, broken *BrokenError, to int64, yield func(Entry, error) bool) (read, goOn bool) {
	pruned, err := f.pruned(ctx)
	switch {
	case ctx.Err() != nil:
		return false, true
	case err != nil: // it is not known whether they were removed by retention
		return false, yield(Entry{Seq: -1}, fmt.Errorf("audit: follow: %w", err))
	case pruned > f.next:
		f.next = pruned
		return true, true
	}
	if to <= f.next || !f.once && !f.covered(ctx, to) {
		if f.told != f.next+1 {
			f.told = f.next + 1
			f.logger.LogAttrs(ctx, slog.LevelError, "audit: a reader waits at an entry that cannot be read: verify the journal", slog.Int64("entry", f.next), slog.Any("error", broken))
		}
		return false, true
	}
	f.next = to
	return true, yield(Entry{Seq: to - 1}, broken)
}

// pruned is how many entries the log's key says were removed by retention.
func (f *follower) pruned(ctx context.Context) (int64, error) {
	p, err := prunedOf(ctx, f.store)
	if !ignorable(err) {
		return 0, err
	}
	if err != nil || p.Size <= 0 || f.verify == nil {
		return 0, nil
	}
	if _, err := p.open(f.verify, f.log); err != nil {
		return 0, nil
	}
	return p.Size, nil
}

// covered reports whether this log's key signed that there were size entries.
func (f *follower) covered(ctx context.Context, size int64) bool {
	if f.verify == nil {
		return false
	}
	const page = 16
	for after := size - 1; ; {
		list, err := f.store.Checkpoints(ctx, after, page)
		if err != nil {
			return false
		}
		for i := range list {
			if tree, err := openCheckpoint(&list[i], f.verify, f.log); err == nil && tree.N >= size {
				return true
			}
			after = list[i].Size
		}
		if len(list) < page {
			return false
		}
	}
}

// give yields one row, as its record has it, if that is asked for.
func (f *follower) give(row *Row, yield func(Entry, error) bool) bool {
	rec, err := decodeRecord(row.Record)
	if err != nil {
		return yield(Entry{Seq: row.Seq}, &BrokenError{Seq: row.Seq, Detail: "its record does not decode"})
	}
	if rec.seq != row.Seq || rec.log != f.log {
		return yield(Entry{Seq: row.Seq}, &BrokenError{Seq: row.Seq, Detail: "its record is that of another entry"})
	}
	if keys := rec.keys(); f.query != nil && !keys.matches(f.query) {
		return true
	}
	return yield(rec.entry(), nil)
}

func (l *Log) hasEnded() bool {
	select {
	case <-l.ended:
		return true
	default:
		return false
	}
}
