// Package guard composes the protections of crmguard into net/http middleware:
// one request, one decision, one place where it is recorded.
//
//	g, err := guard.New(sessions, rights, rights, journal, nil)
//	...
//	mux.Handle("GET /contacts/{id}",        g.Protect(crmguard.View, contactOf, show))
//	mux.Handle("POST /contacts/{id}/phone", g.ProtectAct(crmguard.Reveal, phoneOf, reveal))
//	http.ListenAndServe(addr, g.Handler(mux))
//
// [Guard.Handler] finds out who asks. [Guard.Protect] serves what only shows,
// [Guard.ProtectAct] everything else: both load the resource on the server,
// decide, record and only then call the handler, which returns an error; nil
// means that the act was done. Nothing wraps the ResponseWriter. What is not HTTP
// calls [Guard.Check] and [Guard.Do].
//
// The order of a decision: subject, lockdown, address rules, rights, freshness of
// the proof, norm. The first no counts. Freshness comes after rights, so that nobody
// is asked for a code in vain, or about a record that does not exist for them.
//
// # Security notes
//
//   - What could not be decided is refused (503), and so is what could not be recorded.
//   - A record that the subject may not see is answered like one that does not
//     exist: the same checks are asked, the same kind of entry is written and the same
//     bytes are sent but for the id of the request. Who may see a record learns that
//     another act on it is forbidden.
//   - Refusals of people are journalled, and told to Options.Norms, which may have a
//     norm of them; those of strangers are not, or they would fill the disk.
//   - A handler that is mounted without Protect has a subject in its context but no
//     act; opening sealed data there counts as revealing it.
//   - Browsers say when another site's page asks by itself, for an image, say: then
//     nobody is signed in, nothing is journalled and no refusal is counted.
//   - Cookies are HttpOnly, SameSite=Lax and, except with Options.Loopback, Secure
//     under a __Host- name. Against forged cross-site requests mount
//     [http.CrossOriginProtection] around Handler.
package guard

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"time"

	"github.com/crmguard/crmguard"
)

// Sessions knows which subject a token stands for. It returns a
// *[crmguard.Denial] for a token that is not or no longer good.
type Sessions interface {
	Authenticate(ctx context.Context, token string) (crmguard.Subject, error)
}

// Directory knows the roles and departments of a person. It is asked once for
// each request, so that a change holds from the next one on.
type Directory interface {
	Resolve(ctx context.Context, tenant, subject string) (roles, units []string, err error)
}

// Options of a Guard. The zero value is secure.
type Options struct {
	// Addresses are rules on where requests may come from, asked before rights.
	// Nil: from anywhere.
	Addresses crmguard.Checker

	// StepUp says which acts want a fresh proof of who is there, asked after rights;
	// *mfa.StepUp is one. Nil: a session is enough.
	StepUp crmguard.Checker

	// Norms are asked once for each act that all others allow; *quota.Quota is one.
	// Nil: no norm is asked here. Cards are counted where data is opened, see
	// encrypt.Options.OnOpen. Norms that also have CountRefusal(ctx, s) error, as
	// *quota.Quota has, are told of each act that others deny as Forbidden, and of each
	// record that was not found. [Guard.Check] and [Guard.CheckAll] tell nobody.
	Norms crmguard.Checker

	// Holders are asked by [Guard.Dismiss], in this order, to end what they hold of a
	// person besides sessions. With them, sessions need ClosePerson(ctx, tenant, person) error;
	// *session.Manager has it.
	Holders []crmguard.Revoker

	// Switch is the emergency switch of [Guard.LockDown]. Nil: there is none.
	Switch Switch

	// Edge tells the address of the client. Nil: that of the connection, which
	// behind a proxy is the proxy's. When it fails, who brings a session is answered
	// with 400, since that is the fault of a proxy or of whoever sent the request.
	Edge func(r *http.Request) (netip.Addr, error)

	// Loopback serves plain HTTP on this machine only: cookies without Secure,
	// and every request that does not come from a loopback address is refused.
	Loopback bool

	// Page draws an error for requests that accept HTML. It must send p.Status.
	// Nil: all errors are application/problem+json.
	Page func(w http.ResponseWriter, r *http.Request, p Problem)

	Logger *slog.Logger     // nil: slog.Default
	Clock  func() time.Time // nil: time.Now
}

// Guard decides and records. It is safe for concurrent use.
type Guard struct {
	sessions  Sessions
	rights    crmguard.Checker
	directory Directory
	journal   crmguard.Recorder
	o         Options
	lockdowns *lockdowns // nil: there is no switch
	closer    closer     // nil: nobody can be dismissed
}

// New returns a Guard. All four parts are required: rights that are not asked
// and acts that are not recorded protect nothing. Rights that also have
// CheckAll(ctx, s, a, rs) []error are asked once for a page; those that have
// Version() string are named by it in every event. *rbac.Engine has both.
func New(sessions Sessions, rights crmguard.Checker, directory Directory, journal crmguard.Recorder, o *Options) (*Guard, error) {
	if sessions == nil || rights == nil || directory == nil || journal == nil {
		return nil, errors.New("guard: sessions, rights, directory and journal are required")
	}
	g := &Guard{sessions: sessions, rights: rights, directory: directory, journal: journal}
	if o != nil {
		g.o = *o
	}
	if g.o.Switch != nil {
		g.lockdowns = &lockdowns{sw: g.o.Switch, tenants: map[string]*look{}}
	}
	if len(g.o.Holders) > 0 {
		var ok bool
		if g.closer, ok = sessions.(closer); !ok {
			return nil, errors.New("guard: with Options.Holders, sessions need the method ClosePerson")
		}
	}
	if g.o.Edge == nil {
		g.o.Edge = connectionAddr
	}
	if g.o.Logger == nil {
		g.o.Logger = slog.Default()
	}
	if g.o.Clock == nil {
		g.o.Clock = time.Now
	}
	return g, nil
}

func connectionAddr(r *http.Request) (netip.Addr, error) {
	ap, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("guard: address of the connection: %w", err)
	}
	return ap.Addr().Unmap().WithZone(""), nil
}

// visit is what Handler found out about a request.
type visit struct {
	id    string
	err   error // why there is no subject
	token string
	addr  netip.Addr
}

type visitKey struct{}

// RequestID returns the id under which the request of ctx is journalled, empty
// outside [Guard.Handler].
func RequestID(ctx context.Context) string {
	if v, ok := ctx.Value(visitKey{}).(*visit); ok {
		return v.id
	}
	return ""
}

// Handler puts the subject of each request, if it has one, and an id for the
// request into its context. It refuses nobody who is merely not signed in: that
// is for Protect, so that a sign-in page can be served beside.
func (g *Guard) Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		v := &visit{id: rand.Text()}
		ctx := context.WithValue(r.Context(), visitKey{}, v)
		r = r.WithContext(ctx)
		if _, ok := crmguard.SubjectFrom(ctx); ok {
			// A server's base context with a job's subject in it would lend the job's
			// rights to everybody.
			g.WriteError(w, r, errors.New("guard: the request came with a subject: mount Handler once, on a server whose BaseContext has none"))
			return
		}
		if g.o.Loopback && !fromLoopback(r) {
			g.WriteError(w, r, &crmguard.Denial{By: "guard", Code: "loopback-only"})
			return
		}
		subject, err := g.authenticate(r, v)
		if err != nil {
			v.err = err
		} else {
			r = r.WithContext(crmguard.WithSubject(ctx, subject))
		}
		next.ServeHTTP(w, r)
	})
}

func fromLoopback(r *http.Request) bool {
	addr, err := connectionAddr(r)
	return err == nil && addr.IsLoopback()
}

// errAddress marks that the address of a request's client is not known.
var errAddress = errors.New("guard: client address")

// Addr returns the address of the request's client, as Options.Edge tells it: what
// signing in needs to know, too.
func (g *Guard) Addr(r *http.Request) (netip.Addr, error) {
	addr, err := g.o.Edge(r)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("%w: %w", errAddress, err)
	}
	return addr, nil
}

// fromElsewhere reports whether another site's page sent the request by itself, for an
// image, say. A sibling domain's pages send our cookies along: what they ask for must
// not be done, nor held against the person. Following a link is the person's own act.
func fromElsewhere(r *http.Request) bool {
	switch r.Header.Get("Sec-Fetch-Site") {
	case "same-site", "cross-site":
		return r.Header.Get("Sec-Fetch-Mode") != "navigate" || r.Header.Get("Sec-Fetch-Dest") != "document"
	}
	return false
}

// authenticate returns who sent the request, with roles and departments of this
// moment and the address that the edge saw, and notes in v what [Guard.Recheck] needs.
func (g *Guard) authenticate(r *http.Request, v *visit) (crmguard.Subject, error) {
	var err error
	if fromElsewhere(r) {
		return crmguard.Subject{}, &crmguard.Denial{By: "guard", Code: "cross-site", Status: crmguard.Unauthenticated}
	}
	if v.token, err = g.sessionToken(r); err != nil {
		return crmguard.Subject{}, err
	}
	if v.addr, err = g.Addr(r); err != nil {
		return crmguard.Subject{}, err
	}
	return g.identify(r.Context(), v.token, v.addr)
}

func (g *Guard) identify(ctx context.Context, token string, addr netip.Addr) (crmguard.Subject, error) {
	s, err := g.sessions.Authenticate(ctx, token)
	if err != nil {
		return crmguard.Subject{}, err
	}
	s.Addr = addr
	s.Roles, s.Units, err = g.directory.Resolve(ctx, s.Tenant, s.ID)
	if err != nil {
		return crmguard.Subject{}, fmt.Errorf("guard: roles and departments: %w", err)
	}
	// Without a subject in the context sealed data does not open either.
	if err := g.checkLockdown(ctx, s, ""); err != nil {
		return crmguard.Subject{}, err
	}
	return s, nil
}
