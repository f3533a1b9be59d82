package guardfiber

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/textproto"
	"net/url"

	"github.com/gofiber/fiber/v3"
)

// Request returns the request as net/http would have it, for what takes one, such
// as [guard.Guard.SessionToken] or a function for guard.Options.Edge. Its strings are
// copies, its context is c.Context(), and its body is c's. With an error, which is
// that the request is malformed, it lacks what could not be understood.
func Request(c fiber.Ctx) (*http.Request, error) {
	from := c.Request()
	r := &http.Request{
		Method:        string(from.Header.Method()),
		RequestURI:    string(from.Header.RequestURI()),
		URL:           &url.URL{Path: "/"},
		Proto:         string(from.Header.Protocol()),
		Header:        make(http.Header, from.Header.Len()),
		Body:          &body{c: c},
		ContentLength: int64(from.Header.ContentLength()), // -1: chunked
		Host:          string(from.Header.Host()),
		RemoteAddr:    c.RequestCtx().RemoteAddr().String(),
		TLS:           c.RequestCtx().TLSConnectionState(),
	}
	if r.ContentLength < -1 { // as fasthttp says that there is none
		r.ContentLength = 0
	}
	for name, value := range from.Header.All() {
		if key := textproto.CanonicalMIMEHeaderKey(string(name)); key != "Host" {
			r.Header[key] = append(r.Header[key], string(value))
		}
	}
	r = r.WithContext(c.Context())
	if err := wellFormed(from.Header.RawHeaders()); err != nil {
		return r, err
	}
	var ok bool
	if r.ProtoMajor, r.ProtoMinor, ok = http.ParseHTTPVersion(r.Proto); !ok {
		return r, fmt.Errorf("guardfiber: protocol %q", r.Proto)
	}
	target, err := url.ParseRequestURI(r.RequestURI)
	if err != nil {
		return r, fmt.Errorf("guardfiber: target: %w", err)
	}
	r.URL = target
	if target.Host != "" { // RFC 9112 3.2.2: the target counts
		r.Host = target.Host
	}
	return r, nil
}

var (
	errBlank = errors.New("guardfiber: a blank in the name of a header, or a folded line")
	errHosts = errors.New("guardfiber: more than one Host")
)

// wellFormed refuses header lines that fasthttp takes and net/http, or a proxy in
// front, does not, or reads as another header.
func wellFormed(raw []byte) error {
	hosts := 0
	for line := range bytes.Lines(raw) {
		name, _, _ := bytes.Cut(line, []byte(":"))
		if bytes.ContainsAny(bytes.TrimRight(name, "\r\n"), " \t") {
			return errBlank
		}
		if bytes.EqualFold(name, []byte("Host")) {
			hosts++
		}
	}
	if hosts > 1 {
		return errHosts
	}
	return nil
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
