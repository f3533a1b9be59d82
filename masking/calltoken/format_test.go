package calltoken

import (
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
)

var update = flag.Bool("update", false, "write the golden files anew")

const goldenID = "AAUKDxQZHiMoLTI3PEFG"

func goldenClaims() Claims {
	return Claims{
		CallID: goldenID, Kind: "contacts", Record: "17", Field: "phone", Client: "клиент-17",
		Subject: crmguard.Subject{
			Tenant: "acme", ID: "anna", OnBehalfOf: "boris", Kind: crmguard.KindIntegration, Session: "s-1", Device: "laptop",
			Addr: netip.MustParseAddr("fe80::7%eth0"), Assurance: crmguard.AssuranceSecondFactor, AuthenticatedAt: noon.Add(-time.Minute),
			Scopes: []string{"contacts:call", ""},
		},
		Leg: "sip:101@pbx", End: noon.Add(2 * time.Minute),
	}
}

func plainClaims() Claims {
	return Claims{
		CallID: goldenID, Kind: "contacts", Record: "17", Field: "phone", Client: "c17",
		Subject: crmguard.Subject{Tenant: "acme", ID: "anna", Kind: crmguard.KindEmployee}, Leg: "101", End: noon,
	}
}

// The bytes of version 1 never change.
func TestGolden(t *testing.T) {
	key := testKey(t)
	var got strings.Builder
	full, plain := goldenClaims(), plainClaims()
	for _, c := range []*Claims{&full, &plain} {
		b, err := c.encode()
		require.NoError(t, err)
		fmt.Fprintf(&got, "claims %x\n", b)
	}
	fmt.Fprintf(&got, "token %s\n", Token{goldenID, newSecret("sealed")}.Show())
	o := Order{Tenant: "acme", CallID: goldenID, Leg: "101", Number: Number{newSecret(e17)}, Expires: noon.Add(time.Minute)}
	body, err := o.encode()
	require.NoError(t, err)
	h := http.Header{}
	key.sign(h, orderDomain, o.CallID, body, noon)
	fmt.Fprintf(&got, "order %s\ntimestamp %s\nsignature %s\n", body, h.Get(HeaderTimestamp), h.Get(HeaderSignature))
	h = http.Header{}
	body, err = SignReport(key, h, Report{goldenID, Ended}, noon)
	require.NoError(t, err)
	fmt.Fprintf(&got, "report %s\ntimestamp %s\nsignature %s\n", body, h.Get(HeaderTimestamp), h.Get(HeaderSignature))
	if *update {
		require.NoError(t, os.WriteFile("testdata/v1.txt", []byte(got.String()), 0o600))
	}
	want, err := os.ReadFile("testdata/v1.txt")
	require.NoError(t, err)
	require.Equal(t, string(want), got.String())
}

func TestClaimsRoundTrip(t *testing.T) {
	for _, c := range []Claims{goldenClaims(), plainClaims()} {
		for _, scopes := range [][]string{nil, {}, {"a"}} {
			c.Subject.Scopes = scopes
			b, err := c.encode()
			require.NoError(t, err)
			got, err := decode(b)
			require.NoError(t, err)
			require.Equal(t, c, got, "no scopes and none at all are different")
			for n := range b {
				_, err := decode(b[:n])
				require.ErrorIs(t, err, errClaims, "cut at %d", n)
			}
			_, err = decode(append(b, 0))
			require.ErrorIs(t, err, errClaims)
		}
	}
}

// Every field is in the token; one that is added and forgotten fails here.
func TestEveryClaimIsSealed(t *testing.T) {
	c := goldenClaims()
	want, err := c.encode()
	require.NoError(t, err)
	change := func(name string, field func(c *Claims) reflect.Value) {
		changed := goldenClaims()
		f := field(&changed)
		switch v := f.Interface().(type) {
		case string:
			f.SetString(v[1:] + v[:1])
		default:
			f.SetZero()
		}
		got, err := changed.encode()
		if err == nil {
			require.NotEqual(t, want, got, name)
		}
	}
	for i := range reflect.TypeFor[Claims]().NumField() {
		change(reflect.TypeFor[Claims]().Field(i).Name, func(c *Claims) reflect.Value { return reflect.ValueOf(c).Elem().Field(i) })
	}
	for i := range reflect.TypeFor[crmguard.Subject]().NumField() {
		name := reflect.TypeFor[crmguard.Subject]().Field(i).Name
		if name != "Roles" && name != "Units" { // resolved anew
			change(name, func(c *Claims) reflect.Value { return reflect.ValueOf(&c.Subject).Elem().Field(i) })
		}
	}
}

func TestSecretsRedactThemselves(t *testing.T) {
	token := Token{goldenID, newSecret("sealed")}
	order := Order{Tenant: "acme", CallID: goldenID, Leg: "101", Number: Number{newSecret(e17)}}
	key := testKey(t)
	// Fmt calls no method of what is in unexported fields.
	type kept struct {
		number Number
		token  Token
		order  *Order
		key    Key
	}
	inside := kept{order.Number, token, &order, *key}
	for _, v := range []any{token, &token, order, &order, order.Number, key, *key, struct{ T Token }{token}, inside, &inside, []kept{inside}, struct{ o Order }{order}} {
		text, err := json.Marshal(v)
		require.NoError(t, err)
		var logged strings.Builder
		slog.New(slog.NewTextHandler(&logged, nil)).Info("x", "v", v)
		for _, shown := range []string{string(text), logged.String(), fmt.Sprintf("%v %+v %#v %s %q %x %d", v, v, v, v, v, v, v)} {
			require.False(t, namesNumber(shown), shown)
			require.NotContains(t, shown, "c2VhbGVk")
			require.NotContains(t, shown, "sealed")
			require.NotContains(t, shown, "7 7 7")
			require.NotContains(t, shown, "0707")
			require.NotContains(t, shown, "115 101 97 108") // sealed
			require.NotContains(t, shown, "7365616c")
			require.NotContains(t, shown, "0x7, 0x7")
		}
	}
	require.Equal(t, "crmguard_c1_"+goldenID+"c2VhbGVk", token.Show())
}

func TestStates(t *testing.T) {
	for _, s := range []State{Ringing, Ended, Failed} {
		text, err := s.MarshalText()
		require.NoError(t, err)
		var back State
		require.NoError(t, back.UnmarshalText(text))
		require.Equal(t, s, back)
		require.Equal(t, string(text), s.String())
	}
	_, err := State(0).MarshalText()
	require.Error(t, err)
	require.Error(t, new(State).UnmarshalText([]byte("Ringing")))
	require.Equal(t, "State(9)", State(9).String())
}

func FuzzParseToken(f *testing.F) {
	f.Add(Token{goldenID, newSecret("sealed")}.Show())
	f.Add("crmguard_c1_")
	f.Add(Token{goldenID, newSecret("sealed")}.Show() + "\n")
	f.Fuzz(func(t *testing.T, text string) {
		token, ok := parseToken(text)
		if ok {
			require.Equal(t, text, token.Show(), "a token has one spelling")
		}
	})
}

func FuzzDecodeClaims(f *testing.F) {
	for _, c := range []Claims{goldenClaims(), plainClaims()} {
		b, err := c.encode()
		require.NoError(f, err)
		f.Add(b)
		f.Add(b[:40])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := decode(b)
		if err != nil {
			return
		}
		again, err := c.encode()
		require.NoError(t, err)
		require.Equal(t, b, again, "claims have one spelling")
	})
}

// What is signed with the key may be anything; what is not is never taken.
func FuzzVerify(f *testing.F) {
	key := testKey(f)
	o := Order{Tenant: "acme", CallID: goldenID, Leg: "101", Number: Number{newSecret(e17)}, Expires: noon.Add(time.Minute)}
	body, err := o.encode()
	require.NoError(f, err)
	h := http.Header{}
	key.sign(h, orderDomain, o.CallID, body, noon)
	f.Add(goldenID, h.Get(HeaderTimestamp), h.Get(HeaderSignature), body)
	f.Add(goldenID, "-9223372036854775808", "v1=", []byte(`{}`))
	f.Add("", "", "", []byte(`{"version":1}{"version":1}`))
	genuine := [4]string{goldenID, h.Get(HeaderTimestamp), strings.ToLower(h.Get(HeaderSignature)), string(body)}
	f.Fuzz(func(t *testing.T, id, timestamp, signature string, body []byte) {
		h := http.Header{HeaderCall: {id}, HeaderTimestamp: {timestamp}, HeaderSignature: {signature}}
		_, err := Verify(key, h, body, noon)
		if err == nil {
			require.Equal(t, genuine, [4]string{id, timestamp, strings.ToLower(signature), string(body)})
		}
		_, err = VerifyReport(key, h, body, noon)
		require.Error(t, err)
		key.sign(h, orderDomain, id, body, noon)
		if o, err := Verify(key, h, body, noon); err == nil {
			require.NoError(t, o.check())
			require.False(t, namesNumber(fmt.Sprintf("%v %+v", o, o)) && !namesNumber(o.CallID+o.Leg+o.Tenant), "it redacts itself")
		}
	})
}
