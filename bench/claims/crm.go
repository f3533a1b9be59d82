package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/crmguard/crmguard/examples/crm/app"
	"github.com/crmguard/crmguard/examples/crm/data"
)

// crmClaims compare pages of the example CRM with the same pages unprotected.
func crmClaims() []claim {
	return []claim{
		{name: "crm.page", unit: "/s", direction: atLeast, limit: 0.4, open: openPage},
	}
}

// clients ask for pages at the same time.
const clients = 16

// crmContacts are the contacts of the example CRM.
var crmContacts = data.Contacts

// pageTime is how long one round takes.
const pageTime = 500 * time.Millisecond

// openPage starts the CRM with its contacts. Ours is the contacts page of a
// seller: session, rights, masks and a durable journal entry for each; the peer reads,
// opens and draws fifty rows and does nothing else. Neither goes over a network,
// which would cost both the same.
func openPage(ctx context.Context, _ *servers) (trial, error) {
	dir, err := os.MkdirTemp("", "claims-crm-")
	if err != nil {
		return trial{}, err
	}
	remove := func() error { return os.RemoveAll(dir) }
	crm, err := app.New(ctx, app.Config{
		Data: filepath.Join(dir, "data"), Keys: filepath.Join(dir, "keys"), Loopback: true,
		Contacts: crmContacts, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return trial{}, errors.Join(err, remove())
	}
	stop := func() error { return errors.Join(crm.Close(), remove()) }
	cookie, err := signIn(ctx, crm, "seller1")
	if err != nil {
		return trial{}, errors.Join(err, stop())
	}
	return trial{
		ours:  pageRate(crm.Handler(), cookie),
		peer:  pageRate(crm.PlainContacts(), cookie),
		close: stop,
	}, nil
}

func request(ctx context.Context, method, target, body string) *http.Request {
	r := httptest.NewRequestWithContext(ctx, method, target, strings.NewReader(body))
	r.RemoteAddr = "127.0.0.1:50000"
	r.Host = "127.0.0.1:8080"
	r.Header.Set("Accept", "text/html")
	return r
}

func signIn(ctx context.Context, crm *app.App, login string) (*http.Cookie, error) {
	password, err := crm.DemoPassword(ctx)
	if err != nil {
		return nil, err
	}
	code, err := crm.DemoCode(ctx, login, nil)
	if err != nil {
		return nil, err
	}
	r := request(ctx, http.MethodPost, "/sign-in", url.Values{"login": {login}, "password": {password}, "code": {code}}.Encode())
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	w := httptest.NewRecorder()
	crm.Handler().ServeHTTP(w, r)
	cookies := w.Result().Cookies()
	if w.Code != http.StatusSeeOther || len(cookies) == 0 {
		return nil, fmt.Errorf("sign-in as %s: status %d", login, w.Code)
	}
	return cookies[0], nil
}

// pageRate measures pages per second with all clients at once.
func pageRate(handler http.Handler, cookie *http.Cookie) measurement {
	return func(ctx context.Context) (float64, error) {
		var pages [clients]int
		var failed [clients]error
		var wg sync.WaitGroup
		start := time.Now()
		for i := range clients {
			wg.Go(func() {
				for time.Since(start) < pageTime && failed[i] == nil {
					r := request(ctx, http.MethodGet, "/contacts", "")
					r.AddCookie(cookie)
					w := httptest.NewRecorder()
					handler.ServeHTTP(w, r)
					if rows := strings.Count(w.Body.String(), `href="/contacts/`); w.Code != http.StatusOK || rows < 50 {
						failed[i] = fmt.Errorf("contacts page: status %d, %d rows", w.Code, rows)
					}
					pages[i]++
				}
			})
		}
		wg.Wait()
		total := 0
		for _, n := range pages {
			total += n
		}
		return float64(total) / time.Since(start).Seconds(), errors.Join(failed[:]...)
	}
}
