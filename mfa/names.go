package mfa

import (
	"context"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/crmguard/crmguard"
)

// Bounds in bytes: of what a row holds, so that no caller fills the database, and
// of what a QR code holds, so that it can be scanned from a screen.
const (
	maxName    = 256
	maxIssuer  = 64
	maxAccount = 128
)

// checkNames refuses an empty tenant or person, and another tenant than that of
// the subject who acts.
func checkNames(ctx context.Context, tenant, person string) error {
	if actor, ok := crmguard.SubjectFrom(ctx); ok {
		if err := crmguard.CheckTenant(actor, tenant); err != nil {
			return fmt.Errorf("mfa: %w", err)
		}
	}
	if err := checkName("tenant", tenant, maxName, ""); err != nil {
		return err
	}
	return checkName("person", person, maxName, "")
}

// checkName refuses what databases or apps refuse or change.
func checkName(what, name string, most int, forbidden string) error {
	if name == "" || len(name) > most || !utf8.ValidString(name) || strings.IndexByte(name, 0) >= 0 ||
		forbidden != "" && strings.ContainsAny(name, forbidden) {
		return fmt.Errorf("mfa: %s: want 1 to %d bytes of UTF-8 without NUL or any of %q", what, most, forbidden)
	}
	return nil
}
