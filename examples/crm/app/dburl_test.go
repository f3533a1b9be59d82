package app

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestPlaintextStaysOnTheMachine: other machines are reached by TLS, with their
// certificate checked, unless the URL says otherwise.
func TestPlaintextStaysOnTheMachine(t *testing.T) {
	t.Setenv("PGSSLMODE", "")
	for text, checked := range map[string]bool{
		"postgres://u@127.0.0.1/db":                               false,
		"postgres://u@localhost/db":                               false,
		"postgres://u@[::1]:5433/db":                              false,
		"postgres://u@/db?host=/var/run/postgresql":               false,
		"postgres://u@db.example/db":                              true,
		"postgresql://u@10.0.0.7/db?application_name=crm":         true,
		"postgres://u@localhost/db?host=db.example":               true,
		"postgres://u@127.0.0.1,db.example/db":                    true,
		"postgres://u@localhost.db.example/db":                    true,
		"postgres://u@db.example/db?sslmode=verify-full":          true,
		"postgres://u@db.example/db?sslmode=disable":              false,
		"postgres://u@db.example/db?application_name=a%2Bb&ssl=1": true,
		"postgres://u@db.example/db?sslmode=":                     true,
		"postgres://u@db.example/db?ssl=true":                     false, // as sslmode=require, which checks no certificate
	} {
		config, err := PostgresURL(text).config()
		require.NoError(t, err, text)
		if !checked {
			require.True(t, config.TLSConfig == nil || config.TLSConfig.InsecureSkipVerify, text)
			continue
		}
		all := []*tls.Config{config.TLSConfig}
		for _, f := range config.Fallbacks {
			all = append(all, f.TLSConfig)
		}
		for _, c := range all {
			require.NotNil(t, c, text)
			require.False(t, c.InsecureSkipVerify, text)
			require.NotEmpty(t, c.ServerName, text)
		}
	}
	t.Setenv("PGSSLMODE", "disable")
	config, err := PostgresURL("postgres://u@db.example/db").config()
	require.NoError(t, err)
	require.Nil(t, config.TLSConfig, "said in the environment")
}

// TestURLHidesItself: nothing that prints a configuration prints the password.
func TestURLHidesItself(t *testing.T) {
	u := PostgresURL("postgres://user:Zq7xK@host/db")
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("start", "db", u)
	slog.New(slog.NewTextHandler(&log, nil)).Info("start", "db", u, "cfg", Config{DB: u})
	printed := log.String()
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q"} {
		printed += fmt.Sprintf(verb, u) + fmt.Sprintf(verb, Config{DB: u})
	}
	require.NotContains(t, printed, "Zq7xK")
	require.Contains(t, printed, hiddenURL)
}

// FuzzURLErrors: whatever a password is made of, and however badly it was escaped,
// no error repeats it.
func FuzzURLErrors(f *testing.F) {
	for _, password := range []string{"", "@", "/", "?", "#", ":", "%", "%zz", "1/", "1?", "1#", "a@b", "\x00", " ", "[", "1/?sslmode=x&", "5432?host=", "&sslmode=", "?sslmode=nonsense"} {
		f.Add(password, "")
		f.Add(password, password)
	}
	f.Fuzz(func(t *testing.T, before, after string) {
		const marker = "Zq7xK"
		password := before + marker + after
		query := strings.ReplaceAll(password, "&", "%26") // which ends a value there
		for _, text := range []string{
			"postgres://user:" + password + "@127.0.0.1:1/db", "postgres://user:" + password + "@db.example/db?sslmode=nonsense",
			"postgres://127.0.0.1/db?password=" + query, "postgres://127.0.0.1/db?sslmode=nonsense&password=" + query,
			"user:" + password + "@host/db", "host=127.0.0.1 password=" + password,
			"postgres://user:" + url.QueryEscape(password) + "@127.0.0.1:x/db",
		} {
			config, err := PostgresURL(text).config()
			if err != nil {
				require.NotContains(t, err.Error(), marker)
				continue
			}
			name := databaseName(config)
			require.NotContains(t, name, marker, "a piece of the password was taken for something else")
		}
	})
}
