package encrypt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/insecurecleartextkeyset"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/tink"
)

// KeyFileError says why a key file is not used.
type KeyFileError struct {
	Path string
	Err  error
}

// Error names the file and the problem.
func (e *KeyFileError) Error() string { return "encrypt: key file " + e.Path + ": " + e.Err.Error() }

// Unwrap returns the problem.
func (e *KeyFileError) Unwrap() error { return e.Err }

// What is wrong with a key file.
var (
	ErrKeyFileExposed   = errors.New("others than its owner can read or replace it: chmod 600 the file and go-w its folder, and own both")
	ErrKeyFileInside    = errors.New("it lies inside the data folder: whoever takes the data would take the key")
	ErrKeyFileLinked    = errors.New("it has a second name, perhaps inside the data folder: remove that hard link")
	ErrKeyFileMalformed = errors.New("it is not a Tink keyset in JSON with an AEAD key: truncated, or another file")
)

// maxKeyFile is far above a keyset with many keys.
const maxKeyFile = 1 << 20

// OpenKeyFile returns the KEK in a file: a Tink keyset in JSON, in the clear, as
// tinkey makes them too. With create it makes the file, with mode 0600, and the
// folders above it, with 0700, when it does not exist: at installation only, or a
// keys folder that is not mounted becomes a new, empty one. A file that others can
// read or replace, that has a second name, or that lies inside dataDir once all
// symbolic links are followed, is refused, by a *[KeyFileError]. An empty dataDir is
// not checked. On systems without Unix permissions every file is refused.
//
// What was wrapped by another KEK is [ErrWrongKEK].
func OpenKeyFile(path, dataDir string, create bool) (tink.AEADWithContext, error) {
	kek, err := openKeyFile(path, dataDir, create)
	if err != nil {
		return nil, &KeyFileError{Path: path, Err: err}
	}
	return kek, nil
}

func openKeyFile(path, dataDir string, create bool) (tink.AEADWithContext, error) {
	// From here on only the resolved path is used: "link/../kek.json" is one file
	// to the eye and may be another to the system.
	path, err := resolve(path)
	if err != nil {
		return nil, err
	}
	if inside, err := within(path, dataDir); err != nil {
		return nil, err
	} else if inside {
		return nil, ErrKeyFileInside
	}
	if create {
		if err := createKeyFile(path); err != nil {
			return nil, err
		}
	}
	if info, err := os.Lstat(path); err == nil && !info.Mode().IsRegular() {
		return nil, ErrKeyFileMalformed // opening a pipe would wait
	}
	file, err := os.Open(path) //nolint:gosec // the host chooses the path
	if err != nil {
		return nil, pathless(err)
	}
	defer file.Close() //nolint:errcheck // nothing was written
	info, err := file.Stat()
	switch {
	case err != nil:
		return nil, pathless(err)
	case !info.Mode().IsRegular() || info.Size() > maxKeyFile:
		return nil, ErrKeyFileMalformed
	}
	if err := checkKeyFile(file, filepath.Dir(path)); err != nil {
		return nil, err
	}
	handle, err := insecurecleartextkeyset.Read(keyset.NewJSONReader(file))
	if err != nil {
		return nil, ErrKeyFileMalformed // Tink's error may quote the file
	}
	primitive, err := aead.New(handle)
	if err != nil {
		return nil, ErrKeyFileMalformed
	}
	return fileKEK{primitive}, nil
}

// createKeyFile writes a new keyset unless the file exists. It is complete before
// it has its name, and of two processes one wins.
func createKeyFile(path string) error {
	if _, err := os.Lstat(path); err == nil || !errors.Is(err, fs.ErrNotExist) {
		return pathless(err)
	}
	dir := filepath.Dir(path)
	if err := makeDir(dir); err != nil {
		return pathless(err)
	}
	handle, err := keyset.NewHandle(aead.AES256GCMKeyTemplate())
	if err != nil {
		return err
	}
	var text bytes.Buffer
	if err := insecurecleartextkeyset.Write(handle, keyset.NewJSONWriter(&text)); err != nil {
		return err
	}
	file, err := os.CreateTemp(dir, ".kek-*") // O_EXCL, mode 0600
	if err != nil {
		return pathless(err)
	}
	defer os.Remove(file.Name()) //nolint:errcheck // the file has its second name by then, or is of no use
	_, err = file.Write(text.Bytes())
	if err := errors.Join(err, file.Sync(), file.Close()); err != nil {
		return pathless(err)
	}
	if err := os.Link(file.Name(), path); err != nil && !errors.Is(err, fs.ErrExist) {
		return pathless(err)
	}
	return syncDir(dir)
}

// makeDir makes a folder and those above it, durably: a key that is gone after a
// power cut takes all data with it.
func makeDir(dir string) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	above := filepath.Dir(dir)
	if above != dir {
		if err := makeDir(above); err != nil {
			return err
		}
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return syncDir(above)
}

func syncDir(dir string) error {
	d, err := os.Open(dir) //nolint:gosec // the host chooses the path
	if err != nil {
		return pathless(err)
	}
	return errors.Join(d.Sync(), d.Close())
}

// within reports whether path, which is resolved, lies inside dir, symbolic links
// followed. Neither need exist yet.
func within(path, dir string) (bool, error) {
	if dir == "" {
		return false, nil
	}
	dir, err := resolve(dir)
	if err != nil {
		return false, err
	}
	relative, err := filepath.Rel(dir, path)
	if err != nil {
		return false, err
	}
	return relative != ".." && !strings.HasPrefix(relative, ".."+string(filepath.Separator)), nil
}

// resolve follows the links of the part of a path that exists.
func resolve(path string) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	for rest := ""; ; {
		resolved, err := filepath.EvalSymlinks(path)
		if err == nil {
			return filepath.Join(resolved, rest), nil
		}
		// A link to nowhere is not "a part that does not exist yet", and what another
		// process has made meanwhile is there now.
		info, statErr := os.Lstat(path)
		switch {
		case !errors.Is(err, fs.ErrNotExist), statErr == nil && info.Mode()&fs.ModeSymlink != 0:
			return "", pathless(err)
		case statErr == nil:
			continue
		}
		above := filepath.Dir(path)
		if above == path {
			return "", pathless(err)
		}
		rest = filepath.Join(filepath.Base(path), rest)
		path = above
	}
}

// pathless drops the path, which [KeyFileError] names already.
func pathless(err error) error {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return fmt.Errorf("%s: %w", e.Op, e.Err)
	}
	return err
}

type fileKEK struct{ aead tink.AEAD }

func (k fileKEK) String() string   { return "encrypt.KEK[redacted]" }
func (k fileKEK) GoString() string { return k.String() }

func (k fileKEK) EncryptWithContext(_ context.Context, plaintext, associatedData []byte) ([]byte, error) {
	return k.aead.Encrypt(plaintext, associatedData)
}

func (k fileKEK) DecryptWithContext(_ context.Context, ciphertext, associatedData []byte) ([]byte, error) {
	plaintext, err := k.aead.Decrypt(ciphertext, associatedData)
	if err != nil {
		return nil, ErrWrongKEK
	}
	return plaintext, nil
}
