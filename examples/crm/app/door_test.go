package app

import (
	"context"
	"net"
	"net/http"
	"net/url"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestSignInAgain: whoever signs in anew leaves no session behind that nobody
// would think of ending; a failed attempt ends nothing.
func TestSignInAgain(t *testing.T) {
	each(t, func(t *testing.T, on database) {
		in := newInstallation(t, on, nil)
		b := in.signedIn("seller1")
		at, err := url.Parse(in.web.URL)
		require.NoError(t, err)
		old := in.browser()
		old.http.Jar.SetCookies(at, b.http.Jar.Cookies(at))

		status, _ := b.post("/sign-in", "login", "seller2", "password", "wrong")
		require.Equal(t, http.StatusUnauthorized, status)
		status, _ = old.get("/contacts")
		require.Equal(t, http.StatusOK, status)

		status, page := b.post("/sign-in", "login", "seller2", "password", in.password(), "code", in.code("seller2"))
		require.Equal(t, http.StatusOK, status)
		has(t, page, "seller2")
		status, _ = old.get("/contacts")
		require.Equal(t, http.StatusUnauthorized, status)
		open, err := in.app.sessions.List(t.Context(), tenant, "seller1")
		require.NoError(t, err)
		require.Empty(t, open)
		status, _ = b.get("/contacts")
		require.Equal(t, http.StatusOK, status)

		// A cookie that is worth nothing keeps nobody out.
		b.http.Jar.SetCookies(at, []*http.Cookie{{Name: "session", Value: "x", Path: "/"}})
		status, _ = b.post("/sign-in", "login", "seller3", "password", in.password(), "code", in.code("seller3"))
		require.Equal(t, http.StatusOK, status)
	})
}

// TestHost: a page of another site whose name was pointed at this machine does not
// reach the CRM, not even its sign-in form.
func TestHost(t *testing.T) {
	each(t, func(t *testing.T, on database) {
		in := newInstallation(t, on, nil)
		listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
		require.NoError(t, err)
		ctx, stop := context.WithCancel(t.Context())
		served := make(chan error, 1)
		go func() { served <- in.app.Serve(ctx, listener, nil) }()
		_, port, err := net.SplitHostPort(listener.Addr().String())
		require.NoError(t, err)
		for host, good := range map[string]bool{
			"127.0.0.1:" + port: true, "localhost:" + port: true, "LOCALHOST:" + port: true, "[::1]:" + port: true,
			"evil.example:" + port: false, "evil.example": false, "127.0.0.1.evil.example:" + port: false, "localhost.:" + port: false,
			"127.0.0.1": false, "localhost": false, "127.0.0.1:1": false, "10.0.0.1:" + port: false, "localhost:0" + port: false,
		} {
			for _, path := range []string{"/sign-in", "/static/style.css"} {
				r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+listener.Addr().String()+path, nil)
				require.NoError(t, err)
				r.Host = host
				answer, err := http.DefaultClient.Do(r)
				require.NoError(t, err)
				status, page := read(t, answer)
				require.NoError(t, answer.Body.Close())
				if good {
					require.Equal(t, http.StatusOK, status, host)
					continue
				}
				require.Equal(t, http.StatusMisdirectedRequest, status, host)
				hasNot(t, page, "evil.example")
				hasNot(t, page, `name="password"`)
			}
		}
		stop()
		require.NoError(t, <-served)
	})
}
