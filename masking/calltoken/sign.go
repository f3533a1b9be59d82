package calltoken

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Headers of signed messages.
const (
	HeaderTimestamp = "Crmguard-Timestamp"
	HeaderSignature = "Crmguard-Signature"
	HeaderCall      = "Idempotency-Key" // the id of the call
)

const (
	minKey     = 32              // bytes
	maxAge     = 5 * time.Minute // of a message, and as far may it be ahead
	maxMessage = 4096            // bytes of a body

	orderDomain  = "crmguard call order v1"
	reportDomain = "crmguard call report v1"
)

// ErrSignature says that a message is not signed with the key, was changed, or is
// older than five minutes.
var ErrSignature = errors.New("calltoken: no valid signature of the last five minutes")

var (
	errOrder  = errors.New("calltoken: not an order, or one that expired")
	errReport = errors.New("calltoken: not a report")
)

// Key signs orders and reports between a CRM and one exchange; each exchange has
// another. It redacts itself.
type Key struct{ secret }

// NewKey takes a secret of at least 32 random bytes.
func NewKey(secret []byte) (*Key, error) {
	if len(secret) < minKey {
		return nil, fmt.Errorf("calltoken: a key has at least %d bytes", minKey)
	}
	return &Key{newSecret(string(secret))}, nil
}

// usable tells a key of [NewKey] from the zero value, which would sign what everybody
// can sign.
func (k *Key) usable() bool { return k != nil && len(k.reveal()) >= minKey }

// sign puts the three headers into h.
func (k *Key) sign(h http.Header, domain, id string, body []byte, now time.Time) {
	timestamp := strconv.FormatInt(now.Unix(), 10)
	h.Set("Content-Type", "application/json")
	h.Set(HeaderCall, id)
	h.Set(HeaderTimestamp, timestamp)
	h.Set(HeaderSignature, "v1="+hex.EncodeToString(k.mac(domain, timestamp, id, body)))
}

// verify returns the id that was signed with the body.
func (k *Key) verify(h http.Header, domain string, body []byte, now time.Time) (id string, err error) {
	for _, name := range []string{HeaderCall, HeaderTimestamp, HeaderSignature} {
		if len(h.Values(name)) != 1 {
			return "", ErrSignature
		}
	}
	id, timestamp := h.Get(HeaderCall), h.Get(HeaderTimestamp)
	if !k.usable() {
		return "", ErrSignature
	}
	text, ok := strings.CutPrefix(h.Get(HeaderSignature), "v1=")
	mac, err := hex.DecodeString(text)
	if !ok || err != nil || len(body) > maxMessage || !hmac.Equal(mac, k.mac(domain, timestamp, id, body)) {
		return "", ErrSignature
	}
	seconds, err := strconv.ParseInt(timestamp, 10, 64)
	if err != nil {
		return "", ErrSignature
	}
	if age := now.Sub(time.Unix(seconds, 0)); age > maxAge || age < -maxAge {
		return "", ErrSignature
	}
	return id, nil
}

// mac is over parts with their lengths, so that none can give bytes to the next.
func (k *Key) mac(domain, timestamp, id string, body []byte) []byte {
	var head []byte
	for _, part := range []string{domain, timestamp, id} {
		head = appendString(head, part)
	}
	h := hmac.New(sha256.New, []byte(k.reveal()))
	h.Write(head)
	h.Write(appendString(nil, string(body)))
	return h.Sum(nil)
}

// orderWire is an order's body.
type orderWire struct {
	Version int       `json:"version"`
	Tenant  string    `json:"tenant"`
	Call    string    `json:"call"`
	Leg     string    `json:"leg"`
	Number  string    `json:"number"`
	Expires time.Time `json:"expires"`
}

func (o *Order) encode() ([]byte, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	return json.Marshal(orderWire{1, o.Tenant, o.CallID, o.Leg, o.Number.Show(), o.Expires.UTC().Truncate(time.Second)})
}

var e164 = regexp.MustCompile(`^\+[1-9][0-9]{6,14}$`)

func (o *Order) check() error {
	if o.Tenant == "" || len(o.Tenant) > maxText || !validID(o.CallID) || !validLeg(o.Leg) || !e164.MatchString(o.Number.Show()) || o.Expires.IsZero() {
		return errOrder
	}
	return nil
}

// Verify returns the order that a [Sender] with the same key sent as a request
// with these headers and this body: signed, at most five minutes old, and not
// expired. The error is [ErrSignature] or says that it is no order. That an order
// may arrive twice is for the caller to see to, by its CallID; a [Receiver] does.
func Verify(k *Key, h http.Header, body []byte, now time.Time) (Order, error) {
	id, err := k.verify(h, orderDomain, body, now)
	if err != nil {
		return Order{}, err
	}
	var w orderWire
	if strictJSON(body, &w) != nil || w.Version != 1 || w.Call != id {
		return Order{}, errOrder
	}
	o := Order{w.Tenant, w.Call, w.Leg, Number{newSecret(w.Number)}, w.Expires.UTC()}
	if o.check() != nil || !now.Before(o.Expires) || o.Expires.After(now.Add(2*maxAge)) {
		return Order{}, errOrder
	}
	return o, nil
}

// Report is what an exchange tells of a call: in its answer to the order, and
// signed once the call is [Ended] or [Failed].
type Report struct {
	CallID string `json:"call"`
	State  State  `json:"state"`
}

// final reports whether it can be posted to the CRM, which knows already that the
// call was begun.
func (r *Report) final() bool { return validID(r.CallID) && (r.State == Ended || r.State == Failed) }

// SignReport returns the body of a report and puts its headers into h, for an
// exchange that tells the CRM how a call ended: [Ended] or [Failed]. A report holds no more than the
// call's id and state, and so no number gets into the logs of webhooks.
func SignReport(k *Key, h http.Header, r Report, now time.Time) ([]byte, error) {
	if !k.usable() {
		return nil, errors.New("calltoken: a report needs a key of NewKey")
	}
	if !r.final() {
		return nil, errReport
	}
	body, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("calltoken: encode a report: %w", err)
	}
	k.sign(h, reportDomain, r.CallID, body, now)
	return body, nil
}

// VerifyReport returns the report that was signed with the same key; then
// [Resolver.Settle] is to be told. The error is [ErrSignature] or says that it is
// no report. A report that arrives twice changes nothing.
func VerifyReport(k *Key, h http.Header, body []byte, now time.Time) (Report, error) {
	id, err := k.verify(h, reportDomain, body, now)
	if err != nil {
		return Report{}, err
	}
	var r Report
	if strictJSON(body, &r) != nil || r.CallID != id || !r.final() {
		return Report{}, errReport
	}
	return r, nil
}

// strictJSON reads one value and nothing beside it.
func strictJSON(body []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("more than one value")
	}
	return nil
}
