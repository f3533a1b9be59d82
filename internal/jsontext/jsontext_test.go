package jsontext_test

import (
	"encoding/json"
	"testing"
	"unicode"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/internal/jsontext"
)

func check(t *testing.T, text string) {
	t.Helper()
	plain, err := json.Marshal(text)
	require.NoError(t, err)
	got := jsontext.Printable(plain)
	for _, r := range string(got) {
		require.True(t, unicode.IsPrint(r), "%q", got)
	}
	var want, back string
	require.NoError(t, json.Unmarshal(plain, &want))
	require.NoError(t, json.Unmarshal(got, &back))
	require.Equal(t, want, back)
}

func TestPrintable(t *testing.T) {
	for _, text := range []string{"", "Иванов", "\x1b[2K", "\u009b2K", "\x7f", "\u202e", "\U000e0041", "\ufeff\u2028", "\U0001f600", "ü\xff"} {
		check(t, text)
	}
	indented := []byte("{\n  \"a\": \"ü\"\n}\n")
	require.Equal(t, indented, jsontext.Printable(indented))
	require.JSONEq(t, `"\u009b"`, string(jsontext.Printable([]byte("\"\u009b\""))))
}

func FuzzPrintable(f *testing.F) {
	f.Add("\u009b\U000e0041")
	f.Fuzz(func(t *testing.T, text string) { check(t, text) })
}
