package audit_test

import (
	"context"
	"errors"
	"iter"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/mod/sumdb/note"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/audittest"
	"github.com/crmguard/crmguard/audit/internal/journaltest"
)

// newestOnly is an anchor that does not tell what it held before.
type newestOnly struct{ audit.Anchor }

func verifyAnchored(t *testing.T, s audit.Store, v note.Verifier, anchors ...audit.Anchor) audit.Report {
	t.Helper()
	r, err := audit.VerifyStore(t.Context(), s, v, &audit.VerifyOptions{Anchors: anchors})
	require.NoError(t, err)
	return r
}

// holding is an anchor that got all checkpoints of a log just now.
func holding(f *fixed) *kept {
	k := &kept{}
	for _, c := range f.checkpoints {
		k.notes, k.at = append(k.notes, c.Note), append(k.at, time.Now())
	}
	return k
}

// rewritten is the log with another entry 2, without a trace in the store itself: by
// somebody who has the signing key.
func rewritten(t *testing.T, f *fixed, signer note.Signer) *fixed {
	t.Helper()
	w := f.clone()
	rewrite(t, w, w.head.Log, 2)
	for i, c := range w.checkpoints {
		w.checkpoints[i].Note = checkpointOf(t, &fixed{head: w.head, rows: w.rows[:c.Size]}, signer)
	}
	return w
}

func cut(f *fixed) *fixed {
	c := f.clone()
	c.rows, c.checkpoints = c.rows[:8], c.checkpoints[:3]
	c.head.Size, c.head.Last = 8, c.rows[7].Hashes[0]
	return c
}

func TestVerifyWithAnchors(t *testing.T) {
	good, signer, verifier := history(t, 11)
	_, stranger, _ := history(t, 1)
	other, _, _ := history(t, 3)
	forged := rewritten(t, good, signer)
	withoutKey := good.clone()
	rewrite(t, withoutKey, good.head.Log, 2)
	short := cut(good)
	// After the attack the anchor was handed what the attacker's log said.
	misled := func() *kept {
		k := holding(good)
		k.notes, k.at = append(k.notes, newestNote(forged)), append(k.at, time.Now())
		return k
	}
	old := holding(good)
	for i := range old.at {
		old.at[i] = old.at[i].Add(-2 * time.Hour)
	}
	planted := holding(good)
	planted.notes = append([][]byte{checkpointOf(t, good, stranger), []byte("garbage"), newestNote(other)}, planted.notes...)
	planted.at = append(make([]time.Time, 3), planted.at...)
	away := &lostAnchor{err: errors.New("away")}
	for name, c := range map[string]struct {
		store   *fixed
		anchors []audit.Anchor
		want    audit.Verdict
	}{
		"as it was":                     {good, []audit.Anchor{holding(good)}, audit.Intact},
		"as it was, no anchor":          {good, nil, audit.Unanchored},
		"grown since":                   {good, []audit.Anchor{holding(short)}, audit.Intact},
		"rewritten, no key":             {withoutKey, []audit.Anchor{holding(good)}, audit.Forked},
		"rewritten, no key, no anchor":  {withoutKey, nil, audit.Forked},
		"rewritten by the key":          {forged, []audit.Anchor{holding(good)}, audit.Forked},
		"rewritten, anchored anew":      {forged, []audit.Anchor{misled()}, audit.Forked},
		"one of two anchors was misled": {forged, []audit.Anchor{newestOnly{misled()}, newestOnly{holding(good)}}, audit.Forked},
		"cut":                           {short, []audit.Anchor{holding(good)}, audit.Truncated},
		"the anchor is old":             {good, []audit.Anchor{old}, audit.AnchorStale},
		"one of two is fresh":           {good, []audit.Anchor{old, holding(good)}, audit.Intact},
		"the anchor is empty":           {good, []audit.Anchor{&kept{}}, audit.AnchorStale},
		"the anchor fails":              {good, []audit.Anchor{away}, audit.AnchorStale},
		"one of two fails":              {good, []audit.Anchor{away, holding(good)}, audit.Intact},
		"only written":                  {good, []audit.Anchor{&kept{write: true}}, audit.Unanchored},
		"planted in its history":        {good, []audit.Anchor{planted}, audit.Intact},
		"it contradicts":                {good, []audit.Anchor{&lostAnchor{err: audit.ErrContradicted}, holding(good)}, audit.Forked},
		"it holds garbage":              {good, []audit.Anchor{&kept{notes: [][]byte{{1}}, at: []time.Time{time.Now()}}}, audit.CannotVerify},
	} {
		t.Run(name, func(t *testing.T) {
			r := verifyAnchored(t, c.store, verifier, c.anchors...)
			require.Equal(t, c.want, r.Verdict, r.Detail)
		})
	}
	require.Contains(t, verifyAnchored(t, good, verifier, away, holding(good)).Detail, "away")

	// What nobody can tell: with the key, before any anchor. Planted faults: a
	// verification that asks a misled anchor for its newest checkpoint alone, or none.
	require.Equal(t, audit.Unanchored, verifyAnchored(t, forged, verifier).Verdict)
	require.Equal(t, audit.Intact, verifyAnchored(t, forged, verifier, newestOnly{misled()}).Verdict)
	require.Equal(t, audit.Intact, verifyAnchored(t, short, verifier, holding(short)).Verdict)
}

// lostAnchor is an anchor that cannot be read.
type lostAnchor struct {
	kept
	err error
}

func (f *lostAnchor) Newest(context.Context) ([]byte, time.Time, error) {
	return nil, time.Time{}, f.err
}

// Whoever rolls back the journal and its anchor together, and has the anchor say that
// it was now, cannot make a newer entry: the newest is too old for a log that lives.
func TestAnchorRolledBackWithTheJournal(t *testing.T) {
	good, signer, verifier := history(t, 11)
	aged := good.clone()
	aged.rows = audit.Aged(good.head.Log, good.rows, 5*time.Hour)
	aged.head.Last = aged.rows[10].Hashes[0]
	for i, c := range aged.checkpoints {
		aged.checkpoints[i].Note = checkpointOf(t, &fixed{head: aged.head, rows: aged.rows[:c.Size]}, signer)
	}
	r := verifyAnchored(t, aged, verifier, holding(aged))
	require.Equal(t, audit.AnchorStale, r.Verdict, r.Detail)
	require.WithinDuration(t, time.Now().Add(-3*time.Hour), r.PinnedAt, time.Hour)

	// Planted: the time that the anchor names, believed.
	r, err := audit.VerifyStore(t.Context(), aged, verifier, &audit.VerifyOptions{Kept: []audit.Kept{{Note: newestNote(aged), At: time.Now()}}})
	require.NoError(t, err)
	require.Equal(t, audit.Intact, r.Verdict)
}

// A file is rolled back to what it held before: it says so by its time.
func TestFileAnchorRolledBack(t *testing.T) {
	good, _, verifier := history(t, 11)
	a := fileAnchor(t, filepath.Join(t.TempDir(), "anchor"), verifier)
	audit.SetAnchorClock(a, func() time.Time { return time.Now().Add(-3 * time.Hour) })
	for _, c := range good.checkpoints[:3] {
		require.NoError(t, a.Keep(t.Context(), c.Note))
	}
	require.Equal(t, audit.AnchorStale, verifyAnchored(t, cut(good), verifier, a).Verdict)
	audit.SetAnchorClock(a, time.Now)
	require.NoError(t, a.Keep(t.Context(), newestNote(good)))
	require.Equal(t, audit.Intact, verifyAnchored(t, good, verifier, a).Verdict)
	require.Equal(t, audit.Truncated, verifyAnchored(t, cut(good), verifier, a).Verdict)
}

// A log verifies itself with its own anchors, and what a witness refuses is a verdict.
func TestLogVerifiesWithItsAnchors(t *testing.T) {
	good, signer, verifier := history(t, 11)
	service := audittest.NewWitness(t, "w", verifier)
	run := func(f *fixed) audit.Report {
		store := f.memory(t)
		w := witnessOf(t, service.URL, service.Key, store, verifier)
		log, err := audit.New(t.Context(), store, journaltest.NewSealer(), signer, verifier, &audit.Options{Anchors: []audit.Anchor{w}})
		require.NoError(t, err)
		require.NoError(t, log.Close())
		r, err := log.Verify(t.Context(), verifier, nil)
		require.NoError(t, err)
		return r
	}
	r := run(good)
	require.Equal(t, audit.Intact, r.Verdict, r.Detail)
	require.EqualValues(t, 11, r.Pinned)
	require.WithinDuration(t, time.Now(), r.PinnedAt, time.Minute)
	require.Equal(t, audit.Forked, run(rewritten(t, good, signer)).Verdict)
	require.Equal(t, audit.Forked, run(cut(good)).Verdict)
	require.Equal(t, audit.Intact, run(good).Verdict)
}

// Anchors are asked before the log is read: what they get meanwhile is no sign of
// entries that are gone.
func TestVerifyWhileAnchorsAreFed(t *testing.T) {
	signer, verifier := journaltest.Signer(t)
	a := &kept{}
	log, err := audit.New(t.Context(), audit.NewMemory(), journaltest.NewSealer(), signer, verifier, &audit.Options{Anchors: []audit.Anchor{a}, CheckpointEvery: time.Millisecond})
	require.NoError(t, err)
	done := make(chan error, 1)
	go func() {
		for i := range 200 {
			if err := log.Record(t.Context(), journaltest.Event(i)); err != nil {
				done <- err
				return
			}
			time.Sleep(100 * time.Microsecond)
		}
		done <- nil
	}()
	for len(done) == 0 {
		r, err := log.Verify(t.Context(), verifier, nil)
		require.NoError(t, err)
		require.Contains(t, []audit.Verdict{audit.Intact, audit.AnchorStale}, r.Verdict, r.Detail)
	}
	require.NoError(t, <-done)
	require.NoError(t, log.Close())
	r, err := log.Verify(t.Context(), verifier, nil)
	require.NoError(t, err)
	require.Equal(t, audit.Intact, r.Verdict, r.Detail)
}

// hung is an anchor that is deaf, when it is asked, in the middle of what it tells, or
// when it is to keep something.
type hung struct {
	audit.Anchor
	goOn              chan struct{}
	newest, all, keep bool
}

func (h *hung) Keep(ctx context.Context, note []byte) error {
	if h.keep {
		<-h.goOn
	}
	return h.Anchor.Keep(ctx, note)
}

func (h *hung) Newest(ctx context.Context) ([]byte, time.Time, error) {
	if h.newest {
		<-h.goOn
	}
	return h.Anchor.Newest(ctx)
}

func (h *hung) All(ctx context.Context) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		note, _, err := h.Anchor.Newest(ctx)
		if yield(note, err) && h.all {
			<-h.goOn
		}
	}
}

// An anchor that hangs keeps nobody from verifying, and does not look as if it works.
func TestHungAnchor(t *testing.T) {
	for name, c := range map[string]struct {
		anchor  hung
		verdict audit.Verdict
		fails   bool
	}{
		"none hangs": {hung{}, audit.Intact, false},
		"newest":     {hung{newest: true}, audit.AnchorStale, false},
		"history":    {hung{all: true}, audit.Intact, false},
		"keep":       {hung{keep: true}, audit.AnchorStale, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { // as long as it takes passes in no time
				signer, verifier := journaltest.Signer(t)
				file, err := audit.NewFileAnchor(filepath.Join(t.TempDir(), "anchor"), verifier)
				require.NoError(t, err)
				c.anchor.Anchor, c.anchor.goOn = file, make(chan struct{})
				store, anchors := audit.NewMemory(), []audit.Anchor{&c.anchor}
				log, err := audit.New(t.Context(), store, journaltest.NewSealer(), signer, verifier, &audit.Options{Anchors: anchors})
				require.NoError(t, err)
				defer func() {
					close(c.anchor.goOn)
					require.NoError(t, log.Close())
				}()
				require.NoError(t, log.Record(t.Context(), journaltest.Event(0)))
				require.Eventually(t, func() bool { s := log.Anchors()[0]; return !s.Kept.IsZero() || c.fails && s.Err != nil }, time.Minute, time.Millisecond)
				if c.fails {
					require.False(t, log.Anchors()[0].FailingSince.IsZero())
				}
				r, err := audit.VerifyStore(t.Context(), store, verifier, &audit.VerifyOptions{Anchors: anchors})
				require.NoError(t, err)
				if name == "history" {
					require.Contains(t, r.Detail, "does not answer")
				}
				require.Equal(t, c.verdict, r.Verdict, r.Detail)
				_, err = log.Prune(admin(t), time.Now())
				require.NoError(t, err)
			})
		})
	}
}
