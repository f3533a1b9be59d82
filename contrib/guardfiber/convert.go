package guardfiber

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/gofiber/fiber/v3"
	"github.com/valyala/fasthttp"
)

// Request returns the request as net/http would have it, for what takes one, such
// as [guard.Guard.SessionToken] or a function for guard.Options.Edge. Its strings are
// copies, its context is c.Context(), and its body is c's. Its header is what came over
// the connection before the body: neither trailers, which fasthttp puts among the
// headers, nor what other middleware has changed. With an error, which is that the
// request is malformed, it lacks header and target.
func Request(c fiber.Ctx) (*http.Request, error) {
	r, err := parse(&c.Request().Header)
	if err != nil {
		r = &http.Request{Method: string(c.Request().Header.Method()), URL: &url.URL{Path: "/"}, Header: http.Header{}}
	}
	r.Body = &body{c: c}
	r.RemoteAddr = c.RequestCtx().RemoteAddr().String()
	r.TLS = c.RequestCtx().TLSConnectionState()
	return r.WithContext(c.Context()), err
}

var (
	errBlank   = errors.New("guardfiber: a blank in the name of a header, or a folded line")
	errHost    = errors.New("guardfiber: not one valid Host")
	errFraming = errors.New("guardfiber: Transfer-Encoding in HTTP/1.0")
)

// parse has net/http read the lines again, so that it refuses what it refuses.
func parse(from *fasthttp.RequestHeader) (*http.Request, error) {
	raw := from.RawHeaders()
	hosts, err := wellFormed(raw)
	if err != nil {
		return nil, err
	}
	var wire bytes.Buffer
	wire.Grow(len(raw) + len(from.RequestURI()) + 64) // 64: method, protocol, blanks
	for _, part := range [][]byte{from.Method(), []byte(" "), from.RequestURI(), []byte(" "), from.Protocol(), []byte("\r\n"), raw, []byte("\r\n")} {
		wire.Write(part)
	}
	r, err := http.ReadRequest(bufio.NewReaderSize(&wire, wire.Len()))
	switch {
	case err != nil:
		return nil, fmt.Errorf("guardfiber: %w", err)
	case hosts > 1 || hosts == 0 && r.ProtoAtLeast(1, 1) || strings.ContainsFunc(r.Host, foreign):
		return nil, errHost
	case from.ContentLength() == -1 && !r.ProtoAtLeast(1, 1): // chunked: net/http sees no body
		return nil, errFraming
	}
	return r, nil
}

// foreign reports whether net/http's server refuses r in a Host.
func foreign(r rune) bool {
	return (r < '0' || r > '9') && (r|0x20 < 'a' || r|0x20 > 'z') && !strings.ContainsRune("!$%&'()*+,-.:;=[]_~", r)
}

// wellFormed refuses header lines that fasthttp or a proxy in front reads differently
// from net/http, and counts those of Host.
func wellFormed(raw []byte) (hosts int, err error) {
	for line := range bytes.Lines(raw) {
		name, _, _ := bytes.Cut(line, []byte(":"))
		if bytes.ContainsAny(bytes.TrimRight(name, "\r\n"), " \t") {
			return 0, errBlank
		}
		if bytes.EqualFold(name, []byte("Host")) {
			hosts++
		}
	}
	return hosts, nil
}

// body reads the body of a request that fiber has, when somebody asks for it.
type body struct {
	c fiber.Ctx
	r io.Reader
}

func (b *body) Read(p []byte) (int, error) {
	if b.r == nil {
		b.r = b.c.Request().BodyStream() // fiber.Config.StreamRequestBody
	}
	if b.r == nil {
		b.r = bytes.NewReader(b.c.Request().Body())
	}
	return b.r.Read(p)
}

// Close does nothing: the body is fiber's.
func (*body) Close() error { return nil }

// writer is the answer of a request for what wants to write it as to net/http.
type writer struct {
	c      fiber.Ctx
	header http.Header
	wrote  bool
}

func newWriter(c fiber.Ctx) *writer { return &writer{c: c, header: http.Header{}} }

func (w *writer) Header() http.Header { return w.header }

// WriteHeader replaces what a handler may have answered before its error.
func (w *writer) WriteHeader(status int) {
	if w.wrote {
		return
	}
	w.wrote = true
	w.flush()
	w.c.Response().ResetBody()
	w.c.Status(status)
}

func (w *writer) Write(p []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	w.c.Response().AppendBody(p)
	return len(p), nil
}

// flush sends the header lines so far.
func (w *writer) flush() {
	header := &w.c.Response().Header
	for name, lines := range w.header {
		if name != fiber.HeaderSetCookie { // cookies of others stay
			header.Del(name)
		}
		for _, line := range lines {
			header.Add(name, line)
		}
	}
	clear(w.header)
}
