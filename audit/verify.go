package audit

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// Verdict is what a verification found. The zero value is [CannotVerify].
type Verdict uint8

// The verdicts. Intact needs a checkpoint that was kept outside and that the log was
// compared with; without one the best verdict is Unanchored. Pruned and AnchorStale
// belong to retention and anchors.
const (
	CannotVerify Verdict = iota // no checkpoint, one that this key did not sign, or entries that should be signed by now
	Intact                      // all entries are as signed, and a checkpoint kept outside fits
	Unanchored                  // all entries are as signed, but nothing outside vouches for it
	AnchorStale                 // as signed, but the anchor is too old
	Pruned                      // old entries were removed by retention, the rest is as signed
	Broken                      // entry At is missing, changed, moved or damaged
	Truncated                   // entries from At on were signed and are gone
	Forked                      // the chain holds, but it is not the one that was signed
	Restored                    // the checkpoints are this key's, but of another log
)

var verdictNames = [...]string{
	"cannot verify", "intact", "unanchored", "anchor stale", "pruned", "broken", "truncated", "forked", "restored",
}

// String returns lower-case words.
func (v Verdict) String() string {
	if int(v) < len(verdictNames) {
		return verdictNames[v]
	}
	return fmt.Sprintf("Verdict(%d)", uint8(v))
}

// MarshalText returns the words of String.
func (v Verdict) MarshalText() ([]byte, error) { return []byte(v.String()), nil }

// Report is the result of a verification.
type Report struct {
	Verdict    Verdict `json:"verdict"`
	Log        string  `json:"log"`        // id of the log, hexadecimal
	Entries    int64   `json:"entries"`    // that were read and are right
	Signed     int64   `json:"signed"`     // of these, covered by a checkpoint; the rest by the chain alone
	At         int64   `json:"at"`         // first entry that is wrong, for Broken, Truncated and Forked
	Pinned     int64   `json:"pinned"`     // of these, covered by the checkpoint that was kept outside
	Checkpoint string  `json:"checkpoint"` // the newest that is right; keep it elsewhere, for VerifyAgainst
	Detail     string  `json:"detail"`     // for people
}

// OK reports whether every entry is as it was written, as far as can be told. With
// the verdict [Unanchored] that is not far: whoever writes the store can remove
// checkpoints from the end and rewrite what only they covered.
func (r Report) OK() bool { return r.Verdict == Intact || r.Verdict == Unanchored }

// Unsigned is how many entries are covered by the chain alone.
func (r Report) Unsigned() int64 { return r.Entries - r.Signed }

// Verify reads the whole log and recomputes everything: see [VerifyStore]. Entries
// may be recorded meanwhile.
func (l *Log) Verify(ctx context.Context, v note.Verifier) (Report, error) {
	return l.VerifyAgainst(ctx, v, "")
}

// VerifyAgainst does the same, and compares the log with a checkpoint that was kept
// outside, the text that [Report.Checkpoint] gave: see [VerifyStoreAgainst].
func (l *Log) VerifyAgainst(ctx context.Context, v note.Verifier, pinned string) (Report, error) {
	return verifyStore(ctx, l.store, v, pinned, l.clock(), l.every+slack)
}

// VerifyStore verifies a log that need not be in use: each record has the hash
// that was stored and the number where it stands, chain and tree follow from the
// records, what rows are found by is what the records say, and every checkpoint
// is signed by v and has the root that the tree had. More, or older, entries after
// the last checkpoint than a log leaves unsigned cannot be verified; that may be what
// a crash left, too. The error is for what could not be read; what was read and is
// wrong is a verdict.
func VerifyStore(ctx context.Context, s Store, v note.Verifier) (Report, error) {
	return VerifyStoreAgainst(ctx, s, v, "")
}

// VerifyStoreAgainst does the same, and compares the log with a checkpoint that was
// kept outside: all entries that it covers must be there. If they are, and nothing
// else is wrong, the verdict is [Intact] instead of [Unanchored]; Report.Pinned says
// how far that reaches. A pinned text that v did not sign is an error.
func VerifyStoreAgainst(ctx context.Context, s Store, v note.Verifier, pinned string) (Report, error) {
	return verifyStore(ctx, s, v, pinned, time.Now(), maxEvery+slack)
}

func verifyStore(ctx context.Context, s Store, v note.Verifier, pinned string, now time.Time, allowed time.Duration) (Report, error) {
	if v == nil {
		return Report{}, errors.New("audit: a verifier is needed")
	}
	ver := verification{store: s, verifier: v, now: now, allowed: allowed}
	if pinned != "" {
		var err error
		if ver.pin, err = openPinned(pinned, v); err != nil {
			return Report{}, err
		}
	}
	// A log in use grows: checkpoints are read before the rows that they cover,
	// and no further than they went at the beginning.
	newest, damaged := lastCheckpoint(ctx, s)
	if !ignorable(damaged) {
		return ver.Report, damaged
	}
	head, headErr := s.Head(ctx)
	if !ignorable(headErr) {
		return ver.Report, fmt.Errorf("audit: read the head: %w", headErr)
	}
	ver.at = start(head.Log)
	ver.Log = hex.EncodeToString(head.Log[:])
	if ver.pin != nil && ver.pin.origin != origin(v.Name(), head.Log) {
		ver.doubt(Restored, "the checkpoint that was kept outside is of another log")
		ver.pin = nil
	}
	if damaged != nil {
		ver.doubt(CannotVerify, "the checkpoints are damaged")
	} else if newest == nil {
		ver.doubt(CannotVerify, "there is no checkpoint")
	} else {
		ver.until = newest.Size
		ver.more = true
	}
	if err := ver.run(ctx, head, headErr); err != nil {
		return Report{}, err
	}
	return ver.Report, nil
}

// ignorable errors are verdicts in the making.
func ignorable(err error) bool {
	_, broken := errors.AsType[*BrokenError](err)
	return err == nil || broken
}

type verification struct {
	Report
	store    Store
	verifier note.Verifier
	at       position
	pin      *pinned // kept outside; nil: none
	now      time.Time
	allowed  time.Duration // age of the first unsigned entry
	since    time.Time     // when that was recorded
	doubted  bool          // a checkpoint is of no use: the verdict, unless a row is broken

	until  int64 // size of the newest checkpoint to look at
	more   bool  // there are checkpoints still to be fetched
	page   []Checkpoint
	passed int64 // size of the last checkpoint that was taken from page, plus one
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

func (v *verification) run(ctx context.Context, head Head, headErr error) error {
	if done, err := v.checkpoints(ctx); done || err != nil {
		return err
	}
	for v.at.size < head.Size {
		if err := ctx.Err(); err != nil {
			return err
		}
		rows, err := v.store.Read(ctx, v.at.size, int(min(maxBatch, head.Size-v.at.size)))
		if broken, ok := errors.AsType[*BrokenError](err); ok {
			return v.fail(Broken, broken.Seq, broken.Detail)
		}
		if err != nil {
			return fmt.Errorf("audit: read entries: %w", err)
		}
		for i := range rows {
			rec, err := v.at.accept(&rows[i])
			if err != nil {
				broken, _ := errors.AsType[*BrokenError](err)
				return v.fail(Broken, broken.Seq, broken.Detail)
			}
			if rec.seq == v.Signed {
				v.since = rec.recorded
			}
			v.Entries = v.at.size
			if done, err := v.checkpoints(ctx); done || err != nil {
				return err
			}
		}
		if len(rows) == 0 {
			break
		}
	}
	return v.end(ctx, head, headErr)
}

// checkpoints compares the tree with each checkpoint of its present size.
func (v *verification) checkpoints(ctx context.Context) (done bool, err error) {
	if v.pin != nil && v.pin.size == v.at.size {
		if v.at.root() != v.pin.root {
			return true, v.fail(Forked, v.Signed, fmt.Sprintf("the first %d entries are not those of the checkpoint that was kept outside", v.pin.size))
		}
		v.Pinned = v.pin.size
	}
	for {
		if len(v.page) == 0 && v.more {
			if v.page, err = v.store.Checkpoints(ctx, v.passed-1, maxBatch); err != nil {
				return true, fmt.Errorf("audit: read checkpoints: %w", err)
			}
			v.more = len(v.page) > 0
		}
		if len(v.page) == 0 || v.page[0].Size > v.at.size || v.page[0].Size > v.until {
			return false, nil
		}
		c := v.page[0]
		v.page = v.page[1:]
		v.passed = c.Size + 1
		tree, err := openCheckpoint(&c, v.verifier, v.at.log)
		switch {
		case errors.Is(err, errOrigin):
			v.doubt(Restored, fmt.Sprintf("the checkpoint of %d entries is of another log", c.Size))
		case err != nil:
			v.doubt(CannotVerify, fmt.Sprintf("the checkpoint of %d entries is not signed by this key, or damaged", c.Size))
		case tlog.Hash(v.at.root()) != tree.Hash:
			return true, v.fail(Forked, v.Signed, fmt.Sprintf("the first %d entries are not those that were signed", c.Size))
		default:
			v.Signed, v.Checkpoint = c.Size, string(c.Note)
		}
	}
}

func (v *verification) end(ctx context.Context, head Head, headErr error) error {
	if broken, ok := errors.AsType[*BrokenError](headErr); ok {
		return v.fail(Broken, broken.Seq, broken.Detail)
	}
	if v.pin != nil && v.pin.size > v.at.size {
		return v.fail(Truncated, v.at.size, fmt.Sprintf("the checkpoint that was kept outside says that there were %d entries", v.pin.size))
	}
	if v.until > v.at.size {
		if signed, err := v.beyond(ctx); signed || err != nil {
			return err
		}
	}
	if head.Size > v.at.size {
		return v.fail(Broken, v.at.size, "the log is shorter than its head says")
	}
	if detail := overdue(v.Unsigned(), v.now.Sub(v.since), v.allowed); detail != "" {
		v.At = v.Signed
		v.doubt(CannotVerify, detail+": checkpoints were removed, a crash left them, or the signer fails")
	}
	if v.doubted {
		return nil
	}
	if v.pin != nil {
		v.Verdict = Intact
		v.Detail = fmt.Sprintf("all %d entries are as they were written; %d of them are signed; the first %d are those of the checkpoint that was kept outside", v.Entries, v.Signed, v.Pinned)
		return nil
	}
	v.Verdict = Unanchored
	v.Detail = fmt.Sprintf("all %d entries are as they were written; %d of them are signed; nothing outside vouches for it", v.Entries, v.Signed)
	return nil
}

// beyond looks for a checkpoint of more entries than there are. One that this key
// did not sign says nothing about what was there.
func (v *verification) beyond(ctx context.Context) (signed bool, err error) {
	for {
		for i := range v.page {
			c := &v.page[i]
			v.passed = c.Size + 1
			switch _, err := openCheckpoint(c, v.verifier, v.at.log); {
			case errors.Is(err, errOrigin):
				v.doubt(Restored, fmt.Sprintf("the checkpoint of %d entries is of another log", c.Size))
			case err != nil:
				v.doubt(CannotVerify, fmt.Sprintf("the checkpoint of %d entries is not signed by this key, or damaged", c.Size))
			default:
				return true, v.fail(Truncated, v.at.size, fmt.Sprintf("a checkpoint says that there were %d entries", c.Size))
			}
		}
		if v.page, err = v.store.Checkpoints(ctx, v.passed-1, maxBatch); err != nil {
			return false, fmt.Errorf("audit: read checkpoints: %w", err)
		}
		if len(v.page) == 0 || v.page[0].Size > v.until {
			return false, nil
		}
	}
}
