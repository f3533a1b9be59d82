// Package quota holds people to norms of how many clients they open in a day: a
// seller works with fifty cards, a thief wants all of them.
//
//	zone := func(ctx context.Context, tenant string) (*time.Location, error) { ... }
//	norms, err := quota.New(store, zone, []quota.Norm{ // store: quotasql.New(…) or quota.NewMemory()
//		{Action: crmguard.View, Kind: "contacts", Soft: 40, Hard: 50},
//		{Action: crmguard.Search, Kind: "contacts", Of: quota.Queries, Hard: 200},
//		{Of: quota.Attempts, Hard: 20},
//	}, &quota.Options{Alert: tellOwner})
//
//	keys, err := encrypt.New(kek, keyStore, &encrypt.Options{OnOpen: norms.OnOpen})
//
// Cards are counted by [Quota.OnOpen], which encrypt calls before it decrypts, so
// that no route can do without. [Quota.Check] counts queries, and says before an
// act what OnOpen would say. Of a batch of clients all are counted or none: the
// batch that would pass a hard norm is refused whole. A client who was counted
// today stays open today, however full the norm is.
//
// # What counts
//
// The act in the context chooses the norms:
//
//	view                                         norms of View
//	reveal, unmask, call, update, delete         norms of View, and those of the action
//	export                                       norms of Export; without any, those of View
//	list, search                                 norms of List or Search
//	none, or one that is empty                   as reveal
//	any other                                    norms of View
//
// A norm is about one kind of resource. An act on a kind that no norm of an action
// names counts toward all norms of that action, and so does what is done without an
// act. Who acts on behalf of somebody is counted, and so is the other: there must
// be room in the norms of both. Jobs of the host ([crmguard.System]) are not
// counted.
//
// # Alerts
//
// A norm of fifty lets fifty through. The record after the soft norm is let
// through and tells Options.Alert; the one after the hard norm is refused and
// tells it. Each happens once for a person, a norm and a day: the step that counts
// decides it, so one of many processes tells, and no other does.
//
// # Days
//
// A day is a calendar day where the tenant is, of 23 or 25 hours where clocks
// change, beginning at the first moment of its date where midnight is left out.
// A tenant's day never goes backwards: after the clock was set back, or the tenant
// moved to a zone further west, the later day goes on until it is over. So a clock
// that ran ahead by years stops a norm from beginning anew; docs/formats/quota.md
// says how to put that right.
//
// # Security notes
//
// When the store does not answer, nothing is opened. Refusals count toward the
// norm of attempts, past which nothing new is opened by any action: those by a norm,
// and those by anything else that [Quota.CountRefusal] is told of, so that who tries
// one record after the other is found out by trying. What the store
// holds is not authenticated: who can write the database can empty a norm. It
// holds client ids in the clear, because they are random and say nothing without
// the client's data.
//
// # Compatibility
//
// The tables are specified in docs/formats/quota.md.
package quota

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/crmguard/crmguard"
)

// The codes of refusals.
const (
	CodeNorm     = "norm"     // a norm is used up
	CodeAttempts = "attempts" // too much was refused today
)

// Options are what most hosts can do without, except Alert.
type Options struct {
	// Alert is told when somebody passes a threshold. It is called before the
	// caller goes on, so that an alert is kept when the act goes on; the end of the
	// request does not cancel its context. When it returns an error, nothing is
	// opened, and the threshold tells again when the next record passes it. Nil:
	// nobody is told.
	Alert func(ctx context.Context, a Alert) error

	Clock func() time.Time // nil: time.Now
}

// Quota counts toward norms. It is safe for concurrent use, and a
// [crmguard.Checker]. Any number of processes may share its store.
type Quota struct {
	store    Store
	zone     Zone
	norms    []Norm
	table    table
	attempts Limit
	alert    func(ctx context.Context, a Alert) error
	clock    func() time.Time
}

var _ crmguard.Checker = (*Quota)(nil)

// New returns a Quota with these norms, which hold for every person of every
// tenant. The zone is asked for each act.
func New(store Store, zone Zone, norms []Norm, o *Options) (*Quota, error) {
	if store == nil || zone == nil {
		return nil, errors.New("quota: a store and a zone are needed")
	}
	table, attempts, err := compile(norms)
	if err != nil {
		return nil, err
	}
	if o == nil {
		o = &Options{}
	}
	q := &Quota{
		store: store, zone: zone, norms: slices.Clone(norms),
		table: table, attempts: attempts, alert: o.Alert, clock: o.Clock,
	}
	if q.clock == nil {
		q.clock = time.Now
	}
	return q, nil
}

// OnOpen counts clients whose data is about to be opened by the subject of ctx,
// toward the norms that the act of ctx chooses. It is made for the field of the
// same name in encrypt.Options. A no is a *[crmguard.Denial] by "quota" with status
// Exhausted, after which nothing was counted but the refusal. Any other error means
// that it could not be counted, or that Options.Alert failed after it was.
func (q *Quota) OnOpen(ctx context.Context, tenant string, clients []string) error {
	s, _ := crmguard.SubjectFrom(ctx) // nobody is refused as incomplete
	if err := crmguard.CheckTenant(s, tenant); err != nil {
		return err
	}
	if s.Kind == crmguard.KindSystem {
		return nil
	}
	action, kind := crmguard.Reveal, ""
	if act := crmguard.ActFrom(ctx); act != nil {
		if err := crmguard.CheckTenant(s, act.Resource.Tenant); err != nil {
			return err
		}
		action, kind = act.Action, act.Resource.Kind
	}
	limits := q.table.of(kind).records[classOf(action)]
	if len(limits) == 0 || len(clients) == 0 {
		return nil
	}
	items, err := distinct(clients)
	if err != nil {
		return err
	}
	return q.take(ctx, &s, &Taking{Items: items, Limits: limits})
}

// Check is for [crmguard.Checker], and to be asked once for each act, before it.
//
//   - For List and Search it counts one query, toward the norms of [Queries].
//   - For View, Reveal, Unmask and Call of one record it answers as OnOpen would
//     for the client with that record's id, and counts nothing but a refusal. That
//     is for kinds that a norm names; records of them have the ids of their clients.
//   - Anything else it allows, because only OnOpen knows what will be opened.
func (q *Quota) Check(ctx context.Context, s crmguard.Subject, a crmguard.Action, r crmguard.Resource) error {
	if err := crmguard.CheckTenant(s, r.Tenant); err != nil {
		return err
	}
	if s.Kind == crmguard.KindSystem {
		return nil
	}
	class, limits := classOf(a), q.table.of(r.Kind)
	switch a {
	case crmguard.List, crmguard.Search:
		if queries := limits.queries[class]; len(queries) > 0 {
			return q.take(ctx, &s, &Taking{Limits: queries})
		}
	case crmguard.View, crmguard.Reveal, crmguard.Unmask, crmguard.Call:
		if limits.named[class] && r.ID != "" {
			items, err := distinct([]string{r.ID})
			if err != nil {
				return err
			}
			return q.take(ctx, &s, &Taking{Items: items, Limits: limits.records[class], Ask: true})
		}
	}
	return nil
}
