package audit

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/mod/sumdb/note"
)

// OpenSigner reads an Ed25519 signing key from a file that only its owner may
// read, and returns it with its verifier. The public key is written beside it, to
// path + ".pub": copy it to where the journal is verified. A .pub that is there
// must be that of the key.
//
// With create a file that does not exist is made, for a key with this name: pass
// true at the installation only. If the key is gone and its .pub is not, no key is
// made: what the old one signed would not verify.
//
// Name is usually a host and path without scheme, such as "crm.example/journal".
// Keep the file outside the folder of the data that the journal protects.
func OpenSigner(path, name string, create bool) (note.Signer, note.Verifier, error) {
	secret, err := readKey(path)
	if errors.Is(err, fs.ErrNotExist) && create {
		_, public := os.Stat(path + ".pub")
		switch secret, err = readKey(path); { // again: another process may have made both meanwhile
		case !errors.Is(err, fs.ErrNotExist):
		case errors.Is(public, fs.ErrNotExist):
			secret, err = createKey(path, name)
		default:
			err = errors.Join(fmt.Errorf("%s.pub is there without its key: put the key back", path), public, err)
		}
	}
	if err != nil {
		return nil, nil, fmt.Errorf("audit: signing key: %w", err)
	}
	signer, err := note.NewSigner(secret)
	if err != nil {
		return nil, nil, fmt.Errorf("audit: signing key %s does not parse", path) // the cause might quote it
	}
	if signer.Name() != name {
		return nil, nil, fmt.Errorf("audit: signing key %s is named %q, not %q", path, signer.Name(), name)
	}
	public, err := publicKey(secret)
	if err != nil {
		return nil, nil, fmt.Errorf("audit: signing key %s: %w", path, err)
	}
	verifier, err := note.NewVerifier(public)
	if err != nil {
		return nil, nil, fmt.Errorf("audit: signing key %s: %w", path, err)
	}
	if err := pinPublic(path+".pub", public); err != nil {
		return nil, nil, fmt.Errorf("audit: public key: %w", err)
	}
	return signer, verifier, nil
}

func readKey(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return "", fmt.Errorf("%s may be read by others: chmod 600", path)
	}
	text, err := os.ReadFile(path) //nolint:gosec // the host's own path
	return strings.TrimSpace(string(text)), err
}

func createKey(path, name string) (string, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return "", err
	}
	secret, _, err := note.GenerateKey(rand.Reader, name)
	if err != nil {
		return "", err
	}
	err = writeOnce(path, secret+"\n", 0o600, func() (err error) {
		secret, err = readKey(path)
		return err
	})
	return secret, err
}

// publicKey derives the verifier's text from the signer's, which ends with an
// algorithm (1, Ed25519) and the seed.
func publicKey(secret string) (string, error) {
	malformed := errors.New("not an Ed25519 key")
	parts := strings.SplitN(secret, "+", 5)
	if len(parts) != 5 {
		return "", malformed
	}
	key, err := base64.StdEncoding.DecodeString(parts[4])
	if err != nil || len(key) != 1+ed25519.SeedSize || key[0] != 1 {
		return "", malformed
	}
	private := ed25519.NewKeyFromSeed(key[1:])
	return note.NewEd25519VerifierKey(parts[2], private.Public().(ed25519.PublicKey))
}

// pinPublic writes the public key, or compares it with the one that is there.
func pinPublic(path, public string) error {
	text, err := os.ReadFile(path) //nolint:gosec // the host's own path
	if errors.Is(err, fs.ErrNotExist) {
		return writeOnce(path, public+"\n", 0o644, func() error { return pinPublic(path, public) })
	}
	if err != nil {
		return err
	}
	if strings.TrimSpace(string(text)) != public {
		return fmt.Errorf("%s is that of another key", path)
	}
	return nil
}

// writeOnce writes the whole file before it gets its name, and never replaces one:
// if another process was first, it returns what exists returns.
func writeOnce(path, text string, mode os.FileMode, exists func() error) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".key-*") // made 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) //nolint:errcheck // the link below is what counts
	_, err = f.WriteString(text)
	if err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close()); err != nil {
		return err
	}
	switch err := os.Link(f.Name(), path); {
	case errors.Is(err, fs.ErrExist):
		return exists()
	case err != nil:
		return err
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(dir string) error {
	f, err := os.Open(dir) //nolint:gosec // the host's own path
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
