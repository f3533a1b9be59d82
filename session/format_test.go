package session

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
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

func goldenToken() *token {
	var t token
	for i := range t {
		t[i] = byte(i * 5)
	}
	return &t
}

func goldenRow() Row {
	return Row{
		ID: goldenToken().id(), Tenant: "acme", Person: "анна", OnBehalfOf: "boris",
		Kind: crmguard.KindIntegration, Assurance: crmguard.AssuranceSecondFactor, AuthenticatedAt: noon.Add(-time.Minute),
		Device: "laptop", Addr: netip.MustParseAddr("2001:db8::7"), Scopes: []string{"contacts:view", ""},
		Started: noon, Used: noon.Add(90 * time.Second), End: noon.Add(12 * time.Hour), Epoch: 1772452800000001,
	}
}

// The bytes of version 1 never change: sessions of before an update live on.
func TestGolden(t *testing.T) {
	tok, row := goldenToken(), goldenRow()
	person := Person{Tenant: "acme", ID: "анна", Closed: true, Epoch: 1772452800000001}
	tenant := Person{Tenant: "acme", Closed: true, Epoch: 1772452800000001}
	plain := Row{ID: tok.id(), Tenant: "acme", Person: "anna", Kind: crmguard.KindEmployee, AuthenticatedAt: noon, Started: noon, Used: noon, End: noon, Epoch: 1}
	var got strings.Builder
	fmt.Fprintf(&got, "token %s\nid %s\ndigest %x\nsession %x\nplain %x\nperson %x\ntenant %x\n",
		tok.text(), tok.id(), tok.digest(), sessionBytes(&row, tok.digest()), sessionBytes(&plain, tok.digest()), personBytes(&person), personBytes(&tenant))
	if *update {
		require.NoError(t, os.WriteFile("testdata/v1.txt", []byte(got.String()), 0o600))
	}
	want, err := os.ReadFile("testdata/v1.txt")
	require.NoError(t, err)
	require.Equal(t, string(want), got.String())
}

// Every field of a row but the verifier is authenticated; a field that is added
// and forgotten fails here.
func TestEveryFieldIsAuthenticated(t *testing.T) {
	row := goldenRow()
	digest := goldenToken().digest()
	want := sessionBytes(&row, digest)
	for i := range reflect.TypeFor[Row]().NumField() {
		changed := goldenRow()
		field := reflect.ValueOf(&changed).Elem().Field(i)
		field.SetZero()
		name := reflect.TypeFor[Row]().Field(i).Name
		require.Equal(t, name == "Verifier", bytes.Equal(want, sessionBytes(&changed, digest)), name)
	}
	digest[31] ^= 1
	require.NotEqual(t, want, sessionBytes(&row, digest))

	person := Person{Tenant: "acme", ID: "anna", Closed: true, Epoch: 1, MAC: MAC("x")}
	for i := range reflect.TypeFor[Person]().NumField() {
		changed := person
		reflect.ValueOf(&changed).Elem().Field(i).SetZero()
		name := reflect.TypeFor[Person]().Field(i).Name
		require.Equal(t, name == "MAC", bytes.Equal(personBytes(&person), personBytes(&changed)), name)
	}
}

// Text that moves from one field into the next changes the bytes.
func FuzzSessionBytesAreInjective(f *testing.F) {
	f.Add("acme", "anna", "acm", "eanna", true, false)
	f.Add("a", "b", "a", "b", false, false)
	f.Fuzz(func(t *testing.T, a, b, c, d string, scoped1, scoped2 bool) {
		make := func(x, y string, scoped bool) Row {
			r := Row{Tenant: x, Person: y, OnBehalfOf: x + y, Device: y, Addr: netip.Addr{}}
			if scoped {
				r.Scopes = []string{x, y}
			}
			return r
		}
		first, second := make(a, b, scoped1), make(c, d, scoped2)
		same := bytes.Equal(sessionBytes(&first, [32]byte{}), sessionBytes(&second, [32]byte{}))
		if same != reflect.DeepEqual(first, second) {
			t.Fatalf("%+v and %+v", first, second)
		}
	})
}

func TestParseToken(t *testing.T) {
	good := goldenToken().text()
	parsed, ok := parseToken(good)
	require.True(t, ok)
	require.Equal(t, goldenToken(), parsed)
	for name, text := range map[string]string{
		"empty":              "",
		"prefix only":        tokenPrefix,
		"too short":          good[:len(good)-1],
		"too long":           good + "A",
		"another prefix":     "crmguard_s2_" + good[len(tokenPrefix):],
		"prefix in capitals": strings.ToUpper(tokenPrefix) + good[len(tokenPrefix):],
		"standard alphabet":  good[:len(good)-1] + "+",
		"padding":            good[:len(good)-1] + "=",
		"line break":         good[:len(good)-1] + "\n",
		"four line breaks":   good[:len(good)-4] + "\r\n\r\n",
		"leading space":      " " + good[:len(good)-1],
		"NUL":                good[:len(good)-1] + "\x00",
	} {
		_, ok := parseToken(text)
		require.False(t, ok, name)
	}
}

// What parses is spelled in one way only.
func FuzzParseToken(f *testing.F) {
	f.Add(goldenToken().text())
	f.Add(tokenPrefix + strings.Repeat("A", 64))
	f.Add(tokenPrefix + strings.Repeat("\n", 64))
	f.Add("")
	f.Fuzz(func(t *testing.T, text string) {
		parsed, ok := parseToken(text)
		if ok && parsed.text() != text {
			t.Fatalf("read %q, written %q", text, parsed.text())
		}
	})
}

func TestTokensAreRandom(t *testing.T) {
	require.NotEqual(t, newToken().text(), newToken().text())
	require.Regexp(t, `^crmguard_s1_[A-Za-z0-9_-]{64}$`, newToken().text())
}

func TestSecretsRedactThemselves(t *testing.T) {
	tok := goldenToken()
	row := goldenRow()
	row.Verifier = MAC("the verifier")
	person := Person{Tenant: "acme", ID: "anna", MAC: MAC("the verifier")}
	var out bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%o", "%b", "%c", "%t"} {
		for _, value := range []any{tok, *tok, row, &row, person, &person, row.Verifier, []MAC{row.Verifier}, []Row{row}} {
			fmt.Fprintf(&out, verb, value)
		}
	}
	slog.New(slog.NewTextHandler(&out, nil)).InfoContext(context.Background(), "x", "token", tok, "value", *tok, "row", row, "verifier", row.Verifier)
	slog.New(slog.NewJSONHandler(&out, nil)).InfoContext(context.Background(), "x", "token", tok, "value", *tok, "row", row, "verifier", row.Verifier)
	encoded, err := json.Marshal([]any{row, person, tok, *tok})
	require.NoError(t, err)
	out.Write(encoded)
	secret := tok[idBytes:]
	for _, leak := range []string{
		"the verifier", hex.EncodeToString([]byte("the verifier")), numbers([]byte("the verifier")), "dGhlIHZlcmlmaWVy",
		tok.text()[len(tokenPrefix)+20:], hex.EncodeToString(secret), numbers(secret),
		strings.ReplaceAll(numbers(secret), " ", ","),
	} {
		require.False(t, strings.Contains(strings.ToLower(out.String()), strings.ToLower(leak)), leak)
	}
}

// numbers is how fmt shows bytes.
func numbers(b []byte) string { return strings.Trim(fmt.Sprintf("%d", b), "[]") }

func BenchmarkAuthenticate(b *testing.B) {
	r := newRig(b)
	token, _ := r.start(b, "anna")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := r.Authenticate(b.Context(), token); err != nil {
			b.Fatal(err)
		}
	}
}

// free is an Authenticator that costs nothing, to see what the rest costs.
type free struct{}

func (free) MAC(context.Context, crmguard.Place, []byte) ([]byte, error)  { return []byte("mac"), nil }
func (free) Verify(context.Context, crmguard.Place, []byte, []byte) error { return nil }

func BenchmarkAuthenticateWithoutMACs(b *testing.B) {
	r := newRig(b)
	r.Manager.keys = free{}
	token, _ := r.start(b, "anna")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := r.Authenticate(b.Context(), token); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAuthenticateParallel(b *testing.B) {
	r := newRig(b)
	token, _ := r.start(b, "anna")
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := r.Authenticate(b.Context(), token); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkStart(b *testing.B) {
	r := newRig(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := r.Start(b.Context(), subject("anna")); err != nil {
			b.Fatal(err)
		}
	}
}

func TestAuthenticateAllocates(t *testing.T) {
	r := newRig(t)
	r.Manager.keys = free{}
	token, _ := r.start(t, "anna")
	allocs := testing.AllocsPerRun(100, func() {
		if _, err := r.Authenticate(context.Background(), token); err != nil {
			t.Fatal(err)
		}
	})
	require.LessOrEqual(t, allocs, 7.0, "without those of the keys")
}
