package calltoken

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/crmguard/crmguard"
)

// Codes of the denials of this package; By is "calltoken".
const (
	CodeToken   = "token"        // it has not the form of a token
	CodeExpired = "expired"      // its time is over
	CodePerson  = "other-person" // somebody else's is in the context
)

const (
	orderValidity = time.Minute
	afterwards    = 10 * time.Second // for what has to be written when the caller is gone
)

// Host is what a [Resolver] asks the CRM, anew for each token. The context
// carries the person as subject and crmguard.Call as act. A *crmguard.Denial is a
// no; with any other error it could not be decided, which is a no, too.
type Host interface {
	// Person returns the roles and departments of s at this moment. It denies a
	// person who is closed, and one whose session s.Session was ended.
	Person(ctx context.Context, s crmguard.Subject) (roles, units []string, err error)

	// Record loads the record of the claims as it is now, with owner and
	// department. Tenant, kind, ID and field are those of the claims.
	Record(ctx context.Context, c Claims) (crmguard.Resource, error)

	// Number opens the field of the record. Its errors do not hold the number.
	Number(ctx context.Context, c Claims) (string, error)
}

// ResolverOptions of a [Resolver]. The zero value is secure.
type ResolverOptions struct {
	// Region is the country whose habits numbers without a calling code follow, an
	// ISO 3166 code such as "RU". Empty: such numbers are not dialled.
	Region string

	Logger *slog.Logger     // nil: slog.Default
	Clock  func() time.Time // nil: time.Now
}

// Resolver turns tokens into calls. It is safe for concurrent use.
type Resolver struct {
	keys     crmguard.Sealer
	calls    Store
	rights   crmguard.Checker
	journal  crmguard.Recorder
	host     Host
	exchange Dialer
	region   string
	log      *slog.Logger
	clock    func() time.Time
}

// NewResolver returns a Resolver. Keys are those of the [Issuer]. Rights are asked
// for crmguard.Call on behalf of who calls, and are all that is asked: give the
// guard's Checker, which asks for lockdown and address rules too, and not the
// rights that it was made with.
func NewResolver(keys crmguard.Sealer, calls Store, rights crmguard.Checker, journal crmguard.Recorder, host Host, exchange Dialer, o *ResolverOptions) (*Resolver, error) {
	if keys == nil || calls == nil || rights == nil || journal == nil || host == nil || exchange == nil {
		return nil, errors.New("calltoken: a resolver needs keys, calls, rights, a journal, a host and an exchange")
	}
	if o == nil {
		o = &ResolverOptions{}
	}
	r := &Resolver{
		keys: keys, calls: calls, rights: rights, journal: journal, host: host, exchange: exchange,
		region: o.Region, log: o.Logger, clock: o.Clock,
	}
	if r.log == nil {
		r.log = slog.Default()
	}
	if r.clock == nil {
		r.clock = time.Now
	}
	return r, nil
}

// Resolve makes the call that a token of the tenant stands for, unless it was
// made already: then it returns that call. What it refuses is a
// *[crmguard.Denial]; any other error means that it could not be decided, that the
// token is not genuine, or that dialling failed, and then the call returned with
// it is Failed. A subject in ctx who is an employee has to be the person who
// calls.
//
// The journal gets an event with the call's ID for the intent, once the call is
// this one's to make, and one for the outcome. A refusal before that is an event
// of its own, whose Request is the call's ID and whose subject, if somebody else
// is in ctx, is who tried.
func (r *Resolver) Resolve(ctx context.Context, tenant, token string) (Call, error) {
	c, err := r.open(ctx, tenant, token)
	if err != nil {
		return Call{}, err
	}
	resource := c.resource()
	if err := r.admit(ctx, &c); err != nil {
		return Call{}, r.refused(ctx, &c, resource, err)
	}
	ctx = crmguard.WithAct(crmguard.WithSubject(ctx, c.Subject), crmguard.Call, resource)
	s := c.Subject
	if s.Roles, s.Units, err = r.host.Person(ctx, c.Subject); err != nil {
		return Call{}, r.refused(ctx, &c, resource, fmt.Errorf("calltoken: person: %w", err))
	}
	found, err := r.host.Record(ctx, c)
	if err == nil && (found.Tenant != tenant || found.Kind != c.Kind || found.ID != c.Record || found.Field != c.Field) {
		err = errors.New("another record than the token's")
	}
	if err != nil {
		return Call{}, r.refused(ctx, &c, resource, fmt.Errorf("calltoken: record: %w", err))
	}
	resource, c.Subject = found, s
	ctx = crmguard.WithAct(crmguard.WithSubject(ctx, s), crmguard.Call, resource)
	if err := r.rights.Check(ctx, s, crmguard.Call, resource); err != nil {
		return Call{}, r.refused(ctx, &c, resource, err)
	}
	now := micros(r.clock())
	call, first, err := r.calls.Begin(ctx, Call{Tenant: tenant, ID: c.CallID, Person: s.ID, State: Ringing, Begun: now}, now.Add(-keep))
	if err != nil {
		return Call{}, r.refused(ctx, &c, resource, fmt.Errorf("calltoken: begin a call: %w", err))
	}
	if !first {
		return call, nil
	}
	return r.ring(ctx, call, &c, resource)
}

// open returns what a genuine token says.
func (r *Resolver) open(ctx context.Context, tenant, text string) (Claims, error) {
	if tenant == "" {
		return Claims{}, denied("tenant", "no tenant")
	}
	if _, err := crmguard.CheckSubject(ctx, tenant); err != nil {
		return Claims{}, err
	}
	t, ok := parseToken(text)
	if !ok {
		return Claims{}, denied(CodeToken, "not a token")
	}
	plain, err := r.keys.Open(ctx, place(tenant, t.id), []byte(t.reveal()))
	if err != nil {
		return Claims{}, fmt.Errorf("calltoken: open a token: %w", err)
	}
	c, err := decode(plain)
	if err != nil {
		return Claims{}, err
	}
	if c.Subject.Tenant != tenant || c.CallID != t.id { // the place says so already
		return Claims{}, errClaims
	}
	return c, nil
}

// admit refuses a token for what it says itself.
func (r *Resolver) admit(ctx context.Context, c *Claims) error {
	if s, ok := crmguard.SubjectFrom(ctx); ok && s.Kind != crmguard.KindSystem && (s.Tenant != c.Subject.Tenant || s.ID != c.Subject.ID) {
		c.Subject = s // of whom the journal tells
		return denied(CodePerson, "the token is another person's")
	}
	if !r.clock().Before(c.End) {
		return denied(CodeExpired, "the token's time is over")
	}
	return nil
}

// ring makes the call. It runs once for each token.
func (r *Resolver) ring(ctx context.Context, call Call, c *Claims, resource crmguard.Resource) (Call, error) {
	err := r.journal.Record(ctx, r.event(c, resource, c.CallID, crmguard.Attempted))
	if err != nil {
		err = fmt.Errorf("calltoken: record the intent: %w", err)
	} else {
		outcome := crmguard.Done
		if err = r.dial(ctx, c); err != nil {
			outcome = crmguard.Failed
		}
		r.conclude(ctx, r.event(c, resource, c.CallID, outcome), err)
	}
	if err == nil {
		return call, nil
	}
	call.State = Failed
	after, cancel := context.WithTimeout(context.WithoutCancel(ctx), afterwards)
	defer cancel()
	if _, settleErr := r.calls.Settle(after, call.Tenant, call.ID, Failed); settleErr != nil {
		r.log.ErrorContext(ctx, "calltoken: a failed call is still shown as ringing", "call", call.ID, "error", settleErr)
	}
	return call, err
}

// dial is the one place where the number is in the clear.
func (r *Resolver) dial(ctx context.Context, c *Claims) error {
	text, err := r.host.Number(ctx, *c)
	if err != nil {
		return fmt.Errorf("calltoken: number: %w", err)
	}
	number, err := NewNumber(text, r.region)
	if err != nil {
		return err
	}
	err = r.exchange.Dial(ctx, Order{
		Tenant: c.Subject.Tenant, CallID: c.CallID, Leg: c.Leg, Number: number,
		Expires: r.clock().Add(orderValidity).Truncate(time.Second).UTC(),
	})
	if err := withhold(err, number); err != nil {
		return fmt.Errorf("calltoken: dial: %w", err)
	}
	return nil
}

// refused records why no call is begun and returns the reason. The event has not
// the call's ID: it says nothing of the call, which may have been made before, and
// each attempt counts.
func (r *Resolver) refused(ctx context.Context, c *Claims, resource crmguard.Resource, reason error) error {
	r.conclude(ctx, r.event(c, resource, "", crmguard.Undecided), reason)
	return reason
}

func (r *Resolver) event(c *Claims, resource crmguard.Resource, id string, o crmguard.Outcome) crmguard.Event {
	return crmguard.Event{
		ID: id, Time: r.clock(), Subject: c.Subject, Action: crmguard.Call, Resource: resource,
		Outcome: o, Fields: []string{c.Field}, Request: c.CallID,
	}
}

// conclude records how it ended, also when the caller is gone: as e says, and as
// Denied if the reason is a no.
func (r *Resolver) conclude(ctx context.Context, e crmguard.Event, reason error) {
	if denial, ok := errors.AsType[*crmguard.Denial](reason); ok {
		e.Outcome, e.Reason = crmguard.Denied, denial.Code
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), afterwards)
	defer cancel()
	if err := r.journal.Record(ctx, e); err != nil {
		r.log.ErrorContext(ctx, "calltoken: the journal does not show how a call ended", "call", e.Request, "outcome", e.Outcome.String(), "error", err)
	}
}

// Call returns a call of the subject of ctx, for a page that shows how it goes:
// [ErrNotFound] for those of others.
func (r *Resolver) Call(ctx context.Context, id string) (Call, error) {
	s, _ := crmguard.SubjectFrom(ctx)
	if err := crmguard.CheckTenant(s, s.Tenant); err != nil {
		return Call{}, err
	}
	call, err := r.calls.Find(ctx, s.Tenant, id)
	if err == nil && call.Person != s.ID {
		err = ErrNotFound
	}
	if err != nil {
		return Call{}, fmt.Errorf("calltoken: find a call: %w", err)
	}
	return call, nil
}

// Settle notes that a call ended or failed, as the exchange reports it; the first
// report stands. An unknown id is [ErrNotFound].
func (r *Resolver) Settle(ctx context.Context, tenant, id string, s State) error {
	if tenant == "" || !validID(id) || s != Ended && s != Failed {
		return errors.New("calltoken: settle wants a tenant, a call's id and how it ended")
	}
	settled, err := r.calls.Settle(ctx, tenant, id, s)
	if err == nil && !settled {
		_, err = r.calls.Find(ctx, tenant, id)
	}
	if err != nil {
		return fmt.Errorf("calltoken: settle a call: %w", err)
	}
	return nil
}

func denied(code, detail string) *crmguard.Denial {
	return &crmguard.Denial{By: "calltoken", Code: code, Status: crmguard.Forbidden, Detail: detail}
}
