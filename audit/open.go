package audit

import (
	"context"
	"fmt"
	"log/slog"
	"time"
)

// openCommitter reads where the log stands: from the last checkpoint on by
// hashing every record, so that nothing is signed that was changed meanwhile.
func openCommitter(ctx context.Context, l *Log, acceptUnsigned bool) (*committer, error) {
	head, err := l.store.Head(ctx) // before the checkpoints: of an empty log there is none to miss
	if err != nil {
		return nil, fmt.Errorf("audit: read the head: %w", err)
	}
	l.id = head.Log
	c := &committer{Log: l, at: start(head.Log), seen: make(map[[32]byte]*item, maxBatch), seq: sequencer{odd: make(map[[32]byte]oddity), heard: make(map[[16]byte]heard)}}
	c.tail.lenient = acceptUnsigned
	if err := c.tail.begin(ctx, l); err != nil {
		return nil, err
	}
	last, err := lastCheckpoint(ctx, l.store)
	if err != nil {
		return nil, err
	}
	switch {
	case last != nil:
		if head, err = c.resume(ctx, last, head); err != nil {
			return nil, err
		}
	case head.Size > 0 && !acceptUnsigned:
		return nil, &BrokenError{Detail: fmt.Sprintf("cannot be continued: no checkpoint for %d entries", head.Size)}
	}
	since, err := c.unsignedSince(ctx)
	if err != nil {
		return nil, err
	}
	if err := c.follow(ctx); err != nil {
		return nil, err
	}
	c.tail.lenient = false
	if c.at.head() != head && c.at.size <= head.Size {
		return nil, &BrokenError{Seq: c.at.size, Detail: "the log is shorter than its head says"}
	}
	if since.IsZero() { // entries that another process appended meanwhile
		since = c.clock()
	}
	if err := c.judgeTail(ctx, since, acceptUnsigned); err != nil {
		return nil, err
	}
	if last == nil { // from now on a log without any is not right
		if err := c.signNow(ctx); err != nil {
			return nil, err
		}
	} else {
		c.anchors.offer(last) // they may have missed it
	}
	return c, nil
}

// resume goes to where the newest checkpoint was signed.
func (c *committer) resume(ctx context.Context, last *Checkpoint, head Head) (Head, error) {
	tree, err := openCheckpoint(last, c.verify, head.Log)
	if err != nil {
		return head, &BrokenError{Seq: max(last.Size-1, 0), Detail: "cannot be continued: the newest checkpoint is not one of this log and key"}
	}
	if tree.N > head.Size { // another process may have signed since the head was read
		if head, err = c.store.Head(ctx); err != nil {
			return head, fmt.Errorf("audit: read the head: %w", err)
		}
	}
	if tree.N > head.Size {
		return head, &BrokenError{Seq: head.Size, Detail: fmt.Sprintf("a checkpoint says that there were %d entries", tree.N)}
	}
	if c.at, err = at(ctx, c.store, head.Log, tree.N); err != nil {
		return head, err
	}
	if c.at.root() != tree.Hash {
		return head, &BrokenError{Seq: max(tree.N-1, 0), Detail: "the tree is not the one that was signed"}
	}
	c.sig.signed = tree.N
	return head, nil
}

// unsignedSince is when the first entry after the checkpoint was recorded.
func (c *committer) unsignedSince(ctx context.Context) (time.Time, error) {
	rows, err := c.store.Read(ctx, c.at.size, 1)
	if err != nil {
		return time.Time{}, fmt.Errorf("audit: read the first unsigned entry: %w", err)
	}
	if len(rows) == 0 {
		return time.Time{}, nil
	}
	next := c.at
	if err := next.accept(rows); err != nil {
		return time.Time{}, err
	}
	return time.UnixMicro(recordedAt(rows[0].Record)), nil
}

// judgeTail decides whether entries that no checkpoint covers are what a crash may
// have left. Whoever writes the store can remove checkpoints and forge what they
// covered; signing that would make it true.
func (c *committer) judgeTail(ctx context.Context, since time.Time, accept bool) error {
	n := c.at.size - c.sig.signed
	if n == 0 {
		return nil
	}
	age := c.clock().Sub(since)
	if detail := overdue(n, age, c.every+maxDown); detail != "" && !accept {
		return &BrokenError{Seq: c.sig.signed, Detail: "cannot be continued: " + detail}
	}
	if detail := overdue(n, age, c.every+slack); detail != "" {
		c.logger.LogAttrs(ctx, slog.LevelWarn, "audit: entries are signed that should have been long ago",
			slog.Int64("first", c.sig.signed), slog.Int64("entries", n), slog.Time("since", since))
	}
	return nil
}

// overdue says why entries should have been signed, or nothing.
func overdue(n int64, age, allowed time.Duration) string {
	switch {
	case n > maxUnsigned:
		return fmt.Sprintf("the last %d entries are not signed; a log leaves at most %d so", n, maxUnsigned)
	case n > 0 && age > allowed:
		return fmt.Sprintf("the last %d entries have not been signed for %v", n, age.Round(time.Second))
	}
	return ""
}
