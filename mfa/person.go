package mfa

import (
	"context"
	"errors"
	"slices"

	"github.com/crmguard/crmguard"
)

var (
	// ErrState says that the rows of a person are not genuine: somebody wrote them
	// past this package. Such a person has no good code until [Factors.Revoke] has
	// removed the rows and apps were enrolled anew.
	ErrState = errors.New("mfa: the person's stored factors are not genuine")

	errBusy = errors.New("mfa: the person's rows keep changing")
)

// changeTries bounds how often a change starts again because another one was
// first. Each time one of them gets through, so that this many have to compete.
const changeTries = 100

// load returns genuine rows or ErrState.
func (f *Factors) load(ctx context.Context, tenant, person string) (Person, []Row, error) {
	if err := checkNames(ctx, tenant, person); err != nil {
		return Person{}, nil, err
	}
	p, rows, err := f.store.Load(ctx, tenant, person)
	if err != nil {
		return Person{}, nil, err
	}
	genuine, err := f.genuine(ctx, &p, rows)
	if err != nil {
		return Person{}, nil, err
	}
	if !genuine {
		f.warn(ctx, &p)
		return Person{}, nil, ErrState
	}
	return p, rows, nil
}

// change reads a person's rows until what decide made of them could be written.
func (f *Factors) change(ctx context.Context, tenant, person string, decide func(rows []Row) (put []Row, remove []string, err error)) error {
	for range changeTries {
		p, rows, err := f.load(ctx, tenant, person)
		if err != nil {
			return err
		}
		put, remove, err := decide(rows)
		if err != nil || len(put)+len(remove) == 0 {
			return err
		}
		next, err := f.next(ctx, &p, changed(rows, put, remove), true)
		if err != nil {
			return err
		}
		written, err := f.store.Change(ctx, p, next, put, remove)
		if err != nil || written {
			return err
		}
	}
	return errBusy
}

// next is the person after a change to rows. A version is a time, so that after
// rows were deleted none comes again that was there before.
func (f *Factors) next(ctx context.Context, p *Person, rows []Row, genuine bool) (Person, error) {
	n := Person{Tenant: p.Tenant, ID: p.ID, Version: f.now().UnixMicro()}
	if genuine {
		n.Version = max(n.Version, p.Version+1)
	}
	var err error
	n.MAC, err = f.keys.MAC(ctx, n.place(), f.encode(&n, rows))
	return n, err
}

// genuine tells rows that this package wrote from others, and both from keys
// that cannot be asked.
func (f *Factors) genuine(ctx context.Context, p *Person, rows []Row) (bool, error) {
	if !p.exists() {
		return len(rows) == 0, nil
	}
	authenticated := *p // encode lets what it is given escape, which is a price for few
	data := f.encode(&authenticated, rows)
	err := f.keys.Verify(ctx, p.place(), data, p.MAC)
	if errors.Is(err, crmguard.ErrMAC) || errors.Is(err, crmguard.ErrErased) {
		return false, nil
	}
	return err == nil, err
}

func (f *Factors) warn(ctx context.Context, p *Person) {
	f.log.WarnContext(ctx, "mfa: the stored factors of a person are not genuine", "tenant", p.Tenant, "person", p.ID)
}

func hasApp(rows []Row) bool {
	return slices.ContainsFunc(rows, func(r Row) bool { return r.Kind == KindApp && r.Active })
}

func idsOf(rows []Row, kind Kind) []string {
	var ids []string
	for _, r := range rows {
		if r.Kind == kind {
			ids = append(ids, r.ID)
		}
	}
	return ids
}
