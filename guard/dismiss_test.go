package guard_test

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/crmguardtest"
	"github.com/crmguard/crmguard/guard"
)

// closing is a staff of sessions that notes what happens in which order.
type closing struct {
	sessions
	log []string
	err error
}

func (c *closing) ClosePerson(_ context.Context, _, person string) error {
	c.log = append(c.log, "close "+person)
	return c.err
}

// holder holds n things of everybody.
type holder struct {
	what string
	n    int
	err  error
	c    *closing
}

func (h *holder) Revoke(ctx context.Context, _, subject string) (crmguard.Revoked, error) {
	h.c.log = append(h.c.log, h.what+" "+subject)
	if h.err != nil || ctx.Err() != nil {
		return crmguard.Revoked{}, errors.Join(h.err, ctx.Err())
	}
	n := h.n
	h.n = 0
	return crmguard.Revoked{What: h.what, Count: n}, nil
}

func TestDismiss(t *testing.T) {
	who := &closing{}
	factors, roles := &holder{"factors", 2, errors.New("factors are down"), who}, &holder{"roles", 1, nil, who}
	g, err := guard.New(who, crmguardtest.Allow(), &directory{}, crmguardtest.NewRecorder(), &guard.Options{Holders: []crmguard.Revoker{factors, roles}})
	require.NoError(t, err)
	gone, leave := context.WithCancel(t.Context())
	leave() // the browser was closed

	// The state comes first; a holder that fails keeps no other from being asked.
	receipt, err := g.Dismiss(gone, "acme", "anna")
	require.ErrorContains(t, err, "factors are down")
	require.Equal(t, []string{"close anna", "factors anna", "roles anna"}, who.log)
	require.False(t, receipt.Complete)
	require.False(t, receipt.Closed.IsZero())
	require.Equal(t, []crmguard.Revoked{{What: "roles", Count: 1}}, receipt.Ended)

	factors.err = nil
	receipt, err = g.Dismiss(t.Context(), "acme", "anna")
	require.NoError(t, err)
	require.True(t, receipt.Complete)
	require.Equal(t, []crmguard.Revoked{{What: "factors", Count: 2}, {What: "roles", Count: 0}}, receipt.Ended)

	// Even when the state cannot be written, what else can be ended is ended.
	who.err, who.log, roles.n = errors.New("sessions are down"), nil, 1
	receipt, err = g.Dismiss(t.Context(), "acme", "anna")
	require.ErrorContains(t, err, "sessions are down")
	require.True(t, receipt.Closed.IsZero())
	require.False(t, receipt.Complete)
	require.Contains(t, receipt.Ended, crmguard.Revoked{What: "roles", Count: 1})

	_, err = g.Dismiss(t.Context(), "acme", "")
	require.Error(t, err)
}

// A holder that hangs takes no other's time.
func TestDismissPastAHangingHolder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		who := &closing{}
		roles := &holder{"roles", 1, nil, who}
		g, err := guard.New(who, crmguardtest.Allow(), &directory{}, crmguardtest.NewRecorder(), &guard.Options{Holders: []crmguard.Revoker{hanging{}, roles}})
		require.NoError(t, err)
		receipt, err := g.Dismiss(t.Context(), "acme", "anna")
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, []crmguard.Revoked{{What: "roles", Count: 1}}, receipt.Ended)
	})
}

type hanging struct{}

func (hanging) Revoke(ctx context.Context, _, _ string) (crmguard.Revoked, error) {
	<-ctx.Done()
	return crmguard.Revoked{}, ctx.Err()
}

func TestDismissNeedsItsParts(t *testing.T) {
	_, err := guard.New(sessions{}, crmguardtest.Allow(), &directory{}, crmguardtest.NewRecorder(), &guard.Options{Holders: []crmguard.Revoker{&holder{}}})
	require.ErrorContains(t, err, "ClosePerson")
	_, err = newCRM(t, nil).guard.Dismiss(t.Context(), "acme", "anna")
	require.Error(t, err)
}

// A thief who jams the journal is dismissed all the same.
func TestDismissWithAJammedJournal(t *testing.T) {
	who := &closing{sessions: sessions{"boris-token": person("boris")}}
	journal := crmguardtest.NewRecorder()
	g, err := guard.New(who, crmguardtest.Allow(), &directory{}, journal, &guard.Options{Holders: []crmguard.Revoker{&holder{what: "roles", n: 1, c: who}}})
	require.NoError(t, err)
	mux := http.NewServeMux()
	mux.Handle("POST /dismiss", g.ProtectAct(crmguard.Revoke, func(*http.Request) (crmguard.Resource, error) {
		return crmguard.Resource{Tenant: "acme", Kind: "staff", ID: "anna"}, nil
	}, func(_ http.ResponseWriter, r *http.Request) error {
		_, err := g.Dismiss(r.Context(), "acme", "anna")
		return err
	}))
	c := &crm{t: t, server: g.Handler(mux)}
	journal.Fail(errors.New("jammed"))
	require.Equal(t, 200, c.request("POST", "/dismiss", "boris-token").Code)
	require.Equal(t, []string{"close anna", "roles anna"}, who.log)
}
