package auditout

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/crmguard/crmguard/internal/webhook"
)

// Webhook is a [Sink] that POSTs each batch, as lines, in one message. The message
// follows Standard Webhooks: the headers webhook-id, webhook-timestamp and
// webhook-signature, an HMAC-SHA256 over "id.timestamp.body"; a batch that is sent
// again as it was has the same id.
//
// Answers of 2xx mean that the receiver has the batch; 400, 413, 415 and 422 that it
// refuses it ([ErrRefused]); anything else that it is to be sent again.
type Webhook struct {
	sender *webhook.Sender
	format Format
}

var _ Sink = (*Webhook)(nil)

// NewWebhook returns a sink at an https address; http is for this machine only. The
// receiver has the same secret, of at least 32 bytes. A nil client is one with a
// timeout of ten seconds; redirects are never followed.
func NewWebhook(address string, secret []byte, f Format, client *http.Client) (*Webhook, error) {
	if err := f.check(); err != nil {
		return nil, err
	}
	sender, err := webhook.New(address, secret, client)
	if err != nil {
		return nil, fmt.Errorf("auditout: %w", err)
	}
	return &Webhook{sender: sender, format: f}, nil
}

// String names the receiver's host; the rest of the address may be secret.
func (w *Webhook) String() string { return w.sender.String() }

// GoString does the same.
func (w *Webhook) GoString() string { return w.String() }

// Send implements [Sink].
func (w *Webhook) Send(ctx context.Context, records []Record) error {
	body, err := w.format.appendAll([]byte(w.format.Header()), records)
	if err != nil {
		return err
	}
	err = w.sender.Send(ctx, w.format.media(), body)
	if status, ok := errors.AsType[*webhook.StatusError](err); ok {
		switch status.Code {
		case http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType, http.StatusUnprocessableEntity:
			return fmt.Errorf("%w: %v: %w", ErrRefused, w, err)
		}
	}
	if err != nil {
		return fmt.Errorf("auditout: %v: %w", w, err)
	}
	return nil
}
