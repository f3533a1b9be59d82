package audit_test

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/mod/sumdb/note"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/internal/journaltest"
)

// readAll returns the bytes of all files below dir.
func readAll(t *testing.T, dir string) string {
	t.Helper()
	var all strings.Builder
	for _, content := range files(t, dir) {
		all.Write(content)
	}
	return all.String()
}

// files returns the content of the files in dir, by name.
func files(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	all := map[string][]byte{}
	require.NoError(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		all[filepath.Base(path)], err = os.ReadFile(path)
		return err
	}))
	return all
}

func folder(t *testing.T, content map[string][]byte) string {
	t.Helper()
	dir := t.TempDir()
	for name, b := range content {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), b, 0o600))
	}
	return dir
}

func openFile(t *testing.T, dir string) *audit.File {
	t.Helper()
	s, err := audit.OpenFile(dir)
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// fileHistory makes a folder with n small entries in files of a few each.
func fileHistory(t *testing.T, n int) (string, note.Signer, note.Verifier) {
	t.Helper()
	signer, verifier := journaltest.Signer(t)
	dir := t.TempDir()
	for i := 0; i < n; i += 3 {
		s := openFile(t, dir)
		audit.SetMaxSegment(s, 1000)
		log, err := audit.New(t.Context(), s, journaltest.NewSealer(), signer, verifier, nil)
		require.NoError(t, err)
		for k := i; k < min(i+3, n); k++ {
			require.NoError(t, log.Record(t.Context(), smallEvent(k)))
		}
		require.NoError(t, log.Close())
		require.NoError(t, s.Close())
	}
	return dir, signer, verifier
}

func smallEvent(i int) crmguard.Event {
	e := journaltest.Event(i)
	e.Private, e.Fields, e.Request, e.Policy = nil, nil, "", ""
	return e
}

const (
	firstFile = "00000000000000000000.entries"
	signed    = "checkpoints"
)

func TestFileIsReopened(t *testing.T) {
	dir, _, verifier := fileHistory(t, 20)
	require.Greater(t, len(files(t, dir)), 4, "there are several files")
	s := openFile(t, dir)
	r := verify(t, s, verifier)
	require.True(t, r.OK(), r.Detail)
	require.EqualValues(t, 20, r.Entries)
	for name := range files(t, dir) {
		info, err := os.Stat(filepath.Join(dir, name))
		require.NoError(t, err)
		require.Zero(t, info.Mode().Perm()&0o077, "%s is readable by others", name)
	}
}

func TestFileRemembersWhatItHolds(t *testing.T) {
	dir, signer, verifier := fileHistory(t, 5)
	s := openFile(t, dir)
	log, err := audit.New(t.Context(), s, journaltest.NewSealer(), signer, verifier, nil)
	require.NoError(t, err)
	for i := range 7 {
		require.NoError(t, log.Record(t.Context(), smallEvent(i)))
	}
	require.NoError(t, log.Close())
	require.EqualValues(t, 7, verify(t, s, verifier).Entries, "five were there already")
}

func TestFileLock(t *testing.T) {
	dir := t.TempDir()
	s := openFile(t, dir)
	_, err := audit.OpenFile(dir)
	require.ErrorContains(t, err, "in use")
	require.NoError(t, s.Close())
	require.NoError(t, s.Close(), "a second time")
	_, err = s.Read(t.Context(), 0, 1)
	require.ErrorIs(t, err, audit.ErrClosed)
	require.ErrorIs(t, s.Append(t.Context(), audit.Batch{}), audit.ErrClosed)
	openFile(t, dir)
}

// Every byte of every file is changed in turn. The verdict names the entry in
// which the byte lies.
func TestEveryByteOfTheFilesCounts(t *testing.T) {
	dir, _, verifier := fileHistory(t, 5)
	all := files(t, dir)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		content := all[name]
		path := filepath.Join(dir, name)
		for i := range content {
			changed := slices.Clone(content)
			changed[i] ^= 1 << (i % 8)
			at := int64(-1)
			if first, ok := strings.CutSuffix(name, ".entries"); ok {
				at = entryAt(t, first, content, i)
			}
			require.NoError(t, os.WriteFile(path, changed, 0o600))
			s, err := audit.OpenFile(dir)
			require.NoError(t, err)
			r := verify(t, s, verifier)
			require.NoError(t, s.Close())
			require.False(t, r.OK(), "byte %d of %s: %s", i, name, r.Detail)
			if at >= 0 {
				require.Equal(t, audit.Broken, r.Verdict, "byte %d of %s: %s", i, name, r.Detail)
				require.Equal(t, at, r.At, "byte %d of %s: %s", i, name, r.Detail)
			}
		}
		require.NoError(t, os.WriteFile(path, content, 0o600))
	}
}

// entryAt returns the number of the entry in which a byte lies, or of the first
// if it lies in the head of the file.
func entryAt(t *testing.T, first string, content []byte, i int) int64 {
	t.Helper()
	seq := int64(0)
	for _, digit := range first {
		seq = seq*10 + int64(digit-'0')
	}
	for n, offset := range audit.EntryOffsets(content, seq) {
		if offset > i {
			return max(seq, seq+int64(n)-1)
		}
	}
	return seq
}

// The same with the checksums made right again, as somebody would who knows the
// format.
func TestEveryByteUnderRightChecksums(t *testing.T) {
	dir, _, verifier := fileHistory(t, 3)
	path := filepath.Join(dir, firstFile)
	content := files(t, dir)[firstFile]
	offsets := audit.EntryOffsets(content, 0)
	for n := range len(offsets) - 1 {
		for i := offsets[n] + 12; i < offsets[n+1]-4; i++ {
			changed := slices.Clone(content)
			changed[i] ^= 1
			audit.Reframe(changed[offsets[n]:])
			require.NoError(t, os.WriteFile(path, changed, 0o600))
			s, err := audit.OpenFile(dir)
			require.NoError(t, err)
			r := verify(t, s, verifier)
			require.NoError(t, s.Close())
			require.Equal(t, audit.Broken, r.Verdict, "byte %d: %s", i, r.Detail)
			require.EqualValues(t, n, r.At, "byte %d: %s", i, r.Detail)
		}
	}
}

// A tail that was cut is either what a crash leaves, which nobody was told of, or
// contradicts a checkpoint.
func TestTailCut(t *testing.T) {
	dir, signer, verifier := fileHistory(t, 3)
	all := files(t, dir)
	last := slices.Max(slices.DeleteFunc(slices.Collect(maps.Keys(all)), func(n string) bool { return !strings.HasSuffix(n, ".entries") }))
	content := all[last]
	for cut := range content {
		require.NoError(t, os.WriteFile(filepath.Join(dir, last), content[:cut], 0o600))
		s, err := audit.OpenFile(dir)
		require.NoError(t, err)
		r := verify(t, s, verifier)
		require.False(t, r.OK(), "%d bytes left", cut)
		require.Contains(t, []audit.Verdict{audit.Truncated, audit.Broken}, r.Verdict)
		_, err = audit.New(t.Context(), s, journaltest.NewSealer(), signer, verifier, nil)
		require.Error(t, err)
		require.NoError(t, s.Close())
		require.Equal(t, content[:cut], files(t, dir)[last], "the evidence is left as it is")
	}
}

// What a crash leaves of the last write is dropped, and the log goes on.
func TestTornWrite(t *testing.T) {
	dir, signer, verifier := fileHistory(t, 2)
	before := files(t, dir)
	s := openFile(t, dir)
	log, err := audit.New(t.Context(), s, journaltest.NewSealer(), signer, verifier, nil)
	require.NoError(t, err)
	require.NoError(t, log.Record(t.Context(), smallEvent(2)))
	require.NoError(t, s.Close()) // before the log, so that no checkpoint is signed
	require.Error(t, log.Close())
	after := files(t, dir)[firstFile]
	require.Greater(t, len(after), len(before[firstFile]))

	tails := map[string][]byte{"zeros": append(slices.Clone(before[firstFile]), make([]byte, 2000)...)}
	for n := len(before[firstFile]); n < len(after); n++ {
		tails["cut"] = after[:n]
		if n%512 == 0 { // the file had grown, but not all of it had been written
			tails["grown"] = append(slices.Clone(after[:n]), make([]byte, len(after)-n)...)
		}
		for name, tail := range tails {
			torn := maps.Clone(before)
			torn[firstFile] = tail
			s := openFile(t, folder(t, torn))
			require.EqualValues(t, 2, verify(t, s, verifier).Entries, name)
			log, err := audit.New(t.Context(), s, journaltest.NewSealer(), signer, verifier, nil)
			require.NoError(t, err, name)
			require.NoError(t, log.Record(t.Context(), smallEvent(5)))
			require.NoError(t, log.Close())
			r := verify(t, s, verifier)
			require.True(t, r.OK(), "%s: %s", name, r.Detail)
			require.EqualValues(t, 3, r.Entries)
			require.NoError(t, s.Close())
		}
	}
}

func TestFilesMissing(t *testing.T) {
	dir, _, verifier := fileHistory(t, 20)
	all := files(t, dir)
	for name := range all {
		if name == "lock" {
			continue
		}
		left := maps.Clone(all)
		delete(left, name)
		s := openFile(t, folder(t, left))
		r := verify(t, s, verifier)
		require.False(t, r.OK(), "without %s", name)
		require.NoError(t, s.Close())
	}
	s := openFile(t, folder(t, map[string][]byte{signed: all[signed]}))
	require.False(t, verify(t, s, verifier).OK(), "with the checkpoints alone")
}

// After a flush that failed nothing is acknowledged until the store is opened again.
func TestFailedFlushPoisons(t *testing.T) {
	dir := t.TempDir()
	s := openFile(t, dir)
	j := open(t, s)
	require.NoError(t, j.Record(t.Context(), smallEvent(0)))
	lost := errors.New("input/output error")
	audit.SetSync(s, func(*os.File) error { return lost })
	require.ErrorIs(t, j.Record(t.Context(), smallEvent(1)), lost)
	audit.SetSync(s, (*os.File).Sync)
	require.ErrorIs(t, j.Record(t.Context(), smallEvent(1)), audit.ErrPoisoned, "a second flush that succeeds proves nothing")
	require.ErrorIs(t, j.Close(), audit.ErrPoisoned)
	require.NoError(t, s.Close())
	require.True(t, verify(t, openFile(t, dir), j.verifier).OK())
}

func TestRemovedWhileInUse(t *testing.T) {
	dir := t.TempDir()
	s := openFile(t, dir)
	j := open(t, s)
	require.NoError(t, j.Record(t.Context(), smallEvent(0)))
	require.NoError(t, os.Remove(filepath.Join(dir, firstFile)))
	require.ErrorIs(t, j.Record(t.Context(), smallEvent(1)), audit.ErrPoisoned, "nothing is acknowledged into a file that has no name")
}

// disk is what would be left after a power cut: of each file what was flushed.
type disk struct {
	mu    sync.Mutex
	files map[string][]byte
}

func (d *disk) sync(f *os.File) error {
	content, err := os.ReadFile(f.Name())
	d.mu.Lock()
	defer d.mu.Unlock()
	d.files[filepath.Base(f.Name())] = content
	return err
}

// acknowledgedSurvive records and returns how many acknowledged entries would not
// survive a power cut right after.
func acknowledgedSurvive(t *testing.T, flush func(d *disk) func(*os.File) error) (lost int) {
	t.Helper()
	dir := t.TempDir()
	s := openFile(t, dir)
	d := &disk{files: files(t, dir)}
	audit.SetSync(s, flush(d))
	j := open(t, s)
	for i := range 20 {
		require.NoError(t, j.Record(t.Context(), smallEvent(i)))
		d.mu.Lock()
		left := maps.Clone(d.files)
		d.mu.Unlock()
		after := openFile(t, folder(t, left))
		head, err := after.Head(t.Context())
		require.NoError(t, err)
		if head.Size != int64(i+1) {
			lost++
		}
		require.NoError(t, after.Close())
	}
	return lost
}

func TestAcknowledgedIsDurable(t *testing.T) {
	require.Zero(t, acknowledgedSurvive(t, func(d *disk) func(*os.File) error { return d.sync }))
	lost := acknowledgedSurvive(t, func(*disk) func(*os.File) error {
		return func(*os.File) error { return nil } // planted fault: acknowledged before the flush
	})
	require.Equal(t, 20, lost, "the check above sees entries that were not flushed")
}

func FuzzScanSegment(f *testing.F) {
	dir := f.TempDir()
	s, err := audit.OpenFile(dir)
	require.NoError(f, err)
	signer, verifier := journaltest.Signer(f)
	log, err := audit.New(f.Context(), s, journaltest.NewSealer(), signer, verifier, nil)
	require.NoError(f, err)
	for i := range 3 {
		require.NoError(f, log.Record(f.Context(), journaltest.Event(i)))
	}
	require.NoError(f, log.Close())
	require.NoError(f, s.Close())
	good, err := os.ReadFile(filepath.Join(dir, firstFile))
	require.NoError(f, err)
	f.Add(good)
	f.Add(good[:len(good)-1])
	f.Add(good[:10])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, content []byte) {
		entries, damaged, _ := audit.ScanSegment(content, 0)
		if damaged >= 0 && damaged != int64(entries) {
			t.Errorf("damaged at %d after %d entries", damaged, entries)
		}
	})
}
