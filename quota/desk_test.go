package quota_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/quota"
)

// tb is what *testing.T and *rapid.T have in common.
type tb interface {
	require.TestingT
	Helper()
	Context() context.Context
}

// clock shows what it is set to.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) set(at time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = at
}

// desk is a Quota with what a test looks at.
type desk struct {
	*quota.Quota
	clock  *clock
	zone   *time.Location
	store  quota.Store
	alerts []quota.Alert
	fail   error // of the next alerts
}

var cardNorm = quota.Norm{Action: crmguard.View, Kind: "contacts", Soft: 3, Hard: 5}

func newDesk(t tb, store quota.Store, norms ...quota.Norm) *desk {
	t.Helper()
	d := &desk{clock: &clock{}, zone: location(t, "Europe/Moscow"), store: store}
	d.clock.set(time.Date(2026, 3, 2, 12, 0, 0, 0, d.zone))
	var mu sync.Mutex
	var err error
	d.Quota, err = quota.New(store, func(_ context.Context, tenant string) (*time.Location, error) {
		if tenant == "nowhere" {
			return nil, errors.New("no such tenant")
		}
		return d.zone, nil
	}, norms, &quota.Options{Clock: d.clock.now, Alert: func(_ context.Context, a quota.Alert) error {
		mu.Lock()
		defer mu.Unlock()
		if d.fail == nil {
			d.alerts = append(d.alerts, a)
		}
		return d.fail
	}})
	require.NoError(t, err)
	return d
}

func location(t tb, name string) *time.Location {
	t.Helper()
	loc, err := time.LoadLocation(name)
	require.NoError(t, err)
	return loc
}

func anna() crmguard.Subject {
	return crmguard.Subject{Tenant: "acme", ID: "anna", Kind: crmguard.KindEmployee, Session: "s1"}
}

// as is a context in which s acts on contacts.
func as(t tb, s crmguard.Subject, a crmguard.Action) context.Context {
	return on(t, s, a, "contacts")
}

func on(t tb, s crmguard.Subject, a crmguard.Action, kind string) context.Context {
	return crmguard.WithAct(crmguard.WithSubject(t.Context(), s), a, crmguard.Resource{Tenant: s.Tenant, Kind: kind, ID: "1"})
}

// clients returns n of them, from the from-th on.
func clients(from, n int) []string {
	var out []string
	for i := range n {
		out = append(out, fmt.Sprint("c", from+i))
	}
	return out
}

func (d *desk) open(ctx context.Context, clients ...string) error {
	return d.OnOpen(ctx, "acme", clients)
}

func mustDeny(t testing.TB, err error, code string) {
	t.Helper()
	_ = denialOf(t, err, code)
}

func denialOf(t testing.TB, err error, code string) *crmguard.Denial {
	t.Helper()
	denial, ok := errors.AsType[*crmguard.Denial](err)
	require.True(t, ok, "%v", err)
	require.Equal(t, [2]string{"quota", code}, [2]string{denial.By, denial.Code})
	require.Equal(t, crmguard.Exhausted, denial.Status)
	return denial
}

func (d *desk) count(t testing.TB, person string, norm int) int {
	t.Helper()
	u, err := d.Usage(t.Context(), "acme", person)
	require.NoError(t, err)
	return u.Norms[norm].Count
}
