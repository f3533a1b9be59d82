package main

import (
	"bytes"
	"context"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/internal/sqldb/sqldbtest"
)

func TestIsLoopback(t *testing.T) {
	for addr, want := range map[string]bool{
		"127.0.0.1:8080": true, "[::1]:1": true, "localhost:8080": true, "127.9.9.9:1": true,
		":8080": false, "0.0.0.0:8080": false, "192.168.0.2:1": false, "[::]:1": false, "crm.example:443": false,
	} {
		got, err := isLoopback(addr)
		require.NoError(t, err, addr)
		require.Equal(t, want, got, addr)
	}
	_, err := isLoopback("8080")
	require.Error(t, err)
}

func TestCanConnect(t *testing.T) {
	for _, test := range []struct {
		at      string
		trusted []string
		want    bool
	}{
		{"127.0.0.1", []string{"127.0.0.1"}, true},
		{"127.0.0.1", []string{"10.0.0.5", "127.0.0.0/8"}, true}, // one behind the other
		{"127.0.0.1", []string{"10.0.0.5"}, false},
		{"127.0.0.1", []string{"::1"}, false},
		{"::1", []string{"::1"}, true},
		{"::1", []string{"127.0.0.1", "2001:db8::/32"}, false},
		{"192.0.2.1", []string{"10.0.0.5"}, true},
		{"0.0.0.0", []string{"10.0.0.5"}, true},
	} {
		var trusted prefixes
		for _, p := range test.trusted {
			require.NoError(t, trusted.Set(p))
		}
		require.Equal(t, test.want, canConnect(trusted, netip.MustParseAddr(test.at)), "%v to %s", test.trusted, test.at)
	}
}

func command(t *testing.T, args ...string) (out string, err error) {
	t.Helper()
	var b bytes.Buffer
	err = run(t.Context(), args, strings.NewReader(""), &b, &b)
	return b.String(), err
}

// TestRefusals: nothing is opened or created for a command that cannot work.
func TestRefusals(t *testing.T) {
	dir := t.TempDir()
	data := filepath.Join(dir, "crm-data")
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer busy.Close() //nolint:errcheck // only held
	for _, test := range []struct {
		args []string
		says string
	}{
		{[]string{"-data", data, "-addr", "0.0.0.0:0"}, "-tls-cert"},
		{[]string{"-data", data, "-addr", "8080"}, "HOST:PORT"},
		{[]string{"-data", data, "-addr", busy.Addr().String()}, "is in use by another program"},
		{[]string{"-data", data, "-tls-cert", "none.pem", "-tls-key", "none.pem"}, "-tls-cert and -tls-key"},
		{[]string{"import", "-data", data, "main.go"}, "no CRM is running"},
		{[]string{"import", "-data", data, "-map", "age=x", "main.go"}, "the columns are"},
		{[]string{"import", "-data", data, "missing.csv"}, "missing.csv"},
		{[]string{"import", "-data", data}, "usage"},
		{[]string{"account", "add", "-data", data, "anna", "owner"}, "no CRM is running"},
		{[]string{"account", "add", "-data", data, "anna"}, "usage"},
		{[]string{"code", "-data", data, "seller1"}, "no CRM is running"},
		{[]string{"code", "-data", data}, "usage"},
		{[]string{"code", "-data", data, "seller1", "seller2"}, "usage"},
		{[]string{"-data", data, "-db", ""}, "-db is empty"},
		{[]string{"-data", data, "-db", "sqlite:crm.db"}, "postgres://user:password@host/name"},
		{[]string{"-data", data, "postgres://user@host/name"}, "given with -db"},
		{[]string{"-data", data, "-addr", "127.0.0.1:0", "-trusted-proxy", "0.0.0.0/0"}, "lets everybody choose an address"},
		{[]string{"-data", data, "-addr", "127.0.0.1:0", "-trusted-proxy", "127.0.0.1", "-proxy-header", "x-real-ip"}, "want x-forwarded-for or forwarded"},
		{[]string{"-data", data, "-trusted-proxy", "127.0.0.1,proxy"}, "usage"},
		{[]string{"-data", data, "-addr", "127.0.0.1:0", "-trusted-proxy", "10.0.0.5"}, "no -trusted-proxy can connect to 127.0.0.1:0"},
		{[]string{"-data", data, "-addr", "localhost:0", "-trusted-proxy", "10.0.0.5", "-trusted-proxy", "2001:db8::/32"}, "no -trusted-proxy can connect to localhost:0"},
		{[]string{"-data", data, "-addr", "0.0.0.0:0", "-trusted-proxy", "10.0.0.5"}, "-tls-cert"},
		{[]string{"addresses", "reset", "-data", data}, "no CRM is running"},
		{[]string{"addresses", "-data", data}, "help"},
		{[]string{"start", "-data", data}, "usage"},
		{[]string{"-nonsense"}, "usage"},
	} {
		_, err := command(t, test.args...)
		require.ErrorContains(t, err, test.says, "%q", test.args)
	}
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, entries)
}

// TestStartAgain: the second start tells how to sign in too, with the same
// password, and imports nothing again, on either database.
func TestStartAgain(t *testing.T) {
	t.Run("sqlite", func(t *testing.T) { startTwice(t, true) })
	t.Run("postgres", func(t *testing.T) { startTwice(t, false, "-db", sqldbtest.PostgresURL(t)) })
	t.Run("postgres by variable", func(t *testing.T) {
		t.Setenv(dbVariable, sqldbtest.PostgresURL(t))
		startTwice(t, false)
	})
}

func startTwice(t *testing.T, makesFile bool, args ...string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "crm")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	var said [2]string
	for i := range said {
		ctx, stop := context.WithCancel(t.Context())
		out := &watched{when: "Ctrl-C", do: stop}
		require.NoError(t, run(ctx, append([]string{"-data", filepath.Join(dir, "crm-data"), "-addr", "127.0.0.1:0", "-empty"}, args...), strings.NewReader(""), out, out))
		_, after, found := strings.Cut(out.text.String(), "password for all of them:")
		require.True(t, found, out.text.String())
		said[i] = strings.Fields(after)[0]
	}
	require.Len(t, said[0], 19)
	require.Equal(t, said[0], said[1])
	require.DirExists(t, filepath.Join(dir, "crm-keys"), "beside the data folder, not in it")
	_, err = os.Stat(filepath.Join(dir, "crm-data", "crm.db"))
	require.Equal(t, makesFile, err == nil)
}

// TestPasswordIsNotPrinted: neither help nor an error shows what the database's
// URL holds.
func TestPasswordIsNotPrinted(t *testing.T) {
	const secret = "postgres://user:Zq7xK@127.0.0.1:1/db"
	data := filepath.Join(t.TempDir(), "crm-data")
	for _, args := range [][]string{
		{"-db", secret}, {"-db", secret + "?sslmode=nonsense"}, {"-db", "postgres://user:1/Zq7xK@host/db"}, {secret}, {"-nonsense", secret}, {"-h"},
	} {
		said, err := command(t, append([]string{"-data", data, "-addr", "127.0.0.1:0"}, args...)...)
		require.Error(t, err, args)
		require.NotContains(t, said+err.Error(), "Zq7xK", args)
	}
	t.Setenv(dbVariable, secret)
	for _, args := range [][]string{nil, {"-h"}, {"-nonsense"}, {"start"}} {
		said, err := command(t, append([]string{"-data", data, "-addr", "127.0.0.1:0"}, args...)...)
		require.Error(t, err, args)
		require.NotContains(t, said+err.Error(), "Zq7xK", args)
	}
}

// TestCode: the command tells the code of a demo account while the CRM runs, and of
// nobody else. How to call it is told beside the password.
func TestCode(t *testing.T) {
	dir, err := os.MkdirTemp("", "crm")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	data := filepath.Join(dir, "crm-data")
	ctx, stop := context.WithCancel(t.Context())
	ready := make(chan struct{})
	out := &watched{when: "Ctrl-C", do: sync.OnceFunc(func() { close(ready) })}
	ended := make(chan error, 1)
	go func() {
		ended <- run(ctx, []string{"-data", data, "-addr", "127.0.0.1:0", "-empty"}, strings.NewReader(""), out, out)
	}()
	<-ready
	require.Contains(t, out.text.String(), `go run ./examples/crm code -keys "`+filepath.Join(dir, "crm-keys")+`" LOGIN`)
	require.Eventually(t, func() bool { // the file is there before anybody listens
		c, err := net.Dial("unix", filepath.Join(dir, "crm-keys", "control.sock"))
		return err == nil && c.Close() == nil
	}, 10*time.Second, 10*time.Millisecond)
	said, err := command(t, "code", "-data", data, "seller1")
	require.NoError(t, err)
	require.Regexp(t, `^\d{6}\n$`, said)
	_, err = command(t, "account", "add", "-data", data, "anna", "owner")
	require.NoError(t, err)
	for login, says := range map[string]string{"anna": "has no app yet", "nobody": "no account", "integration": "is a program"} {
		said, err = command(t, "code", "-data", data, login)
		require.ErrorContains(t, err, says)
		require.Empty(t, said)
	}
	stop()
	require.NoError(t, <-ended)
}

// watched calls do once it was told a text.
type watched struct {
	text bytes.Buffer
	when string
	do   func()
}

func (w *watched) Write(b []byte) (int, error) {
	n, err := w.text.Write(b)
	if strings.Contains(w.text.String(), w.when) {
		w.do()
	}
	return n, err
}
