package audit

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// verification goes through a log once. It holds no more of it than a few pages.
type verification struct {
	Report
	opts     VerifyOptions
	store    Store
	verifier note.Verifier
	at       position
	kept     []keptCheckpoint
	now      time.Time
	allowed  time.Duration // age of the first unsigned entry
	since    int64         // when that was recorded, microseconds since 1970
	anchored bool          // something that was kept outside fits
	doubted  bool          // a checkpoint is of no use: the verdict, unless a row is broken
	visit    visitor       // may be nil
	tail     *tailMark     // nil: there is none, or no keys to check it

	until  int64 // size of the newest checkpoint to look at
	more   bool  // there are checkpoints still to be fetched
	list   []Checkpoint
	passed int64 // size of the last checkpoint that was taken from list, plus one
}

// visitor sees each entry that is right, in order, and when it was recorded, in
// microseconds since 1970.
type visitor func(row *Row, recorded int64)

// verifyStore makes a verdict of whatever was read and is wrong.
func verifyStore(ctx context.Context, s Store, v note.Verifier, o VerifyOptions, allowed time.Duration, visit visitor) (Report, error) {
	r, err := verifyAgain(ctx, s, v, o, allowed, visit)
	broken, ok := errors.AsType[*BrokenError](err)
	if !ok {
		return r, err
	}
	head, err := s.Head(ctx)
	if !ignorable(err) {
		return Report{}, err
	}
	return Report{Verdict: Broken, Log: hex.EncodeToString(head.Log[:]), At: broken.Seq, Detail: broken.Detail}, nil
}

// verifyAgain begins anew if entries were pruned while it read them.
func verifyAgain(ctx context.Context, s Store, v note.Verifier, o VerifyOptions, allowed time.Duration, visit visitor) (Report, error) {
	for {
		before, err := prunedOf(ctx, s)
		if err != nil {
			return Report{}, err
		}
		r, err := verifyOnce(ctx, s, v, o, allowed, visit)
		if err == nil && r.sound() {
			return r, nil
		}
		after, errAfter := prunedOf(ctx, s)
		switch {
		case !ignorable(errAfter): // nobody knows whether retention did it
			return Report{}, errAfter
		case errAfter != nil || after.Size <= before.Size:
			return r, err
		}
	}
}

func verifyOnce(ctx context.Context, s Store, v note.Verifier, o VerifyOptions, allowed time.Duration, visit visitor) (Report, error) {
	if v == nil {
		return Report{}, errVerifier
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	o.AnchorAge = cmp.Or(o.AnchorAge, time.Hour)
	ver := verification{opts: o, store: s, verifier: v, now: o.Clock(), allowed: allowed, visit: visit}
	said, err := ver.askAnchors(ctx)
	if err != nil {
		return Report{}, err
	}
	// A log in use grows: checkpoints are read before the rows that they cover,
	// and no further than they went at the beginning.
	newest, damaged := lastCheckpoint(ctx, s)
	head, headErr := s.Head(ctx)
	if newest == nil && damaged == nil && head.Size > 0 { // the log began meanwhile, and that with a checkpoint
		newest, damaged = lastCheckpoint(ctx, s)
		head, headErr = s.Head(ctx)
	}
	if !ignorable(damaged) {
		return Report{}, damaged
	}
	if !ignorable(headErr) {
		return Report{}, fmt.Errorf("audit: read the head: %w", headErr)
	}
	if o.tail != nil && headErr == nil { // what it covers was there before
		if ver.tail, err = o.tail(ctx); err != nil {
			return Report{}, err
		}
		if ver.tail != nil {
			head.Size = max(head.Size, ver.tail.size)
		}
	}
	ver.Log = hex.EncodeToString(head.Log[:])
	ver.openKept(head.Log)
	switch {
	case damaged != nil:
		ver.doubt(CannotVerify, "the checkpoints are damaged")
	case newest == nil:
		ver.doubt(CannotVerify, "there is no checkpoint")
	default:
		ver.until, ver.more = newest.Size, true
	}
	if err := ver.run(ctx, head, headErr); err != nil {
		return Report{}, err
	}
	said.judge(&ver.Report, len(o.Anchors))
	return ver.Report, nil
}

// ignorable errors are verdicts in the making.
func ignorable(err error) bool {
	_, broken := errors.AsType[*BrokenError](err)
	return err == nil || broken
}

func (v *verification) doubt(verdict Verdict, detail string) {
	if !v.doubted {
		v.doubted, v.Verdict, v.Detail = true, verdict, detail
	}
}

func (v *verification) fail(verdict Verdict, at int64, detail string) error {
	v.Verdict, v.At, v.Detail = verdict, at, detail
	return nil
}

func (v *verification) broken(err *BrokenError) error { return v.fail(Broken, err.Seq, err.Detail) }

func (v *verification) run(ctx context.Context, head Head, headErr error) error {
	if done, err := v.begin(ctx, head); done || err != nil {
		return err
	}
	if done, err := v.checkpoints(ctx, v.at.size, func(int64) (tlog.Hash, bool) { return v.at.root(), true }); done || err != nil {
		return err
	}
	if v.tailed(v.at.size, v.at.size, func(int64) position { return v.at }) {
		return nil
	}
	if v.Pruned > 0 && head.Size <= v.Pruned {
		return v.fail(Truncated, head.Size, "nothing is left of what came after the entries that were pruned")
	}
	failed := false
	err := pages(ctx, v.store, head.Log, v.at.size, head.Size, func(p *page) (more bool, err error) {
		failed, err = v.join(ctx, p)
		if v.opts.Progress != nil {
			v.opts.Progress(v.at.size, head.Size)
		}
		return !failed && v.at.size == p.to, err
	})
	if failed || err != nil {
		return err
	}
	return v.end(ctx, head, headErr)
}

// begin finds where to begin.
func (v *verification) begin(ctx context.Context, head Head) (done bool, err error) {
	v.at = start(head.Log)
	p, err := prunedOf(ctx, v.store)
	if err != nil {
		return true, err
	}
	if i := slices.IndexFunc(v.kept, func(k keptCheckpoint) bool { return k.resume }); i >= 0 && v.kept[i].N > p.Size {
		if p.Size > 0 {
			if _, err := p.open(v.verifier, head.Log); err != nil {
				return true, v.unstated()
			}
			v.Pruned = p.Size
		}
		done, err = v.resume(ctx, v.kept[i].Tree, head)
		v.Entries = v.at.size
		return done, err
	}
	if p.Size > 0 {
		return v.pruned(ctx, p)
	}
	return false, nil
}

// join takes in a page. It is done if the verdict is clear.
func (v *verification) join(ctx context.Context, p *page) (done bool, err error) {
	if p.err != nil {
		return true, p.err
	}
	p.continues(&v.at)
	last := p.from + int64(len(p.rows))
	if v.Signed == p.from && len(p.rows) > 0 {
		v.since = recordedAt(p.rows[0].Record)
	}
	signed := v.Signed
	if done, err := v.checkpoints(ctx, last, func(size int64) (tlog.Hash, bool) {
		was := p.position(&v.at, size)
		return was.root(), true
	}); done || err != nil {
		return true, err
	}
	if v.Signed != signed && v.Signed < last {
		v.since = recordedAt(p.rows[v.Signed-p.from].Record)
	}
	if v.tailed(p.from, last, func(size int64) position { return p.position(&v.at, size) }) {
		return true, nil
	}
	v.at = p.position(&v.at, last)
	v.Entries = last
	v.Report.lose(p.lost, last)
	for i := range p.rows {
		if v.visit == nil {
			break
		}
		v.visit(&p.rows[i], recordedAt(p.rows[i].Record))
	}
	if p.bad != nil {
		return true, v.broken(p.bad)
	}
	return false, nil
}

// rootAt says what the root of the tree was, false if that is not known.
type rootAt func(size int64) (tlog.Hash, bool)

// checkpoints compares the tree with each checkpoint of at most size entries.
func (v *verification) checkpoints(ctx context.Context, size int64, at rootAt) (done bool, err error) {
	for {
		c, err := v.next(ctx, size)
		if err != nil {
			return true, err
		}
		upTo := size
		if c != nil {
			upTo = c.Size
		}
		if done := v.compareKept(upTo, at); done || c == nil {
			return done, nil
		}
		tree, err := openCheckpoint(c, v.verifier, v.at.log)
		if err != nil {
			v.useless(c, err)
			continue
		}
		root, ok := at(c.Size)
		if !ok {
			return true, v.fail(Broken, c.Size-1, fmt.Sprintf("it was pruned, and hashes of the tree for the checkpoint of %d entries are gone or changed", c.Size))
		}
		if root != tree.Hash {
			return true, v.fail(Forked, v.Signed, fmt.Sprintf("the first %d entries are not those that were signed", c.Size))
		}
		v.Signed, v.Checkpoint = c.Size, string(c.Note)
	}
}

// next takes the next checkpoint, if it is of at most size entries.
func (v *verification) next(ctx context.Context, size int64) (_ *Checkpoint, err error) {
	if len(v.list) == 0 && v.more {
		if v.list, err = v.store.Checkpoints(ctx, v.passed-1, maxBatch); err != nil {
			return nil, fmt.Errorf("audit: read checkpoints: %w", err)
		}
		v.more = len(v.list) > 0
	}
	if len(v.list) == 0 || v.list[0].Size > min(size, v.until) {
		return nil, nil //nolint:nilnil // there is none
	}
	c := &v.list[0]
	v.list, v.passed = v.list[1:], c.Size+1
	return c, nil
}

// useless says what it means that a checkpoint does not open.
func (v *verification) useless(c *Checkpoint, err error) {
	if errors.Is(err, errOrigin) {
		v.doubt(Restored, fmt.Sprintf("the checkpoint of %d entries is of another log", c.Size))
		return
	}
	v.doubt(CannotVerify, fmt.Sprintf("the checkpoint of %d entries is not signed by this key, or damaged", c.Size))
}

func (v *verification) end(ctx context.Context, head Head, headErr error) error {
	if broken, ok := errors.AsType[*BrokenError](headErr); ok {
		return v.broken(broken)
	}
	if n := len(v.kept); n > 0 && v.kept[n-1].N > v.at.size {
		return v.fail(Truncated, v.at.size, fmt.Sprintf("a checkpoint that was kept outside says that there were %d entries", v.kept[n-1].N))
	}
	if v.tailEnd() {
		return nil
	}
	// A checkpoint that this key did not sign says nothing about what was there.
	for {
		c, err := v.next(ctx, v.until)
		if err != nil {
			return err
		}
		if c == nil {
			break
		}
		_, err = openCheckpoint(c, v.verifier, v.at.log)
		if err == nil {
			return v.fail(Truncated, v.at.size, fmt.Sprintf("a checkpoint says that there were %d entries", c.Size))
		}
		v.useless(c, err)
	}
	if head.Size > v.at.size {
		return v.fail(Broken, v.at.size, "the log is shorter than its head says")
	}
	age := v.now.Sub(time.UnixMicro(v.since))
	if detail := overdue(v.Unsigned(), age, v.allowed); detail != "" {
		v.At = v.Signed
		v.doubt(CannotVerify, detail+": checkpoints were removed, a crash left them, or the signer fails")
	}
	if !v.doubted {
		v.conclude()
	}
	return nil
}

// conclude says how good it is that nothing is wrong.
func (v *verification) conclude() {
	v.Detail = fmt.Sprintf("all %d entries are as they were written; %d of them are signed", v.Entries, v.Signed)
	if v.Pruned > 0 {
		v.Detail = fmt.Sprintf("entries 0 to %d were removed by retention; entries %d to %d are as they were written; %d are signed", v.Pruned-1, v.From, v.Entries-1, v.Signed)
	} else if v.From > 0 {
		v.Detail = fmt.Sprintf("entries %d to %d are as they were written, those before were not read again; %d are signed", v.From, v.Entries-1, v.Signed)
	}
	if v.Missing > 0 {
		v.Detail += fmt.Sprintf("; %d entries were removed before they were chained", v.Missing)
	}
	if v.InDoubt > 0 {
		v.Detail += fmt.Sprintf("; of %d nobody knows whether there were any", v.InDoubt)
	}
	switch {
	case !v.anchored:
		v.Verdict = Unanchored
		v.Detail += "; nothing outside vouches for it"
	case v.now.Sub(v.PinnedAt) > v.opts.AnchorAge:
		v.Verdict = AnchorStale
		v.Detail += fmt.Sprintf("; the first %d are those of a checkpoint that was kept outside, but that is too old", v.Pinned)
	default:
		v.Verdict = Intact
		if v.Pruned > 0 {
			v.Verdict = Pruned
		}
		v.Detail += fmt.Sprintf("; the first %d are those of the checkpoint that was kept outside", v.Pinned)
	}
}
