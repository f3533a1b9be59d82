package guard

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/crmguard/crmguard"
)

// Check decides whether the subject of ctx may do a to r: nil is yes, a
// *[crmguard.Denial] no, and any other error means that it could not be decided,
// which is a no too. It records and counts nothing: norms are not asked. A denial
// with status crmguard.StepUp says that all others allow it.
func (g *Guard) Check(ctx context.Context, a crmguard.Action, r crmguard.Resource) error {
	s, err := g.subject(ctx)
	if err != nil {
		return err
	}
	if err := g.decide(ctx, s, a, r); err != nil || g.o.StepUp == nil {
		return err
	}
	return decided(g.o.StepUp.Check(ctx, s, a, r))
}

// decide asks for all but the freshness of the proof, which is the session's.
func (g *Guard) decide(ctx context.Context, s crmguard.Subject, a crmguard.Action, r crmguard.Resource) error {
	if err := g.admit(ctx, s, a, r); err != nil {
		return decided(err)
	}
	return decided(g.rights.Check(ctx, s, a, r))
}

// Checker decides about the subject that it is asked about, as [Guard.Check] does
// about that of a context: for what is done later than the request that wanted it,
// such as a call. How fresh the proof is was asked then.
func (g *Guard) Checker() crmguard.Checker { return crmguard.CheckerFunc(g.decide) }

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
		errs = slices.Clone(all.CheckAll(ctx, s, a, rs))
	} else {
		for i, r := range rs {
			errs[i] = g.rights.Check(ctx, s, a, r)
		}
	}
	if len(errs) != len(rs) {
		err := decided(fmt.Errorf("guard: rights answered %d of %d questions", len(errs), len(rs)))
		return slices.Repeat([]error{err}, len(rs))
	}
	for i, r := range rs {
		if err := g.admit(ctx, s, a, r); err != nil { // comes first in the order, so it replaces what rights said
			errs[i] = err
		}
		if errs[i] == nil && g.o.StepUp != nil {
			errs[i] = g.o.StepUp.Check(ctx, s, a, r)
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
	if err := g.checkLockdown(ctx, s, a); err != nil {
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
	if err == nil || denialOf(err) != nil {
		return err
	}
	return fmt.Errorf("%w: %w", errUndecided, err)
}

// denialOf returns the no that err is, nil if it is none.
func denialOf(err error) *crmguard.Denial {
	denial, _ := errors.AsType[*crmguard.Denial](err)
	return denial
}

// permit decides about the act of d and records a no. Its error is what the
// subject is told.
func (g *Guard) permit(ctx context.Context, d *draft) error {
	e := d.take()
	if e.Resource.Tenant != e.Subject.Tenant {
		return g.absent(ctx, d)
	}
	err := g.Check(ctx, e.Action, e.Resource)
	byNorm := err == nil && g.o.Norms != nil
	if byNorm {
		err = decided(g.o.Norms.Check(ctx, e.Subject, e.Action, e.Resource))
	}
	if err == nil {
		return nil
	}
	visible := e.Resource.ID == "" || g.maySee(ctx, e)
	denial := denialOf(err)
	if denial == nil {
		e.Outcome, e.Reason = crmguard.Undecided, "check-failed"
	} else {
		e.Outcome, e.Reason = crmguard.Denied, denial.By+":"+denial.Code
	}
	if recordErr := g.record(ctx, e); recordErr != nil {
		return fmt.Errorf("%w: %w", errUndecided, recordErr)
	}
	if denial == nil || denial.Status != crmguard.Forbidden {
		return err
	}
	if !byNorm { // they have counted their own no
		g.countRefusal(ctx, e)
	}
	if !visible {
		return ErrNotFound
	}
	return err
}

// absent answers for a record that does not exist, or is another tenant's, just as
// [Guard.permit] does for one that the subject may not see: the same questions, about
// a record of nobody. What every question is answered with, such as that the CRM is
// closed, is the answer here too.
func (g *Guard) absent(ctx context.Context, d *draft) error {
	asked := d.take()
	asked.Resource = crmguard.Resource{Tenant: asked.Subject.Tenant, Kind: asked.Resource.Kind, ID: "absent", Field: asked.Resource.Field}
	// A hidden record stops at the rights. Whom they let pass here is not asked for a
	// fresh proof, which would tell the two apart.
	err := g.decide(ctx, asked.Subject, asked.Action, asked.Resource)
	g.maySee(ctx, asked)
	// The id that was asked for is whatever the client wrote, and so are values
	// that were described for it: neither goes into the journal.
	e := asked
	e.Resource = crmguard.Resource{Tenant: asked.Resource.Tenant, Kind: asked.Resource.Kind}
	e.Private = nil
	denial := denialOf(err)
	switch {
	case err == nil, denial != nil && denial.Status == crmguard.Forbidden:
		e.Outcome, e.Reason, err = crmguard.Denied, "not-found", ErrNotFound
	case denial != nil:
		e.Outcome, e.Reason = crmguard.Denied, denial.By+":"+denial.Code
	default:
		e.Outcome, e.Reason = crmguard.Undecided, "check-failed"
	}
	if recordErr := g.record(ctx, e); recordErr != nil {
		return fmt.Errorf("%w: %w", errUndecided, recordErr)
	}
	if errors.Is(err, ErrNotFound) {
		g.countRefusal(ctx, e)
	}
	return err
}

// refusalCounter is what norms may offer besides Check: a norm of refusals.
type refusalCounter interface {
	CountRefusal(ctx context.Context, s crmguard.Subject) error
}

// countRefusal tells the norms of an act that was denied without them. Hanging up
// does not keep it from being counted, and an error does not change the answer.
func (g *Guard) countRefusal(ctx context.Context, e crmguard.Event) {
	counter, ok := g.o.Norms.(refusalCounter)
	if !ok {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), recordTimeout)
	defer cancel()
	if err := counter.CountRefusal(ctx, e.Subject); err != nil {
		g.o.Logger.ErrorContext(ctx, "guard: a refusal was not counted", "event", e.ID, "subject", e.Subject.ID, "error", err)
	}
}

// maySee reports whether the subject may at least know that the record exists. It
// asks also where the answer is known, so that all refusals cost the same.
func (g *Guard) maySee(ctx context.Context, e crmguard.Event) bool {
	r := e.Resource
	r.Field = ""
	return g.decide(ctx, e.Subject, crmguard.View, r) == nil && e.Action != crmguard.View
}
