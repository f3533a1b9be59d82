package mfa_test

import (
	"crypto/fips140"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/crmguardtest"
	"github.com/crmguard/crmguard/internal/fipstest"
	"github.com/crmguard/crmguard/mfa"
)

// HMAC-SHA1 panics there; this package returns an error instead.
func TestFIPSOnly(t *testing.T) { fipstest.Only(t, underFIPS) }

func underFIPS(t *testing.T) {
	clock := crmguardtest.NewClock(noon)
	f, err := mfa.New(mfa.NewMemory(), crmguardtest.NewKeys(), "Acme CRM", &mfa.Options{Clock: clock.Now})
	require.NoError(t, err)
	_, err = f.Enrol(t.Context(), "acme", "anna", "anna")
	require.ErrorIs(t, err, mfa.ErrFIPS)

	// Somebody who enrolled before is not let in by a code, and not by a panic.
	var e *mfa.Enrolment
	fips140.WithoutEnforcement(func() {
		e, err = f.Enrol(t.Context(), "acme", "anna", "anna")
		if err == nil {
			err = f.Confirm(t.Context(), "acme", "anna", e.ID, code(t, e, clock.Now()))
		}
	})
	require.NoError(t, err)
	for range 10 {
		require.ErrorIs(t, f.Verify(t.Context(), "acme", "anna", "123456"), mfa.ErrFIPS)
	}
	require.ErrorIs(t, mfaConfirmAnother(t, f), mfa.ErrFIPS)

	// Recovery codes are HMAC-SHA256, or whatever the host's keys make.
	codes, err := f.ReplaceRecovery(t.Context(), "acme", "anna")
	require.NoError(t, err)
	require.NoError(t, f.Recover(t.Context(), "acme", "anna", strings.ToLower(codes.Show()[0])))
}

func mfaConfirmAnother(t *testing.T, f *mfa.Factors) error {
	var e *mfa.Enrolment
	var err error
	fips140.WithoutEnforcement(func() { e, err = f.Enrol(t.Context(), "acme", "anna", "anna") })
	require.NoError(t, err)
	return f.Confirm(t.Context(), "acme", "anna", e.ID, "123456")
}
