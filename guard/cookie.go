package guard

import (
	"net/http"

	"github.com/crmguard/crmguard"
)

// The __Host- prefix makes browsers refuse the cookie unless it is Secure, for
// this host alone, so that no sibling domain can plant one. Browsers refuse the
// prefix over plain HTTP, hence the other name on loopback.
const (
	cookieName         = "__Host-session"
	cookieNameLoopback = "session"
)

func (g *Guard) cookie(value string, maxAge int) *http.Cookie {
	name := cookieName
	if g.o.Loopback {
		name = cookieNameLoopback
	}
	return &http.Cookie{ //nolint:gosec // Secure is off only with Options.Loopback, where Handler refuses other machines
		Name:     name,
		Value:    value,
		Path:     "/",
		MaxAge:   maxAge,
		HttpOnly: true,
		Secure:   !g.o.Loopback,
		SameSite: http.SameSiteLaxMode,
	}
}

// SetSession gives the browser a session's token, until the browser is closed;
// when the session ends earlier is decided on the server.
func (g *Guard) SetSession(w http.ResponseWriter, token string) {
	http.SetCookie(w, g.cookie(token, 0))
}

// ClearSession makes the browser forget its token.
func (g *Guard) ClearSession(w http.ResponseWriter) {
	http.SetCookie(w, g.cookie("", -1))
}

// SessionToken returns the token that the request carries, empty if it has none.
func (g *Guard) SessionToken(r *http.Request) string {
	token, err := g.sessionToken(r)
	if err != nil {
		return ""
	}
	return token
}

func (g *Guard) sessionToken(r *http.Request) (string, error) {
	c, err := r.Cookie(g.cookie("", 0).Name)
	if err != nil || c.Value == "" {
		return "", &crmguard.Denial{By: "guard", Code: "no-session", Status: crmguard.Unauthenticated}
	}
	return c.Value, nil
}
