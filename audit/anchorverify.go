package audit

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"
)

// asked is what the anchors of a verification said.
type asked struct {
	held         int      // anchors that could be read
	unread       []string // those that could not
	contradicted error
}

// askAnchors adds what the anchors hold to what the log is compared with: the newest
// checkpoint of each with its time, and of those that tell all that they hold,
// whatever the store does not say in the same words. It comes before the head of a log
// in use is read: what an anchor holds by then the store holds, too.
func (v *verification) askAnchors(ctx context.Context) (*asked, error) {
	said := &asked{}
	if len(v.opts.Anchors) == 0 {
		return said, nil
	}
	v.opts.Kept = slices.Clone(v.opts.Kept)
	var own map[[32]byte]struct{}
	if slices.ContainsFunc(v.opts.Anchors, func(a Anchor) bool { _, ok := a.(history); return ok }) {
		var err error
		if own, err = v.ownCheckpoints(ctx); err != nil {
			return nil, err
		}
	}
	for _, a := range v.opts.Anchors {
		newest, at, err := askNewest(ctx, a)
		if err == nil && newest != nil {
			v.opts.Kept = append(v.opts.Kept, Kept{Note: newest, At: v.noLater(ctx, newest, at)})
		}
		if h, ok := a.(history); ok && err == nil {
			err = v.askHistory(ctx, h, own)
		}
		switch {
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case errors.Is(err, ErrContradicted):
			said.contradicted = err
		case errors.Is(err, errors.ErrUnsupported):
		case err != nil:
			said.unread = append(said.unread, fmt.Sprintf("%s: %v", anchorName(a), err))
		default:
			said.held++
		}
	}
	return said, nil
}

var errHangs = errors.New("audit: the anchor does not answer")

// askNewest waits for an answer, but not for ever: an anchor that hangs is one that
// cannot be read, and keeps nobody from verifying.
func askNewest(ctx context.Context, a Anchor) ([]byte, time.Time, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, anchorTimeout, errHangs)
	defer cancel()
	type answer struct {
		note []byte
		at   time.Time
		err  error
	}
	answers := make(chan answer, 1) // buffered: it ends even if nobody waits any more
	go func() {
		note, at, err := a.Newest(ctx)
		answers <- answer{note, at, err}
	}()
	select {
	case got := <-answers:
		return got.note, got.at, got.err
	case <-ctx.Done():
		return nil, time.Time{}, context.Cause(ctx)
	}
}

// patiently returns what an anchor tells, and waits as long for each checkpoint.
func patiently(ctx context.Context, h history) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		type told struct {
			note []byte
			err  error
		}
		list := make(chan told)
		go func() {
			defer close(list)
			for note, err := range h.All(ctx) {
				select {
				case list <- told{note, err}:
				case <-ctx.Done():
					return
				}
			}
		}()
		late := time.NewTimer(anchorTimeout)
		defer late.Stop()
		for {
			select {
			case got, more := <-list:
				if !more || !yield(got.note, got.err) {
					return
				}
				late.Reset(anchorTimeout)
			case <-late.C:
				yield(nil, errHangs)
				return
			case <-ctx.Done():
				yield(nil, ctx.Err())
				return
			}
		}
	}
}

// statement is the digest of what a checkpoint says, whoever signed it.
func statement(note []byte) [32]byte {
	text, _, _ := bytes.Cut(note, []byte("\n\n"))
	return sha256.Sum256(text)
}

// ownCheckpoints are the statements of the store itself: they are compared with the
// tree anyway.
func (v *verification) ownCheckpoints(ctx context.Context) (map[[32]byte]struct{}, error) {
	own := make(map[[32]byte]struct{})
	for after := int64(-1); ; {
		page, err := v.store.Checkpoints(ctx, after, maxBatch)
		if !ignorable(err) {
			return nil, fmt.Errorf("audit: read checkpoints: %w", err)
		}
		for _, c := range page {
			own[statement(c.Note)] = struct{}{}
			after = c.Size
		}
		if len(page) == 0 {
			return own, nil
		}
	}
}

// askHistory takes what this key signed for this log and the store does not say. What
// somebody planted in an anchor says nothing.
func (v *verification) askHistory(ctx context.Context, h history, own map[[32]byte]struct{}) error {
	head, err := v.store.Head(ctx)
	if !ignorable(err) {
		return fmt.Errorf("audit: read the head: %w", err)
	}
	for note, err := range patiently(ctx, h) {
		if err != nil {
			return err
		}
		said := statement(note)
		if _, known := own[said]; known {
			continue
		}
		if tree, err := openOutside(note, v.verifier); err == nil && tree.origin == origin(v.verifier.Name(), head.Log) {
			own[said] = struct{}{}
			v.opts.Kept = append(v.opts.Kept, Kept{Note: note})
		}
	}
	return nil
}

// noLater bounds the time that an anchor names by the time of the last entry that the
// checkpoint covers, which is under the signature: whoever rolls back the journal and
// the anchor together can name any time, but make no newer entry. A silent log makes
// one at least every hour, and signs it within another.
func (v *verification) noLater(ctx context.Context, note []byte, at time.Time) time.Time {
	size, err := sizeOf(note)
	if err != nil || size == 0 {
		return at
	}
	row, err := readOne(ctx, v.store, size-1)
	if err != nil {
		return at // what is wrong there is found by who reads it all
	}
	rec, err := decodeRecord(row.Record)
	if err != nil {
		return at
	}
	if bound := rec.recorded.Add(maxEvery + v.allowed); bound.Before(at) {
		return bound
	}
	return at
}

// judge says what the anchors mean for a report in which nothing else is wrong.
func (s *asked) judge(r *Report, anchors int) {
	if !r.sound() {
		return
	}
	if s.contradicted != nil {
		r.Verdict, r.At = Forked, 0
		r.Detail = s.contradicted.Error()
		return
	}
	if len(s.unread) > 0 {
		r.Detail += "; not to be read: " + strings.Join(s.unread, ", ")
	}
	if r.Verdict == Unanchored && s.held+len(s.unread) > 0 {
		r.Verdict = AnchorStale
		r.Detail += fmt.Sprintf("; none of %d anchors holds a checkpoint", anchors)
	}
}
