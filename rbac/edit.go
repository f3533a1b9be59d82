package rbac

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/internal/policylog"
)

// edit is what to change in a [Store], whether what it removes gives somebody something, and
// how it comes into force here then; nil: it is already.
type edit struct {
	add, remove [][]string
	gives       bool
	put         func()
}

// Contention for a store: only other processes compete, and each round one of them wins.
const (
	attempts   = 100
	firstPause = time.Millisecond
	maxPause   = 50 * time.Millisecond
)

// revise makes the next version out of the newest one, again when another process was
// faster. It is called with the store locked.
func (e *Engine) revise(ctx context.Context, store Store, by func(stored Stored) (edit, error)) error {
	pause := firstPause
	for attempt := 1; ; attempt++ {
		_, err := e.reviseOnce(ctx, store, by)
		if attempt == attempts || !errors.Is(err, ErrChanged) {
			return err
		}
		select {
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), err)
		case <-time.After(rand.N(pause)): //nolint:gosec // spreads attempts, decides nothing
		}
		pause = min(2*pause, maxPause)
	}
}

func (e *Engine) reviseOnce(ctx context.Context, store Store, by func(stored Stored) (edit, error)) (Version, error) {
	stored, err := e.take(ctx)
	if _, refused := errors.AsType[*PolicyError](err); err != nil && !refused {
		return Version{}, err
	}
	next, err := by(stored)
	if err != nil {
		return Version{}, err
	}
	if next.gives {
		ctx = policylog.Giving(ctx)
	}
	version, err := store.Change(ctx, stored, next.add, next.remove)
	if err != nil {
		return Version{}, err
	}
	if next.put != nil {
		next.put()
	}
	e.stored(version)
	return version, nil
}

// Replace stores a whole new policy of a tenant as one version, and brings it into
// force: rules, each with its type first, take the place of all rows of the tenant.
// It is made out of version after, the Number that [Engine.Status] told when the author began: if the policy
// is another one by now, nothing changes and the error is [ErrChanged].
//
// The author is the subject of ctx, whose tenant it is. What Casbin would misread is refused with a
// [*PolicyError], and where anybody would get a right that the author lacks, or the
// author one more, that is a denial as of [Engine.GrantRole], and so is where roles cease
// to exclude each other of which the author has one; a job of the host needs
// no rights. Whether the subject may change the policy at all is a question to Check.
// The adapter must be a [Store], or the error is [ErrNoVersions].
func (e *Engine) Replace(ctx context.Context, tenant string, after int64, rules [][]string, reason string) (Version, error) {
	return e.replace(ctx, tenant, after, reason, func(Stored) [][]string { return rules })
}

func (e *Engine) replace(ctx context.Context, tenant string, after int64, reason string, rules func(stored Stored) [][]string) (Version, error) {
	author, store, err := e.author(ctx, tenant, reason)
	if err != nil {
		return Version{}, err
	}
	if err := e.lock(ctx); err != nil {
		return Version{}, err
	}
	defer e.unlock()
	return e.reviseOnce(WithReason(ctx, reason), store, func(stored Stored) (edit, error) {
		if stored.Version.Number != after {
			return edit{}, fmt.Errorf("%w: it is version %d, not %d", ErrChanged, stored.Version.Number, after)
		}
		return e.replacement(author, tenant, stored, rules(stored))
	})
}

// MayReplace tells beforehand what [Engine.Replace] would refuse the subject of ctx over the
// policy in force. It changes nothing.
func (e *Engine) MayReplace(ctx context.Context, tenant string, rules [][]string) error {
	author, _, err := e.author(ctx, tenant, "asked beforehand")
	if err != nil {
		return err
	}
	policy, err := e.inForce()
	if err != nil {
		return err
	}
	_, err = e.replacement(author, tenant, policy.stored(), rules)
	return err
}

// Rollback is [Engine.Replace] with the rows that the tenant had in an older version, save
// what persons have: their roles, rules and deputies stay as they are now, or whoever was
// dismissed since would have everything back. [Engine.RolledBack] tells the rows beforehand.
func (e *Engine) Rollback(ctx context.Context, tenant string, after, to int64, reason string) (Version, error) {
	_, store, err := e.author(ctx, tenant, reason)
	if err != nil {
		return Version{}, err
	}
	older, err := store.At(ctx, to)
	if err != nil {
		return Version{}, fmt.Errorf("rbac: roll back: %w", err)
	}
	return e.replace(ctx, tenant, after, reason, func(stored Stored) [][]string { return rolledBack(tenant, stored.Rules, older) })
}

// RolledBack are the rows, each with its type first, that [Engine.Rollback] to an older
// version would store by what is stored now, for [Engine.Draft].
func (e *Engine) RolledBack(ctx context.Context, tenant string, to int64) ([][]string, error) {
	if err := reaches(ctx, tenant); err != nil {
		return nil, err
	}
	store, ok := e.adapter.(Store)
	if !ok {
		return nil, ErrNoVersions
	}
	stored, err := store.Load(ctx)
	if err != nil {
		return nil, err
	}
	older, err := store.At(ctx, to)
	if err != nil {
		return nil, err
	}
	return rolledBack(tenant, stored.Rules, older), nil
}

// rolledBack are the rows of persons as they are stored, and the others as they were.
func rolledBack(tenant string, stored, older [][]string) [][]string {
	ofPerson := func(rule []string) bool { return rule[0] != "p4" && strings.HasPrefix(rule[1], personPrefix) }
	now := slices.DeleteFunc(rulesOf(tenant, stored), func(rule []string) bool { return !ofPerson(rule) })
	return append(now, slices.DeleteFunc(rulesOf(tenant, older), ofPerson)...)
}

// History tells what was changed in the policy of a tenant, the newest version first:
// at most limit of those before one, 0 for the newest. It leaves out versions that
// changed nothing of the tenant, and rows of others.
func (e *Engine) History(ctx context.Context, tenant string, before int64, limit int) ([]Version, error) {
	if err := reaches(ctx, tenant); err != nil {
		return nil, err
	}
	store, ok := e.adapter.(Store)
	if !ok {
		return nil, ErrNoVersions
	}
	var found []Version
	for len(found) < limit {
		page, err := store.History(ctx, before, limit)
		if err != nil || len(page) == 0 {
			return found, err
		}
		for _, v := range page {
			before = v.Number
			v.Added, v.Removed = rulesOf(tenant, v.Added), rulesOf(tenant, v.Removed)
			if len(v.Added)+len(v.Removed) > 0 && len(found) < limit {
				found = append(found, v)
			}
		}
	}
	return found, nil
}

// author is who changes the policy of a tenant as a whole, and where.
func (e *Engine) author(ctx context.Context, tenant, reason string) (crmguard.Subject, Store, error) {
	author, ok := crmguard.SubjectFrom(ctx)
	if !ok {
		return author, nil, errors.New("rbac: replace: nobody acts in the context")
	}
	if err := reaches(ctx, tenant); err != nil {
		return author, nil, err
	}
	if reason == "" {
		return author, nil, errors.New("rbac: replace: a reason is needed")
	}
	store, ok := e.adapter.(Store)
	if !ok {
		return author, nil, ErrNoVersions
	}
	return author, store, nil
}

// rulesOf are those of a tenant.
func rulesOf(tenant string, rules [][]string) (of [][]string) {
	for _, rule := range rules {
		if rowOf("", rule).tenant() == tenant {
			of = append(of, rule)
		}
	}
	return of
}

func (e *Engine) replacement(author crmguard.Subject, tenant string, stored Stored, rules [][]string) (edit, error) {
	next, change, err := replaced(tenant, stored, rules, e.now)
	if err != nil {
		return edit{}, err
	}
	old := e.current.Load()
	change.gives, change.put = old.frees(change.remove), func() { e.put(next) }
	return change, mayChange(author, old, next, e.now())
}

// stored are the rows as a [Store] would have them.
func (s *snapshot) stored() (stored Stored) {
	for _, r := range s.rows.all() {
		stored.Where, stored.Rules = append(stored.Where, r.where), append(stored.Rules, r.rule())
	}
	return stored
}

// replaced is a policy in which rules have taken the place of all rows of a tenant, and
// what that changes.
func replaced(tenant string, stored Stored, rules [][]string, now func() int64) (*snapshot, edit, error) {
	var findings []Finding
	var rows, asked []row
	for i, rule := range rules {
		r := rowOf(fmt.Sprintf("rule %d", i+1), rule)
		if got := r.tenant(); got != "" && got != tenant {
			findings = append(findings, Finding{r.where, rule, "it is of another tenant"})
		}
		asked = append(asked, r)
	}
	var change edit
	wanted, there := keysOf(asked), map[[7]string]bool{}
	for i, rule := range stored.Rules {
		r := rowOf(stored.Where[i], rule)
		if r.tenant() == tenant && !wanted[r.key()] {
			change.remove = append(change.remove, rule)
		} else {
			rows = append(rows, r) // what stays keeps its place
		}
		there[r.key()] = true
	}
	for _, r := range asked {
		if len(r.fields) > 6 || !there[r.key()] {
			rows = append(rows, r)
		}
	}
	next, err := compileAt(rows, now)
	if refused, ok := errors.AsType[*PolicyError](err); ok {
		findings = append(findings, refused.Findings...)
	} else if err != nil {
		return nil, edit{}, err
	}
	if len(findings) > 0 {
		return nil, edit{}, &PolicyError{findings}
	}
	for _, r := range next.rows.all() {
		if wanted[r.key()] && !there[r.key()] {
			change.add = append(change.add, r.rule())
		}
	}
	return next, change, nil
}
