package guard

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/crmguard/crmguard"
)

// closer is what sessions offer that can end a person's access for good: when
// ClosePerson has returned, no token of the person is good, and none can be made.
type closer interface {
	ClosePerson(ctx context.Context, tenant, person string) error
}

// Receipt says what [Guard.Dismiss] ended of a person.
type Receipt struct {
	Tenant, Person string
	Closed         time.Time          // since when no session of the person is good
	Ended          []crmguard.Revoked // in the order of Options.Holders
	Complete       bool               // every holder answered; if not, dismiss again
}

// Dismiss ends all that a person has: first their state, with which every session
// is dead and none can start, then what each of Options.Holders holds. It goes on
// when a holder fails or the client goes away; its error then names what is left,
// and a second Dismiss, also by another process, ends the rest. A job can run it for
// all who are closed whenever the program starts. It decides and records nothing
// itself: mount it behind
//
//	g.ProtectAct(crmguard.Revoke, personOf, func(w http.ResponseWriter, r *http.Request) error {
//		receipt, err := g.Dismiss(r.Context(), tenant, person)
//		...
//	})
func (g *Guard) Dismiss(ctx context.Context, tenant, person string) (Receipt, error) {
	receipt := Receipt{Tenant: tenant, Person: person}
	if tenant == "" || person == "" {
		return receipt, errors.New("guard: dismiss whom? Tenant or person is empty")
	}
	if g.closer == nil {
		return receipt, errors.New("guard: Options.Holders is not set")
	}
	// Whatever fails here, or hangs, the holders are asked all the same: less is better
	// than nothing.
	err := within(ctx, func(ctx context.Context) error { return g.closer.ClosePerson(ctx, tenant, person) })
	if err != nil {
		err = fmt.Errorf("guard: close %s: %w", person, err)
	} else {
		receipt.Closed = g.o.Clock()
	}
	for _, holder := range g.o.Holders {
		var ended crmguard.Revoked
		holderErr := within(ctx, func(ctx context.Context) (err error) {
			ended, err = holder.Revoke(ctx, tenant, person)
			return err
		})
		if holderErr != nil {
			err = errors.Join(err, fmt.Errorf("guard: dismiss %s: %T: %w", person, holder, holderErr))
			continue
		}
		receipt.Ended = append(receipt.Ended, ended)
	}
	receipt.Complete = err == nil
	return receipt, err
}

// stepTimeout bounds each step of ending access.
const stepTimeout = 15 * time.Second

// within gives each step a time of its own, so that one that hangs until its context
// ends keeps no other from being done, and none stays half done because a client
// goes away.
func within(ctx context.Context, step func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stepTimeout)
	defer cancel()
	return step(ctx)
}
