// Package mfa is the second factor: codes of authenticator apps (TOTP, RFC 6238)
// around github.com/pquerna/otp, recovery codes, and the rule which acts want a
// fresh proof.
//
//	factors, err := mfa.New(store, keys, "Acme CRM", nil) // store: mfasql.New(…); keys: *encrypt.Keyring
//
//	enrolment, err := factors.Enrol(ctx, "acme", "anna", "anna@acme.example")
//	png, err := enrolment.QR()                                        // shown to Anna once
//	err = factors.Confirm(ctx, "acme", "anna", enrolment.ID, "123456") // what her app shows
//	codes, err := factors.ReplaceRecovery(ctx, "acme", "anna")        // shown to Anna once
//
//	err = factors.Verify(ctx, "acme", "anna", "234 567")  // second step of a sign-in
//	err = factors.Recover(ctx, "acme", "anna", "ABCD-…")  // when the phone is lost
//	revoked, err := factors.Revoke(ctx, "acme", "anna")   // Anna leaves
//
//	stepUp, err := mfa.NewStepUp([]mfa.Rule{
//		{Action: crmguard.Export, Kind: "contacts", Need: crmguard.AssuranceSecondFactor, MaxAge: 5 * time.Minute},
//	}, nil) // a crmguard.Checker
//
// # Security notes
//
// A code is good once: accepting it moves the app's last step forward in one
// atomic statement, and no code of that step or an earlier one is accepted again,
// also by another process. Confirming uses up its code too. Codes of the step
// before and after the current one are accepted, because clocks differ. A server
// whose clock is set back refuses codes until it shows the time of the last one
// that was used; recovery codes work meanwhile.
//
// Wrong, used, paused and absent are one and the same [crmguard.Denial]; only its
// Detail, for the journal, tells them apart. Ask for a code after the password,
// never before, or it tells strangers who has one: somebody without factors is
// refused sooner.
//
// Attempts are counted before anything is compared, for each person over all
// factors and nodes: five are free, then pauses grow from a second to a quarter
// of an hour, never to a lock. Whoever knows a person's password and keeps
// guessing can make them wait as long; only such a one can.
//
// Secrets have 160 random bits and are sealed by a [crmguard.Sealer] under their
// tenant and id. Recovery codes have 120; the store keeps a MAC of each. Secrets
// shorter than 160 bits are refused, wherever they come from.
//
// All rows of a person together carry a MAC, which is checked before a code is
// accepted. So whoever can write the database cannot add an app, activate one,
// move one to another person, or remove some of them to be let in without. What
// such a writer can still do: put back all rows of a person as they once were
// together, with an app or codes that were removed since; set back the last step,
// so that a code seen in use works again within its minute and a half, or the
// mark of a used recovery code; set back the count of attempts; and delete
// everything of a person, who then has no second factor. Hosts that demand one
// refuse a person who has none, and treat enrolling as an act of its own.
//
// Under GODEBUG=fips140=only there are no codes of apps: see [ErrFIPS].
//
// # Compatibility
//
// Codes are SHA-1, six digits, 30 seconds, because widespread apps ignore other
// settings. What is stored is specified in docs/formats/mfa.md; rows of version 1
// stay good.
package mfa

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/crmguard/crmguard"
)

// Keys seal secrets and authenticate rows; *encrypt.Keyring does both.
type Keys interface {
	crmguard.Sealer
	crmguard.Authenticator
}

// Options of Factors. The zero value is the recommended one.
type Options struct {
	Clock  func() time.Time // nil: time.Now
	Logger *slog.Logger     // hears of rows that are not genuine; nil: nobody does
}

func (o *Options) orDefault() (clock func() time.Time, log *slog.Logger) {
	clock, log = time.Now, slog.New(slog.DiscardHandler)
	if o != nil && o.Clock != nil {
		clock = o.Clock
	}
	if o != nil && o.Logger != nil {
		log = o.Logger
	}
	return clock, log
}

// Factors are the second factors of all people. It is safe for concurrent use,
// and any number of processes may share its store. It is a [crmguard.Revoker].
type Factors struct {
	store  Store
	keys   Keys
	issuer string
	clock  func() time.Time
	log    *slog.Logger

	// encode is personBytes; a test breaks it to show that the attacks would
	// succeed.
	encode func(p *Person, rows []Row) []byte
}

var _ crmguard.Revoker = (*Factors)(nil)

// New returns the factors in store. The issuer is the name of the CRM as apps
// show it: at most 64 bytes, without ":" and "+", which not all apps read back.
func New(store Store, keys Keys, issuer string, o *Options) (*Factors, error) {
	if store == nil || keys == nil {
		return nil, errors.New("mfa: store and keys are needed")
	}
	if err := checkName("issuer", issuer, maxIssuer, ":+"); err != nil {
		return nil, err
	}
	f := &Factors{store: store, keys: keys, issuer: issuer, encode: personBytes}
	f.clock, f.log = o.orDefault()
	return f, nil
}

// Status is what a person has, for their own page and for reviews.
type Status struct {
	Apps     []App `json:"apps"`
	Recovery int   `json:"recovery"` // recovery codes that are left
}

// App is an authenticator app.
type App struct {
	ID        string    `json:"id"`
	Confirmed bool      `json:"confirmed"`
	Created   time.Time `json:"created"`
	Used      time.Time `json:"used"` // when the last code was, to 30 seconds
}

// Has reports whether the person has a confirmed app, and so must show a code.
// Rows that are not genuine are [ErrState]: it cannot be said.
func (f *Factors) Has(ctx context.Context, tenant, person string) (bool, error) {
	_, rows, err := f.load(ctx, tenant, person)
	return hasApp(rows), wrap("has", err)
}

// Status returns what the person has. Rows that are not genuine are [ErrState].
func (f *Factors) Status(ctx context.Context, tenant, person string) (Status, error) {
	_, rows, err := f.load(ctx, tenant, person)
	if err != nil {
		return Status{}, wrap("status", err)
	}
	var s Status
	for _, r := range rows {
		switch {
		case r.Kind == KindApp:
			a := App{ID: r.ID, Confirmed: r.Active, Created: r.Created}
			if r.Step > 0 {
				a.Used = time.Unix(r.Step*app.period, 0).UTC()
			}
			s.Apps = append(s.Apps, a)
		case r.Step == 0:
			s.Recovery++
		}
	}
	slices.SortFunc(s.Apps, func(a, b App) int { return a.Created.Compare(b.Created) })
	return s, nil
}

// Revoke removes all apps and recovery codes of a person, also if they are not
// genuine. It implements [crmguard.Revoker]; Count counts recovery codes too.
func (f *Factors) Revoke(ctx context.Context, tenant, person string) (crmguard.Revoked, error) {
	none := crmguard.Revoked{What: "factors"}
	if err := checkNames(ctx, tenant, person); err != nil {
		return none, err
	}
	p, rows, err := f.store.Load(ctx, tenant, person)
	if err != nil {
		return none, wrap("revoke", err)
	}
	genuine, err := f.genuine(ctx, &p, rows)
	if err != nil {
		return none, wrap("revoke", err)
	}
	if genuine && len(rows) == 0 {
		return none, nil
	}
	next, err := f.next(ctx, &p, nil, genuine)
	if err != nil {
		return none, wrap("revoke", err)
	}
	next.Budget = p.Budget
	removed, err := f.store.Clear(ctx, next)
	return crmguard.Revoked{What: none.What, Count: removed}, wrap("revoke", err)
}

func (f *Factors) now() time.Time { return micros(f.clock()) }

// micros drops what stores do not keep, and what == on times would trip over.
func micros(t time.Time) time.Time { return time.UnixMicro(t.UnixMicro()).UTC() }

func wrap(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("mfa: %s: %w", what, err)
}
