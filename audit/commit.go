package audit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime"
	"time"
)

// maxRaces is how often in a row an append may lose against other processes. Each
// loss is another's success, so this is reached by a fault only.
const maxRaces = 200

// committer is the goroutine that writes. It alone knows where the log stands.
type committer struct {
	*Log
	at      position
	signed  int64 // size of the newest checkpoint
	batched int   // size of the batch before
}

// item is an entry to be chained: of a waiter, or of the inbox.
type item struct {
	keys    Keys
	body    []byte
	waiter  *waiter  // or
	waiting *Waiting // exactly one
	known   bool     // the log holds it already
}

// openCommitter reads where the log stands: from the last checkpoint on by
// hashing every record, so that nothing is signed that was changed meanwhile.
func openCommitter(ctx context.Context, l *Log) (*committer, error) {
	head, err := l.store.Head(ctx)
	if err != nil {
		return nil, fmt.Errorf("audit: read the head: %w", err)
	}
	c := &committer{Log: l, at: start(head.Log), signed: -1}
	last, err := lastCheckpoint(ctx, l.store)
	if err != nil {
		return nil, err
	}
	if last != nil {
		tree, err := openCheckpoint(last, l.verify, head.Log)
		if err != nil {
			return nil, &BrokenError{Seq: max(last.Size-1, 0), Detail: "cannot be continued: the newest checkpoint is not one of this log and key"}
		}
		if tree.N > head.Size {
			return nil, &BrokenError{Seq: head.Size, Detail: fmt.Sprintf("a checkpoint says that there were %d entries", tree.N)}
		}
		if c.at, err = at(ctx, l.store, head.Log, tree.N); err != nil {
			return nil, err
		}
		if c.at.root() != tree.Hash {
			return nil, &BrokenError{Seq: max(tree.N-1, 0), Detail: "the tree is not the one that was signed"}
		}
		c.signed = tree.N
	}
	if err := c.follow(ctx); err != nil {
		return nil, err
	}
	if c.at.head() != head && c.at.size <= head.Size {
		return nil, &BrokenError{Seq: c.at.size, Detail: "the log is shorter than its head says"}
	}
	if c.signed < 0 { // so that a log without any checkpoint is never right
		return c, c.sign(ctx)
	}
	return c, nil
}

// run is the life of the goroutine.
func (c *committer) run(ctx context.Context, every time.Duration) {
	defer close(c.ended)
	checkpoint := time.NewTicker(every)
	defer checkpoint.Stop()
	var poll <-chan time.Time // nil: never
	if c.inbox != nil {
		ticker := time.NewTicker(pollEvery)
		defer ticker.Stop()
		poll = ticker.C
	}
	for {
		due := false
		select {
		case w := <-c.queue:
			c.commit(ctx, c.drain(w))
		case <-c.nudge:
			c.complain(ctx, c.sequence(ctx))
		case <-poll:
			c.complain(ctx, c.sequence(ctx))
		case <-checkpoint.C:
			due = true
		case <-c.quit:
			c.endErr = c.end(ctx)
			return
		}
		// A signature that fails is tried again at the next occasion; meanwhile
		// entries are durable and chained.
		if due && c.at.size > c.signed || c.at.size-c.signed >= checkpointEvery {
			c.complain(ctx, c.sign(ctx))
		}
	}
}

func (c *committer) complain(ctx context.Context, err error) {
	if err != nil {
		c.logger.LogAttrs(ctx, slog.LevelError, "audit: the journal lags behind", slog.Any("error", err))
	}
}

// end writes what waits. Nobody adds to the queue any more.
func (c *committer) end(ctx context.Context) error {
	for len(c.queue) > 0 {
		c.commit(ctx, c.drain(<-c.queue))
	}
	err := c.sequence(ctx)
	if c.at.size > c.signed {
		err = errors.Join(err, c.sign(ctx))
	}
	return err
}

// drain takes what else waits. Callers of the batch before were just woken and may
// be about to record again: one turn of the scheduler lets them join, so that
// batches do not stay half as large as they could be.
func (c *committer) drain(first *waiter) []*item {
	items := make([]*item, 0, maxBatch)
	w := first
	for {
		items = append(items, &item{keys: w.content.keys(), body: w.body, waiter: w})
		if len(items) == maxBatch {
			return items
		}
		if len(c.queue) == 0 && len(items) < c.batched {
			runtime.Gosched()
		}
		select {
		case w = <-c.queue:
		default:
			c.batched = len(items)
			return items
		}
	}
}

// sequence chains what is in the inbox. An entry that does not decode stays there:
// a newer program wrote it, or somebody tampered with it, and it is not ours to
// drop.
func (c *committer) sequence(ctx context.Context) error {
	if c.inbox == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	skip, race := 0, 0 // skip: those that do not decode, which stay
	var unreadable error
	for {
		waiting, err := c.inbox.Waiting(ctx, skip, maxBatch)
		if err != nil {
			return errors.Join(unreadable, fmt.Errorf("audit: read the inbox: %w", err))
		}
		items := make([]*item, 0, len(waiting))
		for i := range waiting {
			content, err := decodeBody(waiting[i].Body)
			if err != nil {
				if unreadable == nil {
					unreadable = fmt.Errorf("audit: an entry in the inbox since %d: %w", waiting[i].Since, err)
				}
				continue
			}
			items = append(items, &item{keys: content.keys(), body: waiting[i].Body, waiting: &waiting[i]})
		}
		err = c.appendItems(ctx, items)
		switch {
		case errors.Is(err, ErrMoved) && race < maxRaces: // another process took them
			race++
			continue
		case err != nil:
			return errors.Join(unreadable, err)
		case len(waiting) < maxBatch:
			return unreadable
		}
		skip += len(waiting) - len(items)
	}
}

// commit appends entries of waiters in one step and then acknowledges them.
func (c *committer) commit(ctx context.Context, items []*item) {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	err := c.appendItems(ctx, items)
	for _, it := range items {
		it.waiter.done <- err
	}
}

func (c *committer) appendItems(ctx context.Context, items []*item) error {
	seen := make(map[[32]byte]bool, len(items))
	for _, it := range items {
		id := it.keys.id()
		it.known = seen[id]
		seen[id] = true
	}
	for race := 0; ; race++ {
		next, batch, fresh := c.batch(items)
		if len(batch.Rows) == 0 && len(batch.Taken) == 0 {
			return nil
		}
		err := c.store.Append(ctx, batch)
		if err == nil {
			c.at = next
			return nil
		}
		if dup, ok := errors.AsType[*DuplicateError](err); ok && len(dup.Index) > 0 {
			for _, i := range dup.Index {
				fresh[i].known = true
			}
			continue
		}
		if !errors.Is(err, ErrMoved) || race == maxRaces {
			return fmt.Errorf("audit: append: %w", err)
		}
		before := c.at.size
		if err := c.follow(ctx); err != nil {
			return err
		}
		if c.at.size == before {
			if err := c.unmoved(ctx); err != nil {
				return err
			}
			if len(batch.Taken) > 0 {
				return ErrMoved // the inbox moved, not the log
			}
		}
		if err := pause(ctx, race); err != nil {
			return err
		}
	}
}

// unmoved says what it means that a log moved without growing: entries that were
// there are gone.
func (c *committer) unmoved(ctx context.Context) error {
	head, err := c.store.Head(ctx)
	if err != nil {
		return fmt.Errorf("audit: read the head: %w", err)
	}
	if head.Size > c.at.size || head == c.at.head() {
		return nil
	}
	return &BrokenError{Seq: min(head.Size, c.at.size-1), Detail: "entries that this process saw are gone or changed"}
}

// batch makes rows of all items that the log does not know, and returns those
// items beside it.
func (c *committer) batch(items []*item) (position, Batch, []*item) {
	next := c.at.clone()
	b := Batch{After: c.at.head(), Rows: make([]Row, 0, len(items))}
	fresh := make([]*item, 0, len(items))
	recorded := c.clock()
	for _, it := range items {
		if it.waiting != nil {
			b.Taken = append(b.Taken, *it.waiting)
		}
		if it.known {
			continue
		}
		rec := appendHead(make([]byte, 0, headSize+len(it.body)), next.log, next.size, recorded)
		row := next.add(append(rec, it.body...))
		row.Keys = it.keys
		b.Rows = append(b.Rows, row)
		fresh = append(fresh, it)
	}
	return next, b, fresh
}

// pause lets processes that race for the head drift apart.
func pause(ctx context.Context, race int) error {
	limit := time.Millisecond << min(race, 5)
	select {
	case <-ctx.Done():
		return fmt.Errorf("audit: append: %w", ctx.Err())
	case <-time.After(rand.N(limit)): //nolint:gosec // spreads retries, decides nothing
		return nil
	}
}

// follow takes in what other processes appended. Rows that do not continue what
// this process knows are a *BrokenError.
func (c *committer) follow(ctx context.Context) error {
	for {
		rows, err := c.store.Read(ctx, c.at.size, maxBatch)
		if err != nil {
			return fmt.Errorf("audit: follow the log: %w", err)
		}
		next := c.at.clone()
		for i := range rows {
			if _, err := next.accept(&rows[i]); err != nil {
				return err
			}
		}
		c.at = next
		if len(rows) < maxBatch {
			return nil
		}
	}
}

func (c *committer) sign(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	signed, err := signCheckpoint(&c.at, c.signer)
	if err != nil {
		return err
	}
	if err := c.store.Append(ctx, Batch{After: c.at.head(), Checkpoint: signed}); err != nil {
		return fmt.Errorf("audit: keep a checkpoint: %w", err)
	}
	c.signed = c.at.size
	return nil
}
