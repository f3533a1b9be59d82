// Package password hashes passwords with argon2id and refuses weak ones.
//
//	hasher, err := password.New(nil)
//
//	// a password is chosen
//	if err := password.Strong(chosen, login, name, company); err != nil { // a *WeakError says what to do
//		return err
//	}
//	phc, err := hasher.Hash(ctx, chosen) // store this, sealed
//
//	// somebody signs in
//	ok, rehash, err := hasher.Verify(ctx, given, phc)
//	if ok && rehash {
//		phc, err = hasher.Hash(ctx, given) // store the stronger one
//	}
//	err = hasher.VerifyNobody(ctx, given) // instead, if there is no such account
//
// # Security notes
//
// Parameters are OWASP's: argon2id version 19, one pass over 46 MiB, one lane, a
// salt of 16 and a key of 32 random bytes. A [Hasher] runs few at a time, because
// each needs its memory; the others wait as long as their context lets them.
//
// Passwords are hashed in Unicode form NFKC, so that the same characters typed on
// another keyboard or system are the same password. They have at most [MaxBytes]
// bytes as given. A longer one is wrong, without any work.
//
// A stored hash is not to be trusted: whoever can write the database could put
// in one whose password they know. Seal it, with a crmguard.Sealer at the place
// of its tenant and person; the example of [Hasher] shows how. Parameters of a
// hash are checked before any work is done: it takes at most 256 MiB, and at most
// six times the work of a hash made here, so that one that was planted cannot
// exhaust the machine.
//
// [Strong] is not a search in leaked passwords: its list holds some hundred words
// and patterns of which the most common ones are made.
//
// In a process that enforces FIPS 140-3 (GODEBUG=fips140=only) argon2id must not
// run, and everything here but Strong returns [ErrFIPS].
//
// # Format and compatibility
//
// Hashes are PHC strings, described in docs/formats/password.md. Hashes of other
// argon2id libraries are accepted within the bounds given there; a weaker one
// asks for a rehash.
package password

import (
	"context"
	"crypto/fips140"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"runtime"

	"golang.org/x/crypto/argon2"
	"golang.org/x/text/unicode/norm"
)

// MaxBytes bounds the length of a password.
const MaxBytes = 1024

// ErrFIPS says that the process enforces FIPS 140-3, which argon2id is not part of.
var ErrFIPS = errors.New("password: argon2id does not run where FIPS 140-3 is enforced")

// current is what new hashes are made with.
var current = params{memory: 46 * 1024, passes: 1, lanes: 1}

const (
	saltBytes = 16
	keyBytes  = 32
)

// Options of a [Hasher].
type Options struct {
	// Concurrency is how many hashes are computed at a time; 0: one a processor, at
	// most 8. Each takes 46 MiB, but a stored hash that another program made may
	// take up to 256 MiB when it is verified.
	Concurrency int
}

// Hasher hashes and verifies passwords. It is safe for concurrent use; a program
// has one, because each bounds only its own memory.
type Hasher struct {
	slots chan struct{}
}

// New returns a hasher.
func New(o *Options) (*Hasher, error) {
	if o == nil {
		o = &Options{}
	}
	n := o.Concurrency
	if n == 0 {
		n = min(runtime.GOMAXPROCS(0), 8)
	}
	if n < 1 || n > 1024 {
		return nil, fmt.Errorf("password: concurrency %d: want 1 to 1024", n)
	}
	return &Hasher{slots: make(chan struct{}, n)}, nil
}

// Hash returns the PHC string to store for a password. An empty or too long one
// is a *[WeakError]; whether it is a good one is for [Strong] to say.
func (h *Hasher) Hash(ctx context.Context, password string) (phc string, err error) {
	if password == "" {
		return "", weakShort()
	}
	if len(password) > MaxBytes {
		return "", weakLong()
	}
	salt := make([]byte, saltBytes)
	rand.Read(salt) //nolint:errcheck // never fails, says its documentation
	key, err := h.derive(ctx, password, salt, current, keyBytes)
	if err != nil {
		return "", err
	}
	return hash{params: current, salt: salt, key: key}.encode(), nil
}

// Verify reports whether phc was made from this password, and, if so, whether it
// should be made again because it is weaker than new ones. A phc that is not a
// hash, or asks for unreasonable work, is a *[HashError]. Any error means that the
// password is not accepted.
func (h *Hasher) Verify(ctx context.Context, password, phc string) (ok, rehash bool, err error) {
	stored, err := parse(phc)
	if err != nil {
		return false, false, err
	}
	if len(password) > MaxBytes {
		return false, false, nil
	}
	key, err := h.derive(ctx, password, stored.salt, stored.params, len(stored.key))
	if err != nil {
		return false, false, err
	}
	if subtle.ConstantTimeCompare(key, stored.key) != 1 {
		return false, false, nil
	}
	return true, stored.weak(), nil
}

// VerifyNobody does the work of Verify with a current hash and finds nothing, so
// that the time of an answer does not tell which accounts exist. It returns what
// Verify would: nil, or an error if the work could not be done.
func (h *Hasher) VerifyNobody(ctx context.Context, password string) error {
	if len(password) > MaxBytes {
		return nil
	}
	_, err := h.derive(ctx, password, make([]byte, saltBytes), current, keyBytes)
	return err
}

// derive runs argon2id when there is memory for it.
func (h *Hasher) derive(ctx context.Context, password string, salt []byte, p params, keyLen int) ([]byte, error) {
	if fips140.Enforced() {
		return nil, ErrFIPS
	}
	if err := ctx.Err(); err != nil { // select below may choose either when both are ready
		return nil, fmt.Errorf("password: wait for memory: %w", err)
	}
	select {
	case h.slots <- struct{}{}:
		defer func() { <-h.slots }()
	case <-ctx.Done():
		return nil, fmt.Errorf("password: wait for memory: %w", ctx.Err())
	}
	return argon2.IDKey(norm.NFKC.AppendString(nil, password), salt, p.passes, p.memory, p.lanes, uint32(keyLen)), nil //nolint:gosec // at most maxKey
}
