package app

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/guard/signin"
)

// BenchmarkList compares a page of the list with everything on with the same page
// without rights, masks and journal.
func BenchmarkList(b *testing.B) {
	dir, err := os.MkdirTemp("", "crm")
	require.NoError(b, err)
	defer os.RemoveAll(dir) //nolint:errcheck // a temporary folder
	a, err := New(context.Background(), Config{
		Data: filepath.Join(dir, "data"), Keys: filepath.Join(dir, "keys"), Loopback: true, Contacts: sample(3000), Logger: slog.New(slog.DiscardHandler),
	})
	require.NoError(b, err)
	defer a.Close() //nolint:errcheck // nothing is kept
	password, err := a.DemoPassword(context.Background())
	require.NoError(b, err)
	for _, login := range []string{"owner", "seller1"} {
		code, err := a.DemoCode(context.Background(), login, nil)
		require.NoError(b, err)
		token, err := a.door.SignIn(context.Background(), signin.Attempt{Login: login, Password: password, Code: code, Addr: netip.MustParseAddr("127.0.0.1")})
		require.NoError(b, err)
		for name, h := range map[string]http.Handler{"guarded": a.Handler(), "plain": a.PlainContacts()} {
			b.Run(login+"/"+name, func(b *testing.B) {
				b.SetParallelism(8)
				b.RunParallel(func(pb *testing.PB) {
					for pb.Next() {
						r := httptest.NewRequest(http.MethodGet, "/contacts", nil)
						r.RemoteAddr = "127.0.0.1:1"
						r.AddCookie(&http.Cookie{Name: "session", Value: token})
						w := httptest.NewRecorder()
						h.ServeHTTP(w, r)
						if w.Code != http.StatusOK {
							b.Fatal(w.Code)
						}
					}
				})
			})
		}
	}
}
