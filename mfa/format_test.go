package mfa

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "write the golden files anew")

func goldenRows() []Row {
	return []Row{
		{ID: "AAAAAAAAAAAAAAAAAAAAAAAAAA", Kind: KindApp, Active: true, Step: 59081760, Created: noon, Sealed: Opaque("sealed")},
		{ID: "BBBBBBBBBBBBBBBBBBBBBBBBBB", Kind: KindApp, Created: noon.Add(time.Microsecond), Sealed: Opaque{0, 0xff}},
		{ID: "CCCCCCCCCCCCCCCCCCCCCCCCCC", Kind: KindRecovery, Active: true, Step: 1, Created: noon, Sealed: Opaque("mac")},
	}
}

func goldenPerson() Person {
	return Person{Tenant: "acme", ID: "анна", Version: 1772452800000001}
}

// The bytes of version 1 never change: factors of before an update stay good.
func TestGolden(t *testing.T) {
	person := goldenPerson()
	var got strings.Builder
	fmt.Fprintf(&got, "factors %x\nnone %x\nsecret %x\nrecovery %x\n",
		personBytes(&person, goldenRows()), personBytes(&person, nil),
		secretBytes("анна", []byte("12345678901234567890")),
		recoveryBytes("acme", "анна", goldenRows()[2].ID, "ABCDEFGHIJKLMNOPQRSTUVWX"))
	if *update {
		require.NoError(t, os.WriteFile("testdata/v1.txt", []byte(got.String()), 0o600))
	}
	want, err := os.ReadFile("testdata/v1.txt")
	require.NoError(t, err)
	require.Equal(t, string(want), got.String())
}

// Every field of a row but the step is authenticated, and every field of a
// person but MAC and budget; a field that is added and forgotten fails here.
func TestEveryFieldIsAuthenticated(t *testing.T) {
	person := goldenPerson()
	want := personBytes(&person, goldenRows())
	for i := range reflect.TypeFor[Row]().NumField() {
		rows := goldenRows()
		reflect.ValueOf(&rows[0]).Elem().Field(i).SetZero()
		name := reflect.TypeFor[Row]().Field(i).Name
		require.Equal(t, name == "Step", bytes.Equal(want, personBytes(&person, rows)), name)
	}
	person.MAC, person.Budget = Opaque("x"), Budget{noon, noon}
	for i := range reflect.TypeFor[Person]().NumField() {
		changed := person
		reflect.ValueOf(&changed).Elem().Field(i).SetZero()
		name := reflect.TypeFor[Person]().Field(i).Name
		require.Equal(t, name == "MAC" || name == "Budget", bytes.Equal(want, personBytes(&changed, goldenRows())), name)
	}
	rows := goldenRows()
	for name, others := range map[string][]Row{
		"one less": rows[1:], "one more": append(slices.Clone(rows), rows[0]), "another order": {rows[1], rows[0], rows[2]},
	} {
		require.NotEqual(t, want, personBytes(&person, others), name)
	}
}

// Bytes that move from one field or row into the next change what is
// authenticated.
func FuzzPersonBytesAreInjective(f *testing.F) {
	f.Add("acme", "anna", "totp", []byte("s"), true, "acm", "eanna", "totp", []byte("s"), true)
	f.Add("a", "b", "c", []byte("d"), false, "a", "b", "c", []byte("d"), false)
	f.Fuzz(func(t *testing.T, tenant1, id1, kind1 string, sealed1 []byte, two1 bool, tenant2, id2, kind2 string, sealed2 []byte, two2 bool) {
		build := func(tenant, id, kind string, sealed []byte, two bool) (Person, []Row) {
			rows := []Row{{ID: id, Kind: Kind(kind), Active: two, Created: noon, Sealed: append(Opaque{}, sealed...)}}
			if two {
				rows = append(rows, Row{ID: kind, Kind: Kind(id), Created: noon, Sealed: Opaque(tenant)})
			}
			return Person{Tenant: tenant, ID: id}, rows
		}
		firstPerson, first := build(tenant1, id1, kind1, sealed1, two1)
		secondPerson, second := build(tenant2, id2, kind2, sealed2, two2)
		same := bytes.Equal(personBytes(&firstPerson, first), personBytes(&secondPerson, second))
		if same != (reflect.DeepEqual(firstPerson, secondPerson) && reflect.DeepEqual(first, second)) {
			t.Fatalf("%+v %+v and %+v %+v", firstPerson, first, secondPerson, second)
		}
	})
}

// What parses was made so, for this person, and nothing makes it panic.
func FuzzParseSecret(f *testing.F) {
	f.Add("anna", secretBytes("anna", []byte("12345678901234567890")))
	f.Add("anna", secretBytes("boris", nil))
	f.Add("", []byte{0, 0, 0, 1})
	f.Add("a", []byte{0xff, 0xff, 0xff, 0xff, 0})
	f.Fuzz(func(t *testing.T, person string, b []byte) {
		secret, err := parseSecret(person, b)
		if err == nil && !bytes.Equal(secretBytes(person, secret), b) {
			t.Fatalf("%q: read %x from %x", person, secret, b)
		}
	})
}

func TestSecretsRedactThemselves(t *testing.T) {
	key, err := newKey("Acme CRM", "anna", []byte("12345678901234567890"))
	require.NoError(t, err)
	enrolment := &Enrolment{"ID", key}
	codes := &RecoveryCodes{[]string{"ABCDEFGHIJKLMNOPQRSTUVWX"}}
	row := Row{ID: "id", Sealed: Opaque("the sealed bytes")}
	person := Person{Tenant: "acme", ID: "anna", MAC: Opaque("the sealed bytes")}
	values := []any{
		enrolment, *enrolment, codes, *codes, row, &row, person, row.Sealed, []Row{row},
		map[string]any{"e": enrolment}, struct{ E *Enrolment }{enrolment}, struct{ C RecoveryCodes }{*codes},
	}
	var out bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%o", "%b", "%c", "%t"} {
		for _, value := range values {
			fmt.Fprintf(&out, verb, value)
		}
	}
	for _, value := range values {
		slog.New(slog.NewTextHandler(&out, nil)).InfoContext(context.Background(), "x", "value", value)
		slog.New(slog.NewJSONHandler(&out, nil)).InfoContext(context.Background(), "x", "value", value)
	}
	encoded, err := json.Marshal(values)
	require.NoError(t, err)
	out.Write(encoded)
	for _, secret := range []string{"12345678901234567890", "ABCDEFGHIJKLMNOPQRSTUVWX", "ABCD-EFGH", "the sealed bytes", enrolment.Secret(), "otpauth"} {
		for _, leak := range []string{secret, hex.EncodeToString([]byte(secret)), strings.Trim(fmt.Sprintf("%d", []byte(secret)), "[]")} {
			require.False(t, strings.Contains(strings.ToLower(out.String()), strings.ToLower(leak)), leak)
		}
	}
}
