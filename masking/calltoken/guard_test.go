package calltoken_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/crmguardtest"
	"github.com/crmguard/crmguard/guard"
	"github.com/crmguard/crmguard/masking/calltoken"
)

// nobody is signed in here: calls are resolved on the telephony side.
type nobody struct{}

func (nobody) Authenticate(context.Context, string) (crmguard.Subject, error) {
	return crmguard.Subject{}, errors.New("not asked")
}

func (nobody) Resolve(context.Context, string, string) (roles, units []string, err error) {
	return nil, nil, errors.New("not asked")
}

// emergency is the switch of the office, and which addresses may call.
type emergency struct{ locked, away atomic.Bool }

func (e *emergency) LockDown(context.Context, string) error { e.locked.Store(true); return nil }
func (e *emergency) Reopen(context.Context, string) error   { e.locked.Store(false); return nil }
func (e *emergency) LockedDown(context.Context, string) (bool, error) {
	return e.locked.Load(), nil
}

func (e *emergency) Check(context.Context, crmguard.Subject, crmguard.Action, crmguard.Resource) error {
	if e.away.Load() {
		return &crmguard.Denial{By: "addresses", Code: "not-from-here"}
	}
	return nil
}

// What was stopped after the token was made is not dialled, when the resolver asks
// the guard. The planted fault is one that asks for rights alone.
func TestGuardIsAskedWhenTheTokenIsResolved(t *testing.T) {
	for name, stop := range map[string]func(*guard.Guard, *emergency) error{
		"lockdown":      func(g *guard.Guard, _ *emergency) error { return g.LockDown(context.Background(), "acme") },
		"address rules": func(_ *guard.Guard, e *emergency) error { e.away.Store(true); return nil },
	} {
		t.Run(name, func(t *testing.T) {
			office, rights, journal := &emergency{}, crmguardtest.NewChecker().Allow("anna", crmguard.Call, "contacts"), crmguardtest.NewRecorder()
			g, err := guard.New(nobody{}, rights, nobody{}, journal, &guard.Options{Switch: office, Addresses: office})
			require.NoError(t, err)
			keys := crmguardtest.NewKeys()
			issuer, err := calltoken.NewIssuer(keys, nil)
			require.NoError(t, err)
			resolve := func(asked crmguard.Checker, stopped bool) (dialled int, err error) {
				office.away.Store(false)
				require.NoError(t, g.Reopen(crmguard.System(t.Context(), "acme", "test"), "acme"))
				token, err := issuer.Issue(callBy("anna"), "c17", "101")
				require.NoError(t, err)
				if stopped {
					require.NoError(t, stop(g, office))
				}
				resolver, err := calltoken.NewResolver(keys, calltoken.NewMemory(), asked, journal, crm{},
					calltoken.DialerFunc(func(context.Context, calltoken.Order) error { dialled++; return nil }), nil)
				require.NoError(t, err)
				_, err = resolver.Resolve(t.Context(), "acme", token.Show())
				return dialled, err
			}
			dialled, err := resolve(g.Checker(), false)
			require.NoError(t, err)
			require.Equal(t, 1, dialled)

			dialled, err = resolve(g.Checker(), true)
			require.Zero(t, dialled)
			_, ok := errors.AsType[*crmguard.Denial](err)
			require.True(t, ok, "want a denial, got %v", err)

			dialled, err = resolve(rights, true)
			require.NoError(t, err)
			require.Equal(t, 1, dialled, "the planted fault is noticed")
		})
	}
}
