package signin

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"unicode"

	"github.com/crmguard/crmguard"
)

// Factors are the second factors of people; *mfa.Factors is one. It lets each code
// in once, counts attempts that fail, and makes whoever guesses wait. A code that
// is not good is a *[crmguard.Denial], whose Detail says why in lower-case letters
// and hyphens, for the journal. Any other error means that it could not be decided.
type Factors interface {
	// Has reports whether the person must show a code.
	Has(ctx context.Context, tenant, person string) (bool, error)
	// Verify accepts a code of an app.
	Verify(ctx context.Context, tenant, person, code string) error
	// Recover accepts a recovery code.
	Recover(ctx context.Context, tenant, person, code string) error
}

const (
	appDigits   = 6 // of a code of an app
	codeMissing = "code-missing"
)

// prove returns what a person has proved who knows their password and typed this
// code, or the reason for the journal why not. Of somebody without a factor the
// code is not looked at.
func (d *Door) prove(ctx context.Context, s crmguard.Subject, code string) (proved crmguard.Assurance, reason string, err error) {
	has, err := d.has(ctx, s)
	switch {
	case err != nil:
		return 0, "", err
	case !has:
		return crmguard.AssurancePassword, "", nil
	case isBlank(code):
		return 0, codeMissing, nil
	case isOfApp(code):
		proved, err = crmguard.AssuranceSecondFactor, d.o.Factors.Verify(ctx, s.Tenant, s.ID, code)
	default:
		proved, err = crmguard.AssuranceRecovered, d.o.Factors.Recover(ctx, s.Tenant, s.ID, code)
	}
	reason, err = refusedCode(err)
	return proved, reason, err
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
