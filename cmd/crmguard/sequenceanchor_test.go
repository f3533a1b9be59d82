package main

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/audittest"
	"github.com/crmguard/crmguard/internal/racetest"
)

// The sequencer hands what it signs to a table, a webhook and a witness, and a verification goes by
// what the table keeps.
func TestSequenceKeepsAnchorsOfEachKind(t *testing.T) {
	dir := t.TempDir()
	name, keyStore, kek, key := dir+"/crm.db", dir+"/keys.db", dir+"/kek.json", dir+"/journal.key"
	require.NoError(t, makeKeyStore(t.Context(), []string{keyStore, kek, "acme"}))
	require.NoError(t, os.Chmod(keyStore, 0o600))
	_, verifier, err := audit.OpenSigner(key, "crm.example/journal", true)
	require.NoError(t, err)
	recordInInbox(t, name, keyStore, kek, 0, 5)

	const secret = "0123456789abcdef0123456789abcdef"
	require.NoError(t, os.WriteFile(dir+"/secret", []byte(secret+"\n"), 0o600))
	var sent atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		mac := hmac.New(sha256.New, []byte(secret))
		fmt.Fprintf(mac, "%s.%s.%s", r.Header.Get("webhook-id"), r.Header.Get("webhook-timestamp"), body)
		checkpoint, err := audit.OpenCheckpoint(body, verifier)
		if err != nil || r.Header.Get("webhook-signature") != "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)) {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		sent.Store(checkpoint.Size)
	}))
	defer server.Close()
	witness := audittest.NewWitness(t, "witness.example/w1", verifier)
	table := dir + "/anchor.db"
	require.NoError(t, os.WriteFile(table, nil, 0o600))

	with := func(more ...string) []string {
		return append([]string{"audit", "sequence", "-db", name, "-signer", key, "-store", keyStore, "-kek", kek}, more...)
	}
	ctx, stop := context.WithCancel(t.Context())
	var complaint racetest.Buffer
	ended := make(chan int, 1)
	args := with("-anchor", "sqlite:"+table, "-webhook", server.URL, "-webhook-secret", dir+"/secret", "-witness", witness.URL+" "+witness.Key)
	go func() { ended <- run(ctx, args, nil, &complaint, &complaint) }()
	require.Eventually(t, func() bool {
		code, out, _ := invoke(t, "audit", "export", "-db", name, "-key", key+".pub", "-tenant", "acme")
		return code == good && strings.Count(out, "\n") == 5
	}, time.Minute, 50*time.Millisecond, "%s", &complaint)
	stop()
	require.Equal(t, good, <-ended, complaint.String())
	require.Equal(t, "chaining and signing; Ctrl-C ends it\n", complaint.String())

	require.GreaterOrEqual(t, sent.Load(), int64(5))
	kept, err := os.ReadFile(table) //nolint:gosec // the test's own
	require.NoError(t, err)
	require.Contains(t, string(kept), "witness.example/w1", "what it signed is beside the checkpoint")
	code, out, why := invoke(t, "audit", "verify", "-db", name, "-key", key+".pub", "-anchor", table)
	require.Equal(t, good, code, out+why)

	for _, wrong := range [][]string{
		{"-webhook", server.URL}, {"-witness", witness.URL + " " + witness.Key}, {"-anchor", dir + "/a", "-witness", witness.URL},
	} {
		code, _, why := invoke(t, with(wrong...)...)
		require.Equal(t, misuse, code, why)
	}
	for _, wrong := range [][]string{
		{"-anchor", dir + "/a", "-witness", witness.URL + " nonsense"},
		{"-webhook", "http://elsewhere.example", "-webhook-secret", dir + "/secret"},
		{"-webhook", server.URL, "-webhook-secret", dir + "/missing"},
		{"-anchor", "sqlite:" + dir + "/missing.db"},
	} {
		code, _, why := invoke(t, with(wrong...)...)
		require.Equal(t, unable, code, why)
	}
	require.NoFileExists(t, dir+"/missing.db")
}
