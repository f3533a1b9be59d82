package calltoken

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/crmguardtest"
)

var (
	noon = time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)

	anna = crmguard.Subject{
		Tenant: "acme", ID: "anna", Kind: crmguard.KindEmployee, Session: "s-1", Device: "laptop",
		Addr: netip.MustParseAddr("192.0.2.7"), Assurance: crmguard.AssuranceSecondFactor, AuthenticatedAt: noon.Add(-time.Minute),
		Roles: []string{"seller"}, Units: []string{"sales"},
	}
	phoneOf17 = crmguard.Resource{Tenant: "acme", Kind: "contacts", ID: "17", Field: "phone", Owner: "anna", Unit: "sales"}
)

const (
	typed = "+7 (916) 123-45-67"
	e17   = "+79161234567"
)

// syncBuffer is a log that goroutines share.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// desk is a CRM: people, records, and numbers that are counted as they are opened.
type desk struct {
	mu      sync.Mutex
	closed  map[string]bool // persons and sessions
	owner   string
	number  string
	err     error // of Number
	opened  int
	acts    []*crmguard.Act // that the number was opened for
	subject crmguard.Subject
}

func (d *desk) Person(_ context.Context, s crmguard.Subject) (roles, units []string, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed[s.ID] || d.closed[s.Session] {
		return nil, nil, &crmguard.Denial{By: "session", Code: "person-closed", Status: crmguard.Unauthenticated}
	}
	return []string{"seller"}, []string{"sales"}, nil
}

func (d *desk) Record(_ context.Context, c Claims) (crmguard.Resource, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return crmguard.Resource{Tenant: c.Subject.Tenant, Kind: c.Kind, ID: c.Record, Field: c.Field, Owner: d.owner, Unit: "sales"}, nil
}

func (d *desk) Number(ctx context.Context, _ Claims) (string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.opened++
	d.subject, _ = crmguard.SubjectFrom(ctx)
	d.acts = append(d.acts, crmguard.ActFrom(ctx))
	return d.number, d.err
}

// line is a telephone line that remembers what it was told.
type line struct {
	mu     sync.Mutex
	orders []Order
	err    error
}

func (l *line) Dial(_ context.Context, o Order) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.orders = append(l.orders, o)
	return l.err
}

func (l *line) dialled() []Order {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.orders)
}

// ownOnly lets people ring their own clients, as far as their scopes go.
type ownOnly struct {
	mu    sync.Mutex
	taken bool
	asked []crmguard.Subject
}

func (o *ownOnly) Check(_ context.Context, s crmguard.Subject, a crmguard.Action, r crmguard.Resource) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.asked = append(o.asked, s)
	if err := crmguard.CheckTenant(s, r.Tenant); err != nil {
		return err
	}
	if o.taken || a != crmguard.Call || r.Owner != s.ID || !slices.Contains(s.Roles, "seller") || s.Scopes != nil && !slices.Contains(s.Scopes, "call") {
		return &crmguard.Denial{By: "rights", Code: "no-rule", Status: crmguard.Forbidden}
	}
	return nil
}

type rig struct {
	keys    crmguard.Sealer
	clock   *crmguardtest.Clock
	calls   Store
	rights  crmguard.Checker
	own     *ownOnly
	journal *crmguardtest.Recorder
	desk    *desk
	host    Host
	line    *line
	logged  *syncBuffer
	subject crmguard.Subject
}

func newRig() *rig {
	r := &rig{
		keys: crmguardtest.NewKeys(), clock: crmguardtest.NewClock(noon), calls: NewMemory(), own: &ownOnly{},
		journal: crmguardtest.NewRecorder(), desk: &desk{closed: map[string]bool{}, owner: "anna", number: typed}, line: &line{},
		logged: &syncBuffer{}, subject: anna,
	}
	r.rights, r.host = r.own, r.desk
	return r
}

func (r *rig) logger() *slog.Logger { return slog.New(slog.NewJSONHandler(r.logged, nil)) }

func (r *rig) issuer(t require.TestingT) *Issuer {
	i, err := NewIssuer(r.keys, &IssuerOptions{Clock: r.clock.Now})
	require.NoError(t, err)
	return i
}

func (r *rig) resolver(t require.TestingT) *Resolver {
	resolver, err := NewResolver(r.keys, r.calls, r.rights, r.journal, r.host, r.line, &ResolverOptions{Clock: r.clock.Now, Logger: r.logger()})
	require.NoError(t, err)
	return resolver
}

func acting(s crmguard.Subject, a crmguard.Action, r crmguard.Resource) context.Context {
	return crmguard.WithAct(crmguard.WithSubject(context.Background(), s), a, r)
}

func (r *rig) issue(t require.TestingT) Token {
	token, err := r.issuer(t).Issue(acting(r.subject, crmguard.Call, phoneOf17), "c17", "101")
	require.NoError(t, err)
	return token
}

func (r *rig) resolve(t require.TestingT, token string) (Call, error) {
	return r.resolver(t).Resolve(context.Background(), "acme", token)
}

// outcomes are those in the journal, in their order.
func (r *rig) outcomes() (list []string) {
	for _, e := range r.journal.Events() {
		list = append(list, strings.TrimSpace(e.Outcome.String()+" "+e.Reason))
	}
	return list
}

func requireDenied(t require.TestingT, err error, code string) {
	denial, ok := errors.AsType[*crmguard.Denial](err)
	require.True(t, ok, "want a denial, got %v", err)
	require.Equal(t, code, denial.Code)
}

// namesNumber reports whether a text holds the number, grouped or not.
func namesNumber(text string) bool {
	return errors.Is(withhold(errors.New(text), Number{newSecret(e17)}), errWithheld)
}

// told is everything that anybody but the exchange may read.
func (r *rig) told(t require.TestingT, call Call, err error) string {
	events, jsonErr := json.Marshal(r.journal.Events())
	require.NoError(t, jsonErr)
	shown, jsonErr := json.Marshal(call)
	require.NoError(t, jsonErr)
	return fmt.Sprintf("%v %+v %#v %s\n%v %+v\n%s\n%+v\n%s", call, call, call, shown, err, err, events, r.journal.Events(), r.logged.String())
}

func testKey(t testing.TB) *Key {
	t.Helper()
	k, err := NewKey(bytes.Repeat([]byte{7}, 32))
	require.NoError(t, err)
	return k
}

func keyOf(b byte) *Key { return &Key{newSecret(strings.Repeat(string(rune(b)), 32))} }
