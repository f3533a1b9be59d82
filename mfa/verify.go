package mfa

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/crmguard/crmguard"
)

// Why a code was refused, as [crmguard.Denial.Detail]: for the journal, never
// for whoever typed the code.
const (
	ReasonMalformed = "malformed-code"
	ReasonWrong     = "wrong-code"
	ReasonUsed      = "used-code"   // right, but used before, or older than one that was
	ReasonPaused    = "paused"      // too many attempts; the code was not looked at
	ReasonAbsent    = "no-factor"   // nothing enrolled, or not this any more
	ReasonForged    = "not-genuine" // somebody wrote the rows past this package
)

// refused is the one answer to every code that is not good.
func refused(reason string) *crmguard.Denial {
	return &crmguard.Denial{By: "mfa", Code: "refused", Status: crmguard.Unauthenticated, Detail: reason}
}

// Verify accepts a code of one of the person's apps, once. It proves
// [crmguard.AssuranceSecondFactor]. A no is a *[crmguard.Denial], the same for
// every reason but for Detail, which is one of this package's reasons; any other
// error means that it could not be decided, and does not count as a failure.
func (f *Factors) Verify(ctx context.Context, tenant, person, code string) error {
	digits, ok := normalizeCode(code)
	if !ok {
		return malformed(ctx, tenant, person)
	}
	return f.prove(ctx, tenant, person, KindApp, digits)
}

// match is a row whose code was typed, and the step that this uses up.
type match struct {
	id   string
	step int64
	ok   bool
}

// malformed refuses what is no code. It cannot be guessing, and is not counted.
func malformed(ctx context.Context, tenant, person string) error {
	if err := checkNames(ctx, tenant, person); err != nil {
		return err
	}
	return refused(ReasonMalformed)
}

// prove counts an attempt, looks for what was typed among the rows of a kind,
// makes sure that what was found is genuine, and uses it up, in this order.
func (f *Factors) prove(ctx context.Context, tenant, person string, kind Kind, typed string) error {
	if err := checkNames(ctx, tenant, person); err != nil {
		return err
	}
	now := f.now()
	p, rows, err := f.take(ctx, tenant, person, now)
	if err != nil {
		return err
	}
	err = f.use(ctx, &p, rows, kind, typed, now)
	if _, denied := errors.AsType[*crmguard.Denial](err); !denied { // it was good, or it was not the person's failure
		f.giveBack(ctx, tenant, person)
	}
	return err
}

func (f *Factors) use(ctx context.Context, p *Person, rows []Row, kind Kind, typed string, now time.Time) error {
	var found match
	var err error
	if kind == KindApp {
		found, err = f.findCode(ctx, p, rows, typed, now)
	} else {
		found, err = f.findRecovery(ctx, p, rows, typed)
	}
	if err != nil {
		return wrap("compare", err)
	}
	if !found.ok {
		return refused(ReasonWrong)
	}
	// A row that is not genuine may well refuse a wrong code. It must not accept.
	if err := f.mustBeGenuine(ctx, p, rows); err != nil {
		return err
	}
	advanced, err := f.store.Advance(ctx, p.Tenant, p.ID, found.id, found.step)
	if err != nil {
		return wrap("use a code", err)
	}
	if !advanced {
		return refused(ReasonUsed)
	}
	return nil
}

// mustBeGenuine refuses rows that somebody else wrote.
func (f *Factors) mustBeGenuine(ctx context.Context, p *Person, rows []Row) error {
	genuine, err := f.genuine(ctx, p, rows)
	if err != nil {
		return wrap("verify", err)
	}
	if !genuine {
		f.warn(ctx, p)
		return refused(ReasonForged)
	}
	return nil
}

// findCode looks at all apps and all steps, whichever fits.
func (f *Factors) findCode(ctx context.Context, p *Person, rows []Row, code string, now time.Time) (match, error) {
	var found match
	for i := range rows {
		r := &rows[i]
		if r.Kind != KindApp || !r.Active {
			continue
		}
		step, ok, err := f.matchRow(ctx, p, rows, r, code, now)
		if err != nil {
			return match{}, err
		}
		if ok {
			found = match{r.ID, step, true}
		}
	}
	return found, nil
}

func (f *Factors) matchRow(ctx context.Context, p *Person, rows []Row, r *Row, code string, now time.Time) (int64, bool, error) {
	secret, err := f.open(ctx, p.Tenant, p.ID, r)
	if err != nil {
		// Is it the row, or are it the keys?
		if err := f.mustBeGenuine(ctx, p, rows); err != nil {
			return 0, false, err
		}
		return 0, false, err
	}
	defer clear(secret)
	return app.match(secret, code, now)
}

// open returns the secret of a row; the caller clears it.
func (f *Factors) open(ctx context.Context, tenant, person string, r *Row) ([]byte, error) {
	sealed, err := f.keys.Open(ctx, secretPlace(tenant, r.ID), r.Sealed)
	if err != nil {
		return nil, fmt.Errorf("open a secret: %w", err)
	}
	return parseSecret(person, sealed)
}

// take counts an attempt before anything is compared, so that parallel guesses
// do not add up. It returns the person and the rows of a moment before.
func (f *Factors) take(ctx context.Context, tenant, person string, now time.Time) (Person, []Row, error) {
	for range changeTries {
		p, rows, err := f.store.Load(ctx, tenant, person)
		if err != nil {
			return Person{}, nil, wrap("load", err)
		}
		if !hasApp(rows) {
			return Person{}, nil, refused(ReasonAbsent)
		}
		if !p.exists() {
			f.warn(ctx, &p)
			return Person{}, nil, refused(ReasonForged)
		}
		next, wait := p.Budget.take(now)
		if wait > 0 {
			return Person{}, nil, refused(ReasonPaused)
		}
		taken, err := f.store.Attempt(ctx, tenant, person, p.Budget, next)
		if err != nil {
			return Person{}, nil, wrap("count an attempt", err)
		}
		if taken {
			return p, rows, nil
		}
	}
	return Person{}, nil, errBusy
}

// giveBack uncounts an attempt, also when the caller has gone away. That it
// fails makes the person wait sooner, never later.
func (f *Factors) giveBack(ctx context.Context, tenant, person string) {
	ctx = context.WithoutCancel(ctx)
	err := errBusy
	for range changeTries {
		var p Person
		if p, _, err = f.store.Load(ctx, tenant, person); err != nil {
			break
		}
		var done bool
		if done, err = f.store.Attempt(ctx, tenant, person, p.Budget, p.Budget.giveBack()); err != nil || done || !p.exists() {
			break
		}
		err = errBusy
	}
	if err != nil {
		f.log.WarnContext(ctx, "mfa: an attempt was not uncounted", "tenant", tenant, "person", person, "error", err)
	}
}
