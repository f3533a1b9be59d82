package mfatest

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/crmguard/crmguard"
)

// keys are good enough to look at stores with.
type keys string

func (k keys) mac(use string, at crmguard.Place, data []byte) []byte {
	h := hmac.New(sha256.New, []byte(k))
	h.Write(fmt.Appendf(nil, "%s %q ", use, at))
	h.Write(data)
	return h.Sum(nil)
}

func (k keys) aead(at crmguard.Place) (cipher.AEAD, error) {
	block, err := aes.NewCipher(k.mac("seal", at, nil)) // the place is bound by being the key's
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

func (k keys) Seal(_ context.Context, at crmguard.Place, plaintext []byte) ([]byte, error) {
	aead, err := k.aead(at)
	if err != nil {
		return nil, err
	}
	return aead.Seal(nil, nil, plaintext, nil), nil //nolint:gosec // this AEAD makes its nonces itself
}

func (k keys) Open(_ context.Context, at crmguard.Place, sealed []byte) ([]byte, error) {
	aead, err := k.aead(at)
	if err != nil {
		return nil, err
	}
	return aead.Open(nil, nil, sealed, nil)
}

func (k keys) MAC(_ context.Context, at crmguard.Place, data []byte) ([]byte, error) {
	return k.mac("mac", at, data), nil
}

func (k keys) Verify(_ context.Context, at crmguard.Place, data, mac []byte) error {
	if !hmac.Equal(k.mac("mac", at, data), mac) {
		return crmguard.ErrMAC
	}
	return nil
}

// clock stands still until it is advanced.
type clock struct{ since atomic.Int64 }

func (c *clock) Now() time.Time          { return noon.Add(time.Duration(c.since.Load())) }
func (c *clock) Advance(d time.Duration) { c.since.Add(int64(d)) }
