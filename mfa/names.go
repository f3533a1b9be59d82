package mfa

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/crmguard/crmguard"
)

// maxName bounds what a row or URI holds, so that no caller fills the database.
const maxName = 256 // bytes

// checkNames refuses an empty tenant or person, and another tenant than that of
// the subject who acts.
func checkNames(ctx context.Context, tenant, person string) error {
	if actor, ok := crmguard.SubjectFrom(ctx); ok {
		if err := crmguard.CheckTenant(actor, tenant); err != nil {
			return fmt.Errorf("mfa: %w", err)
		}
	}
	return errors.Join(checkName("tenant", tenant, ""), checkName("person", person, ""))
}

// checkName refuses what databases or apps refuse or change.
func checkName(what, name, forbidden string) error {
	if name == "" || len(name) > maxName || !utf8.ValidString(name) || strings.ContainsAny(name, forbidden+"\x00") {
		return fmt.Errorf("mfa: %s: want 1 to %d bytes of UTF-8 without NUL or any of %q", what, maxName, forbidden)
	}
	return nil
}
