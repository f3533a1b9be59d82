package app

import (
	"context"
	"crypto/rand"
	"errors"
	"net/http"
	"regexp"
	"slices"
	"sync"
	"time"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/guard"
	"github.com/crmguard/crmguard/masking/calltoken"
	"github.com/crmguard/crmguard/masking/calltoken/calltokensql"
)

const (
	callTimeout = 20 * time.Second // until the exchange has taken a call
	callMemory  = 10 * time.Minute // how long the same button makes the same call
)

// calls is how people ring clients whose numbers they do not see: the CRM makes a
// token, and the telephony side, which here is the same process, resolves it.
type calls struct {
	issuer   *calltoken.Issuer
	resolver *calltoken.Resolver
	exchange *exchange
	resolve  func(ctx context.Context, tenant, token string) (calltoken.Call, error)

	mu     sync.Mutex
	placed map[placing]*placed
}

// placing is one press of a button, however often the browser sends it.
type placing struct{ person, contact, once string }

type placed struct {
	at   time.Time
	ring func() (calltoken.Call, error)
}

// openCalls joins the CRM and the built-in exchange. The key between them is made
// anew at each start, because both ends live in this process.
func (a *App) openCalls(ctx context.Context) (*calls, error) {
	secret := make([]byte, 32)
	_, _ = rand.Read(secret) // never fails
	key, err := calltoken.NewKey(secret)
	if err != nil {
		return nil, err
	}
	stored, err := calltokensql.New(ctx, a.db.DB, nil)
	if err != nil {
		return nil, err
	}
	issuer, err := calltoken.NewIssuer(a.vault.keys, &calltoken.IssuerOptions{Clock: a.cfg.Clock})
	if err != nil {
		return nil, err
	}
	exchange, err := openExchange(key, a)
	if err != nil {
		return nil, err
	}
	c := &calls{issuer: issuer, exchange: exchange, placed: map[placing]*placed{}}
	sender, err := calltoken.NewSender(exchange.address, key, &calltoken.SenderOptions{Clock: a.cfg.Clock})
	if err == nil {
		c.resolver, err = calltoken.NewResolver(a.vault.keys, stored, a.guard.Checker(), a.recorder, callHost{a}, sender,
			&calltoken.ResolverOptions{Region: homeRegion, Logger: a.log, Clock: a.cfg.Clock})
	}
	if err != nil {
		return nil, errors.Join(err, exchange.close())
	}
	c.resolve = c.resolver.Resolve
	return c, nil
}

// callHost is what the telephony side asks the CRM when it resolves a token.
type callHost struct{ a *App }

// Person implements calltoken.Host: the person is open, and so is the session in
// which the button was pressed.
func (h callHost) Person(ctx context.Context, s crmguard.Subject) (roles, units []string, err error) {
	state, err := h.a.sessions.State(ctx, s.Tenant, s.ID)
	if err != nil {
		return nil, nil, err
	}
	alive, err := h.a.sessions.List(ctx, s.Tenant, s.ID)
	if err != nil {
		return nil, nil, err
	}
	for _, info := range alive {
		if info.ID == s.Session && !state.Closed {
			return h.a.rights.Resolve(ctx, s.Tenant, s.ID)
		}
	}
	return nil, nil, &crmguard.Denial{By: "crm", Code: "session-ended", Status: crmguard.Unauthenticated}
}

// Record implements calltoken.Host.
func (h callHost) Record(ctx context.Context, c calltoken.Claims) (crmguard.Resource, error) {
	contact, err := h.a.db.contact(ctx, c.Record)
	if err != nil {
		return crmguard.Resource{}, err
	}
	resource := contact.resource()
	resource.Field = c.Field
	return resource, nil
}

// Number implements calltoken.Host. Nothing but the number is opened.
func (h callHost) Number(ctx context.Context, c calltoken.Claims) (string, error) {
	contact, err := h.a.db.contact(ctx, c.Record)
	if err != nil {
		return "", err
	}
	for _, t := range contact.texts() {
		if t.name != c.Field {
			*t.sealed = nil
		}
	}
	if err := h.a.openContacts(ctx, []*Contact{contact}); err != nil {
		return "", err
	}
	switch number := *contact.text(c.Field); {
	case !contact.Erased.IsZero():
		return "", crmguard.ErrErased
	case contact.Damaged:
		return "", errDamaged
	case number == "":
		return "", &guard.Problem{Status: http.StatusConflict, Title: "No number", Code: "no-number", Detail: "This contact has no phone number."}
	default:
		return number, nil
	}
}

var onceShape = regexp.MustCompile(`^[A-Z2-7]{26}$`)

// calledContact finds the contact to ring.
func (a *App) calledContact(r *http.Request) (crmguard.Resource, error) {
	if err := readForm(r); err != nil {
		return crmguard.Resource{Tenant: tenant, Kind: kind}, err
	}
	resource, err := a.contactOf(r)
	if err != nil {
		return resource, err
	}
	resource.Field = "phone"
	guard.Describe(r.Context(), func(e *guard.Details) { e.Reason = "button" }) // the call has an entry of its own, with its id
	if !onceShape.MatchString(r.PostForm.Get("once")) {
		return resource, unreadable()
	}
	return resource, nil
}

// call rings the client. All that the browser gets is the id of the call and how
// far it came. A browser that sends the form twice cancels its first request, so
// that the call goes on without it and the second request finds it.
func (a *App) call(w http.ResponseWriter, r *http.Request) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), callTimeout)
	defer cancel()
	id, person := stateOf(ctx).contact.ID, subjectOf(ctx).ID
	call, again, err := a.calls.place(placing{person, id, r.PostForm.Get("once")}, a.now(), func() (calltoken.Call, error) {
		token, err := a.calls.issuer.Issue(ctx, id, legOf(person))
		if err != nil {
			return calltoken.Call{}, err
		}
		return a.calls.resolve(ctx, tenant, token.Show())
	})
	if err != nil {
		return a.notCalled(ctx, call, err)
	}
	if again {
		guard.Describe(ctx, func(e *guard.Details) { e.Reason = "same-call" })
	}
	http.Redirect(w, r, "/contacts/"+id+"?call="+call.ID, http.StatusSeeOther)
	return nil
}

// legOf is the person's telephone, as the exchange knows it. It follows from the
// login, which people do not choose: with a leg of their choice they would have
// clients rung for somebody else.
func legOf(login string) string { return "sip:" + login + "@crm" }

// notCalled says what a failure means to whoever pressed the button.
func (a *App) notCalled(ctx context.Context, call calltoken.Call, err error) error {
	_, denied := errors.AsType[*crmguard.Denial](err)
	_, told := errors.AsType[*guard.Problem](err)
	if denied || told || call.State != calltoken.Failed || errors.Is(err, crmguard.ErrErased) || errors.Is(err, errDamaged) {
		return err
	}
	a.log.ErrorContext(ctx, "a call was not made", "call", call.ID, "error", err) // calltoken keeps the number out of it
	return &guard.Problem{Status: http.StatusBadGateway, Title: "No call was made", Code: "exchange",
		Detail: "The telephone exchange did not take the call. Go back and try again."}
}

// place makes the call of a button, once. What failed may be tried again.
func (c *calls) place(p placing, now time.Time, ring func() (calltoken.Call, error)) (call calltoken.Call, again bool, err error) {
	c.mu.Lock()
	for old, made := range c.placed {
		if now.Sub(made.at) > callMemory {
			delete(c.placed, old)
		}
	}
	made, again := c.placed[p]
	if !again {
		made = &placed{now, sync.OnceValues(ring)}
		c.placed[p] = made
	}
	c.mu.Unlock()
	if call, err = made.ring(); err != nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.placed[p] == made {
			delete(c.placed, p)
		}
	}
	return call, again, err
}

// callNotice is what a card shows of a call.
type callNotice struct{ ID, State, Class, Text string }

var callShape = regexp.MustCompile(`^[A-Za-z0-9_-]{16,64}$`)

// callNotice tells how a call of the person's own goes, nil if there is none of
// this id.
func (a *App) callNotice(ctx context.Context, id string) (*callNotice, error) {
	if !callShape.MatchString(id) {
		return nil, nil
	}
	call, err := a.calls.resolver.Call(ctx, id)
	if errors.Is(err, calltoken.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	n := &callNotice{ID: call.ID, State: call.State.String(), Class: "good", Text: "Your telephone rings first, then the client's. The exchange of this example is a stand-in, so nothing really rings."}
	if call.State != calltoken.Ringing {
		n.Class, n.Text = "", "This call is over."
	}
	if call.State == calltoken.Failed {
		n.Class, n.Text = "bad", "This call was not made."
	}
	return n, nil
}

// exchangePage shows what the built-in exchange was told.
func (a *App) exchangePage(w http.ResponseWriter, r *http.Request) error {
	orders := a.calls.exchange.received()
	slices.Reverse(orders)
	return a.render(w, http.StatusOK, "exchange", a.page(r, "Telephone exchange", true, orders))
}
