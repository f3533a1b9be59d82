package audit_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/internal/journaltest"
)

// fixed is a store whose content a test sets as it likes.
type fixed struct {
	head        audit.Head
	rows        []audit.Row
	checkpoints []audit.Checkpoint
}

func (f *fixed) Head(context.Context) (audit.Head, error)               { return f.head, nil }
func (f *fixed) Append(context.Context, audit.Batch) error              { return audit.ErrClosed }
func (f *fixed) Find(context.Context, audit.Query) ([]audit.Row, error) { return nil, nil }

func (f *fixed) Read(_ context.Context, from int64, n int) ([]audit.Row, error) {
	i := slices.IndexFunc(f.rows, func(r audit.Row) bool { return r.Seq >= from })
	if i < 0 {
		return nil, nil
	}
	return slices.Clone(f.rows[i:min(i+n, len(f.rows))]), nil
}

func (f *fixed) Checkpoints(_ context.Context, after int64, n int) ([]audit.Checkpoint, error) {
	i := slices.IndexFunc(f.checkpoints, func(c audit.Checkpoint) bool { return c.Size > after })
	if i < 0 {
		return nil, nil
	}
	return slices.Clone(f.checkpoints[i:min(i+n, len(f.checkpoints))]), nil
}

// history makes a log of n entries with checkpoints after 0, 4, 8, … and at the end.
func history(t *testing.T, n int) (*fixed, note.Signer, note.Verifier) {
	t.Helper()
	signer, verifier := journaltest.Signer(t)
	m := audit.NewMemory()
	for i := 0; i < n || i == 0; i += 4 {
		log, err := audit.New(t.Context(), m, journaltest.NewSealer(), signer, verifier, nil)
		require.NoError(t, err)
		for k := i; k < min(i+4, n); k++ {
			require.NoError(t, log.Record(t.Context(), journaltest.Event(k)))
		}
		require.NoError(t, log.Close())
	}
	return dump(t, m), signer, verifier
}

func dump(t *testing.T, s audit.Store) *fixed {
	t.Helper()
	f := &fixed{}
	var err error
	f.head, err = s.Head(t.Context())
	require.NoError(t, err)
	f.rows, err = s.Read(t.Context(), 0, 1<<20)
	require.NoError(t, err)
	f.checkpoints, err = s.Checkpoints(t.Context(), -1, 1<<20)
	require.NoError(t, err)
	return f
}

func (f *fixed) clone() *fixed {
	c := &fixed{head: f.head, rows: slices.Clone(f.rows), checkpoints: slices.Clone(f.checkpoints)}
	for i := range c.rows {
		c.rows[i].Record = slices.Clone(c.rows[i].Record)
		c.rows[i].Hashes = slices.Clone(c.rows[i].Hashes)
		c.rows[i].Keys.Clients = slices.Clone(c.rows[i].Keys.Clients)
	}
	for i := range c.checkpoints {
		c.checkpoints[i].Note = slices.Clone(c.checkpoints[i].Note)
	}
	return c
}

func verify(t *testing.T, s audit.Store, v note.Verifier) audit.Report {
	t.Helper()
	r, err := audit.VerifyStore(t.Context(), s, v, nil)
	require.NoError(t, err)
	return r
}

func TestVerdicts(t *testing.T) {
	good, signer, verifier := history(t, 11)
	require.Equal(t, audit.Report{
		Verdict: audit.Unanchored, Log: fmt.Sprintf("%x", good.head.Log), Entries: 11, Signed: 11,
		Checkpoint: string(good.checkpoints[len(good.checkpoints)-1].Note),
		Detail:     "all 11 entries are as they were written; 11 of them are signed; nothing outside vouches for it",
	}, verify(t, good, verifier))
	other, otherSigner, _ := history(t, 11)

	for _, c := range []struct {
		name    string
		change  func(f *fixed)
		verdict audit.Verdict
		at      int64
	}{
		{"row deleted", func(f *fixed) { f.rows = slices.Delete(f.rows, 5, 6) }, audit.Broken, 5},
		{"first row deleted", func(f *fixed) { f.rows = f.rows[1:] }, audit.Broken, 0},
		{"row duplicated", func(f *fixed) { f.rows = slices.Insert(f.rows, 5, f.rows[5]) }, audit.Broken, 6},
		{"rows swapped", func(f *fixed) { f.rows[5], f.rows[6] = f.rows[6], f.rows[5] }, audit.Broken, 5},
		{"rows swapped and renumbered", func(f *fixed) {
			f.rows[5], f.rows[6] = f.rows[6], f.rows[5]
			f.rows[5].Seq, f.rows[6].Seq = 5, 6
		}, audit.Broken, 5},
		{"record of another log", func(f *fixed) { f.rows[5] = other.rows[5] }, audit.Broken, 5},
		{"found by another person", func(f *fixed) { f.rows[7].Keys.Subject = "nobody" }, audit.Broken, 7},
		{"not found by its client", func(f *fixed) { f.rows[7].Keys.Clients = nil }, audit.Broken, 7},
		{"chain of one row", func(f *fixed) { f.rows = audit.Unlink(f.head.Log, f.rows, 7) }, audit.Broken, 7},
		{"hash of the tree", func(f *fixed) { f.rows[7].Hashes[3][0] ^= 1 }, audit.Broken, 7},
		{"a hash too many", func(f *fixed) { f.rows[6].Hashes = append(f.rows[6].Hashes, f.rows[7].Hashes[1]) }, audit.Broken, 6},
		{"tail cut", func(f *fixed) { f.rows = f.rows[:9]; f.head.Size, f.head.Last = 9, f.rows[8].Hashes[0] }, audit.Truncated, 9},
		{"all rows gone", func(f *fixed) { f.rows = nil; f.head = audit.Head{Log: f.head.Log} }, audit.Truncated, 0},
		{"head says more", func(f *fixed) { f.head.Size++ }, audit.Broken, 11},
		{"rewritten whole", func(f *fixed) { rewrite(t, f, f.head.Log, 2) }, audit.Forked, 0},
		{"rewritten from a checkpoint on", func(f *fixed) { rewrite(t, f, f.head.Log, 6) }, audit.Forked, 4},
		{"rewritten after every checkpoint was removed", func(f *fixed) { rewrite(t, f, f.head.Log, 6); f.checkpoints = nil }, audit.CannotVerify, 0},
		{"other log altogether, its checkpoints too", func(f *fixed) { *f = *other.clone() }, audit.CannotVerify, 0},
		{"other log with these checkpoints", func(f *fixed) { f.rows, f.head = other.clone().rows, other.head }, audit.Restored, 0},
		{"tail cut, with a checkpoint of a stranger", func(f *fixed) {
			f.rows, f.checkpoints = f.rows[:8], f.checkpoints[:3]
			f.head.Size, f.head.Last = 8, f.rows[7].Hashes[0]
			f.checkpoints = append(f.checkpoints, audit.Checkpoint{Size: 99, Note: checkpoint(t, f.head.Log, 99, otherSigner)})
		}, audit.CannotVerify, 0},
		{"checkpoint of a stranger", func(f *fixed) {
			f.checkpoints = slices.Insert(f.checkpoints, 1, audit.Checkpoint{Size: 2, Note: checkpoint(t, f.head.Log, 2, otherSigner)})
		}, audit.CannotVerify, 0},
		{"checkpoint with another size", func(f *fixed) { f.checkpoints[1].Size++ }, audit.CannotVerify, 0},
		{"signed by this key for another tree", func(f *fixed) {
			f.checkpoints = append(f.checkpoints[:1], audit.Checkpoint{Size: 11, Note: checkpoint(t, f.head.Log, 11, signer)})
		}, audit.Forked, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := good.clone()
			c.change(f)
			r := verify(t, f, verifier)
			require.Equal(t, c.verdict, r.Verdict, r.Detail)
			require.Equal(t, c.at, r.At, r.Detail)
			require.False(t, r.OK())
			require.NotEmpty(t, r.Detail)
		})
	}
}

// A log that contradicts its last checkpoint is not continued: signing what
// follows would hide the break.
func TestNewRefusesWhatItCannotContinue(t *testing.T) {
	good, signer, verifier := history(t, 11)
	sealer := journaltest.NewSealer()
	for name, change := range map[string]func(f *fixed){
		"tail cut":           func(f *fixed) { f.rows = f.rows[:9]; f.head.Size, f.head.Last = 9, f.rows[8].Hashes[0] },
		"rewritten":          func(f *fixed) { rewrite(t, f, f.head.Log, 2) },
		"last entry changed": func(f *fixed) { f.checkpoints = f.checkpoints[:2]; f.rows[10].Record[40] ^= 1 },
		"last entry gone":    func(f *fixed) { f.checkpoints = f.checkpoints[:2]; f.rows = f.rows[:10] },
		"hashes gone":        func(f *fixed) { f.rows[7].Hashes = f.rows[7].Hashes[:1] },
		"other id":           func(f *fixed) { f.head.Log[0] ^= 1 },
	} {
		f := good.clone()
		change(f)
		_, err := audit.New(t.Context(), f, sealer, signer, verifier, nil)
		require.Error(t, err, name)
		if name != "other id" {
			_, broken := errors.AsType[*audit.BrokenError](err)
			require.True(t, broken, "%s: %v", name, err)
		}
	}
}

// checkpoint signs a root that no tree has.
func checkpoint(t *testing.T, log [16]byte, size int, signer note.Signer) []byte {
	t.Helper()
	text := fmt.Sprintf("%s/%x\n%d\n%s\n", signer.Name(), log, size, tlog.Hash{1})
	n, err := note.Sign(&note.Note{Text: text}, signer)
	require.NoError(t, err)
	return n
}

// rewrite changes the reason of entry from and makes everything after it right
// again, as whoever holds the database but not the key can.
func rewrite(t *testing.T, f *fixed, log [16]byte, from int) {
	t.Helper()
	records := make([][]byte, len(f.rows))
	for i, r := range f.rows {
		records[i] = slices.Clone(r.Record)
		if i == from {
			records[i][32] ^= 1 // the time when it was recorded
		}
	}
	for i, r := range audit.Rows(log, records) {
		r.Keys = f.rows[i].Keys
		f.rows[i] = r
	}
	if n := len(f.rows); n > 0 {
		f.head.Last = f.rows[n-1].Hashes[0]
	}
}

// Every byte of every part of every row is changed in turn.
func TestEveryByteCounts(t *testing.T) {
	good, _, verifier := history(t, 5)
	for i := range good.rows {
		check := func(what string, change func(r *audit.Row)) {
			f := good.clone()
			change(&f.rows[i])
			r := verify(t, f, verifier)
			require.Equal(t, audit.Broken, r.Verdict, "%s of entry %d", what, i)
			require.EqualValues(t, i, r.At, "%s of entry %d: %s", what, i, r.Detail)
		}
		for k := range good.rows[i].Record {
			check(fmt.Sprintf("byte %d", k), func(r *audit.Row) { r.Record[k] ^= 1 << (k % 8) })
		}
		for h := range good.rows[i].Hashes {
			for k := range 32 {
				check("hash", func(r *audit.Row) { r.Hashes[h][k] ^= 1 })
			}
		}
	}
	for i := range good.checkpoints {
		for k := range good.checkpoints[i].Note {
			f := good.clone()
			f.checkpoints[i].Note[k] ^= 1
			require.False(t, verify(t, f, verifier).OK(), "byte %d of checkpoint %d", k, i)
		}
	}
}

// blind is a planted fault: it hides what records say of those before, as a verification
// would that does not compare it.
type blind struct{ *fixed }

func (b blind) Read(ctx context.Context, from int64, n int) ([]audit.Row, error) {
	rows, err := b.fixed.Read(ctx, from, n)
	var records [][]byte
	for _, r := range b.fixed.rows {
		records = append(records, r.Record)
	}
	right := audit.Rows(b.head.Log, records)
	for i := range rows {
		rows[i].Record, rows[i].Hashes = right[rows[i].Seq].Record, right[rows[i].Seq].Hashes
	}
	return rows, err
}

func TestPlantedVerifyWithoutChain(t *testing.T) {
	f, _, verifier := history(t, 6)
	f.rows = audit.Unlink(f.head.Log, f.rows, 3)
	require.Equal(t, audit.Broken, verify(t, f, verifier).Verdict)
	require.True(t, verify(t, blind{f}, verifier).OK(), "without the comparison the change is not found: the test above sees the comparison")
}

// forking is a planted fault: appends without compare-and-swap.
type forking struct{ *fixed }

func (f forking) Append(_ context.Context, b audit.Batch) error {
	f.rows = append(f.rows, b.Rows...)
	slices.SortStableFunc(f.rows, func(a, b audit.Row) int { return int(a.Seq - b.Seq) })
	if b.Checkpoint != nil {
		f.checkpoints = append(f.checkpoints, *b.Checkpoint)
	}
	if n := len(b.Rows); n > 0 {
		f.head.Size, f.head.Last = b.Rows[n-1].Seq+1, b.Rows[n-1].Hashes[0]
	}
	return nil
}

func TestPlantedForks(t *testing.T) {
	signer, verifier := journaltest.Signer(t)
	write := func(s audit.Store, ends require.ErrorAssertionFunc) {
		var logs []*audit.Log
		for range 2 {
			log, err := audit.New(t.Context(), s, journaltest.NewSealer(), signer, verifier, nil)
			require.NoError(t, err)
			logs = append(logs, log)
		}
		for i := range 6 {
			require.NoError(t, logs[i%2].Record(t.Context(), journaltest.Event(i)))
		}
		for _, log := range logs {
			ends(t, log.Close())
		}
	}
	m := audit.NewMemory()
	write(m, require.NoError)
	require.True(t, verify(t, m, verifier).OK(), "two logs on one store make one chain")
	f := &fixed{head: audit.Head{Log: [16]byte{1}}}
	write(forking{f}, func(require.TestingT, error, ...any) {}) // signing may notice
	r := verify(t, f, verifier)
	require.Equal(t, audit.Broken, r.Verdict, "without compare-and-swap they make a fork, and it is found")
	require.EqualValues(t, 1, r.At)
}

func TestVerifyOfALogInUse(t *testing.T) {
	j := open(t, audit.NewMemory())
	done := make(chan error)
	go func() {
		for i := range 2000 {
			if err := j.Record(t.Context(), smallEvent(i)); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	for {
		r := j.verify(t)
		require.True(t, r.OK(), r.Detail)
		select {
		case err := <-done:
			require.NoError(t, err)
			return
		default:
		}
	}
}

func TestVerdictWords(t *testing.T) {
	require.Equal(t, "cannot verify", audit.Verdict(0).String(), "the zero value is not a good one")
	require.False(t, audit.Report{}.OK())
	for _, v := range []audit.Verdict{audit.Intact, audit.Pruned, audit.Unanchored} {
		require.True(t, audit.Report{Verdict: v}.OK(), v)
	}
	for _, v := range []audit.Verdict{audit.CannotVerify, audit.AnchorStale, audit.Broken, audit.Truncated, audit.Forked, audit.Restored} {
		require.False(t, audit.Report{Verdict: v}.OK(), v)
	}
	require.Equal(t, "Verdict(99)", audit.Verdict(99).String())
	text, err := audit.AnchorStale.MarshalText()
	require.NoError(t, err)
	require.Equal(t, "anchor stale", string(text))
	_, err = audit.VerifyStore(t.Context(), audit.NewMemory(), nil, nil)
	require.Error(t, err)
}

// What lets New go on must be signed, not merely look like a checkpoint.
func TestNewOpensTheCheckpoint(t *testing.T) {
	good, signer, verifier := history(t, 11)
	stranger, _ := journaltest.Signer(t)
	f := good.clone()
	rewrite(t, f, f.head.Log, 2)
	forged := checkpointOf(t, f, stranger)
	f.checkpoints = []audit.Checkpoint{{Size: 11, Note: forged}}
	_, err := audit.New(t.Context(), f, journaltest.NewSealer(), signer, verifier, nil)
	_, broken := errors.AsType[*audit.BrokenError](err)
	require.True(t, broken, "%v", err)

	_, other := journaltest.Signer(t)
	_, err = audit.New(t.Context(), audit.NewMemory(), journaltest.NewSealer(), signer, other, nil)
	require.ErrorContains(t, err, "one key")
}

// checkpointOf signs the tree that the rows have.
func checkpointOf(t *testing.T, f *fixed, signer note.Signer) []byte {
	t.Helper()
	text := fmt.Sprintf("%s/%x\n%d\n%s\n", signer.Name(), f.head.Log, len(f.rows), audit.Root(f.head.Log, f.rows))
	n, err := note.Sign(&note.Note{Text: text}, signer)
	require.NoError(t, err)
	return n
}
