package mfa_test

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/pquerna/otp"
	"github.com/pquerna/otp/totp"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/mfa"
)

// ticking is a clock on which every attempt is the first in a day, so that
// nobody is paused.
type ticking struct{ now time.Time }

func (c *ticking) Now() time.Time { return c.now }

// enrolled is a person with an app on keys as hosts have them.
func enrolled(b testing.TB, c *ticking) (*mfa.Factors, *mfa.Enrolment) {
	b.Helper()
	kek, err := encrypt.OpenKeyFile(filepath.Join(b.TempDir(), "kek"), "", true)
	require.NoError(b, err)
	keys, err := encrypt.New(kek, encrypt.NewMemory(), nil)
	require.NoError(b, err)
	b.Cleanup(func() { require.NoError(b, keys.Close()) })
	f, err := mfa.New(mfa.NewMemory(), keys, "Acme CRM", &mfa.Options{Clock: c.Now})
	require.NoError(b, err)
	e, err := f.Enrol(b.Context(), "acme", "anna", "anna")
	require.NoError(b, err)
	require.NoError(b, f.Confirm(b.Context(), "acme", "anna", e.ID, code(b, e, c.now)))
	_, err = f.ReplaceRecovery(b.Context(), "acme", "anna")
	require.NoError(b, err)
	return f, e
}

func BenchmarkVerifyWrong(b *testing.B) {
	c := &ticking{noon}
	f, _ := enrolled(b, c)
	b.ReportAllocs()
	for b.Loop() {
		c.now = c.now.Add(24 * time.Hour)
		if f.Verify(b.Context(), "acme", "anna", "000000") == nil {
			b.Log("one in a million")
		}
	}
}

// The peer does nothing but compare.
func BenchmarkVerifyWrongPeer(b *testing.B) {
	c := &ticking{noon}
	_, e := enrolled(b, c)
	secret := e.Secret()
	b.ReportAllocs()
	for b.Loop() {
		c.now = c.now.Add(24 * time.Hour)
		ok, err := totp.ValidateCustom("000000", secret, c.now, totp.ValidateOpts{
			Period: 30, Skew: 1, Digits: otp.DigitsSix, Algorithm: otp.AlgorithmSHA1,
		})
		if err != nil {
			b.Fatal(err)
		}
		if ok {
			b.Log("one in a million")
		}
	}
}

func BenchmarkVerifyRight(b *testing.B) {
	c := &ticking{noon}
	f, e := enrolled(b, c)
	b.ReportAllocs()
	for b.Loop() {
		c.now = c.now.Add(24 * time.Hour)
		if err := f.Verify(b.Context(), "acme", "anna", code(b, e, c.now)); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkRecoverWrong(b *testing.B) {
	c := &ticking{noon}
	f, _ := enrolled(b, c)
	b.ReportAllocs()
	for b.Loop() {
		c.now = c.now.Add(24 * time.Hour)
		if f.Recover(b.Context(), "acme", "anna", "AAAA-AAAA-AAAA-AAAA-AAAA-AAAA") == nil {
			b.Fatal("let in")
		}
	}
}

func TestVerifyAllocates(t *testing.T) {
	c := &ticking{noon}
	f, _ := enrolled(t, c)
	ctx := t.Context()
	allocs := testing.AllocsPerRun(100, func() {
		c.now = c.now.Add(24 * time.Hour)
		_ = f.Verify(ctx, "acme", "anna", "000000")
	})
	require.LessOrEqual(t, allocs, 16.0, "those of the keys and of HMAC are most of them")
}
