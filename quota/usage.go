package quota

import (
	"context"
	"fmt"
	"time"

	"github.com/crmguard/crmguard"
)

// Usage is how far a person is today.
type Usage struct {
	Day     Day
	Ends    time.Time // when the counters begin anew
	Refused int       // attempts
	Norms   []NormUsage
}

// NormUsage is how much of one norm is used: Count of Norm.Hard.
type NormUsage struct {
	Norm   Norm
	Count  int
	Passed Level // thresholds that have told today
}

// Usage returns how far a person is, with the norms in the order of New. A subject
// in ctx must be of the same tenant; whether it may know this is the caller's to
// decide.
func (q *Quota) Usage(ctx context.Context, tenant, person string) (Usage, error) {
	if s, ok := crmguard.SubjectFrom(ctx); ok {
		if err := crmguard.CheckTenant(s, tenant); err != nil {
			return Usage{}, err
		}
	}
	if err := checkNames(tenant, person); err != nil {
		return Usage{}, err
	}
	m, err := q.moment(ctx, tenant)
	if err != nil {
		return Usage{}, err
	}
	r, err := q.store.Read(ctx, tenant, person, dayOf(m.now, m.loc))
	if err != nil {
		return Usage{}, fmt.Errorf("quota: usage: %w", err)
	}
	u := Usage{Day: r.Day, Ends: r.Day.end(m.now, m.loc), Refused: r.Counters[AttemptsCounter].N}
	for _, n := range q.norms {
		c := r.Counters[n.Counter()]
		u.Norms = append(u.Norms, NormUsage{n, c.N, c.Fired})
	}
	return u, nil
}
