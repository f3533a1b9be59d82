package audit_test

import (
	"bytes"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/mod/sumdb/note"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/audittest"
	"github.com/crmguard/crmguard/audit/internal/journaltest"
)

func fileAnchor(t testing.TB, path string, v note.Verifier) *audit.FileAnchor {
	t.Helper()
	a, err := audit.NewFileAnchor(path, v)
	require.NoError(t, err)
	return a
}

// signedSizes are checkpoints of one log, of these sizes.
func signedSizes(t testing.TB, signer note.Signer, sizes ...int) [][]byte {
	t.Helper()
	list := make([][]byte, len(sizes))
	for i, size := range sizes {
		text := fmt.Sprintf("%s/%x\n%d\n%s\n", signer.Name(), [16]byte{1}, size, audit.Root([16]byte{1}, audit.Rows([16]byte{1}, make([][]byte, size))))
		var err error
		list[i], err = note.Sign(&note.Note{Text: text}, signer)
		require.NoError(t, err)
	}
	return list
}

func newestOf(t *testing.T, a audit.Anchor) (string, time.Time) {
	t.Helper()
	n, at, err := a.Newest(t.Context())
	require.NoError(t, err)
	return string(n), at
}

func TestFileAnchor(t *testing.T) {
	signer, verifier := journaltest.Signer(t)
	path := filepath.Join(t.TempDir(), "anchor")
	a := fileAnchor(t, path, verifier)
	require.Equal(t, "file "+path, a.String())
	n, at := newestOf(t, a)
	require.Empty(t, n, "there is no file yet")
	require.Zero(t, at)

	list := signedSizes(t, signer, 1, 5, 3, 5)
	for _, c := range list {
		require.NoError(t, a.Keep(t.Context(), c))
	}
	other := fileAnchor(t, path, verifier) // of another process
	n, at = newestOf(t, other)
	require.Equal(t, string(list[1]), n, "of the most entries")
	require.WithinDuration(t, time.Now(), at, time.Minute)
	var all [][]byte
	for c, err := range other.All(t.Context()) {
		require.NoError(t, err)
		all = append(all, c)
	}
	require.Equal(t, list, all, "every one, in the order in which they came")
	next, stop := iter.Pull2(other.All(t.Context())) // who stops early
	_, _, ok := next()
	require.True(t, ok)
	stop()
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())

	_, stranger := journaltest.Signer(t)
	require.Error(t, fileAnchor(t, path, stranger).Keep(t.Context(), list[0]), "what another key signed")
	require.Error(t, a.Keep(t.Context(), []byte("garbage")))
	_, err = audit.NewFileAnchor(path, nil)
	require.Error(t, err)
}

func TestFileAnchorDuties(t *testing.T) {
	audittest.RunAnchor(t, func(t *testing.T, v note.Verifier) audit.Anchor {
		return fileAnchor(t, filepath.Join(t.TempDir(), "anchor"), v)
	})
}

// What a crash cut short is not there, and is overwritten by the next.
func TestFileAnchorTornWrite(t *testing.T) {
	signer, verifier := journaltest.Signer(t)
	list := signedSizes(t, signer, 1, 2, 3)
	path := filepath.Join(t.TempDir(), "anchor")
	a := fileAnchor(t, path, verifier)
	require.NoError(t, a.Keep(t.Context(), list[0]))
	before, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NoError(t, a.Keep(t.Context(), list[1]))
	whole, err := os.ReadFile(path)
	require.NoError(t, err)
	for cut := len(before); cut < len(whole); cut++ {
		require.NoError(t, os.WriteFile(path, whole[:cut], 0o600))
		a := fileAnchor(t, path, verifier)
		n, _ := newestOf(t, a)
		require.Equal(t, string(list[0]), n, "cut at %d", cut)
		require.NoError(t, a.Keep(t.Context(), list[2]))
		n, _ = newestOf(t, a)
		require.Equal(t, string(list[2]), n)
	}
	for cut := range before { // a file that never got further than its first frame
		require.NoError(t, os.WriteFile(path, before[:cut], 0o600))
		a := fileAnchor(t, path, verifier)
		require.NoError(t, a.Keep(t.Context(), list[2]), "cut at %d", cut)
		n, _ := newestOf(t, a)
		require.Equal(t, string(list[2]), n)
	}
}

// A byte that was changed is damage: nothing is read or written any more, and the log
// says so.
func TestFileAnchorDamaged(t *testing.T) {
	signer, verifier := journaltest.Signer(t)
	list := signedSizes(t, signer, 1, 2)
	path := filepath.Join(t.TempDir(), "anchor")
	a := fileAnchor(t, path, verifier)
	for _, c := range list {
		require.NoError(t, a.Keep(t.Context(), c))
	}
	whole, err := os.ReadFile(path)
	require.NoError(t, err)
	for i := range whole {
		damaged := bytes.Clone(whole)
		damaged[i] ^= 1
		require.NoError(t, os.WriteFile(path, damaged, 0o600))
		a := fileAnchor(t, path, verifier)
		n, _, err := a.Newest(t.Context())
		if err == nil { // a length that points beyond the end looks like a torn write
			require.NotEqual(t, string(list[1]), string(n), "byte %d", i)
			continue
		}
		require.ErrorContains(t, a.Keep(t.Context(), list[1]), "damaged", "byte %d", i)
		after, err := os.ReadFile(path)
		require.NoError(t, err)
		require.Equal(t, damaged, after, "it is left as it is")
	}
}

// A file that changes behind the back of the process that writes it is not begun anew.
func TestFileAnchorTouched(t *testing.T) {
	for name, touch := range map[string]func(path string) error{
		"removed":  os.Remove,
		"replaced": replace,
		"cut":      func(path string) error { return os.Truncate(path, 50) },
		"emptied":  func(path string) error { return os.Truncate(path, 0) },
	} {
		t.Run(name, func(t *testing.T) {
			signer, verifier := journaltest.Signer(t)
			list := signedSizes(t, signer, 1, 2)
			path := filepath.Join(t.TempDir(), "anchor")
			a := fileAnchor(t, path, verifier)
			require.NoError(t, a.Keep(t.Context(), list[0]))
			require.NoError(t, touch(path))
			require.ErrorIs(t, a.Keep(t.Context(), list[1]), audit.ErrPoisoned)
			require.ErrorIs(t, a.Keep(t.Context(), list[1]), audit.ErrPoisoned, "a second time")
		})
	}
}

// What an attacker put into the file without the signing key is passed over.
func TestFileAnchorPlanted(t *testing.T) {
	signer, verifier := journaltest.Signer(t)
	stranger, strangers := journaltest.Signer(t)
	path := filepath.Join(t.TempDir(), "anchor")
	good := signedSizes(t, signer, 7)[0]
	require.NoError(t, fileAnchor(t, path, verifier).Keep(t.Context(), good))
	require.NoError(t, fileAnchor(t, path, strangers).Keep(t.Context(), signedSizes(t, stranger, 99)[0]))
	n, _ := newestOf(t, fileAnchor(t, path, verifier))
	require.Equal(t, string(good), n)
}

// Fifty writers share the file, each as another process would.
func TestFileAnchorShared(t *testing.T) {
	signer, verifier := journaltest.Signer(t)
	list := signedSizes(t, signer, make([]int, 50)...)
	path := filepath.Join(t.TempDir(), "anchor")
	var wg sync.WaitGroup
	var mu sync.Mutex
	done := 0
	for _, c := range list {
		wg.Go(func() {
			a, err := audit.NewFileAnchor(path, verifier)
			for err == nil && a.Keep(t.Context(), c) != nil { // another one has it
				time.Sleep(time.Millisecond)
			}
			mu.Lock()
			defer mu.Unlock()
			done++
		})
	}
	wg.Wait()
	n := 0
	for _, err := range fileAnchor(t, path, verifier).All(t.Context()) {
		require.NoError(t, err)
		n++
	}
	require.Equal(t, done, n)
	require.Equal(t, 50, n)
}

// A flush that fails leaves the file in doubt; a full disk is no such thing.
func TestFileAnchorDiskFails(t *testing.T) {
	signer, verifier := journaltest.Signer(t)
	list := signedSizes(t, signer, 1, 2)
	full, eio := errors.New("no space left on device"), errors.New("input/output error")

	a := fileAnchor(t, filepath.Join(t.TempDir(), "anchor"), verifier)
	audit.SetAnchorOps(a, nil, func(f *os.File, b []byte, at int64) (int, error) {
		_, err := f.WriteAt(b[:10], at)
		return 10, errors.Join(full, err)
	})
	require.ErrorIs(t, a.Keep(t.Context(), list[0]), full)
	audit.SetAnchorOps(a, nil, (*os.File).WriteAt)
	require.NoError(t, a.Keep(t.Context(), list[0]))

	audit.SetAnchorOps(a, func(*os.File) error { return eio }, nil)
	require.ErrorIs(t, a.Keep(t.Context(), list[1]), audit.ErrPoisoned)
	audit.SetAnchorOps(a, (*os.File).Sync, nil)
	require.ErrorIs(t, a.Keep(t.Context(), list[1]), audit.ErrPoisoned, "until it is opened anew")
}

const goldenAnchor = "testdata/anchor-v1"

func TestGoldenFileAnchor(t *testing.T) {
	content := files(t, golden)
	verifier, err := note.NewVerifier(string(bytes.TrimSpace(content["key.pub"])))
	require.NoError(t, err)
	if updating() {
		delete(content, "key.pub")
		require.NoError(t, os.RemoveAll(goldenAnchor))
		a := fileAnchor(t, goldenAnchor, verifier)
		list, err := openFile(t, folder(t, content)).Checkpoints(t.Context(), -1, 100)
		require.NoError(t, err)
		for _, c := range list {
			require.NoError(t, a.Keep(t.Context(), c.Note))
		}
	}
	n, at := newestOf(t, fileAnchor(t, goldenAnchor, verifier))
	size, err := audit.SizeOf([]byte(n))
	require.NoError(t, err)
	require.EqualValues(t, 5, size)
	require.Equal(t, 2026, at.Year())
}

func FuzzFileAnchor(f *testing.F) {
	signer, verifier := journaltest.Signer(f)
	path := filepath.Join(f.TempDir(), "anchor")
	for _, c := range signedSizes(f, signer, 1, 2) {
		require.NoError(f, fileAnchor(f, path, verifier).Keep(f.Context(), c))
	}
	good, err := os.ReadFile(path)
	require.NoError(f, err)
	f.Add(good)
	f.Add(good[:60])
	f.Add([]byte{})
	next := signedSizes(f, signer, 3)[0]
	f.Fuzz(func(t *testing.T, b []byte) {
		path := filepath.Join(t.TempDir(), "anchor")
		require.NoError(t, os.WriteFile(path, b, 0o600))
		a := fileAnchor(t, path, verifier)
		audit.SetAnchorOps(a, func(*os.File) error { return nil }, nil)
		_, _, err := a.Newest(t.Context())
		kept := a.Keep(t.Context(), next)
		require.Equal(t, err == nil, kept == nil, "%v, %v", err, kept)
		if err == nil {
			n, _ := newestOf(t, a)
			require.Equal(t, string(next), n)
		}
	})
}
