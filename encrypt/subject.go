package encrypt

import (
	"context"
	"fmt"

	"github.com/crmguard/crmguard"
)

// checkSealing refuses a place without a tenant, and another tenant's subject.
// Nobody need be in the context: jobs seal too.
func checkSealing(ctx context.Context, at *crmguard.Place) error {
	if err := checkPlace(at); err != nil {
		return err
	}
	if at.Client == "" {
		return checkForeign(ctx, at.Tenant)
	}
	if _, err := crmguard.CheckSubject(ctx, at.Tenant); err != nil {
		return fmt.Errorf("%w: %w", errNoSubject, err)
	}
	return nil
}

// checkOpening lets data of a client be opened for a subject of its tenant only, and what
// is nobody's for others than subjects of other tenants.
func checkOpening(ctx context.Context, at *crmguard.Place) error {
	if err := checkPlace(at); err != nil {
		return err
	}
	if at.Client == "" {
		return checkForeign(ctx, at.Tenant)
	}
	return checkSubject(ctx, at.Tenant)
}

// checkForeign refuses subjects of other tenants; there need be none, and one that is not
// complete, as while somebody signs in, is as good as none.
func checkForeign(ctx context.Context, tenant string) error {
	if ok, err := crmguard.CheckSubject(ctx, tenant); ok && err != nil {
		if s, _ := crmguard.SubjectFrom(ctx); s.Tenant != tenant && s.Tenant != "" {
			return fmt.Errorf("%w: %w", errNoSubject, err)
		}
	}
	return nil
}

// checkSubject wants a subject of the tenant.
func checkSubject(ctx context.Context, tenant string) error {
	if tenant == "" {
		return errTenant
	}
	switch ok, err := crmguard.CheckSubject(ctx, tenant); {
	case !ok:
		return errNoSubject
	case err != nil:
		return fmt.Errorf("%w: %w", errNoSubject, err)
	}
	return nil
}

// checkHost is for what acts on the keys of all tenants: no person of one of them orders that.
func checkHost(ctx context.Context) error {
	if s, ok := crmguard.SubjectFrom(ctx); ok && s.Kind != crmguard.KindSystem {
		return errHost
	}
	return nil
}
