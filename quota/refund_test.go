package quota_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/quota"
)

func TestRefund(t *testing.T) {
	broken := errors.New("the exchange did not answer")
	d := newDesk(t, quota.NewMemory(), cardNorm)
	ctx := as(t, anna(), crmguard.Call)
	require.NoError(t, d.open(ctx, "c0"))

	nothing := func(clients ...string) error {
		return d.OpenOrRefund(ctx, func(ctx context.Context) (bool, error) {
			require.NoError(t, d.open(ctx, clients...))
			return false, broken
		})
	}
	require.ErrorIs(t, nothing(clients(0, 5)...), broken)
	require.Equal(t, 1, d.count(t, "anna", 0), "c0 was seen before")
	require.NoError(t, d.OpenOrRefund(ctx, func(ctx context.Context) (bool, error) { return true, d.open(ctx, "c1") }))
	require.Equal(t, 2, d.count(t, "anna", 0))
	require.NoError(t, d.OpenOrRefund(ctx, func(ctx context.Context) (bool, error) { return false, d.open(ctx, "c2") }))
	require.Equal(t, 2, d.count(t, "anna", 0), "no error, and nothing opened")

	err := d.OpenOrRefund(ctx, func(ctx context.Context) (bool, error) { return false, d.open(ctx, clients(0, 9)...) })
	mustDeny(t, err, quota.CodeNorm)
	u, err := d.Usage(t.Context(), "acme", "anna")
	require.NoError(t, err)
	require.Equal(t, 1, u.Refused, "attempts are not given back")

	require.Panics(t, func() {
		_ = d.OpenOrRefund(ctx, func(ctx context.Context) (bool, error) {
			require.NoError(t, d.open(ctx, "c3"))
			panic("half way")
		})
	})
	require.Equal(t, 3, d.count(t, "anna", 0))

	bot := crmguard.Subject{Tenant: "acme", ID: "bot", OnBehalfOf: "boris", Kind: crmguard.KindIntegration}
	require.NoError(t, d.OpenOrRefund(as(t, bot, crmguard.Call), func(ctx context.Context) (bool, error) { return false, d.open(ctx, "c1", "c2") }))
	require.Zero(t, d.count(t, "bot", 0))
	require.Zero(t, d.count(t, "boris", 0))
}

// A second request opens what a first one is about to give back.
func TestRefundDoesNotUncountWhatAnotherActOpened(t *testing.T) {
	for name, second := range map[string]func(d *desk, ctx context.Context) error{
		"plainly": func(d *desk, ctx context.Context) error { return d.open(ctx, "c1") },
		"itself refundable": func(d *desk, ctx context.Context) error {
			return d.OpenOrRefund(ctx, func(ctx context.Context) (bool, error) { return true, d.open(ctx, "c1") })
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDesk(t, quota.NewMemory(), cardNorm)
			ctx := as(t, anna(), crmguard.View)
			require.NoError(t, d.OpenOrRefund(ctx, func(inner context.Context) (bool, error) {
				require.NoError(t, d.open(inner, "c1", "c2"))
				return false, second(d, ctx)
			}))
			require.Equal(t, 1, d.count(t, "anna", 0))
		})
	}
}

// What was given back must be asked for again: the act of open has not marked it in
// the outer one.
func TestRefundedIsCountedWhenOpenedAfterAll(t *testing.T) {
	d := newDesk(t, quota.NewMemory(), cardNorm)
	ctx := as(t, anna(), crmguard.View)
	outer := crmguard.ActFrom(ctx)
	require.NoError(t, d.OpenOrRefund(ctx, func(ctx context.Context) (bool, error) {
		act := crmguard.ActFrom(ctx)
		require.Equal(t, outer.Action, act.Action)
		require.Equal(t, outer.Resource, act.Resource)
		require.NoError(t, d.open(ctx, "c1"))
		act.MarkOpened("c1") // as encrypt does
		return false, nil
	}))
	require.False(t, outer.Opened("c1"))
	require.NoError(t, d.OpenOrRefund(crmguard.WithSubject(t.Context(), anna()), func(ctx context.Context) (bool, error) {
		require.Nil(t, crmguard.ActFrom(ctx), "no act stays none, which counts as reveal")
		return false, nil
	}))
}

func TestRefundOfYesterdayChangesNothing(t *testing.T) {
	d := newDesk(t, quota.NewMemory(), cardNorm)
	ctx := as(t, anna(), crmguard.View)
	require.NoError(t, d.OpenOrRefund(ctx, func(inner context.Context) (bool, error) {
		require.NoError(t, d.open(inner, "c1", "c2"))
		d.clock.set(d.clock.now().Add(24 * time.Hour))
		return false, d.open(ctx, "c1", "c2")
	}))
	require.Equal(t, 2, d.count(t, "anna", 0))
}

// returnsNothing is a store that cannot give back.
type returnsNothing struct{ *quota.Memory }

func (returnsNothing) Return(context.Context, quota.Taking, []quota.Fired) error { return errDown }

func TestRefundThatFailsIsTold(t *testing.T) {
	d := newDesk(t, returnsNothing{quota.NewMemory()}, cardNorm)
	ctx := as(t, anna(), crmguard.View)
	err := d.OpenOrRefund(ctx, func(ctx context.Context) (bool, error) { return false, d.open(ctx, "c1") })
	require.ErrorIs(t, err, errDown)
	require.Equal(t, 1, d.count(t, "anna", 0), "rather counted than free")

	bot := crmguard.Subject{Tenant: "acme", ID: "bot", OnBehalfOf: "boris", Kind: crmguard.KindIntegration}
	boris := crmguard.Subject{Tenant: "acme", ID: "boris", Kind: crmguard.KindEmployee}
	require.NoError(t, d.open(as(t, boris, crmguard.View), clients(0, 5)...))
	err = d.open(as(t, bot, crmguard.View), "c9")
	mustDeny(t, err, quota.CodeNorm)
	require.ErrorIs(t, err, errDown)

	d.fail = errors.New("no journal")
	err = d.open(as(t, anna(), crmguard.View), clients(0, 4)...)
	require.ErrorIs(t, err, d.fail)
	require.ErrorIs(t, err, errDown)
}
