package audit

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
	webhookTimeout = 10 * time.Second
	minSecret      = 32      // bytes
	maxResponse    = 4 << 10 // bytes that are read of an answer
)

// Webhook is an anchor that can only be written: it sends each checkpoint to somebody
// who keeps it. The message follows Standard Webhooks, for whose signatures receivers
// find libraries: the headers webhook-id, webhook-timestamp and webhook-signature, an
// HMAC-SHA256 over "id.timestamp.body". The body is the checkpoint; its id is the same
// each time it is sent.
//
// https://www.standardwebhooks.com
type Webhook struct {
	url    *url.URL
	secret []byte
	client *http.Client
	clock  func() time.Time
}

var _ Anchor = (*Webhook)(nil)

// NewWebhook returns an anchor that POSTs to an https address; http is for this
// machine only. The receiver has the same secret, of at least 32 bytes. A nil client
// is one with a timeout of ten seconds; redirects are never followed.
func NewWebhook(address string, secret []byte, client *http.Client) (*Webhook, error) {
	u, err := parseAddress(address)
	if err != nil {
		return nil, err
	}
	if len(secret) < minSecret {
		return nil, fmt.Errorf("audit: the secret of a webhook has at least %d bytes", minSecret)
	}
	return &Webhook{url: u, secret: bytes.Clone(secret), client: stayingClient(client), clock: time.Now}, nil
}

// parseAddress refuses what would send over a network in the clear. Its errors do not
// quote the address, which may hold a token.
func parseAddress(address string) (*url.URL, error) {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.User != nil {
		return nil, errors.New("audit: an anchor's address is an https URL without user")
	}
	ip, _ := netip.ParseAddr(u.Hostname())
	if local := u.Hostname() == "localhost" || ip.IsLoopback(); u.Scheme != "https" && !(u.Scheme == "http" && local) {
		return nil, errors.New("audit: an anchor's address is https; http is for this machine only")
	}
	return u, nil
}

// stayingClient is a client that goes nowhere else than it is sent.
func stayingClient(client *http.Client) *http.Client {
	c := *cmp.Or(client, &http.Client{Timeout: webhookTimeout})
	c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &c
}

// String names the receiver's host; the rest of the address may be secret.
func (w *Webhook) String() string { return "webhook " + w.url.Host }

// GoString does the same.
func (w *Webhook) GoString() string { return w.String() }

// Keep implements [Anchor]. The log tries again if the answer is not one of 2xx.
func (w *Webhook) Keep(ctx context.Context, checkpoint []byte) error {
	sum := sha256.Sum256(checkpoint)
	id, at := hex.EncodeToString(sum[:16]), strconv.FormatInt(w.clock().Unix(), 10)
	mac := hmac.New(sha256.New, w.secret)
	fmt.Fprintf(mac, "%s.%s.%s", id, at, checkpoint)
	header := http.Header{
		"Content-Type":      {"text/plain; charset=utf-8"},
		"Webhook-Id":        {id},
		"Webhook-Timestamp": {at},
		"Webhook-Signature": {"v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))},
	}
	status, _, err := post(ctx, w.client, w.url, header, checkpoint)
	if err != nil {
		return fmt.Errorf("audit: %v: %w", w, err)
	}
	if status < 200 || status > 299 {
		return fmt.Errorf("audit: %v answers %d %s", w, status, http.StatusText(status))
	}
	return nil
}

// Newest implements [Anchor]: it returns [errors.ErrUnsupported].
func (w *Webhook) Newest(context.Context) ([]byte, time.Time, error) {
	return nil, time.Time{}, fmt.Errorf("audit: a webhook is only written: %w", errors.ErrUnsupported)
}

// post returns the status and the beginning of the answer. Its errors do not name the
// address.
func post(ctx context.Context, client *http.Client, u *url.URL, header http.Header, body []byte) (status int, answer []byte, err error) {
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
