package audit

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"
)

// A cosignature says that a witness saw a checkpoint at some time, and that all it saw
// of the log before is the beginning of it.
//
// https://c2sp.org/tlog-cosignature, cosignature/v1

const algCosignature = 4

// cosigner verifies the cosignatures of one witness.
type cosigner struct {
	name string
	hash uint32
	key  ed25519.PublicKey
}

// NewCosigner returns the verifier of a witness from its public key, as witnesses
// publish it: name+hash+base64, with an Ed25519 key of the type for cosignatures.
func NewCosigner(key string) (note.Verifier, error) {
	malformed := errors.New("audit: malformed key of a witness")
	parts := strings.SplitN(key, "+", 3)
	if len(parts) != 3 || parts[0] == "" || strings.ContainsAny(parts[0], " \t\r\n") || len(parts[1]) != 8 {
		return nil, malformed
	}
	hash, errHash := hex.DecodeString(parts[1])
	public, errKey := base64.StdEncoding.Strict().DecodeString(parts[2])
	if errHash != nil || errKey != nil || len(public) != 1+ed25519.PublicKeySize {
		return nil, malformed
	}
	if public[0] != algCosignature {
		return nil, fmt.Errorf("audit: the key of the witness is of type %d, not of cosignatures under Ed25519", public[0])
	}
	if sum := sha256.Sum256(append([]byte(parts[0]+"\n"), public...)); !bytes.Equal(sum[:4], hash) {
		return nil, malformed
	}
	return &cosigner{name: parts[0], hash: binary.BigEndian.Uint32(hash), key: public[1:]}, nil
}

// Name implements [note.Verifier].
func (c *cosigner) Name() string { return c.name }

// KeyHash implements [note.Verifier].
func (c *cosigner) KeyHash() uint32 { return c.hash }

// Verify implements [note.Verifier]: sig is a time and a signature over both.
func (c *cosigner) Verify(msg, sig []byte) bool {
	if len(sig) != 8+ed25519.SignatureSize {
		return false
	}
	at := binary.BigEndian.Uint64(sig)
	return at <= math.MaxInt64 && ed25519.Verify(c.key, fmt.Appendf(nil, "cosignature/v1\ntime %d\n%s", at, msg), sig[8:])
}

// cosigned checks that the witness signed a checkpoint of the log, and returns when it
// did.
func cosigned(signed []byte, v, witness note.Verifier) (time.Time, error) {
	if _, err := openOutside(signed, v); err != nil {
		return time.Time{}, err
	}
	n, err := openNote(signed, witness)
	if err != nil {
		return time.Time{}, fmt.Errorf("audit: the witness did not sign it: %w", err)
	}
	// Package note reports one signature of each key, the first.
	sig, err := base64.StdEncoding.DecodeString(n.Sigs[0].Base64)
	if err != nil || len(sig) < 4+8 {
		return time.Time{}, errCheckpoint
	}
	return time.Unix(int64(binary.BigEndian.Uint64(sig[4:])), 0), nil //nolint:gosec // Verify checked
}
