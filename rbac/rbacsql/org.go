package rbacsql

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/rbac"
)

// Org keeps the departments of tenants as documents like the policy: in versions, each
// with a MAC, in the same tables and under the same marks, so that whoever writes the
// database places nobody and makes nobody a head. It implements [rbac.Org], and is safe for
// concurrent use.
type Org struct {
	tables

	mu sync.Mutex
	of map[string]*versions // by tenant
}

var _ rbac.Org = (*Org)(nil)

// Org are the departments beside the policy.
func (a *Adapter) Org() *Org { return &a.org }

// wholeEvery is after how many versions one holds all rows, so that no more than these
// are read to know the newest.
const wholeEvery = 50

// maxTenants bounds what is remembered of tenants. Beyond it all is forgotten, but for the
// marks.
const maxTenants = 4096

func (o *Org) versions(tenant string) (*versions, error) {
	if tenant == "" {
		return nil, errors.New("rbacsql: empty tenant")
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	v := o.of[tenant]
	if v == nil {
		if o.of == nil || len(o.of) >= maxTenants {
			o.of = make(map[string]*versions)
		}
		v = &versions{tables: o.tables, document: departmentsDocument + tenant}
		o.of[tenant] = v
	}
	return v, nil
}

// Version is the number of the newest version, 0 if there is none. It reads no
// departments.
func (o *Org) Version(ctx context.Context, tenant string) (int64, error) {
	v, err := o.versions(tenant)
	if err != nil {
		return 0, err
	}
	head, err := v.head(ctx)
	return head.Number, err
}

// Load returns the departments in their newest version.
func (o *Org) Load(ctx context.Context, tenant string) (rbac.Units, error) {
	v, err := o.versions(tenant)
	if err != nil {
		return rbac.Units{}, err
	}
	stored, err := v.departments(ctx)
	return unitsOf(stored.Rules), err
}

// departments are the newest version with its rows.
func (v *versions) departments(ctx context.Context) (stored rbac.Stored, err error) {
	if stored.Version, err = v.head(ctx); err != nil || stored.Version.Number == 0 {
		return stored, err
	}
	stored.Rules, err = v.at(ctx, stored.Version.Number)
	return stored, err
}

// Replace stores the departments of a tenant anew, made out of version after, the number
// that [Org.Version] told when the author began: if there is a newer one by now, nothing
// changes and the error is [rbac.ErrChanged]. The author is the subject of ctx, whose
// tenant it is. Whether they may is a question to Check: departments decide what the
// scopes dept, tree and headed reach.
//
// Nobody reaches more by their own change, as a member, as a head or through what it puts
// below: that is a denial with the code "self-grant", so a new department below one's own
// is for somebody else to add. A job of the host may place anybody.
//
// After it the host calls [rbac.Engine.Invalidate]. Other processes take the change over
// as [rbac.Org] says, and with rbac.WatchOptions.Listen at once.
func (o *Org) Replace(ctx context.Context, tenant string, after int64, units rbac.Units, reason string) (rbac.Version, error) {
	v, err := o.author(ctx, tenant, reason)
	if err != nil {
		return rbac.Version{}, err
	}
	was, err := v.departments(ctx)
	if err != nil {
		return rbac.Version{}, err
	}
	if was.Version.Number != after {
		return rbac.Version{}, fmt.Errorf("%w: it is version %d, not %d", rbac.ErrChanged, was.Version.Number, after)
	}
	rules := departmentRows(units)
	author, _ := crmguard.SubjectFrom(ctx)
	if err := mayPlace(author, unitsOf(was.Rules), unitsOf(rules)); err != nil {
		return rbac.Version{}, err
	}
	d := &document{Version: rbac.Version{Number: after + 1, Digest: rbac.Digest(rules), Added: without(rules, keys(was.Rules)), Removed: without(was.Rules, keys(rules))}}
	if len(d.Added)+len(d.Removed) == 0 {
		return was.Version, nil
	}
	if after%wholeEvery == 0 {
		d.Whole, d.Added, d.Removed = true, rules, nil
	}
	return v.put(ctx, d, reason, func(tx *sql.Tx) error { return v.enter(ctx, tx, after, d) })
}

// Adopt stores the departments of a tenant whatever there was before, and forgets versions that are not
// genuine: the way back after somebody has changed the tables, or put back older ones, on purpose.
// Whoever calls it vouches for the units.
func (o *Org) Adopt(ctx context.Context, tenant string, units rbac.Units, reason string) (rbac.Version, error) {
	v, err := o.author(ctx, tenant, reason)
	if err != nil {
		return rbac.Version{}, err
	}
	f, err := v.floor(ctx)
	if err != nil {
		return rbac.Version{}, err
	}
	newest, err := v.newest(ctx, v.db)
	if err != nil {
		return rbac.Version{}, fmt.Errorf("rbacsql: adopt: %w", err)
	}
	genuine, err := v.newestGenuine(ctx, newest.Number)
	if err != nil {
		return rbac.Version{}, err
	}
	rules := departmentRows(units)
	d := &document{Version: rbac.Version{Number: max(genuine, f.number) + 1, Whole: true, Digest: rbac.Digest(rules), Added: rules}}
	return v.put(ctx, d, reason, func(tx *sql.Tx) error {
		if err := v.forget(ctx, tx, genuine, newest.Number); err != nil {
			return err
		}
		return v.enter(ctx, tx, genuine, d)
	})
}

// History tells what was changed in the departments of a tenant, the newest version first:
// at most limit of those before one, 0 for the newest. Rows are "unit" (unit, the unit
// above it), "member" and "head" (person, unit).
func (o *Org) History(ctx context.Context, tenant string, before int64, limit int) ([]rbac.Version, error) {
	if _, err := crmguard.CheckSubject(ctx, tenant); err != nil {
		return nil, fmt.Errorf("rbacsql: departments: %w", err)
	}
	v, err := o.versions(tenant)
	if err != nil {
		return nil, err
	}
	return v.history(ctx, before, limit)
}

// author checks who changes departments.
func (o *Org) author(ctx context.Context, tenant, reason string) (*versions, error) {
	acts, err := crmguard.CheckSubject(ctx, tenant)
	if err == nil && !acts {
		err = errors.New("nobody acts in the context")
	}
	if err != nil {
		return nil, fmt.Errorf("rbacsql: departments: %w", err)
	}
	if reason == "" {
		return nil, errors.New("rbacsql: departments: a reason is needed")
	}
	return o.versions(tenant)
}

func (v *versions) put(ctx context.Context, d *document, reason string, store func(tx *sql.Tx) error) (rbac.Version, error) {
	for _, rule := range d.Added {
		if err := checkRule(rule); err != nil {
			return rbac.Version{}, fmt.Errorf("rbacsql: departments: %w", err)
		}
	}
	err := v.make(rbac.WithReason(ctx, reason), d, store)
	return d.Version, err
}

const (
	rowUnit   = "unit"
	rowMember = "member"
	rowHead   = "head"
)

// departmentRows are units as rows, sorted, each once, without empty names.
func departmentRows(u rbac.Units) [][]string {
	var rows [][]string
	add := func(kind, one, other string) {
		if one != "" && other != "" {
			rows = append(rows, []string{kind, one, other})
		}
	}
	for unit, parent := range u.Parent {
		add(rowUnit, unit, parent)
	}
	for kind, of := range map[string]map[string][]string{rowMember: u.Members, rowHead: u.Heads} {
		for person, units := range of {
			for _, unit := range units {
				add(kind, person, unit)
			}
		}
	}
	slices.SortFunc(rows, slices.Compare)
	return slices.CompactFunc(rows, slices.Equal)
}

// unitsOf is the inverse of departmentRows.
func unitsOf(rows [][]string) rbac.Units {
	u := rbac.Units{Parent: map[string]string{}, Members: map[string][]string{}, Heads: map[string][]string{}}
	for _, row := range rows {
		if len(row) != 3 { // versions are genuine, so no other program has put it there
			continue
		}
		switch one, other := row[1], row[2]; row[0] {
		case rowUnit:
			u.Parent[one] = other
		case rowMember:
			u.Members[one] = append(u.Members[one], other)
		case rowHead:
			u.Heads[one] = append(u.Heads[one], other)
		}
	}
	return u
}
