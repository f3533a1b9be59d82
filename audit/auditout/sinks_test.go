package auditout_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/auditout"
)

func TestFileSink(t *testing.T) {
	for name, f := range formats {
		path := filepath.Join(t.TempDir(), "journal."+name)
		sink, err := auditout.NewFile(path, f)
		require.NoError(t, err)
		require.NoError(t, sink.Send(t.Context(), samples()[:2]))
		require.NoError(t, sink.Close())
		require.Error(t, sink.Send(t.Context(), samples()[2:]))
		info, err := os.Stat(path)
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o600), info.Mode().Perm())

		// A crash in the middle of a line: what follows begins on a line of its own.
		torn, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
		require.NoError(t, err)
		_, err = torn.WriteString(`half a li`)
		require.NoError(t, errors.Join(err, torn.Close()))
		sink, err = auditout.NewFile(path, f)
		require.NoError(t, err)
		require.NoError(t, sink.Send(t.Context(), samples()[2:]))
		require.NoError(t, sink.Close())
		content, err := os.ReadFile(path)
		require.NoError(t, err)
		all := string(lines(t, f, samples()...))
		require.Equal(t, strings.Replace(string(content), "half a li\n", "", 1), all, name)
	}
	_, err := auditout.NewFile(filepath.Join(t.TempDir(), "x"), 0)
	require.Error(t, err)
	_, err = auditout.NewFile(filepath.Join(t.TempDir(), "no", "x"), auditout.JSON)
	require.Error(t, err)
}

// Who rotates files renames, removes or empties the one that is written: nothing is
// delivered to where nobody finds it, and each file is one by itself.
func TestFileSinkIsRotated(t *testing.T) {
	for name, f := range formats {
		for what, rotate := range map[string]func(path string) error{
			"renamed": func(path string) error { return os.Rename(path, path+".1") },
			"removed": os.Remove,
			"emptied": func(path string) error { return os.Truncate(path, 0) },
			"replaced": func(path string) error {
				return errors.Join(os.Rename(path, path+".1"), os.WriteFile(path, nil, 0o600))
			},
		} {
			path := filepath.Join(t.TempDir(), "journal")
			sink, err := auditout.NewFile(path, f)
			require.NoError(t, err)
			require.NoError(t, sink.Send(t.Context(), samples()[:2]))
			require.NoError(t, rotate(path))
			require.NoError(t, sink.Send(t.Context(), samples()[2:]))
			require.NoError(t, sink.Close())
			content, err := os.ReadFile(path)
			require.NoError(t, err)
			require.Equal(t, string(lines(t, f, samples()[2:]...)), string(content), "%s %s", name, what)
		}
	}
}

// short is a writer that takes half of what it is given, once.
type short struct {
	bytes.Buffer
	failed bool
}

func (s *short) Write(b []byte) (int, error) {
	if !s.failed {
		s.failed = true
		n, _ := s.Buffer.Write(b[:len(b)/2])
		return n, errors.New("no space left")
	}
	return s.Buffer.Write(b)
}

func TestWriterThatWasCutShort(t *testing.T) {
	var w short
	sink, err := auditout.NewWriter(&w, auditout.JSON)
	require.NoError(t, err)
	require.ErrorContains(t, sink.Send(t.Context(), samples()), "no space left")
	require.NoError(t, sink.Send(t.Context(), samples()))
	require.True(t, strings.HasSuffix(w.String(), "\n"+string(lines(t, auditout.JSON, samples()...))))
	_, err = auditout.NewWriter(&w, 9)
	require.Error(t, err)
}

var secret = []byte("0123456789abcdef0123456789abcdef")

func TestWebhookSink(t *testing.T) {
	status := http.StatusNoContent
	var bodies, ids []string
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		body, _ := io.ReadAll(q.Body)
		mac := hmac.New(sha256.New, secret)
		fmt.Fprintf(mac, "%s.%s.%s", q.Header.Get("webhook-id"), q.Header.Get("webhook-timestamp"), body)
		if q.Header.Get("webhook-signature") != "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)) {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		bodies, ids = append(bodies, string(body)), append(ids, q.Header.Get("webhook-id"))
		w.WriteHeader(status)
	}))
	defer server.Close()
	send := func(secret []byte) error {
		hook, err := auditout.NewWebhook(server.URL+"/t0ken", secret, auditout.JSON, server.Client())
		require.NoError(t, err)
		require.NotContains(t, fmt.Sprintf("%v %+v %#v", hook, hook, hook), "t0ken")
		err = hook.Send(t.Context(), samples())
		require.NotContains(t, fmt.Sprint(err), "t0ken")
		return err
	}
	require.NoError(t, send(secret))
	require.NoError(t, send(secret))
	require.Equal(t, ids[0], ids[1], "a batch that is sent again has its id")
	require.Equal(t, string(lines(t, auditout.JSON, samples()...)), bodies[0])
	wrong := send([]byte("another secret of thirty-two byte"))
	require.Error(t, wrong, "planted fault: the receiver checks")
	require.NotErrorIs(t, wrong, auditout.ErrRefused)
	for _, status = range []int{400, 413, 415, 422} {
		require.ErrorIs(t, send(secret), auditout.ErrRefused)
	}
	for _, status = range []int{302, 401, 403, 404, 429, 500, 503} {
		err := send(secret)
		require.Error(t, err)
		require.NotErrorIs(t, err, auditout.ErrRefused, "%d may pass", status)
	}
	_, err := auditout.NewWebhook("http://siem.example/", secret, auditout.JSON, nil)
	require.Error(t, err)
	_, err = auditout.NewWebhook(server.URL, secret, 0, nil)
	require.Error(t, err)
}

// logServer is a receiver of RFC 5425.
type logServer struct {
	net.Listener
	config   *tls.Config // of clients
	mu       sync.Mutex
	messages []string
	behave   func(n int) string // of connection n: "", "reset", "hang"
	running  sync.WaitGroup
}

func newLogServer(t *testing.T) *logServer {
	t.Helper()
	web := httptest.NewUnstartedServer(nil) // for its certificate
	web.StartTLS()
	t.Cleanup(web.Close)
	pool := x509.NewCertPool()
	pool.AddCert(web.Certificate())
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	s := &logServer{Listener: l, config: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}}
	s.running.Go(func() {
		for n := 0; ; n++ {
			raw, err := l.Accept()
			if err != nil {
				return
			}
			s.running.Go(func() { s.serve(raw, n, web.TLS.Certificates) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		s.running.Wait()
	})
	return s
}

func (s *logServer) serve(raw net.Conn, n int, certificates []tls.Certificate) {
	conn := tls.Server(raw, &tls.Config{Certificates: certificates, MinVersion: tls.VersionTLS12})
	defer conn.Close() //nolint:errcheck // a test
	r := bufio.NewReader(conn)
	for {
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
		if s.behave != nil && s.behave(n) == "reset" {
			_ = raw.(*net.TCPConn).SetLinger(0)
			_ = raw.Close() // killed, with something unread
			return
		}
		s.mu.Lock()
		s.messages = append(s.messages, string(message))
		s.mu.Unlock()
	}
}

func (s *logServer) got() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string{}, s.messages...)
}

// The head of RFC 5424, section 6, without structured data.
var rfc5424 = regexp.MustCompile(`^<(\d{1,3})>1 (\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z) ([!-~]{1,255}) crmguard (\d{1,128}) ([!-~]{1,32}) - (.*)$`)

func TestSyslog(t *testing.T) {
	server := newLogServer(t)
	sink, err := auditout.NewSyslog(server.Addr().String(), server.config, auditout.OCSF)
	require.NoError(t, err)
	require.NoError(t, sink.Send(t.Context(), samples()))
	got := server.got()
	require.Len(t, got, 3)
	for i, message := range got {
		parts := rfc5424.FindStringSubmatch(message)
		require.NotNil(t, parts, message)
		require.Equal(t, []string{"110", "109", "107"}[i], parts[1])
		require.Equal(t, []string{"update", "sign-in", "-"}[i], parts[5])
		require.Equal(t, strings.TrimSuffix(string(lines(t, auditout.OCSF, samples()[i])), "\n"), parts[6])
	}
	// Nothing in an entry makes a message of its own, or a field of the head.
	for _, text := range attacks {
		before := len(server.got())
		require.NoError(t, sink.Send(t.Context(), []auditout.Record{nasty(text), nasty(text)}))
		got := server.got()[before:]
		require.Len(t, got, 2, "%q", text)
		for _, message := range got {
			require.Regexp(t, rfc5424, message)
			require.NotContains(t, message, "\n")
		}
	}
}

// Bytes that only the network has taken are not delivered: a sink that thinks so, the
// planted fault, loses entries.
func TestSyslogKnowsWhatArrived(t *testing.T) {
	for name, planted := range map[string]bool{"as it is": false, "planted fault": true} {
		t.Run(name, func(t *testing.T) {
			server := newLogServer(t)
			server.behave = func(n int) string {
				if n == 0 {
					return "reset"
				}
				return ""
			}
			log, _ := openLog(t, audit.NewMemory())
			fill(t, log, 5)
			require.NoError(t, log.Close())
			syslog, err := auditout.NewSyslog(server.Addr().String(), server.config, auditout.JSON)
			require.NoError(t, err)
			var sink auditout.Sink = syslog
			if planted {
				sink = &receiver{send: func(ctx context.Context, records []auditout.Record) error {
					_ = syslog.Send(ctx, records) // it was written
					return nil
				}}
			}
			newPump(t, log, auditout.Feed{Name: "siem", Sink: sink, Cursor: &cursor{}}).Run(t.Context())
			if planted {
				require.Less(t, len(server.got()), 5)
				return
			}
			require.Len(t, server.got(), 5)
		})
	}
}

func TestSyslogRefuses(t *testing.T) {
	server := newLogServer(t)
	unknown, err := auditout.NewSyslog(server.Addr().String(), nil, auditout.JSON)
	require.NoError(t, err)
	require.Error(t, unknown.Send(t.Context(), samples()), "a certificate of nobody known")
	elsewhere := server.config.Clone()
	elsewhere.ServerName = "siem.example.org"
	other, err := auditout.NewSyslog(server.Addr().String(), elsewhere, auditout.JSON)
	require.NoError(t, err)
	require.Error(t, other.Send(t.Context(), samples()), "a certificate of another host")
	require.Empty(t, server.got())
	_, err = auditout.NewSyslog(server.Addr().String(), &tls.Config{InsecureSkipVerify: true}, auditout.JSON)
	require.Error(t, err)
	for _, address := range []string{"", "siem.example", ":6514"} {
		_, err = auditout.NewSyslog(address, nil, auditout.JSON)
		require.Error(t, err, address)
	}
	_, err = auditout.NewSyslog("siem.example:6514", nil, 0)
	require.Error(t, err)

	// A server that never answers ends with the context.
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer silent.Close() //nolint:errcheck // a test
	hangs, err := auditout.NewSyslog(silent.Addr().String(), server.config, auditout.JSON)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		conn, err := silent.Accept()
		if err == nil {
			cancel()
			_, _ = io.Copy(io.Discard, conn)
			_ = conn.Close()
		}
	}()
	require.Error(t, hangs.Send(ctx, samples()))
}
