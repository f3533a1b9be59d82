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
// path + ".pub": copy it to where the journal is verified. With create a file that
// does not exist is made, for a key with this name.
//
// Name is usually a host and path without scheme, such as "crm.example/journal".
// Keep the file outside the folder of the data that the journal protects.
func OpenSigner(path, name string, create bool) (note.Signer, note.Verifier, error) {
	secret, err := readKey(path)
	if errors.Is(err, fs.ErrNotExist) && create {
		secret, err = createKey(path, name)
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
	if _, err := os.Stat(path + ".pub"); errors.Is(err, fs.ErrNotExist) {
		if err := os.WriteFile(path+".pub", []byte(public+"\n"), 0o644); err != nil { //nolint:gosec // it is public
			return nil, nil, fmt.Errorf("audit: public key: %w", err)
		}
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

// createKey writes the whole file before it gets its name, and never replaces one.
func createKey(path, name string) (string, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return "", err
	}
	secret, _, err := note.GenerateKey(rand.Reader, name)
	if err != nil {
		return "", err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".key-*") // made 0600
	if err != nil {
		return "", err
	}
	defer os.Remove(f.Name()) //nolint:errcheck // the link below is what counts
	_, err = f.WriteString(secret + "\n")
	err = errors.Join(err, f.Sync(), f.Close())
	if err != nil {
		return "", err
	}
	switch err := os.Link(f.Name(), path); {
	case errors.Is(err, fs.ErrExist): // another process was first
		return readKey(path)
	case err != nil:
		return "", err
	}
	return secret, syncDir(filepath.Dir(path))
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

func syncDir(dir string) error {
	f, err := os.Open(dir) //nolint:gosec // the host's own path
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
