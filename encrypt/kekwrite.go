package encrypt

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/insecurecleartextkeyset"
	"github.com/tink-crypto/tink-go/v2/keyset"
)

// A key file changes under a lock file, and always as a whole: the new one is written
// and synced under the name sideNew, the old one gets the second name sideOld, and a
// rename puts the new one in its place. Then the old one is overwritten and removed.
// Whatever a crash leaves under the two names the next change clears away; a second
// name that it leaves to the file itself, the next who opens it.
const (
	sideNew  = ".new"
	sideOld  = ".old"
	sideLock = ".lock"
)

func beside(path, side string) string {
	return filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+side)
}

// errFileChanged is for programs that know nothing of the lock.
var errFileChanged = errors.New("another program has changed it at this moment: try again")

// change replaces the file by one with the keyset that fn makes of the present one.
// Where that is nil the file stays.
func (f *keyFile) change(ctx context.Context, fn func(*fileKeys) (*keyset.Handle, error)) error {
	path, err := f.locate()
	if err != nil {
		return f.error(err)
	}
	unlock, err := lockFile(ctx, beside(path, sideLock))
	if err != nil {
		return f.error(err)
	}
	err = f.changeLocked(path, fn)
	if err := errors.Join(err, unlock()); err != nil {
		return f.error(err)
	}
	return nil
}

func (f *keyFile) changeLocked(path string, fn func(*fileKeys) (*keyset.Handle, error)) error {
	if err := clearAway(path); err != nil {
		return err
	}
	keys, err := f.read()
	if err != nil {
		return err
	}
	f.mu.Lock()
	err = keys.follows(f.keys)
	f.mu.Unlock()
	if err != nil {
		return err
	}
	handle, err := fn(keys)
	if err != nil {
		return err
	}
	if handle != nil {
		if err := f.replace(path, keys.info, handle); err != nil {
			return errors.Join(err, clearAway(path))
		}
		if keys, err = f.read(); err != nil {
			return err
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.keys, f.mine = keys, keys.primary
	return nil
}

// withNewKey adds a key that encrypts from now on.
func withNewKey(handle *keyset.Handle) (*keyset.Handle, error) {
	manager := keyset.NewManagerFromHandle(handle)
	id, err := manager.Add(aead.AES256GCMKeyTemplate())
	if err != nil {
		return nil, err
	}
	if err := manager.SetPrimary(id); err != nil {
		return nil, err
	}
	return manager.Handle()
}

// primaryOnly removes all keys but the one that encrypts; nil when there is no other.
func primaryOnly(handle *keyset.Handle) (*keyset.Handle, error) {
	if handle.Len() == 1 {
		return nil, nil
	}
	manager := keyset.NewManagerFromHandle(handle)
	for i := range handle.Len() {
		entry, err := handle.Entry(i)
		if err != nil {
			return nil, err
		}
		if !entry.IsPrimary() {
			if err := manager.Delete(entry.KeyID()); err != nil {
				return nil, err
			}
		}
	}
	return manager.Handle()
}

// replace puts a keyset in the place of the file that was. It holds the lock.
func (f *keyFile) replace(path string, was os.FileInfo, handle *keyset.Handle) error {
	if err := f.write(beside(path, sideNew), handle, was); err != nil {
		return err
	}
	now, err := os.Lstat(path)
	if err != nil {
		return pathless(err)
	}
	if !unchanged(now, was) {
		return errFileChanged
	}
	if err := os.Link(path, beside(path, sideOld)); err != nil {
		return pathless(err)
	}
	f.at("linked")
	if err := os.Rename(beside(path, sideNew), path); err != nil {
		return pathless(err)
	}
	f.at("renamed")
	if err := syncDir(filepath.Dir(path)); err != nil {
		return err
	}
	f.at("synced")
	return f.wipe(beside(path, sideOld))
}

// write makes a new file, durably, with mode and owner of another one.
func (f *keyFile) write(name string, handle *keyset.Handle, like os.FileInfo) error {
	var json bytes.Buffer
	if err := insecurecleartextkeyset.Write(handle, keyset.NewJSONWriter(&json)); err != nil {
		return err
	}
	text, err := f.content.seal(json.Bytes())
	if err != nil {
		return err
	}
	file, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600) //nolint:gosec // the host chooses the path
	if err != nil {
		return pathless(err)
	}
	f.at("opened")
	_, err = file.Write(text)
	f.at("written")
	if like != nil && err == nil {
		err = errors.Join(file.Chmod(like.Mode().Perm()), keepOwner(file, like))
	}
	return pathless(errors.Join(err, file.Sync(), file.Close()))
}

// clearAway removes what a crash has left beside the file. It holds the lock.
func clearAway(path string) error {
	file, err := os.Lstat(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return pathless(err)
	}
	for _, side := range []string{sideNew, sideOld} {
		name := beside(path, side)
		info, err := os.Lstat(name)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case err != nil:
			return pathless(err)
		case !info.Mode().IsRegular(), file != nil && os.SameFile(file, info):
			err = pathless(os.Remove(name))
		default:
			err = (&keyFile{}).wipe(name)
		}
		if err != nil {
			return err
		}
	}
	return syncDir(filepath.Dir(path))
}

// errNotOurs is for what somebody else has put under one of the names: overwriting it may
// destroy quite another file.
var errNotOurs = errors.New("beside it lies a file, .NAME.new or .NAME.old, that is not of this program or has another name: remove it")

// wipe overwrites a file and removes it.
func (f *keyFile) wipe(name string) error {
	file, err := openOwn(name)
	if err != nil {
		return pathless(err)
	}
	info, err := file.Stat()
	if err == nil {
		_, err = file.WriteAt(make([]byte, min(info.Size(), maxKeyFile)), 0)
	}
	if err := errors.Join(err, file.Sync(), file.Close()); err != nil {
		return pathless(err)
	}
	f.at("overwritten")
	if err := os.Remove(name); err != nil {
		return pathless(err)
	}
	f.at("removed")
	return syncDir(filepath.Dir(name))
}

func (f *keyFile) at(step string) {
	if f.step != nil {
		f.step(step)
	}
}

// creationTimeout is for a lock that another process holds without end.
const creationTimeout = 10 * time.Second

// locked runs fn where no context is at hand.
func locked(path string, fn func() error) error {
	ctx, cancel := context.WithTimeout(context.Background(), creationTimeout)
	defer cancel()
	unlock, err := lockFile(ctx, beside(path, sideLock))
	if err != nil {
		return err
	}
	return errors.Join(fn(), unlock())
}

// unlink removes the second name that a crash has left to a file, and says whether
// there was one.
func unlink(path string) bool {
	file, err := os.Lstat(path)
	if err != nil {
		return false
	}
	for _, side := range []string{sideNew, sideOld} {
		if info, err := os.Lstat(beside(path, side)); err == nil && os.SameFile(file, info) {
			return locked(path, func() error { return clearAway(path) }) == nil
		}
	}
	return false
}

// create writes a new keyset unless the file exists. It is complete before it has its
// name, and of two processes one wins.
func (f *keyFile) create(path string) error {
	if _, err := os.Lstat(path); err == nil || !errors.Is(err, fs.ErrNotExist) {
		return pathless(err)
	}
	dir := filepath.Dir(path)
	if err := makeDir(dir); err != nil {
		return pathless(err)
	}
	return locked(path, func() error {
		if err := clearAway(path); err != nil {
			return err
		}
		if _, err := os.Lstat(path); err == nil || !errors.Is(err, fs.ErrNotExist) {
			return pathless(err)
		}
		handle, err := keyset.NewHandle(aead.AES256GCMKeyTemplate())
		if err != nil {
			return err
		}
		if err := f.write(beside(path, sideNew), handle, nil); err != nil {
			return err
		}
		// Unlike a rename, a link never replaces what another program has made.
		if err := os.Link(beside(path, sideNew), path); err != nil && !errors.Is(err, fs.ErrExist) {
			return pathless(err)
		}
		f.at("linked")
		return clearAway(path)
	})
}
