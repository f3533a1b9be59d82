package document

import (
	"context"
	"errors"
	"fmt"
	"io"

	"filippo.io/age"

	"github.com/crmguard/crmguard"
)

var (
	errSealer = errors.New("document: no sealer")
	errPlace  = errors.New("document: a file's place needs tenant, kind, record and field")
)

// Files encrypts files of clients. Each is bound to its place, whose Client may be
// empty for files of the company itself. Make one with [NewFiles]; it may be used
// concurrently.
type Files struct{ sealer crmguard.Sealer }

// NewFiles returns files whose keys are sealed by sealer, an encrypt.Keyring.
func NewFiles(sealer crmguard.Sealer) (*Files, error) {
	if err := usable(); err != nil {
		return nil, err
	}
	if sealer == nil {
		return nil, errSealer
	}
	return &Files{sealer}, nil
}

// Encrypt returns a writer that encrypts into dst in constant memory. The file is
// whole when Close has returned nil; one that was not closed is refused. Closing
// does not close dst.
func (f *Files) Encrypt(ctx context.Context, at crmguard.Place, dst io.Writer) (io.WriteCloser, error) {
	key, err := f.key(ctx, at)
	if err != nil {
		return nil, err
	}
	return encrypt(dst, key)
}

// Open reads a stored file of size bytes from any position, so that
// http.ServeContent can serve it. Its end and its length are authenticated when
// Open returns, each part when it is read. Like whatever opens a client's data it
// needs a subject in ctx, and the norm may refuse; erased clients are
// [crmguard.ErrErased].
func (f *Files) Open(ctx context.Context, at crmguard.Place, stored io.ReaderAt, size int64) (*io.SectionReader, error) {
	key, err := f.key(ctx, at)
	if err != nil {
		return nil, err
	}
	start := make([]byte, len(intro))
	if _, err := io.ReadFull(io.NewSectionReader(stored, 0, size), start); err != nil && !isEnd(err) {
		return nil, fmt.Errorf("document: %w", err)
	}
	if string(start) != intro {
		return nil, ErrMalformed
	}
	plain, n, err := age.DecryptReaderAt(stored, size, key)
	if err != nil {
		return nil, decryptError(err)
	}
	return io.NewSectionReader(plain, 0, n), nil
}

// Decrypt is [Files.Open] for what can only be read from start to end. What was
// read counts only after io.EOF: any other error says that the file was
// truncated or changed, and the part before it is not the file.
func (f *Files) Decrypt(ctx context.Context, at crmguard.Place, src io.Reader) (io.Reader, error) {
	key, err := f.key(ctx, at)
	if err != nil {
		return nil, err
	}
	return decrypt(src, key)
}

// Reencrypt copies a file, with a new key of its own that is sealed under the newest
// key of the client. A host that removes old versions of a client's key passes
// every file of the client through it first.
func (f *Files) Reencrypt(ctx context.Context, at crmguard.Place, dst io.Writer, src io.Reader) error {
	r, err := f.Decrypt(ctx, at, src)
	if err != nil {
		return err
	}
	w, err := f.Encrypt(ctx, at, dst)
	if err != nil {
		return err
	}
	return finish(w, r)
}

func (f *Files) key(ctx context.Context, at crmguard.Place) (*placeKey, error) {
	if err := usable(); err != nil {
		return nil, err
	}
	if at.Tenant == "" || at.Kind == "" || at.Record == "" || at.Field == "" {
		return nil, errPlace
	}
	return &placeKey{ctx, f.sealer, at}, nil
}

// finish copies r into w, whose Close says that it is whole, and so comes last and
// only if all went well.
func finish(w io.WriteCloser, r io.Reader) error {
	if _, err := io.Copy(w, r); err != nil {
		return fmt.Errorf("document: %w", err)
	}
	if err := w.Close(); err != nil {
		return fmt.Errorf("document: %w", err)
	}
	return nil
}

func isEnd(err error) bool { return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) }
