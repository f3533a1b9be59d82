package calltoken

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"time"
)

// ReceiverOptions of a [Receiver]. The zero value is secure.
type ReceiverOptions struct {
	Logger *slog.Logger     // nil: slog.Default
	Clock  func() time.Time // nil: time.Now
}

// Receiver is the HTTP handler with which an exchange takes the orders of a
// [Sender]. It dials each call once, however often its order arrives, and answers
// with a [Report]. It is safe for concurrent use.
type Receiver struct {
	key   *Key
	calls Store
	line  Dialer
	log   *slog.Logger
	clock func() time.Time
}

// NewReceiver returns a Receiver that dials on line. Calls are the exchange's own
// store, not the one of the CRM's [Resolver], which has every call already.
func NewReceiver(key *Key, calls Store, line Dialer, o *ReceiverOptions) (*Receiver, error) {
	if !key.usable() || calls == nil || line == nil {
		return nil, errors.New("calltoken: a receiver needs a key, calls and a line")
	}
	if o == nil {
		o = &ReceiverOptions{}
	}
	r := &Receiver{key: key, calls: calls, line: line, log: o.Logger, clock: o.Clock}
	if r.log == nil {
		r.log = slog.Default()
	}
	if r.clock == nil {
		r.clock = time.Now
	}
	return r, nil
}

// ServeHTTP answers 200 and a report, 401 to what is not signed, 400 to what is
// no order, 405 to other methods, and 503 if it does not know whether the call was
// made before.
func (r *Receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	if req.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		w.WriteHeader(http.StatusMethodNotAllowed)
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, req.Body, maxMessage))
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	now := micros(r.clock())
	o, err := Verify(r.key, req.Header, body, now)
	switch {
	case errors.Is(err, ErrSignature):
		w.WriteHeader(http.StatusUnauthorized)
		return
	case err != nil:
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	ctx := req.Context()
	call, first, err := r.calls.Begin(ctx, Call{Tenant: o.Tenant, ID: o.CallID, State: Ringing, Begun: now}, now.Add(-keep))
	if err != nil {
		r.log.ErrorContext(ctx, "calltoken: could not begin a call", "call", o.CallID, "error", err)
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	if first {
		r.dial(ctx, o, &call)
	}
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(Report{call.ID, call.State}); err != nil {
		r.log.WarnContext(ctx, "calltoken: the answer to an order was not sent", "call", o.CallID, "error", err)
	}
}

// dial goes on when the sender has given up waiting: it will ask again, and is
// told what became of the call.
func (r *Receiver) dial(ctx context.Context, o Order, call *Call) {
	ctx = context.WithoutCancel(ctx)
	dialling, cancel := context.WithTimeout(ctx, maxTimeout)
	defer cancel()
	err := withhold(r.line.Dial(dialling, o), o.Number)
	if err == nil {
		return
	}
	call.State = Failed
	r.log.ErrorContext(ctx, "calltoken: a call was not made", "call", o.CallID, "error", err)
	after, cancel := context.WithTimeout(ctx, afterwards)
	defer cancel()
	if _, err := r.calls.Settle(after, o.Tenant, o.CallID, Failed); err != nil {
		r.log.ErrorContext(ctx, "calltoken: a failed call is still shown as ringing", "call", o.CallID, "error", err)
	}
}
