package crmguardtest

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"github.com/crmguard/crmguard"
)

var (
	_ crmguard.Sealer        = (*Keys)(nil)
	_ crmguard.Authenticator = (*Keys)(nil)
	_ crmguard.Pseudonymizer = (*Keys)(nil)
)

var (
	errPlace     = errors.New("crmguardtest: place without tenant")
	errNoSubject = errors.New("crmguardtest: a client's data is opened without a subject of its tenant in the context")
	errForeign   = errors.New("crmguardtest: the subject in the context is of another tenant")
	errSealed    = errors.New("crmguardtest: sealed elsewhere, changed or truncated")
)

// Keys seals, authenticates and pseudonymizes under a random key that dies with
// the process: AES-256-GCM and HMAC-SHA256, the place bound to everything, and
// subjects of other tenants refused, as encrypt.Keyring does it. Make one with [NewKeys].
type Keys struct {
	master []byte

	mu     sync.Mutex
	erased map[[2]string]bool // tenant, client
	fail   error
}

// NewKeys returns keys that no other Keys share.
func NewKeys() *Keys {
	master := make([]byte, 32)
	rand.Read(master) //nolint:errcheck // never fails, says its documentation
	return &Keys{master: master, erased: map[[2]string]bool{}}
}

// String hides the key.
func (k *Keys) String() string { return "crmguardtest.Keys" }

// GoString hides the key.
func (k *Keys) GoString() string { return k.String() }

// Erase makes everything of a client [crmguard.ErrErased].
func (k *Keys) Erase(tenant, client string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.erased[[2]string{tenant, client}] = true
}

// Fail makes every later call return err, as keys whose store is down do; nil
// ends that.
func (k *Keys) Fail(err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.fail = err
}

// Seal encrypts plaintext for one place.
func (k *Keys) Seal(ctx context.Context, at crmguard.Place, plaintext []byte) ([]byte, error) {
	if err := checkSealing(ctx, at); err != nil {
		return nil, err
	}
	aead, err := k.aead(at)
	if err != nil {
		return nil, err
	}
	return aead.Seal(nil, nil, plaintext, placeBytes("seal", at)), nil //nolint:gosec // this AEAD makes its nonces itself
}

// Open decrypts what [Keys.Seal] returned for the same place.
func (k *Keys) Open(ctx context.Context, at crmguard.Place, sealed []byte) ([]byte, error) {
	if _, ok := crmguard.SubjectFrom(ctx); !ok && at.Client != "" {
		return nil, errNoSubject
	}
	if err := checkSealing(ctx, at); err != nil {
		return nil, err
	}
	aead, err := k.aead(at)
	if err != nil {
		return nil, err
	}
	plaintext, err := aead.Open(nil, nil, sealed, placeBytes("seal", at))
	if err != nil {
		return nil, errSealed
	}
	return plaintext, nil
}

func (k *Keys) aead(at crmguard.Place) (cipher.AEAD, error) {
	if err := k.usable(at); err != nil {
		return nil, err
	}
	key := k.mac("key", crmguard.Place{Tenant: at.Tenant, Client: at.Client}, nil)
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("crmguardtest: %w", err)
	}
	return cipher.NewGCMWithRandomNonce(block)
}

// MAC authenticates data at a place.
func (k *Keys) MAC(ctx context.Context, at crmguard.Place, data []byte) ([]byte, error) {
	if err := checkForeign(ctx, at.Tenant); err != nil {
		return nil, err
	}
	if err := k.usable(at); err != nil {
		return nil, err
	}
	return k.mac("mac", at, data), nil
}

// Verify returns nil for what [Keys.MAC] returned for the same place and data.
func (k *Keys) Verify(ctx context.Context, at crmguard.Place, data, mac []byte) error {
	want, err := k.MAC(ctx, at, data)
	if err != nil {
		return err
	}
	if !hmac.Equal(want, mac) {
		return crmguard.ErrMAC
	}
	return nil
}

// Pseudonyms returns one keyed pseudonym of value; these keys do not rotate.
func (k *Keys) Pseudonyms(ctx context.Context, at crmguard.Place, value []byte) ([][]byte, error) {
	if err := checkForeign(ctx, at.Tenant); err != nil {
		return nil, err
	}
	if err := k.usable(crmguard.Place{Tenant: at.Tenant}); err != nil {
		return nil, err
	}
	at.Client, at.Record = "", ""
	return [][]byte{k.mac("pseudonym", at, value)}, nil
}

// checkSealing wants a subject, if there is one, to be complete for a client's data, and else
// only of no other tenant.
func checkSealing(ctx context.Context, at crmguard.Place) error {
	if at.Client == "" {
		return checkForeign(ctx, at.Tenant)
	}
	if ok, err := crmguard.CheckSubject(ctx, at.Tenant); ok && err != nil {
		return fmt.Errorf("%w: %w", errForeign, err)
	}
	return nil
}

// checkForeign lets everybody do it but subjects of other tenants. One that is not complete,
// as while somebody signs in, is as good as none.
func checkForeign(ctx context.Context, tenant string) error {
	if s, ok := crmguard.SubjectFrom(ctx); ok && s.Tenant != "" && s.Tenant != tenant {
		return errForeign
	}
	return nil
}

func (k *Keys) usable(at crmguard.Place) error {
	if at.Tenant == "" {
		return errPlace
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.fail != nil {
		return k.fail
	}
	if k.erased[[2]string{at.Tenant, at.Client}] {
		return crmguard.ErrErased
	}
	return nil
}

func (k *Keys) mac(purpose string, at crmguard.Place, data []byte) []byte {
	h := hmac.New(sha256.New, k.master)
	h.Write(placeBytes(purpose, at))
	h.Write(data)
	return h.Sum(nil)
}

// placeBytes is different for different arguments: every part has its length
// before it.
func placeBytes(purpose string, at crmguard.Place) []byte {
	var b []byte
	for _, part := range []string{purpose, at.Tenant, at.Client, at.Kind, at.Record, at.Field} {
		b = binary.BigEndian.AppendUint64(b, uint64(len(part)))
		b = append(b, part...)
	}
	return b
}
