package calltoken_test

import (
	"context"
	"errors"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/crmguardtest"
	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/masking/calltoken"
)

// vault is a CRM whose numbers are sealed with the real keyring, and which counts
// what its norm is asked.
type vault struct {
	crm
	keys   *encrypt.Keyring
	sealed []byte
	asked  []crmguard.Action // an empty one: outside an act
	full   bool
}

func placeOf(client string) crmguard.Place {
	return crmguard.Place{Tenant: "acme", Client: client, Kind: "contacts", Record: "17", Field: "phone"}
}

func (v *vault) Number(ctx context.Context, c calltoken.Claims) (string, error) {
	plain, err := v.keys.Open(ctx, placeOf(c.Client), v.sealed)
	return string(plain), err
}

func (v *vault) onOpen(ctx context.Context, _ string, clients []string) error {
	for range clients {
		var a crmguard.Action
		if act := crmguard.ActFrom(ctx); act != nil {
			a = act.Action
		}
		v.asked = append(v.asked, a)
	}
	if v.full {
		return &crmguard.Denial{By: "quota", Code: "norm", Status: crmguard.Exhausted}
	}
	return nil
}

func newVault(t *testing.T) *vault {
	t.Helper()
	v := &vault{}
	kek, err := encrypt.OpenKeyFile(filepath.Join(t.TempDir(), "kek.json"), "crm-data", true)
	require.NoError(t, err)
	v.keys, err = encrypt.New(kek, encrypt.NewMemory(), &encrypt.Options{OnOpen: v.onOpen})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, v.keys.Close()) })
	v.sealed, err = v.keys.Seal(callBy("anna"), placeOf("c17"), []byte("+44 20 7946 0018"))
	require.NoError(t, err)
	return v
}

// callBy is the context of somebody whom guard let through.
func callBy(person string) context.Context {
	return crmguard.WithAct(crmguard.WithSubject(context.Background(), crmguard.Subject{Tenant: "acme", ID: person, Kind: crmguard.KindEmployee}),
		crmguard.Call, crmguard.Resource{Tenant: "acme", Kind: "contacts", ID: "17", Field: "phone", Owner: "anna"})
}

func (v *vault) token(t *testing.T) calltoken.Token {
	t.Helper()
	issuer, err := calltoken.NewIssuer(v.keys, nil)
	require.NoError(t, err)
	token, err := issuer.Issue(callBy("anna"), "c17", "101")
	require.NoError(t, err)
	return token
}

func (v *vault) resolve(t *testing.T, rights crmguard.Checker, token string) (dialled int, call calltoken.Call, err error) {
	t.Helper()
	resolver, err := calltoken.NewResolver(v.keys, calltoken.NewMemory(), rights, crmguardtest.NewRecorder(), v,
		calltoken.DialerFunc(func(context.Context, calltoken.Order) error { dialled++; return nil }), nil)
	require.NoError(t, err)
	for range 3 {
		if call, err = resolver.Resolve(t.Context(), "acme", token); err != nil {
			return dialled, call, err
		}
	}
	return dialled, call, nil
}

// The norm is asked once, for a call, when the number is opened, and not by the
// token: neither when it is made nor when somebody without rights brings it.
func TestNormIsAskedForTheNumberOnly(t *testing.T) {
	v := newVault(t)
	token := v.token(t).Show()
	_, _, err := v.resolve(t, crmguardtest.Deny("no-rule"), token)
	require.Error(t, err)
	require.Empty(t, v.asked)

	dialled, call, err := v.resolve(t, crmguardtest.Allow(), token)
	require.NoError(t, err)
	require.Equal(t, calltoken.Ringing, call.State)
	require.Equal(t, 1, dialled)
	require.Equal(t, []crmguard.Action{crmguard.Call}, v.asked)

	// The planted fault: sealed at a place of the client, a token would take from the
	// norm whoever brings it, and outside an act count as a reveal.
	at := placeOf("c17")
	at.Kind = "call"
	sealed, err := v.keys.Seal(callBy("anna"), at, []byte("claims"))
	require.NoError(t, err)
	v.asked = nil
	_, err = v.keys.Open(crmguard.WithSubject(t.Context(), crmguard.Subject{Tenant: "acme", ID: "anna", Kind: crmguard.KindEmployee}), at, sealed)
	require.NoError(t, err)
	require.Equal(t, []crmguard.Action{""}, v.asked)
}

func TestNormThatIsUsedUpStopsTheCall(t *testing.T) {
	v := newVault(t)
	v.full = true
	dialled, call, err := v.resolve(t, crmguardtest.Allow(), v.token(t).Show())
	denial, ok := errors.AsType[*crmguard.Denial](err)
	require.True(t, ok, err)
	require.Equal(t, crmguard.Exhausted, denial.Status)
	require.Equal(t, calltoken.Failed, call.State)
	require.Zero(t, dialled)
}

// A client who was forgotten after the token was made is not rung.
func TestErasedClient(t *testing.T) {
	v := newVault(t)
	token := v.token(t).Show()
	_, err := v.keys.Erase(crmguard.System(t.Context(), "acme", "erase"), "acme", "c17")
	require.NoError(t, err)
	dialled, call, err := v.resolve(t, crmguardtest.Allow(), token)
	require.ErrorIs(t, err, crmguard.ErrErased)
	require.Equal(t, calltoken.Failed, call.State)
	require.Zero(t, dialled)
}
