package main

import (
	"context"
	"errors"
	"time"

	"github.com/pquerna/otp"
	"github.com/pquerna/otp/totp"

	"github.com/crmguard/crmguard/mfa"
)

// mfaClaims compare the second factor, with its sealed secret, MAC of the row and
// count of failures, to a bare comparison of a code.
func mfaClaims() []claim {
	return []claim{{name: "mfa.verify", unit: "ns", direction: atMost, limit: 1.2, open: openVerify}}
}

const wrongCode = "000000"

// openVerify rejects a wrong code. The clock moves by a day each time, so that
// nobody is paused.
func openVerify(ctx context.Context, _ *servers) (trial, error) {
	p, err := newPair(ctx)
	if err != nil {
		return trial{}, err
	}
	now := time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)
	nextDay := func() time.Time {
		now = now.Add(24 * time.Hour)
		return now
	}
	factors, err := mfa.New(mfa.NewMemory(), p.ours, "Acme CRM", &mfa.Options{Clock: func() time.Time { return now }})
	if err != nil {
		return trial{}, errors.Join(err, p.ours.Close())
	}
	enrolment, err := factors.Enrol(ctx, "default", "anna", "anna")
	if err != nil {
		return trial{}, errors.Join(err, p.ours.Close())
	}
	code, err := totp.GenerateCode(enrolment.Secret(), now)
	if err == nil {
		err = factors.Confirm(ctx, "default", "anna", enrolment.ID, code)
	}
	if err != nil {
		return trial{}, errors.Join(err, p.ours.Close())
	}
	secret := enrolment.Secret()
	options := totp.ValidateOpts{Period: 30, Skew: 1, Digits: otp.DigitsSix, Algorithm: otp.AlgorithmSHA1}
	return trial{
		ours: perOp(func() error {
			nextDay()
			_ = factors.Verify(ctx, "default", "anna", wrongCode) // one day in 300,000 it is right
			return nil
		}),
		peer: perOp(func() error {
			_, err := totp.ValidateCustom(wrongCode, secret, nextDay(), options)
			return err
		}),
		close: p.ours.Close,
	}, nil
}
