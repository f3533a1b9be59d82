package audit

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/crmguard/crmguard"
)

var (
	errTenant    = errors.New("audit: an event needs a tenant, and one that is done the same for subject and resource")
	errOwnTenant = errors.New("audit: tenants that begin with " + ownPrefix + " are the log's own")
	errSubject   = errors.New("audit: an event needs a subject with ID and kind; only a refused or failed one may lack it")
	errEvent     = errors.New("audit: an event needs an action, an outcome and a count that is not negative")
	errName      = errors.New("audit: tenant, ID, subject and client are UTF-8 without NUL")
	errSealing   = errors.New("audit: seal a private value") // no fault of the event's
	errTime      = errors.New("audit: times are after 1970 and before 10000")
)

// prepare checks, completes, seals and encodes an event.
func (l *Log) prepare(ctx context.Context, e crmguard.Event) (*content, []byte, error) {
	if err := checkNames(&e); err != nil {
		return nil, nil, err
	}
	normalise(&e)
	tenant, err := check(&e)
	if err != nil {
		return nil, nil, err
	}
	if e.ID == "" {
		e.ID = newID(l.clock())
	}
	timed := !e.Time.IsZero()
	if !timed {
		e.Time = l.clock()
	}
	e.Time, e.Subject.AuthenticatedAt = stored(e.Time), stored(e.Subject.AuthenticatedAt)
	if !writable(e.Time) || !e.Subject.AuthenticatedAt.IsZero() && !writable(e.Subject.AuthenticatedAt) {
		return nil, nil, errTime
	}
	c := &content{tenant: tenant, event: e, timed: timed, sealed: make([]SealedValue, len(e.Private))}
	c.event.Private = nil // no plaintext goes further than this
	for i, p := range e.Private {
		v := &c.sealed[i]
		v.Client, v.Name = p.Client, p.Name
		v.Sealed, err = l.keys.Seal(ctx, v.place(tenant, e.ID), p.Value)
		switch v.Erased = errors.Is(err, crmguard.ErrErased); {
		case v.Erased:
			v.Sealed = nil
		case err != nil:
			return nil, nil, fmt.Errorf("%w: %w", errSealing, err)
		default:
			found, err := l.finding.of(ctx, c, &p)
			if err != nil {
				return nil, nil, fmt.Errorf("%w: its pseudonym: %w", errSealing, err)
			}
			c.pseudonyms = append(c.pseudonyms, found...)
		}
	}
	return c, c.fit(), nil
}

// checkNames refuses names that are not UTF-8 or hold NUL: repaired, two of them
// would be one. A refused attempt may name any tenant whatsoever.
func checkNames(e *crmguard.Event) error {
	if len(e.Private) > maxPrivate {
		return fmt.Errorf("%w; this one has %d private values, at most %d are kept", errEvent, len(e.Private), maxPrivate)
	}
	names := [...]string{e.ID, e.Subject.Tenant, e.Subject.ID, e.Resource.Tenant}
	if e.Outcome >= crmguard.Denied && e.Subject.Tenant != "" {
		names[3] = ""
	}
	for _, name := range names {
		if clean(name) != name {
			return errName
		}
	}
	for i := range e.Private {
		client := e.Private[i].Client
		if len(client) > maxText { // a digest in its place would be another client
			return fmt.Errorf("%w, the id of a client has at most %d bytes", errName, maxText)
		}
		if clean(client) != client {
			return errName
		}
	}
	return nil
}

func (v *SealedValue) place(tenant, event string) crmguard.Place {
	return crmguard.Place{Tenant: tenant, Client: v.Client, Kind: "audit", Record: event, Field: v.Name}
}

// check returns the tenant in whose journal the event belongs. An attempt on
// another tenant's resource is the business of the tenant whose subject tried.
func check(e *crmguard.Event) (tenant string, err error) {
	if e.Action == "" || e.Outcome < crmguard.Attempted || e.Outcome > crmguard.Undecided || e.Count < 0 {
		return "", errEvent
	}
	refused := e.Outcome >= crmguard.Denied
	s := &e.Subject
	tenant = s.Tenant
	if tenant == "" && refused {
		tenant = e.Resource.Tenant
	}
	if keyText(tenant) != tenant { // it is a key of rows, and of what the inbox is sealed under
		return "", fmt.Errorf("%w; that has at most %d bytes and does not begin with %s", errTenant, maxKey, digestPrefix)
	}
	if strings.HasPrefix(tenant, ownPrefix) { // nobody speaks for the log but itself
		return "", errOwnTenant
	}
	if tenant == "" || e.Resource.Tenant != tenant && !refused {
		return "", errTenant
	}
	known := s.ID != "" && s.Kind >= crmguard.KindEmployee && s.Kind <= crmguard.KindSystem
	if stranger := s.ID == "" && s.Kind <= crmguard.KindSystem; !known && !(refused && stranger) {
		return "", errSubject
	}
	return tenant, nil
}

func normalise(e *crmguard.Event) {
	s, r := &e.Subject, &e.Resource
	for _, text := range []*string{
		&e.ID, &e.Reason, &e.Request, &e.Policy,
		&s.Tenant, &s.ID, &s.OnBehalfOf, &s.Session, &s.Device,
		&r.Tenant, &r.Kind, &r.ID, &r.Field, &r.Owner, &r.Unit,
	} {
		*text = short(clean(*text))
	}
	e.Action = crmguard.Action(short(clean(string(e.Action))))
	cleanAll(&e.Fields, &s.Roles, &s.Units, &s.Scopes)
	private := make([]crmguard.Private, len(e.Private)) // the caller's slice stays as it is
	for i, p := range e.Private {
		private[i] = crmguard.Private{Client: p.Client, Name: short(clean(p.Name)), Value: p.Value}
	}
	e.Private = private
}

// newID returns a UUID of version 7 (RFC 9562): milliseconds, then 74 random bits.
func newID(now time.Time) string {
	var b [16]byte
	_, _ = rand.Read(b[6:]) // never fails
	ms := now.UnixMilli()
	for i := range 6 {
		b[i] = byte(ms >> (40 - 8*i)) //nolint:gosec // the byte is what is wanted
	}
	b[6] = b[6]&0x0f | 0x70
	b[8] = b[8]&0x3f | 0x80
	text := hex.AppendEncode(make([]byte, 0, 36), b[:4])
	for _, part := range [][]byte{b[4:6], b[6:8], b[8:10], b[10:]} {
		text = hex.AppendEncode(append(text, '-'), part)
	}
	return string(text)
}
