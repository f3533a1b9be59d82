package guardfiber

import (
	"bufio"
	"bytes"
	"net/http"
	"strings"
	"testing"

	"github.com/gofiber/fiber/v3"
	"github.com/stretchr/testify/require"
	"github.com/valyala/fasthttp"
)

// read parses what came over a connection with fasthttp and converts it.
func read(app *fiber.App, wire []byte) (*http.Request, error) {
	var ctx fasthttp.RequestCtx
	ctx.Init2(nil, nil, false)
	if err := ctx.Request.Read(bufio.NewReaderSize(bytes.NewReader(wire), 1<<16)); err != nil {
		return nil, err
	}
	c := app.AcquireCtx(&ctx)
	defer app.ReleaseCtx(c)
	return Request(c)
}

// differs returns in what the two differ that a decision may rest on.
func differs(ours, theirs *http.Request) string {
	for _, name := range []string{"X-Forwarded-For", "Forwarded", "X-Real-Ip", "Authorization"} {
		if a, b := ours.Header.Values(name), theirs.Header.Values(name); strings.Join(a, "\n") != strings.Join(b, "\n") {
			return name
		}
	}
	token := func(r *http.Request) string {
		c, err := r.Cookie("__Host-session")
		if err != nil {
			return ""
		}
		return strings.Trim(c.Value, " ") // fasthttp drops blanks around a value
	}
	switch {
	case token(ours) != token(theirs):
		return "session"
	case ours.Host != theirs.Host:
		return "host"
	case ours.URL.String() != theirs.URL.String():
		return "target"
	case ours.Method != theirs.Method:
		return "method"
	}
	return ""
}

// What net/http does not read at all is refused, and what it reads is read as it does.
func FuzzRequest(f *testing.F) {
	for _, header := range []string{
		"X-Forwarded-For: 1.2.3.4\r\nx-forwarded-for:5.6.7.8 \r\n",
		"X-Forwarded-For : 1.2.3.4\r\n",
		"X-Forwarded-For: 1.2.3.4\r\n 5.6.7.8\r\n",
		" X-Forwarded-For: 1.2.3.4\r\n",
		"X Forwarded For: 1.2.3.4\r\n",
		"X_Forwarded_For: 1.2.3.4\n",
		"Host: evil.example\r\n",
		"hOST : evil.example\r\n",
		"Cookie: __Host-session=a\r\nCookie: __Host-session=b\r\n",
		"Cookie: __Host-session=\"a\"; __Host-session=b\r\n",
		"Cookie: __Host-session = a;;=; __Host-session=b\r\n",
		"Cookie: a=b=c; __Host-session=a b\r\nCookie:__Host-session=%41\r\n",
		": a\r\n", "a\r\n", "a:\x00\r\n", "a: \x7f\r\n", "\u00e9: a\r\n",
		"Transfer-Encoding : chunked\r\n", "Content-Length: 5\r\n", "Trailer: X-Forwarded-For\r\n",
	} {
		f.Add("GET", "/contacts/1", header)
	}
	for _, target := range []string{"http://evil.example/contacts/1", "//evil.example/contacts", "*", "/%zz", "/a?b#c", "/a b", "evil.example:80"} {
		f.Add("GET", target, "")
	}
	for _, header := range []string{
		"Transfer-Encoding: identity\r\n",
		"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nForwarded: for=10.0.0.1\r\n",
		"Forwarded: for=198.51.100.66\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nForwarded: for=10.0.0.1\r\n",
		"Trailer: Forwarded\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nForwarded: for=10.0.0.1\r\n",
	} {
		f.Add("POST", "/contacts/1", header)
	}
	app := fiber.New()
	f.Fuzz(func(t *testing.T, method, target, header string) {
		wire := []byte(method + " " + target + " HTTP/1.1\r\nHost: crm.example\r\n" + header + "\r\n")
		ours, err := read(app, wire)
		if err != nil {
			return
		}
		theirs, err := http.ReadRequest(bufio.NewReaderSize(bytes.NewReader(wire), 1<<16))
		if err != nil {
			t.Fatalf("taken, but net/http says: %v", err)
		}
		if what := differs(ours, theirs); what != "" {
			t.Fatalf("%s: we read\n%+v\n%+v\nand net/http\n%+v\n%+v", what, ours.URL, ours.Header, theirs.URL, theirs.Header)
		}
	})
}

// Without the check of the raw lines a request gets through that net/http refuses.
func TestRawLinesAreChecked(t *testing.T) {
	app := fiber.New()
	for _, header := range []string{"X-Forwarded-For : 1.2.3.4\r\n", "Host: evil.example\r\n", "Cookie : a=b\r\n"} {
		wire := []byte("GET / HTTP/1.1\r\nHost: crm.example\r\n" + header + "\r\n")
		var plain fasthttp.Request
		require.NoError(t, plain.Read(bufio.NewReader(bytes.NewReader(wire))), "fasthttp takes it")
		_, err := read(app, wire)
		require.Error(t, err)
	}
}
