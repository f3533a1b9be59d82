package audit_test

import (
	"bytes"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/internal/journaltest"
)

// roomy opens a store whose files get room for a few entries when they hold as many.
func roomy(t *testing.T, dir string) *audit.File {
	t.Helper()
	s := openFile(t, dir)
	audit.SetRoom(s, 1000)
	return s
}

// A file in use ends with room. One that is full, or was closed, ends with its last
// entry; one whose process was killed is read, and written to, as if it did.
func TestRoom(t *testing.T) {
	dir := t.TempDir()
	s := roomy(t, dir)
	signer, verifier := journaltest.Signer(t)
	log, err := audit.New(t.Context(), s, journaltest.NewSealer(), signer, verifier, nil)
	require.NoError(t, err)
	var killed []map[string][]byte
	inRoom, longer := 0, 0
	for i := range 16 {
		if i == 12 {
			audit.SetMaxSegment(s, 2000)
		}
		before := len(files(t, dir)[firstFile])
		require.NoError(t, log.Record(t.Context(), smallEvent(i)))
		now := files(t, dir)
		killed = append(killed, now)
		if len(now[firstFile]) > before {
			longer++
		} else if i < 12 {
			inRoom++
		}
	}
	require.Greater(t, longer, 3)
	require.Greater(t, inRoom, 3)
	require.NoError(t, log.Close())
	require.NoError(t, s.Close())
	closed := files(t, dir)
	require.Len(t, closed, 4, "two files of entries")
	for name, content := range closed {
		require.False(t, bytes.HasSuffix(content, make([]byte, 8)), name)
	}
	left := folder(t, closed) // a planted fault: a new file begun without giving room back
	require.NoError(t, os.WriteFile(filepath.Join(left, firstFile), append(bytes.Clone(closed[firstFile]), make([]byte, 300)...), 0o600))
	require.Equal(t, audit.Broken, verify(t, openFile(t, left), verifier).Verdict)
	for i, content := range killed {
		dir := folder(t, content)
		s := roomy(t, dir)
		log, err := audit.New(t.Context(), s, journaltest.NewSealer(), signer, verifier, nil)
		require.NoError(t, err)
		require.NoError(t, log.Record(t.Context(), smallEvent(100)))
		require.NoError(t, log.Close())
		require.NoError(t, s.Close())
		s = openFile(t, dir)
		r := verify(t, s, verifier)
		require.True(t, r.OK(), r.Detail)
		require.EqualValues(t, i+2, r.Entries)
		require.NoError(t, s.Close())
	}
}

// A disk that has no room for more than the entries takes the entries.
func TestNoRoom(t *testing.T) {
	dir := t.TempDir()
	tried := 0
	s, err := audit.OpenFileWith(dir, nil, nil, func(f *os.File, b []byte, at int64) (int, error) {
		if len(b) == 100 {
			tried++
			n, _ := f.WriteAt(b[:len(b)-50], at)
			return n, syscall.ENOSPC
		}
		return f.WriteAt(b, at)
	})
	require.NoError(t, err)
	audit.SetRoom(s, 100)
	j := open(t, s)
	for i := range 4 {
		require.NoError(t, j.Record(t.Context(), smallEvent(i)))
	}
	require.Equal(t, 3, tried)
	require.False(t, bytes.HasSuffix(files(t, dir)[firstFile], make([]byte, 20)))
	require.NoError(t, j.Close())
	require.NoError(t, s.Close())
	require.EqualValues(t, 4, verify(t, openFile(t, dir), j.verifier).Entries)
}

// Whoever closes a store gives back no room in which somebody else has written.
func TestCloseAfterLockWasRemoved(t *testing.T) {
	dir := t.TempDir()
	first := roomy(t, dir)
	j := open(t, first)
	for i := range 4 {
		require.NoError(t, j.Record(t.Context(), smallEvent(i)))
	}
	require.NoError(t, os.Remove(filepath.Join(dir, "lock")))
	second := roomy(t, dir)
	head, err := second.Head(t.Context())
	require.NoError(t, err)
	require.NoError(t, second.Append(t.Context(), audit.Batch{After: head, Rows: continued(t, second, 2)}))
	after := files(t, dir)
	require.NoError(t, first.Close())
	require.Equal(t, after, files(t, dir))
	require.Error(t, j.Close())
}
