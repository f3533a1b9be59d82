package app

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/crmguard/crmguard/masking"
	"github.com/crmguard/crmguard/masking/calltoken"
)

// maxOrders is how many calls the built-in exchange remembers.
const maxOrders = 50

// exchange stands in for a telephone exchange: it takes signed orders over HTTP, as
// a real one would, and rings nobody. Whoever copies from this CRM points the
// sender to their own exchange and leaves this file out.
type exchange struct {
	address string
	server  *http.Server
	line    calltoken.Dialer // what is behind it: nothing
	now     func() time.Time

	mu     sync.Mutex
	orders []exchangeOrder
}

// exchangeOrder is what the exchange remembers of a call. The number is forgotten
// but for its mask: the page that shows orders must not become a way to numbers.
type exchangeOrder struct {
	Time                time.Time
	CallID, Leg, Number string
}

// openExchange listens on this machine only.
func openExchange(key *calltoken.Key, a *App) (*exchange, error) {
	e := &exchange{now: a.now}
	e.line = calltoken.DialerFunc(e.note)
	taking := calltoken.DialerFunc(func(ctx context.Context, o calltoken.Order) error { return e.line.Dial(ctx, o) })
	receiver, err := calltoken.NewReceiver(key, calltoken.NewMemory(), taking, &calltoken.ReceiverOptions{Logger: a.log, Clock: a.cfg.Clock})
	if err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("built-in telephone exchange: %w", err)
	}
	mux := http.NewServeMux()
	mux.Handle("/orders", receiver)
	e.address = "http://" + listener.Addr().String() + "/orders"
	e.server = &http.Server{Handler: mux, ReadTimeout: 10 * time.Second, WriteTimeout: time.Minute, MaxHeaderBytes: 8 << 10}
	go func() {
		if err := e.server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			a.log.Error("the built-in telephone exchange has stopped", "error", err)
		}
	}()
	return e, nil
}

// note remembers an order.
func (e *exchange) note(_ context.Context, o calltoken.Order) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.orders = append(e.orders, exchangeOrder{e.now(), o.CallID, o.Leg, masking.Mask(masking.Phone, o.Number.Show())})
	if len(e.orders) > maxOrders {
		e.orders = slices.Delete(e.orders, 0, len(e.orders)-maxOrders)
	}
	return nil
}

// received lists the orders, oldest first.
func (e *exchange) received() []exchangeOrder {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.orders)
}

func (e *exchange) close() error { return e.server.Close() }
