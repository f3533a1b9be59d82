package mfa

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"

	"github.com/crmguard/crmguard"
)

// ErrNoFactor says that a person has no confirmed app, without which recovery
// codes would be the factor themselves.
var ErrNoFactor = errors.New("mfa: the person has no confirmed app")

const (
	recoveryCodes  = 10
	recoveryLength = 24 // characters of base32: 120 bits
	recoveryGroup  = 4
)

// RecoveryCodes are shown to their person once. They redact themselves.
type RecoveryCodes struct{ codes []string }

// Show returns the codes, in groups of four characters, for the person's eyes.
func (c *RecoveryCodes) Show() []string {
	shown := make([]string, len(c.codes))
	for i, code := range c.codes {
		var groups []string
		for group := range slices.Chunk([]byte(code), recoveryGroup) {
			groups = append(groups, string(group))
		}
		shown[i] = strings.Join(groups, "-")
	}
	return shown
}

// Format hides the codes, whatever the verb.
func (RecoveryCodes) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, "[redacted]") }

// LogValue hides the codes.
func (RecoveryCodes) LogValue() slog.Value { return slog.StringValue("[redacted]") }

// MarshalJSON hides the codes.
func (RecoveryCodes) MarshalJSON() ([]byte, error) { return []byte(`"[redacted]"`), nil }

// ReplaceRecovery returns ten new recovery codes. Those from before are worth
// nothing from here on. A person without a confirmed app is [ErrNoFactor].
func (f *Factors) ReplaceRecovery(ctx context.Context, tenant, person string) (*RecoveryCodes, error) {
	var codes *RecoveryCodes
	err := f.change(ctx, tenant, person, func(rows []Row) (put []Row, remove []string, err error) {
		if !hasApp(rows) {
			return nil, nil, ErrNoFactor
		}
		codes = &RecoveryCodes{}
		for range recoveryCodes {
			code := rand.Text()[:recoveryLength]
			r := Row{ID: rand.Text(), Kind: KindRecovery, Active: true, Created: f.now()}
			r.Sealed, err = f.keys.MAC(ctx, recoveryPlace(tenant, r.ID), recoveryBytes(tenant, person, r.ID, code))
			if err != nil {
				return nil, nil, fmt.Errorf("make a MAC: %w", err)
			}
			codes.codes = append(codes.codes, code)
			put = append(put, r)
		}
		return put, idsOf(rows, KindRecovery), nil
	})
	if err != nil {
		return nil, wrap("replace recovery codes", err)
	}
	return codes, nil
}

// Recover accepts a recovery code, once. It proves [crmguard.AssuranceRecovered]
// only: enough to enrol another app, if the host lets it be. Its errors are those
// of [Factors.Verify].
func (f *Factors) Recover(ctx context.Context, tenant, person, code string) error {
	typed, ok := normalizeRecovery(code)
	if !ok {
		return malformed(ctx, tenant, person)
	}
	return f.prove(ctx, tenant, person, KindRecovery, typed)
}

// findRecovery looks at all codes, used ones too, whichever fits.
func (f *Factors) findRecovery(ctx context.Context, p *Person, rows []Row, code string) (match, error) {
	var found match
	var failed error
	for _, r := range rows {
		if r.Kind != KindRecovery {
			continue
		}
		place, data := recoveryPlace(p.Tenant, r.ID), recoveryBytes(p.Tenant, p.ID, r.ID, code)
		err := f.keys.Verify(ctx, place, data, r.Sealed)
		if errors.Is(err, crmguard.ErrMAC) || errors.Is(err, crmguard.ErrErased) {
			continue
		}
		if err != nil {
			failed = err
			continue
		}
		found = match{id: r.ID, step: 1, ok: true}
	}
	if !found.ok && failed != nil {
		return match{}, failed
	}
	return found, nil
}

// normalizeRecovery returns a recovery code as it was made, from what somebody
// types: in groups or not, in capitals or not.
func normalizeRecovery(typed string) (code string, ok bool) {
	code, ok = compact(typed, recoveryLength)
	if !ok {
		return "", false
	}
	code = strings.ToUpper(code)
	for _, c := range []byte(code) {
		if (c < 'A' || c > 'Z') && (c < '2' || c > '7') {
			return "", false
		}
	}
	if len(code) != recoveryLength { // a letter beyond ASCII whose capital is in it
		return "", false
	}
	return code, true
}
