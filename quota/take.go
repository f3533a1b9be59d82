package quota

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/crmguard/crmguard"
)

// settleTimeout bounds what goes on after the request may have ended.
const settleTimeout = 10 * time.Second

func detached(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), settleTimeout)
}

// moment is when and where something is counted.
type moment struct {
	now time.Time
	loc *time.Location
}

func (q *Quota) moment(ctx context.Context, tenant string) (moment, error) {
	loc, err := q.zone(ctx, tenant)
	if err != nil {
		return moment{}, fmt.Errorf("quota: zone: %w", err)
	}
	if loc == nil {
		return moment{}, errors.New("quota: the tenant has no zone")
	}
	return moment{q.clock(), loc}, nil
}

// take counts t for the subject, and for whom it acts.
func (q *Quota) take(ctx context.Context, s *crmguard.Subject, t *Taking) error {
	m, err := q.moment(ctx, s.Tenant)
	if err != nil {
		return err
	}
	t.Tenant, t.Person, t.Day, t.Attempts = s.Tenant, s.ID, dayOf(m.now, m.loc), q.attempts
	tab, _ := ctx.Value(tabKey{q}).(*tab)
	if tab != nil {
		t.Holder = tab.holder
	}
	if s.OnBehalfOf == "" || s.OnBehalfOf == s.ID {
		return q.takeOne(ctx, s, t, m, tab)
	}
	if t.Holder == 0 {
		t.Holder = newHolder()
	}
	if err := q.takeOne(ctx, s, t, m, tab); err != nil {
		return err
	}
	first := *t
	t.Person, t.Day = s.OnBehalfOf, dayOf(m.now, m.loc)
	err = q.takeOne(ctx, s, t, m, tab)
	if err != nil && !t.Ask {
		ctx, cancel := detached(ctx)
		defer cancel()
		if returnErr := q.store.Return(ctx, first, nil); returnErr != nil {
			err = errors.Join(err, fmt.Errorf("quota: give back: %w", returnErr))
		}
	}
	return err
}

// CountRefusal counts toward the norm of [Attempts] that another check has refused
// something to s: a right is missing, or a record is not there for them. It counts for
// who acted alone, so that nobody's deputy locks them out. It is told afterwards, and
// refuses nothing itself. An error means that it could not be counted, or that
// Options.Alert failed after it was. Package guard calls it for every act that it
// denies.
func (q *Quota) CountRefusal(ctx context.Context, s crmguard.Subject) error {
	if err := crmguard.CheckTenant(s, s.Tenant); err != nil {
		return err
	}
	if s.Kind == crmguard.KindSystem {
		return nil
	}
	m, err := q.moment(ctx, s.Tenant)
	if err != nil {
		return err
	}
	return q.takeOne(ctx, &s, &Taking{Tenant: s.Tenant, Person: s.ID, Day: dayOf(m.now, m.loc), Attempts: q.attempts}, m, nil)
}

// takeOne counts t for t.Person, and sets t.Day to the day in which it did.
func (q *Quota) takeOne(ctx context.Context, s *crmguard.Subject, t *Taking, m moment, tab *tab) error {
	if err := checkNames(t.Tenant, t.Person); err != nil {
		return err
	}
	taken, err := q.store.Take(ctx, *t)
	if err != nil {
		return fmt.Errorf("quota: count: %w", err)
	}
	t.Day = taken.Day
	if tab != nil && taken.Refused == "" && !t.Ask {
		tab.add(*t)
	}
	if len(taken.Fired) > 0 {
		if err := q.tell(ctx, s, t, taken.Fired, m.now); err != nil {
			return err
		}
	}
	if taken.Refused == "" {
		return nil
	}
	code := CodeNorm
	if taken.Refused == AttemptsCounter {
		code = CodeAttempts
	}
	return &crmguard.Denial{
		By: "quota", Code: code, Status: crmguard.Exhausted,
		RetryAfter: max(taken.Day.end(m.now, m.loc).Sub(m.now), time.Second),
		Detail:     "the norm of " + taken.Refused + " of " + taken.Day.String() + " is used up",
	}
}

func newHolder() int64 {
	var b [8]byte
	_, _ = rand.Read(b[:])                             // never fails
	return int64(binary.BigEndian.Uint64(b[:])>>1) | 1 //nolint:gosec // 63 bits fit
}

// maxName is longer than ids are, so that what a store keeps is bounded.
const maxName = 512

var errName = errors.New("quota: names have 1 to 512 bytes")

func checkNames(names ...string) error {
	for _, name := range names {
		if name == "" || len(name) > maxName {
			return errName
		}
	}
	return nil
}

// distinct returns clients in order, each once. It does not change its argument.
func distinct(clients []string) ([]string, error) {
	if err := checkNames(clients...); err != nil || len(clients) == 1 {
		return clients, err
	}
	sorted := slices.Clone(clients)
	slices.Sort(sorted)
	return slices.Compact(sorted), nil
}
