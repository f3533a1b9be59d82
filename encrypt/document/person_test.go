package document_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"filippo.io/age"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/encrypt/document"
)

func decode(tb testing.TB, text string) []byte {
	tb.Helper()
	b, err := base64.RawStdEncoding.DecodeString(text)
	require.NoError(tb, err)
	return b
}

func TestCardsAndIdentitiesComeBack(t *testing.T) {
	for _, i := range []*document.Identity{person(t, "anna"), classic(t, "anna")} {
		p, err := document.ParsePerson(i.Person().String(), "acme", "anna")
		require.NoError(t, err)
		require.Equal(t, i.Person(), p)
		again, err := document.ParseIdentity(i.Export(), "acme", "anna")
		require.NoError(t, err)
		require.Equal(t, i, again)
	}
	require.NotEqual(t, person(t, "anna").Person().String(), person(t, "anna").Person().String())
	require.Contains(t, person(t, "anna").Person().String(), "\nage age1pq1", "new keys are hybrid")
}

func TestCardsOfOthersAreRefused(t *testing.T) {
	anna := person(t, "anna")
	card := anna.Person().String()
	for name, c := range map[string][3]string{
		"other person":  {card, "acme", "boris"},
		"other tenant":  {card, "other", "anna"},
		"no tenant":     {card, "", "anna"},
		"no person":     {card, "acme", ""},
		"empty":         {"", "acme", "anna"},
		"longer":        {card + "\n", "acme", "anna"},
		"no last line":  {strings.TrimSuffix(card, "\n"), "acme", "anna"},
		"carriage":      {strings.ReplaceAll(card, "\n", "\r\n"), "acme", "anna"},
		"later version": {strings.Replace(card, "person 1", "person 2", 1), "acme", "anna"},
		"capitals":      {strings.ToUpper(card), "acme", "anna"},
		"two keys":      {strings.Replace(card, "age age1", "age age1\nage1", 1), "acme", "anna"},
		"no key":        {strings.Replace(card, "age age1", "age #age1", 1), "acme", "anna"},
		"short key":     {strings.Replace(card, "ed25519 ", "ed25519 AA\n", 1), "acme", "anna"},
		"padded":        {strings.TrimSuffix(card, "\n") + "=\n", "acme", "anna"},
		"secret":        {string(anna.Export()), "acme", "anna"},
	} {
		_, err := document.ParsePerson(c[0], c[1], c[2])
		require.Error(t, err, name)
	}
	_, err := document.ParseIdentity(anna.Export(), "acme", "boris")
	require.Error(t, err)
	_, err = document.ParseIdentity(anna.Export(), "other", "anna")
	require.Error(t, err)
}

func TestNames(t *testing.T) {
	for _, name := range []string{"anna", "Анна Петрова", "anna@acme.example", "a/b c", strings.Repeat("x", 512)} {
		i, err := document.GenerateIdentity("acme", name)
		require.NoError(t, err)
		_, err = document.ParsePerson(i.Person().String(), "acme", name)
		require.NoError(t, err)
	}
	for _, name := range []string{"", "a\nb", "a\rb", "a\x00b", "a\u2028b", "a\u202eb", "a\xffb", strings.Repeat("x", 513)} {
		_, err := document.GenerateIdentity("acme", name)
		require.Error(t, err, "%q", name)
		_, err = document.GenerateIdentity(name, "anna")
		require.Error(t, err, "%q", name)
	}
}

func TestImportRefuses(t *testing.T) {
	one, err := age.GenerateX25519Identity()
	require.NoError(t, err)
	two, err := age.GenerateHybridIdentity()
	require.NoError(t, err)
	for _, secret := range []string{
		"", "# nothing", "age1", one.Recipient().String(), two.Recipient().String(),
		one.String() + "\n" + two.String(), "AGE-PLUGIN-YUBIKEY-1Q", one.String()[:40], "password",
	} {
		_, err := document.ImportIdentity("acme", "anna", secret)
		require.Error(t, err)
		if secret != "" {
			require.NotContains(t, err.Error(), secret)
		}
	}
	// One line is one key, whatever white space and comments are around.
	i, err := document.ImportIdentity("acme", "anna", "# made by age-keygen\n"+two.String()+"\n")
	require.NoError(t, err)
	again, err := document.ParseIdentity(i.Export(), "acme", "anna")
	require.NoError(t, err)
	require.Equal(t, i, again)
}

func TestIdentityRedactsItself(t *testing.T) {
	anna := person(t, "anna")
	lines := strings.Split(string(anna.Export()), "\n")
	seed := strings.TrimPrefix(lines[3], "# ed25519 ")
	secrets := []string{lines[4], seed, fmt.Sprint(decode(t, seed))[1:60], fmt.Sprintf("%x", decode(t, seed))}
	asJSON, err := json.Marshal(map[string]any{"pointer": anna, "value": *anna})
	require.NoError(t, err)
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "pointer", anna, "value", *anna)
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "pointer", anna, "value", *anna)
	for _, text := range []string{
		string(asJSON), log.String(), fmt.Sprint(anna), fmt.Sprint(*anna), fmt.Sprintf("%+v %#v %d %x %s %q", anna, anna, anna, anna, anna, anna),
		fmt.Sprintf("%+v %#v %d %x %s %q", *anna, *anna, *anna, *anna, *anna, *anna), fmt.Sprint([]*document.Identity{anna}), anna.GoString(),
	} {
		for _, secret := range secrets {
			require.NotContains(t, text, secret)
		}
	}
	require.Contains(t, log.String(), "redacted")
}
