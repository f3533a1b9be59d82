package main

import (
	"bufio"
	"crypto/tls"
	"encoding/pem"
	"io"
	"net"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// logServer takes messages of RFC 5425 and returns its address, the file that vouches for it, and what
// it got.
func logServer(t *testing.T) (address, ca string, got func() []string) {
	t.Helper()
	web := httptest.NewUnstartedServer(nil) // for its certificate
	web.StartTLS()
	t.Cleanup(web.Close)
	ca = t.TempDir() + "/ca.pem"
	require.NoError(t, os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: web.Certificate().Raw}), 0o600))
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: web.TLS.Certificates, MinVersion: tls.VersionTLS12})
	require.NoError(t, err)
	var mu sync.Mutex
	var messages []string
	var running sync.WaitGroup
	serve := func(conn net.Conn) {
		defer conn.Close() //nolint:errcheck // a test
		for r := bufio.NewReader(conn); ; {
			length, err := r.ReadString(' ')
			if err != nil {
				return
			}
			size, err := strconv.Atoi(strings.TrimSuffix(length, " "))
			if err != nil {
				return
			}
			message := make([]byte, size)
			if _, err := io.ReadFull(r, message); err != nil {
				return
			}
			mu.Lock()
			messages = append(messages, string(message))
			mu.Unlock()
		}
	}
	running.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			running.Go(func() { serve(conn) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		running.Wait()
	})
	return l.Addr().String(), ca, func() []string {
		mu.Lock()
		defer mu.Unlock()
		return messages
	}
}

// A whole journal goes to a log server, in more batches than one, and what came after it on another day.
func TestExportToLogServer(t *testing.T) {
	dir := t.TempDir()
	name, key := dir+"/crm.db", dir+"/journal.key"
	require.NoError(t, makeJournal(t.Context(), []string{name, key, "300"}))
	address, ca, got := logServer(t)
	args := []string{"audit", "export", "-db", name, "-key", key + ".pub", "-format", "ocsf", "-syslog", address}

	code, _, complaint := invoke(t, args...)
	require.Equal(t, unable, code, "nobody vouches for that server: %s", complaint)
	require.Empty(t, got())
	require.Contains(t, complaint, "entries handed over: 0; go on with -after -1\n")

	code, out, complaint := invoke(t, append(args, "-ca", ca)...)
	require.Equal(t, good, code, complaint)
	require.Empty(t, out)
	require.Equal(t, "entries handed over: 300; go on with -after 299\n", complaint)
	messages := got()
	require.Len(t, messages, 300)
	require.Regexp(t, `^<110>1 20\S+Z \S+ crmguard \d+ view - \{.*"class_uid":6003,.*"sequence":0,`, messages[0])

	code, _, complaint = invoke(t, append(args, "-ca", ca, "-after", "290")...)
	require.Equal(t, good, code, complaint)
	require.Len(t, got(), 309)
}
