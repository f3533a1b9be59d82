package audit_test

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/internal/journaltest"
)

// kill ends a log as a killed process does: no last checkpoint.
func kill(t *testing.T, s *audit.File, j *journal) {
	t.Helper()
	require.NoError(t, s.Close())
	require.Error(t, j.Close())
}

// Whoever removes the lock lets a second process in. The first must not write over
// what the second one acknowledged.
func TestLockRemovedWhileInUse(t *testing.T) {
	dir := t.TempDir()
	first := openFile(t, dir)
	j := open(t, first)
	require.NoError(t, j.Record(t.Context(), smallEvent(0)))
	require.NoError(t, os.Remove(filepath.Join(dir, "lock")))
	second := openFile(t, dir)
	head, err := second.Head(t.Context())
	require.NoError(t, err)
	row := audit.Rows(head.Log, [][]byte{{}})[0] // any row will do: what counts is its place
	row.Seq, row.Hashes, row.Keys.Tenant = 1, append(row.Hashes, row.Hashes[0]), "acme"
	require.NoError(t, second.Append(t.Context(), audit.Batch{After: head, Rows: []audit.Row{row}}))
	after := files(t, dir)
	require.ErrorIs(t, j.Record(t.Context(), smallEvent(2)), audit.ErrPoisoned)
	kill(t, first, j)
	require.Equal(t, after, files(t, dir), "nothing that the second one wrote is touched")
}

func TestTouchedWhileInUse(t *testing.T) {
	for name, touch := range map[string]func(dir string) error{
		"entries renamed":     func(dir string) error { return os.Rename(dir+"/"+firstFile, dir+"/elsewhere") },
		"entries replaced":    func(dir string) error { return replace(dir + "/" + firstFile) },
		"entries cut":         func(dir string) error { return os.Truncate(dir+"/"+firstFile, 100) },
		"entries grown":       func(dir string) error { return grow(dir + "/" + firstFile) },
		"room written to":     func(dir string) error { return useRoom(dir + "/" + firstFile) },
		"checkpoints renamed": func(dir string) error { return os.Rename(dir+"/"+signed, dir+"/elsewhere") },
		"checkpoints cut":     func(dir string) error { return os.Truncate(dir+"/"+signed, 100) },
		"checkpoints grown":   func(dir string) error { return grow(dir + "/" + signed) },
		"lock replaced":       func(dir string) error { return replace(dir + "/lock") },
		"folder renamed":      func(dir string) error { return os.Rename(dir, dir+"-elsewhere") },
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "journal")
			s := openFile(t, dir)
			audit.SetRoom(s, 50)
			j := open(t, s)
			require.NoError(t, j.Record(t.Context(), smallEvent(0)))
			require.NoError(t, touch(dir))
			after := files(t, filepath.Dir(dir))
			require.ErrorIs(t, j.Record(t.Context(), smallEvent(1)), audit.ErrPoisoned)
			require.ErrorIs(t, j.Record(t.Context(), smallEvent(1)), audit.ErrPoisoned, "a second time")
			require.Equal(t, after, files(t, filepath.Dir(dir)), "nothing was written or cut")
		})
	}
}

func grow(path string) error {
	content, err := os.ReadFile(path)
	return errors.Join(err, os.WriteFile(path, append(content, "of somebody else"...), 0o600))
}

// useRoom writes where the next entry would be written.
func useRoom(path string) error {
	content, err := os.ReadFile(path)
	end := audit.EntryOffsets(content, 0)
	if last := end[len(end)-1]; last+50 == len(content) {
		return errors.Join(err, os.WriteFile(path, append(content[:last], bytes.Repeat([]byte{0x42}, 50)...), 0o600))
	}
	return errors.New("there is no room")
}

// replace puts a copy in place of a file.
func replace(path string) error {
	content, err := os.ReadFile(path)
	return errors.Join(err, os.WriteFile(path+".copy", content, 0o600), os.Rename(path+".copy", path))
}

// A disk that was full and was cleared: the half of a write is taken back.
func TestFailedWriteIsTakenBack(t *testing.T) {
	dir := t.TempDir()
	full := false
	s, err := audit.OpenFileWith(dir, nil, nil, func(f *os.File, b []byte, at int64) (int, error) {
		if full {
			n, _ := f.WriteAt(b[:len(b)/2], at)
			return n, errors.New("no space left on device")
		}
		return f.WriteAt(b, at)
	})
	require.NoError(t, err)
	j := open(t, s)
	require.NoError(t, j.Record(t.Context(), smallEvent(0)))
	before := files(t, dir)
	full = true
	require.ErrorContains(t, j.Record(t.Context(), smallEvent(1)), "no space left")
	require.Equal(t, before, files(t, dir))
	full = false
	require.NoError(t, j.Record(t.Context(), smallEvent(1)))
	require.NoError(t, j.Close())
	require.NoError(t, s.Close())
	require.EqualValues(t, 2, verify(t, openFile(t, dir), j.verifier).Entries)
}

// flushes notes what is flushed, in order: files by name, folders by what they
// hold at the time.
type flushes struct{ list []string }

func (f *flushes) open(t *testing.T, dir string) *audit.File {
	t.Helper()
	s, err := audit.OpenFileWith(dir, func(file *os.File) error {
		f.list = append(f.list, filepath.Base(file.Name()))
		return file.Sync()
	}, func(dir string) error {
		entries, err := os.ReadDir(dir)
		for _, e := range entries {
			f.list = append(f.list, filepath.Base(dir)+"/"+e.Name())
		}
		return err
	}, nil)
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// A new file is flushed before it gets its name, and then its name is; so are the
// names of folders that were made for it.
func TestNewFilesAreFlushed(t *testing.T) {
	above := t.TempDir()
	var f flushes
	f.open(t, filepath.Join(above, "a", "b"))
	content := slices.Index(f.list, firstFile+".new")
	name := slices.Index(f.list, "b/"+firstFile)
	require.GreaterOrEqual(t, content, 0, "%v", f.list)
	require.Greater(t, name, content, "%v", f.list)
	content = slices.Index(f.list, signed+".new")
	name = slices.Index(f.list, "b/"+signed)
	require.GreaterOrEqual(t, content, 0, "%v", f.list)
	require.Greater(t, name, content, "%v", f.list)
	require.Contains(t, f.list, "a/b")
	require.Contains(t, f.list, filepath.Base(above)+"/a")
}

// What a killed process wrote is flushed before anything relies on it, be it only
// that an event is there already.
func TestFoundIsFlushed(t *testing.T) {
	dir := t.TempDir()
	s := openFile(t, dir)
	j := open(t, s)
	require.NoError(t, j.Record(t.Context(), smallEvent(0)))
	rows, err := s.Read(t.Context(), 0, 1)
	require.NoError(t, err)
	kill(t, s, j)
	var f flushes
	s = f.open(t, dir)
	require.Empty(t, f.list)
	head, err := s.Head(t.Context())
	require.NoError(t, err)
	again := rows[0]
	again.Seq = 1
	_, dup := errors.AsType[*audit.DuplicateError](s.Append(t.Context(), audit.Batch{After: head, Rows: []audit.Row{again}}))
	require.True(t, dup)
	require.Subset(t, f.list, []string{firstFile, signed, filepath.Base(dir) + "/" + firstFile})
}

// reentrant appends to the store when Find asks whether to go on.
type reentrant struct {
	context.Context
	do func()
}

func (r reentrant) Err() error {
	r.do()
	return nil
}

// A Find that takes long keeps nobody from recording.
func TestFindDoesNotBlockAppend(t *testing.T) {
	s := openFile(t, t.TempDir())
	j := open(t, s)
	require.NoError(t, j.Record(t.Context(), smallEvent(0)))
	recorded := false
	_, err := s.Find(reentrant{t.Context(), func() {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		recorded = j.Record(ctx, smallEvent(1)) == nil
	}}, audit.Query{Tenant: "acme", Limit: 10})
	require.NoError(t, err)
	require.True(t, recorded)
	require.NoError(t, j.Close())
}

// The sectors of the last batch reach the disk in any order. What is whole before
// the first that did not is kept; nobody was told of the batch.
func TestLastBatchTornInTheMiddle(t *testing.T) {
	dir, signer, verifier := fileHistory(t, 2)
	s := openFile(t, dir)
	all := files(t, dir)
	head, err := s.Head(t.Context())
	require.NoError(t, err)
	require.NoError(t, s.Append(t.Context(), audit.Batch{After: head, Rows: continued(t, s, 20)}))
	require.NoError(t, s.Close())
	after := files(t, dir)
	content := after[firstFile]
	offsets := audit.EntryOffsets(content, 0)
	require.Len(t, offsets, 23)
	for at := len(all[firstFile]) / 512 * 512; at < len(content); at += 512 {
		torn := maps.Clone(after)
		torn[firstFile] = slices.Clone(content)
		from, to := max(at, len(all[firstFile])), min(at+512, len(content))
		clear(torn[firstFile][from:to])
		s := openFile(t, folder(t, torn))
		r := verify(t, s, verifier)
		require.True(t, r.OK(), "%d: %s", at, r.Detail)
		whole := 0
		for whole+1 < len(offsets) && offsets[whole+1] <= from {
			whole++
		}
		require.EqualValues(t, whole, r.Entries, "up to %d", at)
		log, err := audit.New(t.Context(), s, journaltest.NewSealer(), signer, verifier, nil)
		require.NoError(t, err)
		require.NoError(t, log.Record(t.Context(), smallEvent(50)))
		require.NoError(t, log.Close())
		require.EqualValues(t, whole+1, verify(t, s, verifier).Entries)
		require.NoError(t, s.Close())
	}
}

// The same damage is damage where a later batch or a checkpoint says that the
// batch was acknowledged.
func TestDamageBeforeAnotherBatch(t *testing.T) {
	dir, signer, verifier := fileHistory(t, 1)
	s := openFile(t, dir)
	for range 3 {
		head, err := s.Head(t.Context())
		require.NoError(t, err)
		require.NoError(t, s.Append(t.Context(), audit.Batch{After: head, Rows: continued(t, s, 2)}))
	}
	require.NoError(t, s.Close())
	unsigned := files(t, dir)
	s = openFile(t, dir)
	log, err := audit.New(t.Context(), s, journaltest.NewSealer(), signer, verifier, nil)
	require.NoError(t, err)
	require.NoError(t, log.Close())
	require.NoError(t, s.Close())
	covered := files(t, dir)
	offsets := audit.EntryOffsets(unsigned[firstFile], 0)
	for seq := range int64(7) {
		for name, all := range map[string]map[string][]byte{"unsigned": unsigned, "covered": covered} {
			changed := maps.Clone(all)
			changed[firstFile] = slices.Clone(all[firstFile])
			changed[firstFile][offsets[seq]+40] ^= 1
			s := openFile(t, folder(t, changed))
			r := verify(t, s, verifier)
			require.NoError(t, s.Close())
			if name == "unsigned" && seq >= 5 {
				require.True(t, r.OK(), "entry %d: %s", seq, r.Detail)
				require.EqualValues(t, seq, r.Entries)
				continue
			}
			require.Equal(t, audit.Broken, r.Verdict, "entry %d, %s", seq, name)
			require.Equal(t, seq, r.At)
		}
	}
}

// continued returns n rows that continue the store.
func continued(t *testing.T, s *audit.File, n int) []audit.Row {
	t.Helper()
	head, err := s.Head(t.Context())
	require.NoError(t, err)
	there, err := s.Read(t.Context(), 0, int(head.Size))
	require.NoError(t, err)
	var records [][]byte
	for _, r := range there {
		records = append(records, r.Record)
	}
	for range n {
		last := slices.Clone(there[0].Record)
		seq := len(records)
		last[24] = byte(seq)
		last = bytes.Replace(last, []byte("event-0"), []byte(eventOf(seq)), 1)
		records = append(records, last)
	}
	rows := audit.Rows(head.Log, records)[head.Size:]
	for i := range rows {
		rows[i].Keys = there[0].Keys
		rows[i].Keys.Event = eventOf(int(rows[i].Seq))
	}
	return rows
}

func eventOf(seq int) string { return "event-" + string(rune('A'+seq)) }
