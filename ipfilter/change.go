package ipfilter

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/crmguard/crmguard"
)

// Owner is a person who can undo any change, with the addresses that they are
// known to come from, such as those of their sessions.
type Owner struct {
	ID    string
	Addrs []netip.Addr
}

// ChangeOptions of [Filter.Prepare].
type ChangeOptions struct {
	Force bool // also if it locks out its author or the last owner
}

// LockoutError says whom a change would lock out.
type LockoutError struct {
	Author *Answer        // why its author could not go on; nil: they could
	Owners []OwnerLockout // every owner, if none is known to get in; nil: one is
}

// OwnerLockout is why one owner is not known to get in.
type OwnerLockout struct {
	ID      string
	Answers []Answer // for each known address; empty: none is known
}

// Error says what would happen, with addresses: it is for the author of the change.
func (e *LockoutError) Error() string {
	var parts []string
	if e.Author != nil {
		parts = append(parts, "its author could not go on: "+e.Author.String())
	}
	if e.Owners != nil {
		parts = append(parts, "no owner is known to get in")
	}
	for _, o := range e.Owners {
		if len(o.Answers) == 0 {
			parts = append(parts, o.ID+": no known address")
		}
		for _, a := range o.Answers {
			parts = append(parts, o.ID+": "+a.String())
		}
	}
	return "ipfilter: the change locks out: " + strings.Join(parts, "; ")
}

// Prepare makes the next version of a tenant's rules; nothing changes until the
// document is stored and loaded. The author is the subject of ctx, whose tenant it
// is, acting from Subject.Addr. Owners are all who can undo it; at least one of them
// must still get in from an address that they are known to come from, for the author
// that of this request. A change that locks out its author or the last owner is a
// [*LockoutError], unless forced: then the document carries it.
//
// Who may change rules is for the caller to check. Two prepared at once have the
// same version: store a document only over the version before it, in the
// transaction of its journal entry.
func (f *Filter) Prepare(ctx context.Context, rules Rules, owners []Owner, o *ChangeOptions) (Document, error) {
	author, ok := crmguard.SubjectFrom(ctx)
	if !ok {
		return Document{}, errors.New("ipfilter: prepare: nobody acts in the context")
	}
	if err := crmguard.CheckTenant(author, author.Tenant); err != nil {
		return Document{}, fmt.Errorf("ipfilter: prepare: %w", err)
	}
	if len(owners) == 0 {
		return Document{}, errors.New("ipfilter: prepare: owners are needed")
	}
	was, err := f.inForce(author.Tenant)
	if err != nil {
		return Document{}, err
	}
	d := Document{Tenant: author.Tenant, Version: was.document.Version + 1}
	if d.Rules, err = rules.normal(); err != nil {
		return Document{}, fmt.Errorf("ipfilter: rules: %w", err)
	}
	if err := f.supports(d.Rules); err != nil {
		return Document{}, err
	}
	if d.Lockout, err = f.lockout(ctx, compile(d), author, owners); err != nil {
		return Document{}, err
	}
	if d.Lockout != nil && (o == nil || !o.Force) {
		return Document{}, d.Lockout
	}
	if err := f.seal(ctx, &d); err != nil {
		return Document{}, err
	}
	return d, nil
}

// lockout returns whom the rules next lock out, nil if nobody.
func (f *Filter) lockout(ctx context.Context, next *compiled, author crmguard.Subject, owners []Owner) (*LockoutError, error) {
	e := &LockoutError{}
	answer, err := f.explain(ctx, next, &author)
	if err != nil {
		return nil, err
	}
	if !answer.Allowed {
		e.Author = &answer
	}
	for _, o := range owners {
		refused, in, err := f.ownerLockout(ctx, next, author, o)
		if err != nil {
			return nil, err
		}
		if in {
			e.Owners = nil
			break
		}
		e.Owners = append(e.Owners, refused)
	}
	if e.Author == nil && e.Owners == nil {
		return nil, nil
	}
	return e, nil
}

func (f *Filter) ownerLockout(ctx context.Context, next *compiled, author crmguard.Subject, o Owner) (_ OwnerLockout, in bool, err error) {
	s := crmguard.Subject{Tenant: author.Tenant, ID: o.ID, Kind: crmguard.KindEmployee}
	if err := crmguard.CheckTenant(s, s.Tenant); err != nil {
		return OwnerLockout{}, false, fmt.Errorf("ipfilter: owner: %w", err)
	}
	addrs := o.Addrs
	if o.ID == author.ID && author.Addr.IsValid() {
		addrs = append([]netip.Addr{author.Addr}, addrs...)
	}
	refused := OwnerLockout{ID: o.ID}
	for _, s.Addr = range addrs {
		a, err := f.explain(ctx, next, &s)
		if err != nil || a.Allowed {
			return refused, err == nil, err
		}
		refused.Answers = append(refused.Answers, a)
	}
	return refused, false, nil
}
