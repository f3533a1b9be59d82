package audit

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/mod/sumdb/note"
)

// Verdict is what a verification found. The zero value is [CannotVerify].
type Verdict uint8

// The verdicts. Of several that apply the one that is worst is told; beside it,
// [Report] says how far the log was pruned, and what the checkpoints outside cover.
const (
	CannotVerify Verdict = iota // no checkpoint, one that this key did not sign, or entries that should be signed by now
	Intact                      // all entries are as signed, and checkpoints kept outside fit and are fresh
	Unanchored                  // all entries are as signed, but nothing outside vouches for it
	AnchorStale                 // as signed, but what was kept outside is too old
	Pruned                      // as Intact, without the oldest entries, which were removed by retention: the key signed that
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
	Verdict    Verdict   `json:"verdict"`
	Log        string    `json:"log"`        // id of the log, hexadecimal
	From       int64     `json:"from"`       // the first entry that was read; those before it were pruned, or verified by an earlier run
	Entries    int64     `json:"entries"`    // in the log, up to where all that was read is right
	Signed     int64     `json:"signed"`     // of these, covered by a checkpoint; the rest by the chain alone
	At         int64     `json:"at"`         // first entry that is wrong, for Broken, Truncated and Forked
	Pinned     int64     `json:"pinned"`     // of these, covered by a checkpoint that was kept outside
	PinnedAt   time.Time `json:"pinned_at"`  // when that was kept
	Pruned     int64     `json:"pruned"`     // of these, removed by retention: entries 0 to Pruned-1
	Tail       bool      `json:"tail"`       // a MAC covers the entries that no checkpoint covers; for Log.Verify only, which has the keys
	Missing    int64     `json:"missing"`    // entries that the log says were removed before they were chained: see [ActMissing]
	InDoubt    int64     `json:"in_doubt"`   // that may have been: see [ActInDoubt]
	Checkpoint string    `json:"checkpoint"` // the newest that is right; keep it elsewhere, for VerifyOptions
	Detail     string    `json:"detail"`     // for people
}

// OK reports whether nothing is wrong, as far as can be told. With the verdict
// [Unanchored] that is not far: whoever writes the store can remove checkpoints from
// the end and rewrite what only they covered. [AnchorStale] is not OK: something
// outside should vouch for the log, and has not done so since Report.PinnedAt.
func (r Report) OK() bool { return r.sound() && r.Verdict != AnchorStale }

// sound reports whether all that is there is as it was signed, whatever anchors say:
// one that is out of reach stops neither Prune nor Extract.
func (r Report) sound() bool {
	return r.Verdict == Intact || r.Verdict == Pruned || r.Verdict == Unanchored || r.Verdict == AnchorStale
}

// Unsigned is how many entries are covered by the chain alone.
func (r Report) Unsigned() int64 { return r.Entries - r.Signed }

// Kept is a checkpoint that was kept outside the store, where whoever writes the
// store cannot write: what [Report.Checkpoint] said, or an anchor holds.
type Kept struct {
	Note []byte
	At   time.Time // when it was kept there; the zero time is too long ago
}

// VerifyOptions of a verification. Nil means that everything is read, and that
// nothing outside vouches for it.
type VerifyOptions struct {
	// Kept is compared with the log: all entries that one covers must be there. One
	// that the key did not sign makes the verdict CannotVerify.
	Kept []Kept

	// Anchors are asked for what they hold, which is compared like Kept; nil for
	// [Log.Verify]: those of the log. If all fail, or hold nothing, the verdict is
	// AnchorStale.
	Anchors []Anchor

	// AnchorAge is how old that of the most entries may be; 0: an hour. If it is older,
	// entries may have been cut off since, and the verdict is AnchorStale.
	AnchorAge time.Duration

	// Resume is the Report.Checkpoint of an earlier verification, for one that begins
	// where that ended: every day, say. It checks that the tree is still the one that
	// was signed, from the hashes that the store keeps, and all that came after. It
	// does not read the entries before again: if one was changed since it was
	// verified, only a whole verification finds it. Keep Resume where nobody else
	// writes. It is compared like one of Kept, too, but says nothing about age.
	Resume string

	// Progress is called now and then, by one goroutine at a time.
	Progress func(done, total int64)

	Clock func() time.Time

	tail func(context.Context) (*tailMark, error) // of a Log, which has the keys
}

// Verify reads the whole log and recomputes everything: see [VerifyStore]. Entries
// may be recorded meanwhile.
func (l *Log) Verify(ctx context.Context, v note.Verifier, o *VerifyOptions) (Report, error) {
	var opts VerifyOptions
	if o != nil {
		opts = *o
	}
	return l.verifyAs(ctx, v, opts, nil)
}

func (l *Log) verifyAs(ctx context.Context, v note.Verifier, o VerifyOptions, visit visitor) (Report, error) {
	if o.Clock == nil {
		o.Clock = l.clock
	}
	if o.Anchors == nil {
		o.Anchors = l.anchors.list()
	}
	o.tail = l.tailMark
	return verifyStore(ctx, l.store, v, o, l.every+slack, visit)
}

// verifySound is for what may be done with a journal that is right only.
func (l *Log) verifySound(ctx context.Context, visit visitor) (Report, error) {
	r, err := l.verifyAs(ctx, l.verify, VerifyOptions{}, visit)
	if err == nil && !r.sound() {
		err = &VerifyError{r}
	}
	return r, err
}

// VerifyError says that something was not done, because the journal does not verify:
// what would be written over it or taken out of it could not be relied on.
type VerifyError struct{ Report Report }

// Error tells the verdict.
func (e *VerifyError) Error() string {
	return fmt.Sprintf("the journal does not verify: %s at entry %d: %s", e.Report.Verdict, e.Report.At, e.Report.Detail)
}

// VerifyStore verifies a log that need not be in use: each record has the hash
// that was stored and the number where it stands, chain and tree follow from the
// records, what rows are found by is what the records say, and every checkpoint
// is signed by v and has the root that the tree had. More, or older, entries after
// the last checkpoint than a log leaves unsigned cannot be verified; that may be what
// a crash left, too. The error is for what could not be read, or that ctx ended; what
// was read and is wrong is a verdict.
//
// Entries are read and checked by as many goroutines as GOMAXPROCS says, a few
// hundred at a time each: memory does not grow with the log.
func VerifyStore(ctx context.Context, s Store, v note.Verifier, o *VerifyOptions) (Report, error) {
	var opts VerifyOptions
	if o != nil {
		opts = *o
	}
	return verifyStore(ctx, s, v, opts, maxEvery+slack, nil)
}
