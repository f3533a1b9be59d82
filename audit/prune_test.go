package audit_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/internal/journaltest"
)

// aging is a log whose clock a test sets, on a store with entries of several days.
type aging struct {
	*audit.Log
	store    audit.Store
	signer   note.Signer
	verifier note.Verifier
	now      time.Time
	notes    [][]byte // a checkpoint after each day
}

const perDay = 300

var firstDay = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

func days(t *testing.T, s audit.Store, n int) *aging {
	t.Helper()
	a := &aging{store: s, now: firstDay}
	a.signer, a.verifier = journaltest.Signer(t)
	a.open(t)
	for range n {
		a.day(t)
	}
	return a
}

func (a *aging) open(t *testing.T) {
	t.Helper()
	var err error
	a.Log, err = audit.New(t.Context(), a.store, journaltest.NewSealer(), a.signer, a.verifier, &audit.Options{Clock: func() time.Time { return a.now }, Heartbeat: time.Hour})
	require.NoError(t, err)
	opened := a.Log
	t.Cleanup(func() { _ = opened.Close() })
}

// day records a day's entries and ends with a checkpoint.
func (a *aging) day(t *testing.T) {
	t.Helper()
	n := 0
	h, err := a.store.Head(t.Context())
	require.NoError(t, err)
	for n < perDay {
		e := smallEvent(int(h.Size) + n)
		e.Time = a.now
		require.NoError(t, a.Record(t.Context(), e))
		n++
	}
	require.NoError(t, a.Close())
	a.now = a.now.AddDate(0, 0, 1)
	a.open(t)
	r, err := a.Verify(t.Context(), a.verifier, nil)
	require.NoError(t, err)
	a.notes = append(a.notes, []byte(r.Checkpoint))
}

func admin(t *testing.T) context.Context {
	t.Helper()
	return crmguard.System(t.Context(), "acme", "retention")
}

func (a *aging) prune(t *testing.T, days int) audit.Removed {
	t.Helper()
	r, err := a.Prune(admin(t), firstDay.AddDate(0, 0, days).Add(-time.Hour))
	require.NoError(t, err)
	return r
}

func (a *aging) report(t *testing.T, o audit.VerifyOptions) audit.Report {
	t.Helper()
	o.Clock = func() time.Time { return a.now }
	return verifyWith(t, a.store, a.verifier, o)
}

func (a *aging) keptDay(day int) []audit.Kept {
	return []audit.Kept{{Note: a.notes[day], At: a.now}}
}

// stores are those that prune, by name.
func pruners(t *testing.T, test func(t *testing.T, s audit.Store)) {
	t.Run("memory", func(t *testing.T) { test(t, audit.NewMemory()) })
	t.Run("file", func(t *testing.T) {
		s := openFile(t, t.TempDir())
		audit.SetMaxSegment(s, 40_000)
		audit.SetSync(s, func(*os.File) error { return nil })
		test(t, s)
	})
}

func TestPrune(t *testing.T) {
	pruners(t, func(t *testing.T, s audit.Store) {
		a := days(t, s, 4)
		whole := dump(t, s)
		require.Equal(t, audit.Removed{}, a.prune(t, 0), "nothing is as old as that")
		require.Equal(t, audit.Removed{From: 0, To: 512}, a.prune(t, 2), "600 entries are, in whole tiles")
		left, err := s.Read(t.Context(), 0, 10)
		require.NoError(t, err)
		require.EqualValues(t, 512, left[0].Seq)
		require.Equal(t, whole.rows[512].Record, left[0].Record)

		r := a.report(t, audit.VerifyOptions{})
		require.Equal(t, audit.Unanchored, r.Verdict, r.Detail)
		require.EqualValues(t, 512, r.Pruned)
		for day := range a.notes {
			r = a.report(t, audit.VerifyOptions{Kept: a.keptDay(day)})
			require.Equal(t, audit.Pruned, r.Verdict, "the checkpoint of day %d fits, from before the cut or after it: %s", day, r.Detail)
			require.Contains(t, r.Detail, "entries 0 to 511 were removed by retention")
			r = a.report(t, audit.VerifyOptions{Resume: string(a.notes[day]), Kept: a.keptDay(0)})
			require.Equal(t, audit.Pruned, r.Verdict, r.Detail)
		}

		// Proofs of what is left, and consistency with all checkpoints there ever were.
		for _, seq := range []int64{512, 599, 600, 1000} {
			proof, err := a.Prove(t.Context(), seq)
			require.NoError(t, err)
			_, err = audit.CheckProof(proof, nil, a.verifier)
			require.NoError(t, err)
		}
		_, err = a.Prove(t.Context(), 3)
		require.ErrorIs(t, err, audit.ErrPruned)
		for _, c := range whole.checkpoints[1:] {
			proof, err := audit.ProveConsistency(t.Context(), s, c.Size, int64(len(whole.rows)))
			require.NoError(t, err, "from %d", c.Size)
			list := make(tlog.TreeProof, len(proof))
			for i, h := range proof {
				list[i] = h
			}
			if c.Size < int64(len(whole.rows)) {
				require.NoError(t, tlog.CheckTree(list, int64(len(whole.rows)), audit.Root(whole.head.Log, whole.rows), c.Size, audit.Root(whole.head.Log, whole.rows[:c.Size])))
			}
		}

		// It goes on: entries, a second cut, another process.
		a.day(t)
		require.Equal(t, audit.Removed{From: 512, To: 768}, a.prune(t, 3))
		require.NoError(t, a.Close())
		a.open(t)
		require.NoError(t, a.Record(t.Context(), smallEvent(1)), "an entry that is gone does not stand in the way of its like")
		r = a.report(t, audit.VerifyOptions{Kept: a.keptDay(0)})
		require.Equal(t, audit.Pruned, r.Verdict, r.Detail)
		require.EqualValues(t, 768, r.Pruned)

		page, err := a.Find(t.Context(), audit.Query{Tenant: audit.OwnTenant(a.Log), Action: audit.ActPrune})
		require.NoError(t, err)
		require.Len(t, page.Entries, 4, "an entry before and one after")
		require.Equal(t, "system:retention", page.Entries[0].Event.Subject.ID)
		require.Equal(t, "512-767", page.Entries[0].Event.Resource.ID)
		require.Equal(t, 256, page.Entries[0].Event.Count)
	})
}

func TestPruneOfAFileFreesSpace(t *testing.T) {
	dir := t.TempDir()
	s := openFile(t, dir)
	audit.SetMaxSegment(s, 40_000)
	a := days(t, s, 4)
	needle := a.find(t, 7).Event.ID
	before := sizeOfAll(files(t, dir))
	require.True(t, contains(files(t, dir), needle))
	require.EqualValues(t, 512, a.prune(t, 2).To)
	require.NoError(t, a.Close())
	require.NoError(t, s.Close())
	after := files(t, dir)
	require.Less(t, sizeOfAll(after), before*3/4)
	require.False(t, contains(after, `"event-7"`) || contains(after, "\x07event-7\x02"), "nothing of the entry is left")

	again := openFile(t, dir)
	a.store = again
	require.Equal(t, audit.Pruned, a.report(t, audit.VerifyOptions{Kept: a.keptDay(0)}).Verdict)
	a.open(t)
	a.day(t)
	require.Equal(t, audit.Pruned, a.report(t, audit.VerifyOptions{Kept: a.keptDay(0)}).Verdict)
}

func (a *aging) find(t *testing.T, seq int64) audit.Entry {
	t.Helper()
	page, err := a.Find(t.Context(), audit.Query{Tenant: "acme", Before: seq + 1, Limit: 1})
	require.NoError(t, err)
	return page.Entries[0]
}

func sizeOfAll(files map[string][]byte) (n int) {
	for _, b := range files {
		n += len(b)
	}
	return n
}

func contains(files map[string][]byte, s string) bool {
	for _, b := range files {
		if strings.Contains(string(b), s) {
			return true
		}
	}
	return false
}

// Whoever removes entries without the signing key is found, whatever else is done.
func TestForgedCuts(t *testing.T) {
	m := audit.NewMemory()
	a := days(t, m, 4)
	a.prune(t, 2)
	good := prunedDump(t, m)
	require.True(t, a.report(t, audit.VerifyOptions{}).OK())
	stranger, _ := journaltest.Signer(t)
	other := days(t, audit.NewMemory(), 4)
	other.prune(t, 2)
	foreign, err := other.store.(audit.Pruner).Pruned(t.Context())
	require.NoError(t, err)

	for name, c := range map[string]struct {
		change  func(f *prunedStore)
		verdict audit.Verdict
	}{
		"nothing":                       {func(*prunedStore) {}, audit.Unanchored},
		"another tile is gone":          {func(f *prunedStore) { f.rows = f.rows[256:] }, audit.Broken},
		"a row is gone":                 {func(f *prunedStore) { f.rows = f.rows[1:] }, audit.Broken},
		"no statement":                  {func(f *prunedStore) { f.pruned = audit.Pruning{} }, audit.Broken},
		"a statement of another key":    {func(f *prunedStore) { f.pruned = audit.SignPruning(t, f.head.Log, f.whole, 512, stranger) }, audit.Broken},
		"a statement of another log":    {func(f *prunedStore) { f.pruned = foreign }, audit.Broken},
		"a larger size":                 {func(f *prunedStore) { f.pruned.Size, f.rows = 768, f.rows[256:] }, audit.Broken},
		"a checkpoint as the statement": {func(f *prunedStore) { f.pruned.Note = f.checkpoints[2].Note }, audit.Broken},
		"all that is left is gone, with its checkpoints": {func(f *prunedStore) {
			f.rows, f.head = nil, audit.Head{Log: f.head.Log}
			f.checkpoints = slices.DeleteFunc(f.checkpoints, func(c audit.Checkpoint) bool { return c.Size > 512 })
		}, audit.Truncated},
		"the tail is cut": {func(f *prunedStore) { f.rows = f.rows[:100]; f.head.Size, f.head.Last = 612, f.rows[99].Hashes[0] }, audit.Truncated},
		"an old checkpoint, of another tree": {func(f *prunedStore) {
			f.checkpoints[1].Note = checkpoint(t, f.head.Log, int(f.checkpoints[1].Size), a.signer)
		}, audit.Forked},
		"an old checkpoint, of a stranger": {func(f *prunedStore) {
			f.checkpoints[1].Note = checkpoint(t, f.head.Log, int(f.checkpoints[1].Size), stranger)
		}, audit.CannotVerify},
		"the chain at the cut": {func(f *prunedStore) { f.rows[0].Record[40] ^= 1 }, audit.Broken},
		"no hashes are kept":   {func(f *prunedStore) { f.nodes = nil }, audit.Broken},
	} {
		f := good.clone()
		c.change(f)
		r := verifyWith(t, f, a.verifier, audit.VerifyOptions{Clock: func() time.Time { return a.now }})
		require.Equal(t, c.verdict, r.Verdict, "%s: %s", name, r.Detail)
	}
	for i := range good.nodes {
		f := good.clone()
		f.nodes[i].Hash[i%32] ^= 1
		r := verifyWith(t, f, a.verifier, audit.VerifyOptions{})
		require.Equal(t, audit.Broken, r.Verdict, "hash %d of level %d", f.nodes[i].Seq, f.nodes[i].Level)
		f = good.clone()
		f.nodes = slices.Delete(f.nodes, i, i+1)
		require.Equal(t, audit.Broken, verifyWith(t, f, a.verifier, audit.VerifyOptions{}).Verdict, "hash %d is missing", i)
	}
	for i := range good.pruned.Note {
		f := good.clone()
		f.pruned.Note[i] ^= 1
		require.False(t, verifyWith(t, f, a.verifier, audit.VerifyOptions{}).OK(), "byte %d of the statement", i)
	}
}

// prunedStore is a store whose content a test sets.
type prunedStore struct {
	*fixed
	whole  []audit.Row
	pruned audit.Pruning
	nodes  []audit.Node
}

func prunedDump(t *testing.T, m *audit.Memory) *prunedStore {
	t.Helper()
	p := &prunedStore{fixed: dump(t, m)}
	var err error
	p.pruned, err = m.Pruned(t.Context())
	require.NoError(t, err)
	p.nodes, err = m.Nodes(t.Context(), 0, 0, 1<<20)
	require.NoError(t, err)
	return p
}

func (p *prunedStore) clone() *prunedStore {
	c := &prunedStore{fixed: p.fixed.clone(), pruned: p.pruned, nodes: slices.Clone(p.nodes)}
	c.pruned.Note = slices.Clone(p.pruned.Note)
	return c
}

func (p *prunedStore) Prune(context.Context, audit.Pruning, []audit.Node) error {
	return audit.ErrClosed
}
func (p *prunedStore) Pruned(context.Context) (audit.Pruning, error) { return p.pruned, nil }
func (p *prunedStore) Nodes(_ context.Context, seq int64, level, n int) ([]audit.Node, error) {
	i := slices.IndexFunc(p.nodes, func(n audit.Node) bool { return n.Seq > seq || n.Seq == seq && n.Level >= level })
	if i < 0 {
		return nil, nil
	}
	return slices.Clone(p.nodes[i:min(i+n, len(p.nodes))]), nil
}

// A journal that is not right is not pruned: the evidence would be gone.
func TestPruneRefuses(t *testing.T) {
	m := audit.NewMemory()
	a := days(t, m, 3)
	_, err := a.Prune(t.Context(), a.now)
	require.ErrorContains(t, err, "no subject")
	f := dump(t, m)
	f.rows[100].Record[50] ^= 1
	broken := audit.MemoryOf(f.head.Log, f.rows, f.checkpoints)
	log, err := audit.New(t.Context(), broken, journaltest.NewSealer(), a.signer, a.verifier, &audit.Options{Clock: func() time.Time { return a.now }})
	require.NoError(t, err)
	defer func() { _ = log.Close() }()
	_, err = log.Prune(admin(t), a.now)
	require.ErrorContains(t, err, "does not verify: broken at entry 100")
	wrong, ok := errors.AsType[*audit.VerifyError](err)
	require.True(t, ok)
	require.Equal(t, audit.Broken, wrong.Report.Verdict)
	require.Len(t, dump(t, broken).rows, len(f.rows), "nothing is removed, and nothing is said to have been")
}

func TestHolds(t *testing.T) {
	for name, c := range map[string]struct {
		hold audit.Hold
		to   int64
		at   int64
	}{
		"a person":        {audit.Hold{Subject: "anna"}, 0, 0},
		"a client":        {audit.Hold{Client: "client-of-400"}, 256, 400},
		"a record":        {audit.Hold{Kind: "contacts", Record: "of-530"}, 512, 530},
		"a tenant":        {audit.Hold{}, 0, 0},
		"somebody else's": {audit.Hold{Client: "nobody"}, 768, 0},
	} {
		t.Run(name, func(t *testing.T) {
			m := audit.NewMemory()
			a := days(t, m, 1)
			for i := 300; i < 900; i++ {
				e := smallEvent(i)
				if i == 400 {
					e.Private = []crmguard.Private{{Client: "client-of-400", Name: "old", Value: []byte("x")}}
				}
				if i == 530 {
					e.Resource.ID = "of-530"
				}
				require.NoError(t, a.Record(t.Context(), e))
			}
			a.now = a.now.AddDate(0, 0, 1)
			a.day(t)
			c.hold.ID, c.hold.Tenant, c.hold.Reason = "case 7/26", "acme", "lawsuit"
			require.Error(t, a.Hold(crmguard.System(t.Context(), "other", "x"), c.hold), "of another tenant")
			require.NoError(t, a.Hold(admin(t), c.hold))
			require.NoError(t, a.Hold(admin(t), c.hold), "again")
			holds, err := a.Holds(t.Context())
			require.NoError(t, err)
			require.Equal(t, []audit.Hold{c.hold}, holds)
			r, err := a.Prune(admin(t), a.now.AddDate(0, 0, -2).Add(time.Hour))
			require.NoError(t, err)
			require.Equal(t, c.to, r.To)
			if c.hold.Client != "nobody" {
				require.Equal(t, &c.hold, r.Held)
				require.Equal(t, c.at, r.HeldAt)
			}
			require.Error(t, a.Release(crmguard.System(t.Context(), "other", "x"), c.hold.ID, "over"))
			require.NoError(t, a.Release(admin(t), c.hold.ID, "over"))
			require.Error(t, a.Hold(admin(t), c.hold), "an id is used once")
			r, err = a.Prune(admin(t), a.now.AddDate(0, 0, -2).Add(time.Hour))
			require.NoError(t, err)
			require.EqualValues(t, 768, r.To)
			require.Nil(t, r.Held)
			require.True(t, a.report(t, audit.VerifyOptions{}).OK())
		})
	}
}

// A hold is not lost with its own entry, and nobody hides it from Prune.
func TestHoldsAreNotPruned(t *testing.T) {
	m := audit.NewMemory()
	a := days(t, m, 1)
	require.NoError(t, a.Hold(admin(t), audit.Hold{ID: "1", Tenant: "acme", Client: "nobody yet"}))
	a.day(t)
	a.day(t)
	r := a.prune(t, 9)
	require.EqualValues(t, 256, r.To, "the entry of the hold is number 300")
	require.EqualValues(t, 300, r.HeldAt)

	f := dump(t, m)
	i := slices.IndexFunc(f.rows, func(r audit.Row) bool { return r.Keys.Action == audit.ActHold })
	f.rows[i].Keys.Action = "view"
	hidden := prunedDump(t, m)
	hidden.fixed = f
	log, err := audit.New(t.Context(), hidden, journaltest.NewSealer(), a.signer, a.verifier, &audit.Options{Clock: func() time.Time { return a.now }})
	require.NoError(t, err)
	defer func() { _ = log.Close() }()
	_, err = log.Prune(admin(t), a.now)
	require.ErrorContains(t, err, fmt.Sprintf("broken at entry %d", f.rows[i].Seq))

	require.Error(t, a.Hold(admin(t), audit.Hold{ID: "2"}), "of no tenant")
	require.Error(t, a.Hold(admin(t), audit.Hold{ID: "2", Tenant: "acme", Client: strings.Repeat("c", 300)}))
	require.Error(t, a.Release(admin(t), "unknown", ""))
}

// A crash between the steps of a prune loses nothing and leaves nothing for ever.
func TestPruneOfAFileIsRepaired(t *testing.T) {
	dir := t.TempDir()
	s := openFile(t, dir)
	audit.SetMaxSegment(s, 40_000)
	a := days(t, s, 4)
	require.NoError(t, a.Close())
	a.open(t)
	before := files(t, dir)
	a.prune(t, 2)
	require.NoError(t, a.Close())
	require.NoError(t, s.Close())
	after := files(t, dir)
	delete(before, "lock")
	crashed := maps.Clone(before)
	crashed["pruned"] = after["pruned"]
	for _, copied := range []bool{false, true} {
		if copied {
			crashed["00000000000000000512.entries"] = after["00000000000000000512.entries"]
		}
		where := folder(t, crashed)
		s := openFile(t, where)
		rows, err := s.Read(t.Context(), 0, 1)
		require.NoError(t, err)
		require.EqualValues(t, 512, rows[0].Seq)
		a.store = s
		a.open(t)
		require.NoError(t, a.Record(t.Context(), smallEvent(5000)))
		require.NoError(t, a.Close())
		require.NoError(t, s.Close())
		_, err = os.Stat(filepath.Join(where, firstFile))
		require.ErrorIs(t, err, os.ErrNotExist)
		require.True(t, verifyWith(t, openFile(t, where), a.verifier, audit.VerifyOptions{Clock: func() time.Time { return a.now }}).OK())
	}
	for i := range after["pruned"] {
		flipped := maps.Clone(after)
		delete(flipped, "lock")
		flipped["pruned"] = slices.Clone(after["pruned"])
		flipped["pruned"][i] ^= 1
		if i%7 == 0 {
			f := openFile(t, folder(t, flipped))
			require.Equal(t, audit.Broken, verify(t, f, a.verifier).Verdict, "byte %d", i)
			require.NoError(t, f.Close())
		}
	}
}

// What nobody could read again is not written, whoever the context says that it is.
func TestHoldsOfOddSubjects(t *testing.T) {
	for _, at := range []time.Time{time.Unix(-5, 0), time.Date(12000, 1, 1, 0, 0, 0, 0, time.UTC)} {
		a := days(t, audit.NewMemory(), 1)
		ctx := crmguard.WithSubject(t.Context(), crmguard.Subject{Tenant: "acme", ID: "anna", Kind: crmguard.KindEmployee, AuthenticatedAt: at})
		require.Error(t, a.Hold(ctx, audit.Hold{ID: "1", Tenant: "acme"}))
		_, err := a.Prune(ctx, a.now)
		require.Error(t, err)
		require.NoError(t, a.Record(t.Context(), smallEvent(perDay)), "the log goes on")
		require.True(t, a.report(t, audit.VerifyOptions{}).OK())
	}
}
