package signin

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"

	"github.com/crmguard/crmguard"
)

// Factors are the second factors of people; *mfa.Factors is one. It lets each code
// in once, counts attempts that fail, and makes whoever guesses wait. A code that
// is not good is a *[crmguard.Denial], whose Detail says why in lower-case letters
// and hyphens, for the journal: "paused" for one that was not looked at. Any other
// error means that it could not be decided.
type Factors interface {
	// Has reports whether the person must show a code.
	Has(ctx context.Context, tenant, person string) (bool, error)
	// Verify accepts a code of an app.
	Verify(ctx context.Context, tenant, person, code string) error
	// Recover accepts a recovery code.
	Recover(ctx context.Context, tenant, person, code string) error
}

// Reasons of the door's own, beside those of Factors.
const (
	codeMissing = "code-missing"
	codePaused  = "code-paused" // too many wrong ones; it was not looked at
)

const factorsPaused = "paused" // of Factors: they did not look at it

const appDigits = 6 // of a code of an app

// prove returns what a person has proved who made this attempt with their
// password, or the reason for the journal why it is not enough. Of somebody
// without a factor the code is not looked at.
func (d *Door) prove(ctx context.Context, s crmguard.Subject, a Attempt) (proved crmguard.Assurance, reason string, err error) {
	has, err := d.has(ctx, s)
	switch {
	case err != nil:
		return 0, "", err
	case !has:
		return crmguard.AssurancePassword, "", nil
	case isBlank(a.Code):
		return 0, codeMissing, nil
	}
	proved, check := crmguard.AssuranceRecovered, d.o.Factors.Recover
	if isOfApp(a.Code) {
		proved, check = crmguard.AssuranceSecondFactor, d.o.Factors.Verify
	}
	now := d.o.Clock()
	if d.homes.has(homeKey(a), now) {
		reason, err = refusedCode(check(ctx, s.Tenant, s.ID, a.Code))
		return proved, reason, err
	}
	// Together strangers have as much room as one: that of the factors is the
	// person's. One network cannot use it up, so that another one is left some even
	// where nobody's home is known, as after a restart.
	network := networkKey(a.Addr, 48)
	strangers := counted{
		{d.codesAt, codeKey("person", s.Tenant, s.ID, string(network[:]))},
		{d.codes, codeKey("person", s.Tenant, s.ID)},
	}
	reason, _, err = try(strangers, now, func() error { return check(ctx, s.Tenant, s.ID, a.Code) })
	return proved, reason, err
}

// try lets somebody try a code, or says how long they have to wait before the
// next one. Factors make a person wait for all wrong codes together: who knows the
// password, or has stolen a session, shall not be the one who sets that pace.
func try(who counted, now time.Time, check func() error) (reason string, wait time.Duration, err error) {
	if wait := who.take(now); wait > 0 {
		return codePaused, wait, nil
	}
	reason, err = refusedCode(check())
	if reason == "" || reason == factorsPaused { // good, or not their failure
		who.giveBack()
	}
	return reason, 0, err
}

func (d *Door) has(ctx context.Context, s crmguard.Subject) (bool, error) {
	if d.o.Factors == nil {
		return false, nil
	}
	has, err := d.o.Factors.Has(ctx, s.Tenant, s.ID)
	if err != nil {
		return false, fmt.Errorf("find the second factor: %w", err)
	}
	return has, nil
}

// refusedCode tells why a code was refused from an error that is no refusal.
func refusedCode(err error) (reason string, _ error) {
	if err == nil {
		return "", nil
	}
	denial, denied := errors.AsType[*crmguard.Denial](err)
	if !denied || denial == nil {
		return "", fmt.Errorf("check the code: %w", err)
	}
	if isWord(denial.Detail) {
		return denial.Detail, nil
	}
	return denial.By + ":" + denial.Code, nil
}

// isWord keeps out of the journal whatever could be something that was typed.
func isWord(text string) bool {
	return text != "" && !strings.ContainsFunc(text, func(c rune) bool { return (c < 'a' || c > 'z') && c != '-' })
}

func isBlank(code string) bool { return strings.TrimSpace(code) == "" }

// isOfApp tells a code of an app from a recovery code: six digits, with spaces or
// hyphens anywhere.
func isOfApp(code string) bool {
	digits := 0
	for _, c := range code {
		switch {
		case c >= '0' && c <= '9':
			digits++
		case c != '-' && !unicode.IsSpace(c):
			return false
		}
	}
	return digits == appDigits
}
