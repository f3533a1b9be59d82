package guard

import (
	"context"
	"errors"

	"github.com/crmguard/crmguard"
)

// Recheck decides again about the act of ctx, for acts that last: an export asks
// before each chunk of 500 rows, a stream every two seconds. It is nil as long as
// the session lives, the CRM is open, and address rules and rights say yes. How
// fresh the proof of a step-up is was decided when the act began. The token must
// still be the one with which it began: a step-up in another window ends it. Outside
// a request and an act it refuses.
func (g *Guard) Recheck(ctx context.Context) error {
	v, ok := ctx.Value(visitKey{}).(*visit)
	act := crmguard.ActFrom(ctx)
	began, signedIn := crmguard.SubjectFrom(ctx)
	if !ok || act == nil || !signedIn {
		return decided(errors.New("guard: Recheck outside a request's act"))
	}
	now, err := g.identify(ctx, v.token, v.addr)
	if err != nil {
		return decided(err)
	}
	if now.Tenant != began.Tenant || now.ID != began.ID {
		return &crmguard.Denial{By: "guard", Code: "subject-changed"}
	}
	return g.decide(crmguard.WithSubject(ctx, now), now, act.Action, act.Resource)
}
