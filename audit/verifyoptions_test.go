package audit_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/mod/sumdb/note"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/internal/journaltest"
)

func verifyWith(t *testing.T, s audit.Store, v note.Verifier, o audit.VerifyOptions) audit.Report {
	t.Helper()
	r, err := audit.VerifyStore(t.Context(), s, v, &o)
	require.NoError(t, err)
	return r
}

// long makes a log of n small entries, with a checkpoint after every so many.
func long(t *testing.T, n, every int) (*fixed, note.Signer, note.Verifier) {
	t.Helper()
	signer, verifier := journaltest.Signer(t)
	f := &fixed{head: audit.Head{Log: [16]byte{7}}}
	var records [][]byte
	for i := range n {
		rec := audit.NumberedRecord(f.head.Log, int64(i), [32]byte{}) // Rows chains it
		rec[31] = 1                                                   // a time that may be changed a little
		records = append(records, rec)
	}
	f.rows = audit.Rows(f.head.Log, records)
	for i := range f.rows {
		f.rows[i].Keys = audit.KeysOf(f.rows[i].Record)
	}
	f.head.Size, f.head.Last = int64(n), f.rows[n-1].Hashes[0]
	for i := 0; i <= n; i += every {
		f.sign(t, i, signer)
	}
	if n%every != 0 {
		f.sign(t, n, signer)
	}
	return f, signer, verifier
}

func (f *fixed) sign(t *testing.T, size int, signer note.Signer) {
	t.Helper()
	n := checkpointOf(t, &fixed{head: f.head, rows: f.rows[:size]}, signer)
	f.checkpoints = append(f.checkpoints, audit.Checkpoint{Size: int64(size), Note: n})
}

// noteOf is the checkpoint of that many entries.
func (f *fixed) noteOf(t *testing.T, size int64) []byte {
	t.Helper()
	i := slices.IndexFunc(f.checkpoints, func(c audit.Checkpoint) bool { return c.Size == size })
	require.GreaterOrEqual(t, i, 0)
	return f.checkpoints[i].Note
}

// What spans pages is found as what lies within one: every hash and chain value at
// and around the ends of pages, seen from wherever a run begins.
func TestPagesAreJoined(t *testing.T) {
	good, _, verifier := long(t, 1600, 100)
	require.True(t, verify(t, good, verifier).OK())
	for _, resume := range []int64{0, 300, 500, 1500} {
		for _, i := range []int{0, 1, 255, 256, 499, 500, 510, 511, 512, 513, 767, 1023, 1024, 1025, 1535, 1536, 1599} {
			check := func(what string, change func(r *audit.Row)) {
				f := good.clone()
				change(&f.rows[i])
				r := verifyWith(t, f, verifier, audit.VerifyOptions{Resume: string(good.noteOf(t, resume))})
				if int64(i) < resume-1 { // what is before is not looked at again, but for the hashes that sum it up
					require.Contains(t, []audit.Verdict{audit.Unanchored, audit.Forked, audit.Broken}, r.Verdict)
					return
				}
				if int64(i) == resume-1 {
					return
				}
				require.Equal(t, audit.Broken, r.Verdict, "%s of %d from %d: %s", what, i, resume, r.Detail)
				require.EqualValues(t, i, r.At, "%s of %d from %d: %s", what, i, resume, r.Detail)
			}
			check("record", func(r *audit.Row) { r.Record[len(r.Record)-1] ^= 1 })
			check("chain", func(r *audit.Row) { r.Record[40] ^= 1 })
			check("number", func(r *audit.Row) { r.Seq += 5000 })
			check("key", func(r *audit.Row) { r.Keys.Subject = "nobody" })
			check("no hashes", func(r *audit.Row) { r.Hashes = r.Hashes[:0] })
			for h := range good.rows[i].Hashes {
				check(fmt.Sprintf("hash %d", h), func(r *audit.Row) { r.Hashes[h][0] ^= 1 })
			}
		}
	}
}

// A run that is resumed sees all that came after, and that what came before still
// sums up to what was signed; a record before is not read again, and that is said.
func TestResume(t *testing.T) {
	good, signer, verifier := long(t, 1600, 100)
	earlier := string(good.noteOf(t, 700))
	resume := audit.VerifyOptions{Resume: earlier}
	r := verifyWith(t, good, verifier, resume)
	require.Equal(t, audit.Unanchored, r.Verdict, "what one remembers is not an anchor")
	require.EqualValues(t, 700, r.From)
	require.EqualValues(t, 1600, r.Entries)
	require.EqualValues(t, 1600, r.Signed)
	require.Contains(t, r.Detail, "not read again")
	reads := &reading{Store: good}
	verifyWith(t, reads, verifier, resume)
	require.GreaterOrEqual(t, reads.least, int64(699), "the rest is hashes of single rows: %d", reads.least)

	for name, c := range map[string]struct {
		change  func(f *fixed)
		verdict audit.Verdict
		at      int64
	}{
		"a record after":                     {func(f *fixed) { f.rows[900].Record[60] ^= 1 }, audit.Broken, 900},
		"a hash that the resume stands on":   {func(f *fixed) { f.rows[511].Hashes[9][0] ^= 1 }, audit.Forked, 0},
		"a row that the resume stands on":    {func(f *fixed) { f.rows = slices.Delete(f.rows, 511, 512) }, audit.Broken, 511},
		"rewritten from the beginning":       {func(f *fixed) { rewrite(t, f, f.head.Log, 2) }, audit.Forked, 0},
		"rewritten from after the resume on": {func(f *fixed) { rewrite(t, f, f.head.Log, 750) }, audit.Forked, 700},
		"cut before": {func(f *fixed) {
			f.rows, f.checkpoints = f.rows[:600], f.checkpoints[:7]
			f.head.Size, f.head.Last = 600, f.rows[599].Hashes[0]
		}, audit.Truncated, 600},
		"a record before, changed alone": {func(f *fixed) { f.rows[300].Record[60] ^= 1 }, audit.Unanchored, 0},
	} {
		f := good.clone()
		c.change(f)
		r := verifyWith(t, f, verifier, resume)
		require.Equal(t, c.verdict, r.Verdict, "%s: %s", name, r.Detail)
		require.Equal(t, c.at, r.At, name)
	}
	f := good.clone()
	f.rows[300].Record[60] ^= 1
	require.Equal(t, audit.Broken, verify(t, f, verifier).Verdict, "what a resumed run does not see, a whole one does")

	stranger, _ := journaltest.Signer(t)
	forged := verifyWith(t, good, verifier, audit.VerifyOptions{Resume: string(checkpointOf(t, good, stranger))})
	require.Equal(t, audit.CannotVerify, forged.Verdict)
	require.Zero(t, forged.From, "what is not signed by this key begins nowhere")
	wrong := good.clone()
	rewrite(t, wrong, wrong.head.Log, 2)
	r = verifyWith(t, good, verifier, audit.VerifyOptions{Resume: string(checkpointOf(t, wrong, signer))})
	require.Equal(t, audit.Forked, r.Verdict, "signed by this key for another history")

	both := verifyWith(t, good, verifier, audit.VerifyOptions{Resume: earlier, Kept: []audit.Kept{
		{Note: good.noteOf(t, 300), At: time.Now()}, {Note: good.noteOf(t, 0)}, {Note: good.noteOf(t, 1500), At: time.Now()},
	}})
	require.Equal(t, audit.Intact, both.Verdict, both.Detail)
	require.EqualValues(t, 1500, both.Pinned)
	bad := verifyWith(t, good, verifier, audit.VerifyOptions{Resume: earlier, Kept: []audit.Kept{{Note: checkpointOf(t, &fixed{head: wrong.head, rows: wrong.rows[:300]}, signer)}}})
	require.Equal(t, audit.Forked, bad.Verdict, "kept outside, of fewer entries than are skipped")
}

// reading remembers the first row of all pages that were read.
type reading struct {
	audit.Store
	mu    sync.Mutex
	least int64
	reads int
}

func (r *reading) Read(ctx context.Context, from int64, n int) ([]audit.Row, error) {
	r.mu.Lock()
	if n > 1 && (r.reads == 0 || from < r.least) {
		r.least = from
		r.reads++
	}
	r.mu.Unlock()
	return r.Store.Read(ctx, from, n)
}

func TestKept(t *testing.T) {
	good, signer, verifier := long(t, 1000, 100)
	now := time.Now()
	other := good.clone()
	rewrite(t, other, other.head.Log, 30)
	elsewhere, _, _ := history(t, 3)
	for name, c := range map[string]struct {
		kept    []audit.Kept
		verdict audit.Verdict
		pinned  int64
	}{
		"none":                     {nil, audit.Unanchored, 0},
		"fresh":                    {[]audit.Kept{{good.noteOf(t, 900), now}}, audit.Intact, 900},
		"of nothing":               {[]audit.Kept{{good.noteOf(t, 0), now}}, audit.Intact, 0},
		"old":                      {[]audit.Kept{{good.noteOf(t, 900), now.Add(-2 * time.Hour)}}, audit.AnchorStale, 900},
		"of unknown age":           {[]audit.Kept{{Note: good.noteOf(t, 900)}}, audit.AnchorStale, 900},
		"old, and an older log":    {[]audit.Kept{{good.noteOf(t, 900), now.Add(-2 * time.Hour)}, {good.noteOf(t, 300), now}}, audit.AnchorStale, 900},
		"two, one of them old":     {[]audit.Kept{{good.noteOf(t, 900), now}, {good.noteOf(t, 300), now.Add(-time.Hour * 9)}}, audit.Intact, 900},
		"twice, once long ago":     {[]audit.Kept{{good.noteOf(t, 900), now}, {good.noteOf(t, 900), now.Add(-time.Hour * 9)}}, audit.Intact, 900},
		"of another history":       {[]audit.Kept{{good.noteOf(t, 900), now}, {checkpointOf(t, &fixed{head: other.head, rows: other.rows[:500]}, signer), now}}, audit.Forked, 0},
		"of more entries":          {[]audit.Kept{{checkpoint(t, good.head.Log, 1001, signer), now}}, audit.Truncated, 0},
		"of another log":           {[]audit.Kept{{checkpointOf(t, elsewhere, signer), now}, {good.noteOf(t, 900), now}}, audit.Restored, 900},
		"garbage, and a right one": {[]audit.Kept{{[]byte("x"), now}, {good.noteOf(t, 900), now}}, audit.CannotVerify, 900},
	} {
		r := verifyWith(t, good, verifier, audit.VerifyOptions{Kept: c.kept})
		require.Equal(t, c.verdict, r.Verdict, "%s: %s", name, r.Detail)
		require.Equal(t, c.pinned, r.Pinned, name)
	}
	r := verifyWith(t, good, verifier, audit.VerifyOptions{Kept: []audit.Kept{{good.noteOf(t, 900), now.Add(-2 * time.Hour)}}, AnchorAge: 3 * time.Hour})
	require.Equal(t, audit.Intact, r.Verdict)
	require.True(t, r.PinnedAt.Equal(now.Add(-2*time.Hour)))
}

func TestVerifyProgressAndCancel(t *testing.T) {
	good, _, verifier := long(t, 3000, 1000)
	var told []int64
	verifyWith(t, good, verifier, audit.VerifyOptions{Progress: func(done, total int64) {
		require.EqualValues(t, 3000, total)
		told = append(told, done)
	}})
	require.Equal(t, []int64{512, 1024, 1536, 2048, 2560, 3000}, told)

	ctx, cancel := context.WithCancel(t.Context())
	_, err := audit.VerifyStore(ctx, good, verifier, &audit.VerifyOptions{Progress: func(int64, int64) { cancel() }})
	require.ErrorIs(t, err, context.Canceled)
	_, err = audit.VerifyStore(t.Context(), unreadable{good, 700}, verifier, nil)
	require.ErrorIs(t, err, errDisk)
}

var errDisk = errors.New("disk")

// unreadable cannot read from some row on.
type unreadable struct {
	audit.Store
	from int64
}

func (f unreadable) Read(ctx context.Context, from int64, n int) ([]audit.Row, error) {
	if from+int64(n) > f.from {
		return nil, errDisk
	}
	return f.Store.Read(ctx, from, n)
}

// few returns fewer rows than it is asked for, as a store may.
type few struct{ audit.Store }

func (f few) Read(ctx context.Context, from int64, n int) ([]audit.Row, error) {
	return f.Store.Read(ctx, from, min(n, 7))
}

func TestVerifyOfShortReads(t *testing.T) {
	good, _, verifier := long(t, 1100, 1000)
	require.True(t, verify(t, few{good}, verifier).OK())
	for _, i := range []int{6, 7, 511, 512, 1098} {
		f := good.clone()
		f.rows = audit.Unlink(f.head.Log, f.rows, i)
		require.EqualValues(t, i, verify(t, few{f}, verifier).At)
	}
}
