package audit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"
)

// maxBackoff is how long at most a signer that fails is left alone.
const maxBackoff = time.Minute

var errSlow = errors.New("audit: a signature takes too long")

// signature is what a signer made, which may ask another machine, while entries
// are appended all the same.
type signature struct {
	checkpoint *Checkpoint
	root       [32]byte
	err        error
}

// signing is what the committer remembers of the newest checkpoint.
type signing struct {
	signed int64          // size of the newest
	result chan signature // nil: none is being made
	began  time.Time
	after  time.Time // not before: the last ones failed
	failed int
}

// beginSigning has a checkpoint of where the log stands made, if none is being made.
func (c *committer) beginSigning(ctx context.Context) {
	if c.sig.result != nil {
		if time.Since(c.sig.began) > storeTimeout && c.sig.failed == 0 {
			c.settle(ctx, errSlow)
		}
		return
	}
	if time.Now().Before(c.sig.after) {
		return
	}
	result := make(chan signature, 1) // buffered: it ends even if nobody waits any more
	c.sig.result, c.sig.began = result, time.Now()
	at := c.at.clone()
	go func() {
		checkpoint, err := signCheckpoint(&at, c.signer)
		result <- signature{checkpoint: checkpoint, root: at.root(), err: err}
	}()
}

// keep stores a checkpoint that was made.
func (c *committer) keep(ctx context.Context, s signature) error {
	c.sig.result = nil
	if s.err != nil {
		return s.err
	}
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	size := s.checkpoint.Size
	if _, err := openCheckpoint(s.checkpoint, c.verify, c.id); err != nil {
		return fmt.Errorf("audit: what the signer made is no signature: %w", err)
	}
	// Of entries that are gone nothing is left that leads to a checkpoint which was signed
	// late; a newer one covers them, or they were not pruned.
	switch pruned, err := c.prunedPosition(ctx); {
	case !ignorable(err) && !errors.Is(err, errPruning): // anybody can write what is no statement
		return err
	case err == nil && pruned.size > size:
		c.sig.signed = max(c.sig.signed, size)
		return nil
	}
	if err := c.store.Append(ctx, Batch{After: c.at.head(), Checkpoint: s.checkpoint}); err != nil {
		return fmt.Errorf("audit: keep a checkpoint: %w", err)
	}
	// One of this size may have been there already. It says the same, or it is not
	// of this log.
	kept, err := c.store.Checkpoints(ctx, size-1, 1)
	if err != nil {
		return fmt.Errorf("audit: read a checkpoint: %w", err)
	}
	if len(kept) == 0 || kept[0].Size != size {
		return fmt.Errorf("audit: the checkpoint of %d entries was not kept", size)
	}
	if !bytes.Equal(kept[0].Note, s.checkpoint.Note) {
		tree, err := openCheckpoint(&kept[0], c.verify, c.id)
		if err != nil || tree.Hash != s.root {
			return &BrokenError{Seq: max(size-1, 0), Detail: fmt.Sprintf("another checkpoint of %d entries was put into the place of this log's", size)}
		}
	}
	c.sig.signed = max(c.sig.signed, size)
	c.anchors.offer(&kept[0])
	c.rekey(ctx)
	return nil
}

// settle spaces out attempts after a failure, and says once that the signer fails
// and once that it works again.
func (c *committer) settle(ctx context.Context, err error) {
	if err == nil {
		if c.sig.failed > 0 {
			c.logger.LogAttrs(ctx, slog.LevelInfo, "audit: checkpoints are signed again")
		}
		c.sig.failed, c.sig.after = 0, time.Time{}
		return
	}
	if c.sig.failed == 0 {
		c.logger.LogAttrs(ctx, slog.LevelError, "audit: entries are recorded, but not signed", slog.Any("error", err))
	}
	c.sig.failed++
	c.sig.after = time.Now().Add(min(time.Second<<min(c.sig.failed-1, 6), maxBackoff))
}

// signNow signs where the log stands and waits for it, but not for ever.
func (c *committer) signNow(ctx context.Context) error {
	if c.sig.result == nil {
		c.sig.after = time.Time{}
		c.beginSigning(ctx)
	}
	late := time.NewTimer(storeTimeout)
	defer late.Stop()
	select {
	case s := <-c.sig.result:
		return c.keep(ctx, s)
	case <-late.C:
		return errSlow
	}
}
