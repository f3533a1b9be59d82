package document_test

import (
	"bytes"
	"crypto/sha256"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/crmguardtest"
	"github.com/crmguard/crmguard/encrypt/document"
)

const heapBound = 2 << 20

// generated is a source of bytes that cost no memory.
type generated struct{ left int64 }

func (g *generated) Read(p []byte) (int, error) {
	if g.left == 0 {
		return 0, io.EOF
	}
	n := int(min(int64(len(p)), g.left))
	for i := range p[:n] {
		p[i] = byte(g.left >> (i % 8))
	}
	g.left -= int64(n)
	return n, nil
}

// watched notes how far the heap grows while a stream is read.
type watched struct {
	io.Reader
	read, next   int64
	before, most uint64
}

func watch(r io.Reader) *watched { return &watched{Reader: r, before: live()} }

func (w *watched) Read(p []byte) (int, error) {
	if w.read >= w.next {
		w.most = max(w.most, live())
		w.next = w.read + 1<<20
	}
	n, err := w.Reader.Read(p)
	w.read += int64(n)
	return n, err
}

func (w *watched) grown() int64 { return int64(w.most) - int64(w.before) }

// live is the heap after a collection.
func live() uint64 {
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return stats.HeapAlloc
}

func TestFileStreamsInConstantMemory(t *testing.T) {
	const size = 64 << 20
	files := newFiles(t, crmguardtest.NewKeys())
	source, written := watch(&generated{left: size}), sha256.New()
	r, w := io.Pipe()
	go func() {
		_ = w.CloseWithError(func() error {
			enc, err := files.Encrypt(asAnna(t), attachment, w)
			if err != nil {
				return err
			}
			if _, err := io.Copy(enc, io.TeeReader(source, written)); err != nil {
				return err
			}
			return enc.Close()
		}())
	}()
	plain, err := files.Decrypt(asAnna(t), attachment, r)
	require.NoError(t, err)
	got := sha256.New()
	n, err := io.Copy(got, plain)
	require.NoError(t, err)
	require.EqualValues(t, size, n)
	require.Equal(t, written.Sum(nil), got.Sum(nil))
	t.Logf("%d MiB, heap at most %d KiB above", size>>20, source.grown()>>10)
	require.Less(t, source.grown(), int64(heapBound))
}

func TestLetterStreamsInConstantMemory(t *testing.T) {
	const size = 64 << 20
	anna := person(t, "anna")
	folder := t.TempDir()
	stored, err := os.Create(filepath.Join(folder, "letter.age"))
	require.NoError(t, err)
	defer func() { _ = stored.Close() }()
	var signature bytes.Buffer
	source := watch(&generated{left: size})
	require.NoError(t, document.Seal(stored, &signature, source, anna, "c-17", anna.Person()))
	require.Less(t, source.grown(), int64(heapBound))

	_, err = stored.Seek(0, io.SeekStart)
	require.NoError(t, err)
	back := watch(stored)
	path := filepath.Join(folder, "letter")
	require.NoError(t, document.OpenFile(path, back, &signature, anna, anna.Person(), "c-17"))
	require.Less(t, back.grown(), int64(heapBound))
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.EqualValues(t, size, info.Size())
}

// The planted fault: what keeps the stream in memory is noticed.
func TestPlantedFaultOfMemory(t *testing.T) {
	source := watch(&generated{left: 16 << 20})
	kept, err := io.ReadAll(source)
	require.NoError(t, err)
	require.Greater(t, source.grown(), int64(heapBound))
	require.Len(t, kept, 16<<20)
}
