package audit_test

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/internal/journaltest"
)

var webhookSecret = []byte("0123456789abcdef0123456789abcdef")

// receiver checks messages as Standard Webhooks says.
type receiver struct {
	mu     sync.Mutex
	ids    map[string]string // what came under each id
	status int
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	body, _ := io.ReadAll(q.Body)
	id, at := q.Header.Get("webhook-id"), q.Header.Get("webhook-timestamp")
	mac := hmac.New(sha256.New, webhookSecret)
	fmt.Fprintf(mac, "%s.%s.%s", id, at, body)
	if q.Header.Get("webhook-signature") != "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)) {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.status != 0 {
		http.Redirect(w, q, "/elsewhere", r.status)
		return
	}
	if r.ids == nil {
		r.ids = make(map[string]string)
	}
	r.ids[id] = string(body)
}

func TestWebhook(t *testing.T) {
	r := &receiver{}
	server := httptest.NewTLSServer(r)
	defer server.Close()
	hook, err := audit.NewWebhook(server.URL+"/in?token=t0ken", webhookSecret, server.Client())
	require.NoError(t, err)
	signer, verifier := journaltest.Signer(t)
	log, err := audit.New(t.Context(), audit.NewMemory(), journaltest.NewSealer(), signer, verifier, &audit.Options{Anchors: []audit.Anchor{hook}})
	require.NoError(t, err)
	require.NoError(t, log.Record(t.Context(), journaltest.Event(0)))
	require.NoError(t, log.Close())
	report, err := log.Verify(t.Context(), verifier, nil)
	require.NoError(t, err)
	r.mu.Lock()
	defer r.mu.Unlock()
	require.Contains(t, values(r.ids), report.Checkpoint)
	for _, s := range []string{hook.String(), fmt.Sprintf("%v %+v %#v", hook, hook, hook), slog.AnyValue(hook).String()} {
		require.NotContains(t, s, "t0ken")
		require.NotContains(t, s, string(webhookSecret))
	}
	_, _, err = hook.Newest(t.Context())
	require.ErrorIs(t, err, errors.ErrUnsupported)
}

func values(m map[string]string) []string {
	var list []string
	for _, v := range m {
		list = append(list, v)
	}
	return list
}

func TestWebhookFails(t *testing.T) {
	r := &receiver{}
	server := httptest.NewUnstartedServer(r)
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	defer server.Close()
	keep := func(secret []byte, client *http.Client) error {
		hook, err := audit.NewWebhook(server.URL+"/in?token=t0ken", secret, client)
		require.NoError(t, err)
		err = hook.Keep(t.Context(), []byte("note"))
		if err != nil {
			require.NotContains(t, err.Error(), "t0ken")
		}
		return err
	}
	require.NoError(t, keep(webhookSecret, server.Client()))
	require.NoError(t, keep(webhookSecret, server.Client()))
	require.Len(t, r.ids, 1, "a receiver knows what comes twice")
	require.ErrorContains(t, keep([]byte(strings.Repeat("x", 32)), server.Client()), "401")
	require.Error(t, keep(webhookSecret, nil), "a certificate of nobody known")
	for _, status := range []int{301, 307, 308, 500} {
		r.status = status
		require.ErrorContains(t, keep(webhookSecret, server.Client()), fmt.Sprint(status), "not followed")
	}
	r.status = 0
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	hook, err := audit.NewWebhook(server.URL, webhookSecret, server.Client())
	require.NoError(t, err)
	require.ErrorIs(t, hook.Keep(ctx, nil), context.Canceled)
}

// A receiver that never answers is left after the client's timeout.
func TestWebhookTimeout(t *testing.T) {
	release := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
	defer server.Close()
	defer close(release)
	client := server.Client()
	client.Timeout = 50 * time.Millisecond
	hook, err := audit.NewWebhook(server.URL, webhookSecret, client)
	require.NoError(t, err, "http on this machine")
	require.Error(t, hook.Keep(t.Context(), []byte("note")))
}

func TestWebhookAddress(t *testing.T) {
	for _, address := range []string{"", "http://example.com/", "ftp://example.com", "https://", "https://u:secret@example.com", "example.com", "http://127.0.0.1.example.com", ":// secret"} {
		_, err := audit.NewWebhook(address, webhookSecret, nil)
		require.Error(t, err, address)
		require.NotContains(t, err.Error(), "secret")
	}
	for _, address := range []string{"https://example.com/x", "http://127.0.0.1:1/", "http://[::1]/", "http://localhost"} {
		_, err := audit.NewWebhook(address, webhookSecret, nil)
		require.NoError(t, err, address)
	}
	_, err := audit.NewWebhook("https://example.com", webhookSecret[:31], nil)
	require.Error(t, err)
}
