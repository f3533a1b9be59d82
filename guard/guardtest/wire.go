package guardtest

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/crmguard/crmguard/guard"
)

// cookieName is the name under which guard keeps a session.
const cookieName = "__Host-session"

// callsOver makes an adapter for HTTP one for calls.
func callsOver(start Start) StartCalls {
	return func(t testing.TB, g *guard.Guard, routes []Route) Client {
		addr := start(t, g, routes)
		transport := &http.Transport{DisableCompression: true}
		t.Cleanup(transport.CloseIdleConnections)
		client := &http.Client{
			Transport:     transport,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		}
		byName := map[string]Route{}
		for _, r := range routes {
			byName[r.Name] = r
		}
		return func(ctx context.Context, c Call) (Answer, error) {
			route := byName[c.Route]
			target := "http://" + addr + strings.ReplaceAll(route.Path, "{id}", url.PathEscape(c.ID))
			r, err := http.NewRequestWithContext(ctx, route.Method, target, strings.NewReader(c.Body))
			if err != nil {
				return Answer{}, err
			}
			if c.Token != "" {
				r.Header.Set("Cookie", cookieName+"="+c.Token)
			}
			resp, err := client.Do(r)
			if err != nil {
				return Answer{}, err
			}
			_, a, err := read(resp)
			return a, err
		}
	}
}

// read reads a response to its end.
func read(resp *http.Response) (*http.Response, Answer, error) {
	body, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if err != nil {
		return resp, Answer{}, err
	}
	a := Answer{Status: resp.StatusCode}
	if seconds, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil {
		a.RetryAfter = time.Duration(seconds) * time.Second
	}
	if resp.StatusCode == http.StatusOK {
		a.Text = string(body)
	} else if resp.Header.Get("Content-Type") == "application/problem+json" && len(body) > 0 {
		var p struct{ Code, Instance, Need string }
		if err := json.Unmarshal(body, &p); err != nil {
			return resp, Answer{}, fmt.Errorf("the answer %q is no problem+json: %w", body, err)
		}
		a.Code, a.Instance, a.Need = p.Code, p.Instance, p.Need
	}
	var raw bytes.Buffer
	fmt.Fprintln(&raw, resp.Status)
	_ = resp.Header.Write(&raw) // a buffer takes everything; the keys are sorted
	raw.Write(body)
	a.Raw = raw.String()
	return resp, a, nil
}

// line is a connection on which requests are written as they stand.
type line struct {
	conn net.Conn
	r    *bufio.Reader
}

func dial(t testing.TB, addr string) (*line, error) {
	conn, err := (&net.Dialer{Timeout: patience}).DialContext(t.Context(), "tcp", addr)
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { _ = conn.Close() })
	return &line{conn, bufio.NewReader(conn)}, nil
}

// send writes a request line and header lines and reads the answer.
func (l *line) send(method, target string, header ...string) (*http.Response, Answer, error) {
	if err := l.conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return nil, Answer{}, err
	}
	request := method + " " + target + " HTTP/1.1\r\n" + strings.Join(header, "\r\n") + "\r\n\r\n"
	if _, err := io.WriteString(l.conn, request); err != nil {
		return nil, Answer{}, err
	}
	resp, err := http.ReadResponse(l.r, &http.Request{Method: method})
	if err != nil {
		return nil, Answer{}, err
	}
	return read(resp)
}
