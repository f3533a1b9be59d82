// Package webhook sends signed messages by the rules of Standard Webhooks
// (https://www.standardwebhooks.com), for whose signatures receivers find libraries:
// the headers webhook-id, webhook-timestamp and webhook-signature, an HMAC-SHA256
// over "id.timestamp.body". Its errors never name the address, which may hold a
// token, and have no prefix: the caller's comes in front.
package webhook

import (
	"bytes"
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"time"
)

const (
	timeout     = 10 * time.Second
	minSecret   = 32      // bytes
	maxResponse = 4 << 10 // bytes that are read of an answer
)

// Sender sends to one receiver.
type Sender struct {
	url    *url.URL
	secret []byte
	client *http.Client
	clock  func() time.Time
}

// New returns a sender to an https address; http is for this machine only. The
// receiver has the same secret, of at least 32 bytes. See [Client] for a nil client.
func New(address string, secret []byte, client *http.Client) (*Sender, error) {
	u, err := ParseURL(address)
	if err != nil {
		return nil, err
	}
	if len(secret) < minSecret {
		return nil, fmt.Errorf("the secret of a webhook has at least %d bytes", minSecret)
	}
	return &Sender{url: u, secret: bytes.Clone(secret), client: Client(client), clock: time.Now}, nil
}

// String names the receiver's host; the rest of the address may be secret.
func (s *Sender) String() string { return "webhook " + s.url.Host }

// GoString does the same.
func (s *Sender) GoString() string { return s.String() }

// StatusError is an answer that is not one of 2xx.
type StatusError struct{ Code int }

// Error gives the status.
func (e *StatusError) Error() string {
	return fmt.Sprintf("the receiver answers %d %s", e.Code, http.StatusText(e.Code))
}

// Send delivers a message. Its id follows from the body, so it is the same each time
// that the same body is sent.
func (s *Sender) Send(ctx context.Context, contentType string, body []byte) error {
	sum := sha256.Sum256(body)
	id, at := hex.EncodeToString(sum[:16]), strconv.FormatInt(s.clock().Unix(), 10)
	mac := hmac.New(sha256.New, s.secret)
	fmt.Fprintf(mac, "%s.%s.%s", id, at, body)
	header := http.Header{
		"Content-Type":      {contentType},
		"Webhook-Id":        {id},
		"Webhook-Timestamp": {at},
		"Webhook-Signature": {"v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))},
	}
	status, _, err := Post(ctx, s.client, s.url, header, body)
	if err != nil {
		return err
	}
	if status < 200 || status > 299 {
		return &StatusError{Code: status}
	}
	return nil
}

// ParseURL refuses what would send over a network in the clear.
func ParseURL(address string) (*url.URL, error) {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.User != nil {
		return nil, errors.New("the address is an https URL without user")
	}
	ip, _ := netip.ParseAddr(u.Hostname())
	if local := u.Hostname() == "localhost" || ip.IsLoopback(); u.Scheme != "https" && !(u.Scheme == "http" && local) {
		return nil, errors.New("the address is https; http is for this machine only")
	}
	return u, nil
}

// Client is one that goes nowhere else than it is sent: it follows no redirect. Nil
// means one with a timeout of ten seconds.
func Client(client *http.Client) *http.Client {
	c := *cmp.Or(client, &http.Client{Timeout: timeout})
	c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &c
}

// Post returns the status and the beginning of the answer.
func Post(ctx context.Context, client *http.Client, u *url.URL, header http.Header, body []byte) (status int, answer []byte, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, u.String(), bytes.NewReader(body))
	if err != nil {
		return 0, nil, errors.New("the request cannot be made")
	}
	req.Header = header
	resp, err := client.Do(req)
	if named, ok := errors.AsType[*url.Error](err); ok {
		return 0, nil, named.Err
	}
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close() //nolint:errcheck // it was read
	answer, err = io.ReadAll(io.LimitReader(resp.Body, maxResponse))
	return resp.StatusCode, answer, err
}
