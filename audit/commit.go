package audit

import (
	"context"
	"crypto/sha256"
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

// maxGiven is how long at most a process leaves the log to others, again and again.
const maxGiven = 50 * time.Millisecond

// committer is the goroutine that writes. It alone knows where the log stands.
type committer struct {
	*Log
	at      position
	sig     signing
	tail    tailing
	seq     sequencer
	pulse   pulse
	batched int                // size of the batch before
	raced   time.Time          // when another process was first, the last time
	took    time.Duration      // how long the last append took
	lagging bool               // the inbox could not be chained, and that was said
	seen    map[[32]byte]*item // of what is being appended
}

// item is an entry to be chained: of somebody who waits, or of the inbox.
type item struct {
	content *content
	keys    Keys
	id      [32]byte // of keys
	body    []byte
	done    chan struct{} // closed when err says what became of it, or
	waiting *Waiting      // or neither, for an entry of the log about itself
	of      originOf      // who put it into the inbox
	known   bool          // the log holds it already
	missed  bool          // the log held it, but it could not be found: retention may have removed it
	err     error         // another one was there first
}

// newItem does what can be done before the entry has its place.
func newItem(c *content, body []byte) *item {
	it := &item{content: c, keys: c.keys(), body: body}
	it.id = it.keys.id()
	return it
}

// run is the life of the goroutine.
func (c *committer) run(ctx context.Context) {
	defer func() {
		close(c.ended)
		c.growth.ring()
	}()
	checkpoint := time.NewTicker(c.every)
	defer checkpoint.Stop()
	var poll <-chan time.Time // nil: never
	if c.inbox != nil {
		ticker := time.NewTicker(pollEvery)
		defer ticker.Stop()
		poll = ticker.C
	}
	due := c.at.size > c.sig.signed // what a crash left is signed at once
	for {
		if due && c.at.size > c.sig.signed || c.at.size-c.sig.signed >= checkpointEvery {
			c.beginSigning(ctx)
		}
		due = false
		select {
		case it := <-c.queue:
			c.commit(ctx, c.drain(it))
		case <-c.nudge:
			c.turn(ctx)
		case <-poll:
			c.turn(ctx)
		case s := <-c.sig.result:
			c.settle(ctx, c.keep(ctx, s))
		case <-checkpoint.C: // what a process left that crashed beside this one is signed, too
			due = c.catchUp(ctx) && c.live(ctx)
		case <-c.quit:
			c.endErr = c.end(ctx)
			c.anchors.close()
			return
		}
	}
}

// turn chains one page of the inbox. If there are more, it asks for another turn,
// so that those who wait in the queue have theirs.
func (c *committer) turn(ctx context.Context) {
	more, err := c.sequence(ctx)
	if more {
		c.wake()
	}
	if err != nil && !c.lagging {
		c.logger.LogAttrs(ctx, slog.LevelError, "audit: the journal lags behind", slog.Any("error", err))
	}
	c.lagging = err != nil
}

// catchUp takes in what other processes appended, and reports whether all of it
// continues what this one knows.
func (c *committer) catchUp(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	err := c.follow(ctx)
	if err != nil && !c.lagging {
		c.logger.LogAttrs(ctx, slog.LevelError, "audit: the journal cannot be signed", slog.Any("error", err))
		c.lagging = true
	}
	return err == nil
}

// end writes what waits. Nobody adds to the queue any more.
func (c *committer) end(ctx context.Context) error {
	c.entering.Wait()
	for len(c.queue) > 0 {
		c.commit(ctx, c.drain(<-c.queue))
	}
	c.node.close()
	defer c.tail.close()
	c.seq.listened = time.Time{}
	more, err := c.sequence(ctx)
	for more && err == nil {
		more, err = c.sequence(ctx)
	}
	if c.inbox != nil {
		err = errors.Join(err, c.seq.left())
	}
	if c.sig.result != nil { // one is being made of fewer entries
		if signErr := c.signNow(ctx); signErr != nil {
			return errors.Join(err, signErr)
		}
	}
	if c.at.size > c.sig.signed {
		err = errors.Join(err, c.signNow(ctx))
	}
	return err
}

// drain takes what else waits. Callers of the batch before were just woken and may
// be about to record again: one turn of the scheduler lets them join, so that
// batches do not stay half as large as they could be.
func (c *committer) drain(first *item) []*item {
	items := make([]*item, 0, maxBatch)
	it := first
	for {
		items = append(items, it)
		if len(items) == maxBatch {
			return items
		}
		if len(c.queue) == 0 && len(items) < c.batched {
			runtime.Gosched()
		}
		select {
		case it = <-c.queue:
		default:
			c.batched = len(items)
			return items
		}
	}
}

// commit appends entries of waiters in one step and then acknowledges them.
func (c *committer) commit(ctx context.Context, items []*item) {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	err := c.appendItems(ctx, items, nil, nil)
	for _, it := range items {
		if it.err == nil {
			it.err = err
		}
		close(it.done)
	}
	c.giveWay()
}

// giveWay lets other processes have their turn. Whoever lost must read what it lost
// against before it can try again, and would always come too late if the winners
// went on at once.
func (c *committer) giveWay() {
	if c.raced.IsZero() || time.Since(c.raced) > time.Second {
		return
	}
	select {
	case <-c.quit:
	case <-time.After(rand.N(min(3*c.took, maxGiven) + 1)): //nolint:gosec // spreads turns, decides nothing
	}
}

// appendItems chains items in one step, in which the account changes, if it is not
// nil, and heartbeats are taken out. [ErrMoved] says that the inbox or the account is
// not what it was.
func (c *committer) appendItems(ctx context.Context, items []*item, account *AccountChange, beats []Beat) error {
	defer clear(c.seen)
	for _, it := range items {
		first := c.seen[it.id]
		if first == nil {
			c.seen[it.id] = it
			continue
		}
		it.known = true
		if !it.content.same(first.content, it.content.timed && first.content.timed) {
			it.err = it.content.conflict()
		}
	}
	if !writable(c.clock()) {
		return errTime
	}
	for race := 0; ; race++ {
		next, batch, fresh := c.batch(items)
		if len(batch.Rows) == 0 && len(batch.Taken) == 0 && account == nil {
			return nil
		}
		batch.Account, batch.Beats = account, beats
		began := time.Now()
		err := c.store.Append(ctx, batch)
		if err == nil {
			c.took = time.Since(began)
			c.at = next
			c.growth.ring()
			return nil
		}
		if dup, ok := errors.AsType[*DuplicateError](err); ok && len(dup.Index) > 0 {
			for _, i := range dup.Index {
				if i < 0 || i >= len(fresh) {
					return fmt.Errorf("audit: append: the store names row %d of %d: %w", i, len(fresh), err)
				}
				if err := c.compare(ctx, fresh[i].id, items); err != nil {
					return err
				}
			}
			continue
		}
		if !errors.Is(err, ErrMoved) || race >= maxRaces {
			return fmt.Errorf("audit: append: %w", err)
		}
		before := c.at.size
		c.raced = time.Now()
		if err := c.follow(ctx); err != nil {
			return err
		}
		if c.at.size == before {
			if err := c.unmoved(ctx); err != nil {
				return err
			}
			if len(batch.Taken) > 0 || account != nil {
				return ErrMoved // the inbox moved, not the log
			}
		}
		if err := pause(ctx, race); err != nil {
			return err
		}
	}
}

// compare marks the items of an entry that the log holds already, and says so of those
// that say something else: what another item of the batch says does not count any more.
// One that cannot be found is tried once more.
func (c *committer) compare(ctx context.Context, id [32]byte, items []*item) error {
	var held *content
	for _, it := range items {
		if it.id != id {
			continue
		}
		if held == nil {
			var err error
			switch held, err = c.holds(ctx, &it.keys); {
			case err != nil:
				return err
			case held == nil && !it.missed:
				it.missed = true
				return nil
			case held == nil:
				held = &content{}
			}
		}
		it.known, it.err = true, nil
		if !held.same(it.content, it.content.timed) {
			it.err = it.content.conflict()
		}
	}
	return nil
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
	nBytes, nHashes := 0, 0
	for i, it := range items {
		nBytes += 1 + headSize + len(it.body)
		nHashes += hashCount(next.size + int64(i))
	}
	records, hashes := make([]byte, 0, nBytes), make([][32]byte, 0, nHashes) // of all rows
	recorded := c.clock()
	for _, it := range items {
		if it.waiting != nil && it.err == nil {
			b.Taken = append(b.Taken, *it.waiting)
		}
		if it.known {
			continue
		}
		from, to := len(records), len(hashes)+hashCount(next.size)
		records = append(appendHead(append(records, 0), next.log, next.size, recorded, &next.last), it.body...)
		prefixed := records[from:len(records):len(records)] // by a zero byte: RFC 6962, section 2.1
		row := next.addLeaf(prefixed[1:], sha256.Sum256(prefixed), hashes[len(hashes):len(hashes):to])
		hashes = hashes[:to]
		row.Keys = it.keys
		b.Rows = append(b.Rows, row)
		b.Pseudonyms = append(b.Pseudonyms, it.content.pseudonyms...)
		fresh = append(fresh, it)
	}
	if len(b.Rows) > 0 {
		b.Tail = c.tail.seal(&next, c.seq.highest)
	}
	return next, b, fresh
}

// pause lets processes that race for the head drift apart.
func pause(ctx context.Context, race int) error {
	limit := time.Millisecond << min(race, 2)
	select {
	case <-ctx.Done():
		return fmt.Errorf("audit: append: %w", ctx.Err())
	case <-time.After(rand.N(limit)): //nolint:gosec // spreads retries, decides nothing
		return nil
	}
}

// follow takes in what other processes appended. Rows that do not continue what
// this process knows, or that nobody with keys wrote, are a *BrokenError.
func (c *committer) follow(ctx context.Context) error {
	next, wanted := c.at, int64(0)
	for {
		rows, err := c.store.Read(ctx, next.size, maxBatch)
		if !ignorable(err) {
			return fmt.Errorf("audit: follow the log: %w", err)
		}
		if err == nil {
			err = next.accept(rows)
		}
		if err != nil {
			if next, err = c.behindPruned(ctx, &next, err); err != nil {
				return err
			}
			continue
		}
		if len(rows) == maxBatch {
			continue
		}
		if wanted, err = c.vouched(ctx, &next, wanted); err != nil {
			return err
		}
		if wanted == 0 {
			c.at = next
			return nil
		}
	}
}

// behindPruned is where to go on from if what does not continue the log was removed by
// retention, or else an error: what was found.
func (c *committer) behindPruned(ctx context.Context, at *position, found error) (position, error) {
	pruned, err := c.prunedPosition(ctx)
	switch {
	case err != nil && !errors.Is(err, errPruning):
		return *at, err
	case err != nil || pruned.size <= at.size:
		return *at, found
	}
	return pruned, nil
}
