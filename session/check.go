package session

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/crmguard/crmguard"
)

// Codes of the denials of this package. All have status Unauthenticated.
const (
	CodeMalformed = "malformed-token"
	CodeUnknown   = "unknown-session" // no such session, a wrong secret, or a forged row
	CodeExpired   = "session-expired" // the lifetime is over
	CodeIdle      = "session-idle"    // not used for too long
	CodeEnded     = "session-ended"   // the person's sessions were revoked
	CodeClosed    = "person-closed"   // closed, never opened, or in a state that is not genuine
)

func denied(code, detail string) *crmguard.Denial {
	return &crmguard.Denial{By: "session", Code: code, Status: crmguard.Unauthenticated, Detail: detail}
}

// Bounds of what a row holds, so that no caller fills the database.
const (
	maxText   = 256 // bytes
	maxScopes = 64
)

func checkSubject(s crmguard.Subject) error {
	if crmguard.CheckTenant(s, s.Tenant) != nil { // no denial: nobody was refused, the caller is wrong
		return errors.New("session: start: a subject needs tenant, ID and kind")
	}
	if s.Kind == crmguard.KindSystem {
		return errors.New("session: start: jobs of the host have no sessions")
	}
	if _, err := s.Assurance.MarshalText(); err != nil {
		return fmt.Errorf("session: start: %w", err)
	}
	if len(s.Scopes) > maxScopes {
		return fmt.Errorf("session: start: more than %d scopes", maxScopes)
	}
	for _, text := range append([]string{s.Tenant, s.ID, s.OnBehalfOf, s.Device, addrText(s.Addr)}, s.Scopes...) {
		if err := checkText(text); err != nil {
			return err
		}
	}
	return nil
}

// checkText refuses what databases refuse or change.
func checkText(text string) error {
	if len(text) > maxText || !utf8.ValidString(text) || strings.ContainsRune(text, 0) {
		return fmt.Errorf("session: names are valid UTF-8 of at most %d bytes without NUL", maxText)
	}
	return nil
}

// checkNames refuses an empty tenant or person, and another tenant than that of
// the subject who acts.
func checkNames(ctx context.Context, tenant, person string) error {
	if tenant == "" || person == "" {
		return errors.New("session: tenant and person are needed")
	}
	if err := checkActor(ctx, tenant); err != nil {
		return err
	}
	return errors.Join(checkText(tenant), checkText(person))
}

// checkActor refuses another tenant than that of the subject who acts, if one
// does.
func checkActor(ctx context.Context, tenant string) error {
	if actor, ok := crmguard.SubjectFrom(ctx); ok {
		if err := crmguard.CheckTenant(actor, tenant); err != nil {
			return fmt.Errorf("session: %w", err)
		}
	}
	return nil
}
