package calltoken

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"time"
)

const (
	defaultTimeout = 5 * time.Second
	maxTimeout     = 30 * time.Second
	attempts       = 3
	firstPause     = 100 * time.Millisecond
)

// SenderOptions of a [Sender]. The zero value is secure.
type SenderOptions struct {
	Timeout time.Duration // of each of up to three attempts, at most 30s; 0: 5s

	// Transport reaches the exchange. Nil: one without a proxy, because a proxy in
	// the environment is nobody's choice of who learns numbers.
	Transport http.RoundTripper

	Clock func() time.Time // nil: time.Now
}

// Sender is a [Dialer] that posts orders to a telephone exchange, signed. It is
// safe for concurrent use.
type Sender struct {
	url    string
	key    *Key
	client *http.Client
	clock  func() time.Time
}

var _ Dialer = (*Sender)(nil)

// NewSender returns a Sender to the exchange at an address: https, or http to a
// loopback address such as http://127.0.0.1:8089/orders, by number.
func NewSender(address string, key *Key, o *SenderOptions) (*Sender, error) {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.User != nil || u.Fragment != "" {
		return nil, errors.New("calltoken: the exchange's address is no URL with a host, or one with a password or a fragment")
	}
	if ip, err := netip.ParseAddr(u.Hostname()); u.Scheme != "https" && (u.Scheme != "http" || err != nil || !ip.Unmap().IsLoopback()) {
		return nil, fmt.Errorf("calltoken: orders to %s hold numbers: want https, or http to a loopback address by number", u.Host)
	}
	if !key.usable() {
		return nil, errors.New("calltoken: a sender needs a key")
	}
	if o == nil {
		o = &SenderOptions{}
	}
	s := &Sender{url: u.String(), key: key, clock: o.Clock, client: &http.Client{
		Transport: o.Transport,
		Timeout:   o.Timeout,
		// A redirect would carry the number elsewhere.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	if s.client.Timeout == 0 {
		s.client.Timeout = defaultTimeout
	}
	if s.client.Timeout < 0 || s.client.Timeout > maxTimeout {
		return nil, fmt.Errorf("calltoken: timeout %v: want at most %v", o.Timeout, maxTimeout)
	}
	if s.client.Transport == nil {
		s.client.Transport = &http.Transport{
			TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12},
			MaxResponseHeaderBytes: 16 << 10,
			IdleConnTimeout:        90 * time.Second,
			ForceAttemptHTTP2:      true,
		}
	}
	if s.clock == nil {
		s.clock = time.Now
	}
	return s, nil
}

// Dial posts an order. When the exchange cannot be reached or says that it is not
// available (429, 502, 503, 504) it tries again, with the same call's id, by
// which the exchange knows that it is the same call. Errors do not hold the
// number.
func (s *Sender) Dial(ctx context.Context, o Order) error {
	body, err := o.encode()
	if err != nil {
		return err
	}
	pause := firstPause
	for n := 1; ; n++ {
		again, err := s.post(ctx, o.CallID, body)
		if err == nil || !again || n == attempts {
			return withhold(err, o.Number)
		}
		select {
		case <-ctx.Done():
			return withhold(err, o.Number)
		case <-time.After(pause):
		}
		pause *= 2
	}
}

// post reports with an error whether another attempt may help.
func (s *Sender) post(ctx context.Context, id string, body []byte) (again bool, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url, bytes.NewReader(body))
	if err != nil {
		return false, fmt.Errorf("calltoken: %w", err)
	}
	req.GetBody = nil // nothing below repeats the request
	s.key.sign(req.Header, orderDomain, id, body, s.clock())
	answer, err := s.client.Do(req)
	if err != nil {
		if wrapped, ok := errors.AsType[*url.Error](err); ok {
			err = wrapped.Err // without the address, which may hold a secret of the host
		}
		return ctx.Err() == nil, fmt.Errorf("calltoken: the exchange did not answer: %w", err)
	}
	defer answer.Body.Close() //nolint:errcheck // it was read as far as it matters
	switch answer.StatusCode {
	case http.StatusOK:
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true, fmt.Errorf("calltoken: the exchange answered %d", answer.StatusCode)
	default:
		return false, fmt.Errorf("calltoken: the exchange answered %d", answer.StatusCode)
	}
	text, err := io.ReadAll(io.LimitReader(answer.Body, maxMessage+1))
	if err != nil {
		return ctx.Err() == nil, fmt.Errorf("calltoken: read the exchange's answer: %w", err)
	}
	var r Report
	if len(text) > maxMessage || strictJSON(text, &r) != nil || r.CallID != id {
		return false, errors.New("calltoken: the exchange's answer is no report of the call")
	}
	if r.State == Failed {
		return false, errors.New("calltoken: the exchange could not make the call")
	}
	return false, nil
}
