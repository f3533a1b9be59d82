package audit_test

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/mod/sumdb/note"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/internal/journaltest"
)

// faultyDisk counts what a store does to files, has one operation fail, and knows what a
// power cut would leave: of each file what was flushed last, under the names that the
// folder had when that was flushed last. What a failed flush did not flush is still
// read, and never flushed, whatever is said about a second flush, until it is written
// again: that is how systems cache files.
type faultyDisk struct {
	dir    string
	failAt int   // the operation that fails, from 1; 0: none
	err    error // with which
	gone   bool  // all operations after it fail, too

	done  int
	list  []string // what was done
	files map[*os.File]*inode
	names map[string]*inode // now
	kept  map[string]*inode // when the folder was flushed
}

type inode struct {
	path    string // where its content really is
	flushed []byte
	lost    [2]int // from, to
}

// write forgets a loss, or the beginning or end of one, that is written again.
func (n *inode) write(from, to int) {
	switch lost := &n.lost; {
	case from <= lost[0] && to >= lost[1]:
		*lost = [2]int{}
	case from <= lost[0]:
		lost[0] = max(lost[0], to)
	case to >= lost[1]:
		lost[1] = min(lost[1], from)
	}
}

func (n *inode) lose() {
	content, _ := os.ReadFile(n.path)
	same := 0
	for same < min(len(content), len(n.flushed)) && content[same] == n.flushed[same] {
		same++
	}
	n.lost = [2]int{same, len(content)}
}

func newFaultyDisk(dir string, content map[string][]byte) *faultyDisk {
	d := &faultyDisk{dir: dir, files: map[*os.File]*inode{}, names: map[string]*inode{}}
	for name, b := range content {
		d.names[name] = &inode{path: filepath.Join(dir, name), flushed: b}
	}
	d.kept = maps.Clone(d.names)
	return d
}

// step is the gate through which every operation goes.
func (d *faultyDisk) step(what, path string) error {
	d.done++
	d.list = append(d.list, what+" "+filepath.Base(path))
	if d.failAt > 0 && (d.done == d.failAt || d.gone && d.done > d.failAt) {
		return d.err
	}
	return nil
}

func (d *faultyDisk) failed() bool { return d.failAt > 0 && d.done >= d.failAt }

func (d *faultyDisk) ops() audit.Ops {
	return audit.Ops{
		Sync: func(f *os.File) error {
			n := d.files[f]
			if err := d.step("flush", f.Name()); err != nil {
				n.lose()
				return err
			}
			content, err := os.ReadFile(n.path)
			if n.lost[1] == 0 {
				n.flushed = content
			}
			return err
		},
		SyncDir: func(dir string) error {
			if err := d.step("flush", dir); err != nil || dir != d.dir {
				return err
			}
			d.kept = maps.Clone(d.names)
			return nil
		},
		WriteAt: func(f *os.File, b []byte, at int64) (int, error) {
			if err := d.step("write", f.Name()); err != nil {
				n, _ := f.WriteAt(b[:len(b)/2], at)
				return n, err
			}
			d.files[f].write(int(at), int(at)+len(b))
			return f.WriteAt(b, at)
		},
		Open: func(path string, flag int, mode os.FileMode) (*os.File, error) {
			if err := d.step("open", path); err != nil {
				return nil, err
			}
			f, err := os.OpenFile(path, flag, mode)
			if err != nil {
				return nil, err
			}
			n := d.names[filepath.Base(path)]
			if n == nil {
				n = &inode{path: path}
				d.names[filepath.Base(path)] = n
			}
			if flag&os.O_TRUNC != 0 {
				n.lost = [2]int{}
			}
			d.files[f] = n
			return f, nil
		},
		Truncate: func(f *os.File, size int64) error {
			if err := d.step("truncate", f.Name()); err != nil {
				return err
			}
			d.files[f].write(int(size), d.files[f].lost[1])
			return f.Truncate(size)
		},
		Rename: func(from, to string) error {
			if err := d.step("rename", from); err != nil {
				return err
			}
			if err := os.Rename(from, to); err != nil {
				return err
			}
			n := d.names[filepath.Base(from)]
			delete(d.names, filepath.Base(from))
			n.path, d.names[filepath.Base(to)] = to, n
			return nil
		},
		Remove: func(path string) error {
			if err := d.step("remove", path); err != nil {
				return err
			}
			delete(d.names, filepath.Base(path))
			return os.Remove(path)
		},
		MakeDirs: func(path string, mode os.FileMode) error {
			if err := d.step("make", path); err != nil {
				return err
			}
			return os.MkdirAll(path, mode)
		},
	}
}

// afterPowerCut is what is left on the disk.
func (d *faultyDisk) afterPowerCut() map[string][]byte {
	left := map[string][]byte{}
	for name, n := range d.kept {
		left[name] = n.flushed
	}
	return left
}

// diskLife is what a test does with a journal: it returns the IDs of what was
// acknowledged. It goes on after errors.
type diskLife func(t *testing.T, d *faultyDisk) (acknowledged []string)

// Every operation of the file store fails in turn, once with EIO, and for good with
// ENOSPC; what was acknowledged is there, once, for the next process and
// after a power cut, and the journal goes on.
func everyFault(t *testing.T, content map[string][]byte, verifier note.Verifier, signer note.Signer, clock func() time.Time, life diskLife) {
	t.Helper()
	count := newFaultyDisk(start(t, content), content)
	all := life(t, count)
	require.NotEmpty(t, all)
	check := func(t *testing.T, d *faultyDisk, files map[string][]byte, acknowledged []string) {
		t.Helper()
		delete(files, "lock")
		s := openFile(t, folder(t, files))
		audit.SetSync(s, func(*os.File) error { return nil })
		what := fmt.Sprintf("operation %d of %d fails: %s", d.failAt, count.done, d.list[min(d.failAt, len(d.list))-1])
		log, err := audit.New(t.Context(), s, journaltest.NewSealer(), signer, verifier, &audit.Options{Clock: clock})
		require.NoError(t, err, what)
		require.NoError(t, log.Record(t.Context(), smallEvent(900_000)), what)
		require.NoError(t, log.Close(), what)
		there := map[string]int{}
		rows, err := s.Read(t.Context(), 0, 1<<20)
		require.NoError(t, err, what)
		for _, r := range rows {
			key := fmt.Sprint(r.Keys.Tenant, r.Keys.Event, r.Keys.Outcome)
			there[key]++
			require.Equal(t, 1, there[key], what)
		}
		for _, id := range acknowledged {
			require.Equal(t, 1, there[fmt.Sprint("acme", id, crmguard.Done)], "%s: %s", id, what)
		}
		r, err := audit.VerifyStore(t.Context(), s, verifier, &audit.VerifyOptions{Clock: clock})
		require.NoError(t, err)
		require.True(t, r.OK(), "%s: %s", what, r.Detail)
		require.NoError(t, s.Close())
	}
	kinds := map[string]bool{}
	for at := 1; at <= count.done; at++ {
		kinds[regexp.MustCompile(` .*`).ReplaceAllString(count.list[at-1], "")] = true
		for _, d := range []*faultyDisk{{err: syscall.EIO}, {err: syscall.ENOSPC, gone: true}} {
			fresh := newFaultyDisk(start(t, content), content)
			fresh.failAt, fresh.err, fresh.gone = at, d.err, d.gone
			acknowledged := life(t, fresh)
			require.True(t, fresh.failed())
			if _, err := os.Stat(fresh.dir); err == nil {
				check(t, fresh, files(t, fresh.dir), acknowledged)
			}
			check(t, fresh, fresh.afterPowerCut(), acknowledged)
		}
	}
	t.Logf("%d operations: %v", count.done, slices.Sorted(maps.Keys(kinds)))
}

// start copies content into a folder that is not there yet if there is none.
func start(t *testing.T, content map[string][]byte) string {
	t.Helper()
	if len(content) == 0 {
		return filepath.Join(t.TempDir(), "a", "journal")
	}
	return folder(t, content)
}

func TestEveryOperationFails(t *testing.T) { everyOperationFails(t, 1<<20) }

// Files get room for more than one entry here, which is used, given back at the end of
// a file, and left by those that are not closed.
func TestEveryOperationWithRoomFails(t *testing.T) { everyOperationFails(t, 300) }

func everyOperationFails(t *testing.T, room int64) {
	t.Helper()
	signer, verifier := journaltest.Signer(t)
	everyFault(t, nil, verifier, signer, time.Now, func(t *testing.T, d *faultyDisk) (acknowledged []string) {
		t.Helper()
		for process := range 2 {
			s, err := audit.OpenFileOps(d.dir, d.ops())
			if err != nil {
				require.ErrorIs(t, err, d.err)
				continue
			}
			audit.SetMaxSegment(s, 700)
			audit.SetRoom(s, room)
			log, err := audit.New(t.Context(), s, journaltest.NewSealer(), signer, verifier, nil)
			if err != nil {
				require.ErrorIs(t, err, d.err)
				require.NoError(t, s.Close())
				continue
			}
			for i := range 3 {
				e := smallEvent(10*process + i)
				err := log.Record(t.Context(), e)
				if err != nil {
					require.True(t, errors.Is(err, d.err) || errors.Is(err, audit.ErrPoisoned), "%v", err)
					err = log.Record(t.Context(), e) // as a host does
				}
				if err == nil {
					acknowledged = append(acknowledged, e.ID)
				}
			}
			_ = log.Close()
			require.NoError(t, s.Close())
		}
		return acknowledged
	})
}

func TestEveryOperationOfAPruneFails(t *testing.T) {
	dir := t.TempDir()
	s := openFile(t, dir)
	audit.SetMaxSegment(s, 60_000)
	audit.SetSync(s, func(*os.File) error { return nil })
	a := days(t, s, 2)
	require.NoError(t, a.Close())
	require.NoError(t, s.Close())
	content := files(t, dir)
	delete(content, "lock")
	clock := func() time.Time { return a.now }
	everyFault(t, content, a.verifier, a.signer, clock, func(t *testing.T, d *faultyDisk) (acknowledged []string) {
		t.Helper()
		s, err := audit.OpenFileOps(d.dir, d.ops())
		if err != nil {
			require.ErrorIs(t, err, d.err)
			return nil
		}
		audit.SetRoom(s, 1000)
		log, err := audit.New(t.Context(), s, journaltest.NewSealer(), a.signer, a.verifier, &audit.Options{Clock: clock})
		if err != nil {
			require.ErrorIs(t, err, d.err)
			require.NoError(t, s.Close())
			return nil
		}
		_, _ = log.Prune(admin(t), firstDay.AddDate(0, 0, 1)) // it may fail anywhere
		for i := range 2 {
			e := smallEvent(800_000 + i)
			if log.Record(t.Context(), e) == nil {
				acknowledged = append(acknowledged, e.ID)
			}
		}
		_ = log.Close()
		require.NoError(t, s.Close())
		if d.failAt == 0 {
			require.NotContains(t, files(t, d.dir), firstFile, "it was pruned")
		}
		return acknowledged
	})
}

// Nothing changes files without going through what the tests above have fail.
func TestEveryOperationGoesThroughOps(t *testing.T) {
	calls := regexp.MustCompile(`\bos\.(OpenFile|Create\w*|Rename|Remove\w*|Mkdir\w*|WriteFile|Truncate|Link|Symlink)\(|\.(Write|WriteString|WriteAt|WriteTo|ReadFrom|Sync|Truncate)\(`)
	var found []string
	for _, pattern := range []string{"file*.go", "segment.go", "frame.go", "spool*.go", "anchorfile.go"} {
		names, err := filepath.Glob(pattern)
		require.NoError(t, err)
		for _, name := range names {
			if regexp.MustCompile(`_test\.go$`).MatchString(name) {
				continue
			}
			source, err := os.ReadFile(name)
			require.NoError(t, err)
			for _, call := range calls.FindAll(source, -1) {
				found = append(found, name+": "+string(call))
			}
		}
	}
	for _, call := range found {
		require.Contains(t, []string{"file_unix.go: os.OpenFile(", "file_other.go: os.OpenFile(", "file_unix.go: .Sync("}, call, "the lock, which holds nothing, and the flush of a folder")
	}
	require.NotEmpty(t, found)
}

// A planted fault: a store that takes a second flush for a proof loses entries, and
// the check above sees it.
func TestPlantedSecondFlush(t *testing.T) {
	d := newFaultyDisk(filepath.Join(t.TempDir(), "journal"), nil)
	ops := d.ops()
	flush := ops.Sync
	ops.Sync = func(f *os.File) error {
		if err := flush(f); err == nil {
			return nil
		}
		return flush(f)
	}
	s, err := audit.OpenFileOps(d.dir, ops)
	require.NoError(t, err)
	j := open(t, s)
	require.NoError(t, j.Record(t.Context(), smallEvent(0)))
	d.failAt, d.err = d.done+2, io.ErrUnexpectedEOF // the write, and then the flush
	require.NoError(t, j.Record(t.Context(), smallEvent(1)))
	require.Equal(t, "flush "+firstFile, d.list[d.failAt-1])
	after := openFile(t, folder(t, d.afterPowerCut()))
	head, err := after.Head(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 1, head.Size, "the second entry was acknowledged")
}
