package audit

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/crmguard/crmguard/internal/webhook"
)

// Webhook is an anchor that can only be written: it sends each checkpoint to somebody
// who keeps it. The message follows Standard Webhooks, for whose signatures receivers
// find libraries: the headers webhook-id, webhook-timestamp and webhook-signature, an
// HMAC-SHA256 over "id.timestamp.body". The body is the checkpoint; its id is the same
// each time it is sent.
//
// https://www.standardwebhooks.com
type Webhook struct{ sender *webhook.Sender }

var _ Anchor = (*Webhook)(nil)

// NewWebhook returns an anchor that POSTs to an https address; http is for this
// machine only. The receiver has the same secret, of at least 32 bytes. A nil client
// is one with a timeout of ten seconds; redirects are never followed.
func NewWebhook(address string, secret []byte, client *http.Client) (*Webhook, error) {
	sender, err := webhook.New(address, secret, client)
	if err != nil {
		return nil, fmt.Errorf("audit: an anchor: %w", err)
	}
	return &Webhook{sender: sender}, nil
}

// String names the receiver's host; the rest of the address may be secret.
func (w *Webhook) String() string { return w.sender.String() }

// GoString does the same.
func (w *Webhook) GoString() string { return w.String() }

// Keep implements [Anchor]. The log tries again if the answer is not one of 2xx.
func (w *Webhook) Keep(ctx context.Context, checkpoint []byte) error {
	if err := w.sender.Send(ctx, "text/plain; charset=utf-8", checkpoint); err != nil {
		return fmt.Errorf("audit: %v: %w", w, err)
	}
	return nil
}

// Newest implements [Anchor]: it returns [errors.ErrUnsupported].
func (w *Webhook) Newest(context.Context) ([]byte, time.Time, error) {
	return nil, time.Time{}, fmt.Errorf("audit: a webhook is only written: %w", errors.ErrUnsupported)
}
