// Package calltoken lets staff ring a client from the CRM without seeing the
// number.
//
//	// in the CRM, in a handler that guard let through as crmguard.Call
//	token, err := issuer.Issue(ctx, clientID, extensionOf(person))
//
//	// on the telephony side
//	resolver, err := calltoken.NewResolver(keys, calls, g.Checker(), journal, host, sender, nil) // g: *guard.Guard
//	call, err := resolver.Resolve(ctx, tenant, token.Show())
//	// call.ID and call.State are all that goes back to the browser
//
// An [Issuer] seals who calls, which record, from which telephone and until when
// into a [Token]; the number is not in it. A [Resolver] opens the token, asks
// whether that person may still ring that client, opens the number and gives the
// order to a [Dialer]: a [Sender] that posts it, signed, to a telephone exchange,
// or the host's own. A [Receiver] is the other end of a Sender, for exchanges
// that are written in Go. The exchange rings Order.Leg, the agent's telephone,
// first, and the client once the agent has answered; to the agent it shows the
// id of the call, and in its reports (see [VerifyReport]) it names the call by
// that id.
//
// # Security notes
//
//   - A call is made at most once for each token, however often and by however
//     many processes it is resolved. After a crash in between it is not made.
//   - Lockdown, address rules and rights are asked anew when the token is resolved,
//     as far as the Checker that the resolver was given asks for them: the guard's
//     does. They see the roles and the owner of the record at that moment. What
//     narrowed the person's credential when the token was made (scopes, assurance,
//     address) still does.
//   - The number is opened as crmguard.Call on behalf of the person, so that norms
//     count it, and once. It reaches the [Dialer] and nothing else: no result, no
//     store, no event; an error that names it is withheld.
//   - The token is sealed at a place without a client. Opening a client's place
//     takes from the norm of opened cards; a token shows no card, and whether
//     its bearer may open one is not yet known when it is read.
//   - A token is as good as the call that it stands for, to that person's own
//     telephone, for two minutes. Dismissing the person ends it.
//   - The leg comes from the server's list of extensions, never from the request:
//     with a leg of their choice staff would send the client's call elsewhere.
//   - Somebody who brings another person's token is refused, and named in the
//     journal, if the host puts them into the context as its subject.
//   - What the exchange shows of a call is for the exchange to keep: it must hide
//     the number from the agent's display, history and recordings.
//
// # Format
//
// docs/formats/calltoken.md specifies token, order, report and signature, all of
// version 1.
package calltoken

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/crmguard/crmguard"
)

const (
	defaultValidity = 2 * time.Minute
	maxValidity     = 5 * time.Minute
)

var errNoCall = errors.New("calltoken: the act in the context is no call of one field of one record (crmguard.WithAct, which guard does)")

// IssuerOptions of an [Issuer]. The zero value is secure.
type IssuerOptions struct {
	Validity time.Duration    // at most 5 minutes; 0: 2 minutes
	Clock    func() time.Time // nil: time.Now
}

// Issuer makes call tokens. It is safe for concurrent use.
type Issuer struct {
	keys     crmguard.Sealer
	validity time.Duration
	clock    func() time.Time
}

// NewIssuer returns an Issuer.
func NewIssuer(keys crmguard.Sealer, o *IssuerOptions) (*Issuer, error) {
	if keys == nil {
		return nil, errors.New("calltoken: an issuer needs keys")
	}
	if o == nil {
		o = &IssuerOptions{}
	}
	i := &Issuer{keys: keys, validity: o.Validity, clock: o.Clock}
	if i.validity == 0 {
		i.validity = defaultValidity
	}
	if i.validity < time.Second || i.validity > maxValidity {
		return nil, fmt.Errorf("calltoken: validity %v: want 1s to %v", o.Validity, maxValidity)
	}
	if i.clock == nil {
		i.clock = time.Now
	}
	return i, nil
}

// Issue makes a token for the act in ctx, which is crmguard.Call of one field of
// one record, for the subject of ctx: after the rights were checked and the
// intent recorded, as guard does. Client is whose data the number is. Leg is the
// person's own telephone as the exchange knows it, such as 101 or sip:101@pbx,
// from the server's data: up to 64 letters, digits and . _ - + : @.
func (i *Issuer) Issue(ctx context.Context, client, leg string) (Token, error) {
	s, _ := crmguard.SubjectFrom(ctx)
	act := crmguard.ActFrom(ctx)
	if act == nil || act.Action != crmguard.Call || act.Resource.ID == "" || act.Resource.Field == "" {
		return Token{}, errNoCall
	}
	r := act.Resource
	if err := crmguard.CheckTenant(s, r.Tenant); err != nil {
		return Token{}, err
	}
	s.Roles, s.Units = nil, nil
	c := Claims{
		CallID: newID(), Kind: r.Kind, Record: r.ID, Field: r.Field, Client: client,
		Subject: s, Leg: leg, End: micros(i.clock().Add(i.validity)),
	}
	plain, err := c.encode()
	if err != nil {
		return Token{}, err
	}
	sealed, err := i.keys.Seal(ctx, place(s.Tenant, c.CallID), plain)
	if err != nil {
		return Token{}, fmt.Errorf("calltoken: seal a token: %w", err)
	}
	return Token{c.CallID, newSecret(string(sealed))}, nil
}

// place has no client: see the package's security notes.
func place(tenant, callID string) crmguard.Place {
	return crmguard.Place{Tenant: tenant, Kind: "call", Record: callID, Field: "token"}
}

// tokenPrefix carries the version and lets scanners find leaked tokens.
const tokenPrefix = "crmguard_c1_" //nolint:gosec // not a credential

const (
	idBytes   = 15 // whole groups of base64
	idLen     = idBytes * 4 / 3
	maxSealed = 3 * maxClaims / 2 // what a Sealer adds is less
	maxToken  = len(tokenPrefix) + idLen + maxSealed*4/3
)

// strict64 gives every sequence of bytes one spelling.
var strict64 = base64.RawURLEncoding.Strict()

// Token stands for one call. It redacts itself; [Token.Show] is for who passes it
// on.
type Token struct {
	id     string
	secret // the sealed claims
}

// ID is the id of the call. It is no secret; it is also that of the call's events
// in the journal, and the Request of those that tell that it was refused.
func (t Token) ID() string { return t.id }

// Show returns the token as text that needs no escaping in URLs.
func (t Token) Show() string {
	return tokenPrefix + t.id + strict64.EncodeToString([]byte(t.reveal()))
}

// parseToken reports whether text has the form of a token.
func parseToken(text string) (Token, bool) {
	body, ok := strings.CutPrefix(text, tokenPrefix)
	// The decoder skips line breaks, which would give a token second spellings.
	if !ok || len(text) > maxToken || len(body) <= idLen || !validID(body[:idLen]) || strings.ContainsAny(body, "\r\n") {
		return Token{}, false
	}
	sealed, err := strict64.DecodeString(body[idLen:])
	return Token{body[:idLen], newSecret(string(sealed))}, err == nil
}

func newID() string {
	var b [idBytes]byte
	rand.Read(b[:]) //nolint:errcheck // never fails, says its documentation
	return strict64.EncodeToString(b[:])
}

// validID reports whether s has the form of a call's id.
func validID(s string) bool {
	return len(s) == idLen && strings.Trim(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_") == ""
}

// validLeg leaves out * and #, with which exchanges are told other things than
// whom to ring.
func validLeg(s string) bool {
	return s != "" && len(s) <= 64 && strings.IndexFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("._-+:@", r)
	}) < 0
}

// micros drops what claims and stores do not keep.
func micros(t time.Time) time.Time { return time.UnixMicro(t.UnixMicro()).UTC() }
