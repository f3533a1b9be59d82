package encrypt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/tink-crypto/tink-go/v2/insecurecleartextkeyset"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/tink"
)

// KeyFileError says why a key file is not used.
type KeyFileError struct {
	Path string
	Err  error
}

// Error names the file and the problem, and the package once.
func (e *KeyFileError) Error() string {
	return "encrypt: key file " + e.Path + ": " + strings.TrimPrefix(e.Err.Error(), "encrypt: ")
}

// Unwrap returns the problem.
func (e *KeyFileError) Unwrap() error { return e.Err }

// What is wrong with a key file.
var (
	ErrKeyFileExposed   = errors.New("encrypt: others than its owner can read or replace it: chmod 600 the file and go-w its folder, and own both")
	ErrKeyFileInside    = errors.New("encrypt: it lies inside the data folder: whoever takes the data would take the key")
	ErrKeyFileLinked    = errors.New("encrypt: it has a second name, perhaps inside the data folder: remove that hard link")
	ErrKeyFileMalformed = errors.New("encrypt: it is not a Tink keyset in JSON with an AEAD key, or not sealed as a passphrase file is: truncated, or another file")
)

// maxKeyFile is far above a keyset with many keys.
const maxKeyFile = 1 << 20

// OpenKeyFile returns the KEK in a file: a Tink keyset in JSON, in the clear, as
// tinkey makes them too. With create it makes the file, with mode 0600, and the
// folders above it, with 0700, when it does not exist: at installation only, or a
// keys folder that is not mounted becomes a new, empty one. A file that others can
// read or replace, that has a second name, or that lies inside dataDir once all
// symbolic links are followed, also through a bind mount of dataDir, is refused, by a
// *[KeyFileError]. An empty dataDir is not checked. On systems without Unix permissions
// every file is refused.
//
// What was wrapped by another KEK is [ErrWrongKEK].
//
// The file is looked at before each use, and read anew when it has changed: other
// processes may rotate it. Once it is gone or broken nothing is encrypted any more, by
// a *[KeyFileError], and what was read before goes on decrypting. Names beside it that
// begin with a dot and its own name are Rotate's and DestroyOld's.
//
// DestroyOld overwrites the old file in place before it gives it up. Copies that the
// file system, the disk, snapshots and backups keep are out of its reach: see
// docs/formats/encrypt.md.
func OpenKeyFile(path, dataDir string, create bool) (RotatingKEK, error) {
	return (&keyFile{name: path, dataDir: dataDir, content: clearContent{}}).open(create)
}

// keyFile is a KEK in a file. Other processes may use and change the file at the same
// time; see kekwrite.go for how.
type keyFile struct {
	name          string // as the host gave it
	path, dataDir string // absolute: the working directory may change
	content       fileContent
	step          func(string) // tests stop here; nil otherwise

	mu   sync.Mutex
	keys *fileKeys
	mine uint32 // the primary key when the file was opened or last changed here
}

// fileKeys are the keys as last read.
type fileKeys struct {
	info    os.FileInfo
	handle  *keyset.Handle
	aead    tink.AEAD
	primary uint32
}

// fileContent is how a keyset in JSON lies in a file. What open returns for a file of
// another kind is ErrKeyFileMalformed.
type fileContent interface {
	seal(json []byte) ([]byte, error)
	open(file []byte) ([]byte, error)
}

type clearContent struct{}

func (clearContent) seal(json []byte) ([]byte, error) { return json, nil }
func (clearContent) open(file []byte) ([]byte, error) {
	if _, _, err := parseDerivation(file); err == nil {
		return nil, fmt.Errorf("%w: it is sealed under a passphrase", ErrKeyFileMalformed)
	}
	return file, nil
}

func (f *keyFile) open(create bool) (RotatingKEK, error) {
	if err := f.load(create); err != nil {
		return nil, f.error(err)
	}
	return f, nil
}

func (f *keyFile) load(create bool) (err error) {
	if f.path, err = filepath.Abs(f.name); err != nil {
		return err
	}
	if f.dataDir != "" {
		if f.dataDir, err = filepath.Abs(f.dataDir); err != nil {
			return err
		}
	}
	if create {
		path, err := f.locate()
		if err != nil {
			return err
		}
		if err := f.create(path); err != nil {
			return err
		}
	}
	keys, err := f.read()
	if err != nil {
		return err
	}
	f.keys, f.mine = keys, keys.primary
	return nil
}

func (f *keyFile) error(err error) error { return &KeyFileError{Path: f.name, Err: err} }

// locate resolves the path. From there on only the resolved one is used:
// "link/../kek.json" is one file to the eye and may be another to the system.
func (f *keyFile) locate() (string, error) {
	path, err := resolve(f.path)
	if err != nil {
		return "", err
	}
	if inside, err := within(path, f.dataDir); err != nil {
		return "", err
	} else if inside {
		return "", ErrKeyFileInside
	}
	return path, nil
}

// read reads and checks the file, again when it is replaced meanwhile.
func (f *keyFile) read() (*fileKeys, error) {
	for attempt := 0; ; attempt++ {
		path, err := f.locate()
		if err != nil {
			return nil, err
		}
		keys, info, err := f.readOnce(path)
		if err == nil || attempt == 10 {
			return keys, err
		}
		switch now, statErr := os.Lstat(path); {
		case errors.Is(err, ErrKeyFileLinked) && attempt == 0 && unlink(path):
		case statErr != nil || info == nil || os.SameFile(now, info):
			return nil, err
		}
	}
}

// readOnce returns what it read, and the file's state as soon as that is known.
func (f *keyFile) readOnce(path string) (*fileKeys, os.FileInfo, error) {
	if info, err := os.Lstat(path); err == nil && !info.Mode().IsRegular() {
		return nil, nil, ErrKeyFileMalformed // opening a pipe would wait
	}
	file, err := os.Open(path) //nolint:gosec // the host chooses the path
	if err != nil {
		return nil, nil, pathless(err)
	}
	defer file.Close() //nolint:errcheck // nothing was written
	info, err := file.Stat()
	switch {
	case err != nil:
		return nil, nil, pathless(err)
	case !info.Mode().IsRegular() || info.Size() > maxKeyFile:
		return nil, info, ErrKeyFileMalformed
	}
	if err := checkKeyFile(file, filepath.Dir(path)); err != nil {
		return nil, info, err
	}
	text, err := io.ReadAll(io.LimitReader(file, maxKeyFile))
	if err != nil {
		return nil, info, pathless(err)
	}
	json, err := f.content.open(text)
	if err != nil {
		return nil, info, err
	}
	keys, err := parseKeys(json)
	if err != nil {
		return nil, info, err
	}
	keys.info = info
	return keys, info, nil
}

func parseKeys(json []byte) (*fileKeys, error) {
	handle, err := insecurecleartextkeyset.Read(keyset.NewJSONReader(bytes.NewReader(json)))
	if err != nil {
		return nil, ErrKeyFileMalformed // Tink's error may quote the file
	}
	primary, err := handle.Primary()
	if err != nil {
		return nil, ErrKeyFileMalformed
	}
	primitive, err := newKeysetAEAD(handle)
	switch {
	case errors.Is(err, ErrFIPS):
		return nil, err
	case err != nil:
		return nil, ErrKeyFileMalformed
	}
	return &fileKeys{handle: handle, aead: primitive, primary: primary.KeyID()}, nil
}

// current returns the keys as the file has them now. With an error it returns those
// that were read before.
func (f *keyFile) current() (*fileKeys, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	path, err := f.locate()
	if err != nil {
		return f.keys, f.error(err)
	}
	if info, err := os.Stat(path); err == nil && unchanged(info, f.keys.info) {
		return f.keys, nil
	}
	keys, err := f.read()
	if err == nil {
		err = keys.follows(f.keys)
	}
	if err != nil {
		return f.keys, f.error(err)
	}
	f.keys = keys
	return keys, nil
}

var errKeyDamaged = errors.New("a key in it is not what it was: damaged, or another file")

// follows refuses a file in which a key has changed under its id, as no rotation does.
func (k *fileKeys) follows(before *fileKeys) error {
	if before == nil {
		return nil
	}
	known := make(map[uint32]*keyset.Entry, before.handle.Len())
	for i := range before.handle.Len() {
		entry, err := before.handle.Entry(i)
		if err != nil {
			return err
		}
		known[entry.KeyID()] = entry
	}
	for i := range k.handle.Len() {
		entry, err := k.handle.Entry(i)
		if err != nil {
			return err
		}
		if was := known[entry.KeyID()]; was != nil && !was.Key().Equal(entry.Key()) {
			return errKeyDamaged
		}
	}
	return nil
}

func unchanged(a, b fs.FileInfo) bool {
	return os.SameFile(a, b) && a.Size() == b.Size() && a.Mode() == b.Mode() && a.ModTime().Equal(b.ModTime())
}

func (f *keyFile) String() string   { return "encrypt.KEK[redacted]" }
func (f *keyFile) GoString() string { return f.String() }

// EncryptWithContext refuses when the file is gone or broken: what it wrapped could be
// opened only until the last process ends that has read the file.
func (f *keyFile) EncryptWithContext(_ context.Context, plaintext, associatedData []byte) ([]byte, error) {
	keys, err := f.current()
	if err != nil {
		return nil, err
	}
	return keys.aead.Encrypt(plaintext, associatedData)
}

func (f *keyFile) DecryptWithContext(_ context.Context, ciphertext, associatedData []byte) ([]byte, error) {
	keys, fileErr := f.current()
	plaintext, err := keys.aead.Decrypt(ciphertext, associatedData)
	switch {
	case err == nil:
		return plaintext, nil
	case fileErr != nil:
		return nil, fileErr
	}
	return nil, ErrWrongKEK
}

func (f *keyFile) Rotate(ctx context.Context) error {
	return f.change(ctx, func(keys *fileKeys) (*keyset.Handle, error) { return withNewKey(keys.handle) })
}

func (f *keyFile) DestroyOld(ctx context.Context) (time.Time, error) {
	err := f.change(ctx, func(keys *fileKeys) (*keyset.Handle, error) {
		f.mu.Lock()
		mine := f.mine
		f.mu.Unlock()
		if keys.primary != mine {
			return nil, ErrKEKRotated
		}
		return primaryOnly(keys.handle)
	})
	if err != nil {
		return time.Time{}, err
	}
	return time.Now(), nil
}
