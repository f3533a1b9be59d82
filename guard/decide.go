package guard

import (
	"context"
	"errors"
	"fmt"

	"github.com/crmguard/crmguard"
)

// Check decides whether the subject of ctx may do a to r: nil is yes, a
// *[crmguard.Denial] no, and any other error means that it could not be decided,
// which is a no too. It records nothing.
func (g *Guard) Check(ctx context.Context, a crmguard.Action, r crmguard.Resource) error {
	s, err := g.subject(ctx)
	if err != nil {
		return err
	}
	if err := g.admit(ctx, s, a, r); err != nil {
		return decided(err)
	}
	return decided(g.rights.Check(ctx, s, a, r))
}

// CheckAll is Check for a page: the i-th error is about the i-th resource.
func (g *Guard) CheckAll(ctx context.Context, a crmguard.Action, rs []crmguard.Resource) []error {
	errs := make([]error, len(rs))
	s, err := g.subject(ctx)
	if err != nil {
		for i := range errs {
			errs[i] = err
		}
		return errs
	}
	if all, ok := g.rights.(allChecker); ok {
		errs = all.CheckAll(ctx, s, a, rs)
	} else {
		for i, r := range rs {
			errs[i] = g.rights.Check(ctx, s, a, r)
		}
	}
	for i, r := range rs {
		if err := g.admit(ctx, s, a, r); err != nil { // comes first in the order, so it replaces what rights said
			errs[i] = err
		}
		errs[i] = decided(errs[i])
	}
	return errs
}

// allChecker is what rights may offer besides Check: one decision for a page.
type allChecker interface {
	CheckAll(ctx context.Context, s crmguard.Subject, a crmguard.Action, rs []crmguard.Resource) []error
}

// admit is all that is asked before rights.
func (g *Guard) admit(ctx context.Context, s crmguard.Subject, a crmguard.Action, r crmguard.Resource) error {
	if err := crmguard.CheckTenant(s, r.Tenant); err != nil {
		return err
	}
	if g.o.Addresses == nil {
		return nil
	}
	return g.o.Addresses.Check(ctx, s, a, r)
}

// subject returns who acts, or why nobody does.
func (g *Guard) subject(ctx context.Context) (crmguard.Subject, error) {
	if s, ok := crmguard.SubjectFrom(ctx); ok {
		return s, nil
	}
	if v, ok := ctx.Value(visitKey{}).(*visit); ok && v.err != nil {
		return crmguard.Subject{}, decided(v.err)
	}
	return crmguard.Subject{}, &crmguard.Denial{By: "guard", Code: "no-subject", Status: crmguard.Unauthenticated}
}

// errUndecided marks errors that kept the guard from deciding or recording, as
// against errors of the act itself.
var errUndecided = errors.New("guard: could not be decided or recorded")

// decided marks an error that is no denial.
func decided(err error) error {
	if err == nil {
		return nil
	}
	if _, denied := errors.AsType[*crmguard.Denial](err); denied {
		return err
	}
	return fmt.Errorf("%w: %w", errUndecided, err)
}

// permit decides and records a no. Its error is what the subject is told.
func (g *Guard) permit(ctx context.Context, d *draft) error {
	err := g.Check(ctx, d.event.Action, d.event.Resource)
	if err == nil {
		return nil
	}
	denial, denied := errors.AsType[*crmguard.Denial](err)
	if denied && denial.Status == crmguard.Unauthenticated {
		return err // strangers are not journalled one by one, or they fill the disk
	}
	e := d.take()
	if !denied {
		e.Outcome, e.Reason = crmguard.Undecided, "check-failed"
		return errors.Join(err, g.recordOutcome(ctx, e))
	}
	e.Outcome, e.Reason = crmguard.Denied, denial.By+":"+denial.Code
	if recordErr := g.recordOutcome(ctx, e); recordErr != nil {
		return fmt.Errorf("%w: %w", errUndecided, recordErr)
	}
	if denial.Status == crmguard.Forbidden && e.Resource.ID != "" && !g.maySee(ctx, e) {
		return ErrNotFound
	}
	return err
}

// maySee reports whether the subject may at least know that the record exists.
func (g *Guard) maySee(ctx context.Context, e crmguard.Event) bool {
	if e.Action == crmguard.View {
		return false // that is what was just refused
	}
	r := e.Resource
	r.Field = ""
	return g.Check(ctx, crmguard.View, r) == nil
}
