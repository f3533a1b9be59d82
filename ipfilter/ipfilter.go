// Package ipfilter lets people in only from listed addresses, by company, role and
// person, so that a stolen password alone opens nothing. It finds the address of a
// client behind proxies, decides, explains, and refuses changes that lock out who
// makes them.
//
//	edge, err := ipfilter.Edge(proxies, ipfilter.XForwardedFor) // for guard.Options.Edge
//	addrs, err := ipfilter.New(keys, rights, nil)                // rights knows the roles of a person
//	err = addrs.Load(ctx, "acme", stored)                        // at the start; nil: there are no rules yet
//	g, err := guard.New(..., &guard.Options{Edge: edge, Addresses: addrs})
//	door, err := signin.New(..., &signin.Options{Addresses: addrs})
//
//	// somebody changes the rules
//	next, err := addrs.Prepare(ctx, rules, owners, nil)          // *LockoutError: tell, and ask whether to force
//	// store next.JSON where the version is next.Version-1, with a journal entry that has next.Policy()
//	err = addrs.Load(ctx, "acme", next.JSON)
//
// # Rules
//
// The company, each role and each person or integration may have a list of what is
// allowed and one of what is denied.
//
//  1. An address that is not known is refused, also where there are no rules.
//  2. Every deny list holds: the company's, those of all roles of the person, and
//     the person's. None is overridden.
//  3. Of the allow lists the narrowest level counts. The person's replaces those of
//     roles, which replace the company's. A person with several roles that have one
//     must be in each of them.
//  4. Where no allow list is left, every address is allowed that is not denied. So
//     the zero [Rules] allow all, and [Filter.Explain] says "no list restricts it".
//
// Whom a subject acts for plays no part: it is the actor who comes from somewhere. A
// job of the host ([crmguard.KindSystem]) comes from nowhere and is allowed, unless
// it has an address.
//
// 0.0.0.0/0 is all of IPv4 and ::/0 all of IPv6; whoever means both writes both.
//
// Sign-in asks before roles are resolved. So when a subject comes without roles, and
// some role has a list, the [Directory] given to [New] is asked; without one, rules
// by role are refused, because they would not hold at the door. When the directory
// fails, the answer is an error, and so a no.
//
// # Security notes
//
// An address is as good as who vouches for it. [Edge] reads headers of trusted
// proxies only, and only what they have appended. Rules do not see through 6to4 and
// NAT64: there an IPv4 client has an IPv6 address.
//
// Documents carry a MAC under a key that is not in the database, over tenant,
// version and every rule. Whoever can write the database can neither make nor change
// one. To bring an old one back, or delete it, works only across a restart and
// without [Options.Marks]. Several nodes load the new document each in their own
// time: until then they decide by the old one.
//
// Who is locked out after all is let in again on the server: a job of the host
// ([crmguard.System]) prepares other rules, and no address is asked of it.
//
// A refusal tells the subject nothing; the grounds are in Denial.Detail.
//
// # Format and compatibility
//
// docs/formats/ipfilter.md specifies documents. Those of version 1 stay readable.
package ipfilter

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/crmguard/crmguard"
)

// Directory knows the roles of a person; rbac.Engine is one. It is asked when the
// subject comes without roles, as at sign-in, and some role has rules.
type Directory interface {
	Resolve(ctx context.Context, tenant, subject string) (roles, units []string, err error)
}

// Marks remembers the highest version of each tenant's rules that was ever in
// force, outside the database that keeps the documents, such as beside the keys:
// whoever puts an old backup of that database back does not bring old rules back.
// Whoever does so on purpose lowers the mark too; until then everybody is refused.
type Marks interface {
	// Raise makes the mark of a tenant version, unless it is higher already, and
	// returns what it is then. It is atomic and durable. The first mark is 0.
	Raise(ctx context.Context, tenant string, version int64) (int64, error)
}

// Options are what a [Filter] can do without.
type Options struct {
	Marks  Marks        // nil: versions are compared with those that this process has seen
	Logger *slog.Logger // hears of documents that were loaded or refused; nil: slog.Default()
}

// ErrOlder says that a document is older than the rules that were in force, or of
// the same version with other content.
var ErrOlder = errors.New("ipfilter: the document is older than the rules that were in force")

// Filter decides by addresses. It is safe for concurrent use, and a
// [crmguard.Checker].
type Filter struct {
	keys      crmguard.Authenticator
	directory Directory
	marks     Marks
	log       *slog.Logger

	tenants atomic.Pointer[map[string]*atomic.Pointer[compiled]]
	change  sync.Mutex // one Load at a time
}

var _ crmguard.Checker = (*Filter)(nil)

// New returns a filter that has no rules of any tenant yet and refuses everybody
// until [Filter.Load] has been called. Without a directory nobody has other roles
// than those in Subject.Roles, and rules by role are refused, because sign-in asks
// before roles are known.
func New(keys crmguard.Authenticator, directory Directory, o *Options) (*Filter, error) {
	if keys == nil {
		return nil, errors.New("ipfilter: keys are needed")
	}
	if o == nil {
		o = &Options{}
	}
	f := &Filter{keys: keys, directory: directory, marks: o.Marks, log: o.Logger}
	if f.log == nil {
		f.log = slog.Default()
	}
	f.tenants.Store(&map[string]*atomic.Pointer[compiled]{})
	return f, nil
}

// Check says yes if the subject may come from Subject.Addr; it looks at the action
// and the resource only to refuse another tenant's. Each no is a
// *[crmguard.Denial] by "ipfilter" with one of this package's codes, or that of
// [crmguard.CheckTenant]. A job of the host without address is allowed.
func (f *Filter) Check(ctx context.Context, s crmguard.Subject, _ crmguard.Action, r crmguard.Resource) error {
	if err := crmguard.CheckTenant(s, r.Tenant); err != nil {
		return err
	}
	c, err := f.inForce(s.Tenant)
	if err != nil {
		return err
	}
	addr := bareAddr(s.Addr)
	v, roles, err := f.judge(ctx, c, &s, addr)
	if err != nil {
		return err
	}
	if v.code() != "" {
		return c.answer(v, addr, s.ID, roles).denial()
	}
	return nil
}

// Explain decides like Check and gives the grounds. To ask about another address,
// change s.Addr.
func (f *Filter) Explain(ctx context.Context, s crmguard.Subject) (Answer, error) {
	if err := crmguard.CheckTenant(s, s.Tenant); err != nil {
		return Answer{}, err
	}
	c, err := f.inForce(s.Tenant)
	if err != nil {
		return Answer{}, err
	}
	return f.explain(ctx, c, &s)
}

func (f *Filter) explain(ctx context.Context, c *compiled, s *crmguard.Subject) (Answer, error) {
	addr := bareAddr(s.Addr)
	v, roles, err := f.judge(ctx, c, s, addr)
	if err != nil {
		return Answer{}, err
	}
	return c.answer(v, addr, s.ID, roles), nil
}

// judge decides, and returns the roles by which it did.
func (f *Filter) judge(ctx context.Context, c *compiled, s *crmguard.Subject, addr netip.Addr) (_ verdict, roles []string, err error) {
	if s.Kind == crmguard.KindSystem && !addr.IsValid() {
		return verdict{}, nil, nil // a job of the host comes from nowhere
	}
	roles = s.Roles
	if len(roles) == 0 && len(c.roles) > 0 && f.directory != nil {
		if roles, _, err = f.directory.Resolve(ctx, s.Tenant, s.ID); err != nil {
			return verdict{}, nil, fmt.Errorf("ipfilter: roles: %w", err)
		}
	}
	return c.decide(addr, s.ID, roles), roles, nil
}

// InForce returns the document whose rules are in force for a tenant, and whether
// any were loaded. Its Rules are shared: change a copy.
func (f *Filter) InForce(tenant string) (Document, bool) {
	c, err := f.inForce(tenant)
	if err != nil {
		return Document{}, false
	}
	return c.document, true
}

func (f *Filter) inForce(tenant string) (*compiled, error) {
	slot := (*f.tenants.Load())[tenant]
	if slot == nil {
		return nil, errNotLoaded
	}
	return slot.Load(), nil
}

var errNotLoaded = errors.New("ipfilter: the tenant's rules were not loaded")

// Load puts a document in force that [Filter.Prepare] made, at the start of the
// process and whenever it may have changed: requests being decided finish with the
// old rules. An empty document says that the tenant has none yet. It is refused,
// and what is in force stays, if the document is malformed, not genuine, another
// tenant's, or older than the rules in force ([ErrOlder]). That is also one which was
// read before somebody else stored and loaded a newer one: read it again, and believe
// that an older one was put back if it is still the same.
func (f *Filter) Load(ctx context.Context, tenant string, document []byte) error {
	f.change.Lock()
	defer f.change.Unlock()
	changed, version, err := f.load(ctx, tenant, document)
	if err != nil {
		f.log.ErrorContext(ctx, "ipfilter: a document was refused", "tenant", tenant, "error", err)
		return err
	}
	if changed {
		f.log.InfoContext(ctx, "ipfilter: rules loaded", "tenant", tenant, "version", version)
	}
	return nil
}

func (f *Filter) load(ctx context.Context, tenant string, text []byte) (changed bool, version int64, err error) {
	if err := checkName(tenant); err != nil {
		return false, 0, fmt.Errorf("ipfilter: tenant: %w", err)
	}
	d := Document{Tenant: tenant}
	if len(text) > 0 {
		if d, err = f.open(ctx, tenant, text); err != nil {
			return false, 0, err
		}
	} else {
		d.Digest = d.digest()
	}
	old, err := f.inForce(tenant)
	if err == nil {
		was := old.document
		if d.Version < was.Version || d.Version == was.Version && d.Digest != was.Digest {
			return false, 0, fmt.Errorf("%w: version %d, in force %d", ErrOlder, d.Version, was.Version)
		}
		if d.Version == was.Version {
			return false, d.Version, nil
		}
	}
	if f.marks != nil {
		highest, err := f.marks.Raise(ctx, tenant, d.Version)
		if err != nil {
			return false, 0, fmt.Errorf("ipfilter: mark of the highest version: %w", err)
		}
		if highest > d.Version {
			return false, 0, fmt.Errorf("%w: version %d, marked %d", ErrOlder, d.Version, highest)
		}
	}
	f.publish(tenant, compile(d))
	return true, d.Version, nil
}

// publish makes c what is in force. Readers hold no lock.
func (f *Filter) publish(tenant string, c *compiled) {
	all := *f.tenants.Load()
	if slot := all[tenant]; slot != nil {
		slot.Store(c)
		return
	}
	all = maps.Clone(all)
	all[tenant] = &atomic.Pointer[compiled]{}
	all[tenant].Store(c)
	f.tenants.Store(&all)
}
