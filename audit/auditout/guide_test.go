package auditout_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/auditout"
	"github.com/crmguard/crmguard/audit/internal/journaltest"
)

func TestGuide(t *testing.T) {
	log, _ := openLog(t, audit.NewMemory())
	fill(t, log, 3)
	server := newLogServer(t)
	var mu sync.Mutex
	var bodies strings.Builder
	hook := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		_, _ = io.Copy(&bodies, r.Body)
	}))
	defer hook.Close()
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	pump, err := startExport(log, dir, server.Addr().String(), server.config, hook.URL, secret)
	require.NoError(t, err)
	var running sync.WaitGroup
	running.Go(func() { pump.Run(ctx) })
	require.Eventually(t, func() bool {
		answer := httptest.NewRecorder()
		health(pump)(answer, httptest.NewRequest(http.MethodGet, "/", nil))
		return answer.Code == http.StatusOK && strings.Count(answer.Body.String(), "entry 2 sent, 0 to go") == 3
	}, time.Minute, time.Millisecond)
	cancel()
	running.Wait()
	require.Len(t, server.got(), 3)
	require.Equal(t, 3, strings.Count(bodies.String(), "\n"))
	require.FileExists(t, filepath.Join(dir, "siem.cursor"))

	page, err := log.Find(t.Context(), audit.Query{Tenant: journaltest.Event(0).Subject.Tenant})
	require.NoError(t, err)
	answer := httptest.NewRecorder()
	require.NoError(t, download(t.Context(), answer, page))
	require.Equal(t, 4, strings.Count(answer.Body.String(), "\n"))
	require.True(t, strings.HasPrefix(answer.Body.String(), auditout.CSV.Header()))
}
