package guardgrpc

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/crmguard/crmguard/guard"
)

// serve lets guard decide about a call and run it.
func (s *server) serve(ctx context.Context, h http.Handler, name string, c *call) error {
	w := &recorder{header: http.Header{}}
	h.ServeHTTP(w, s.request(context.WithValue(ctx, callKey{}, c), name))
	switch {
	case w.status != 0:
		return c.refusal(w)
	case !c.ok: // cannot happen: guard has answered or run the handler
		return status.Error(codes.Internal, "guardgrpc: no answer")
	}
	return nil
}

// request is a call as guard sees it.
func (s *server) request(ctx context.Context, name string) *http.Request {
	r := &http.Request{
		Method: http.MethodPost, URL: &url.URL{Path: name}, RequestURI: name,
		Proto: "HTTP/2.0", ProtoMajor: 2,
		Header: http.Header{}, Body: http.NoBody,
	}
	if p, ok := peer.FromContext(ctx); ok && p.Addr != nil {
		r.RemoteAddr = p.Addr.String()
		if info, ok := p.AuthInfo.(credentials.TLSInfo); ok {
			r.TLS = &info.State
		}
	}
	md, _ := metadata.FromIncomingContext(ctx)
	for key, values := range md {
		switch {
		case key == ":authority" && len(values) == 1:
			r.Host = values[0]
		case key == "authorization", key == "cookie": // a session comes in one way only
		case key == "accept": // refusals are no pages
		case strings.HasPrefix(key, ":"), strings.HasSuffix(key, "-bin"):
		default:
			r.Header[http.CanonicalHeaderKey(key)] = values
		}
	}
	if token := bearer(md.Get("authorization")); token != "" {
		r.Header.Set("Cookie", s.cookie+"="+token)
		if s.guard.SessionToken(r) != token { // it would be read as another one
			r.Header.Del("Cookie")
		}
	}
	return r.WithContext(ctx)
}

// bearer is the token of RFC 6750, if there is exactly one.
func bearer(authorization []string) string {
	if len(authorization) != 1 {
		return ""
	}
	scheme, token, _ := strings.Cut(authorization[0], " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	return strings.TrimLeft(token, " ")
}

// cookieName is the name of the cookie in which g expects a token.
func cookieName(g *guard.Guard) string {
	w := &recorder{header: http.Header{}}
	g.SetSession(w, "token")
	return (&http.Response{Header: w.header}).Cookies()[0].Name
}

// recorder keeps what guard answers.
type recorder struct {
	header http.Header
	status int
	body   []byte
}

func (w *recorder) Header() http.Header { return w.header }

func (w *recorder) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
}

func (w *recorder) Write(p []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	w.body = append(w.body, p...)
	return len(p), nil
}

// refusal is guard's answer as a status.
func (c *call) refusal(w *recorder) error {
	var p struct{ Title, Detail, Code, Instance, Need string }
	if err := json.Unmarshal(w.body, &p); err != nil {
		return status.Error(codes.Internal, http.StatusText(http.StatusInternalServerError))
	}
	if p.Code == codeStatus && c.status != nil {
		return c.status.Err()
	}
	info := &errdetails.ErrorInfo{Reason: p.Code, Domain: "crmguard", Metadata: map[string]string{"instance": p.Instance}}
	if p.Need != "" {
		info.Metadata["need"] = p.Need
	}
	details := []protoadapt.MessageV1{info}
	if seconds, err := strconv.ParseInt(w.header.Get("Retry-After"), 10, 64); err == nil {
		details = append(details, &errdetails.RetryInfo{RetryDelay: durationpb.New(time.Duration(seconds) * time.Second)})
	}
	text := p.Title
	if p.Detail != "" {
		text = p.Detail
	}
	s := status.New(codeOf(w.status, p.Code), text)
	if detailed, err := s.WithDetails(details...); err == nil {
		s = detailed
	}
	return s.Err()
}

func codeOf(answer int, code string) codes.Code {
	switch {
	case answer == http.StatusUnauthorized && code == "step-up":
		return codes.FailedPrecondition
	case answer == http.StatusUnauthorized:
		return codes.Unauthenticated
	case answer == http.StatusForbidden:
		return codes.PermissionDenied
	case answer == http.StatusNotFound, answer == http.StatusGone:
		return codes.NotFound
	case answer == http.StatusConflict:
		return codes.Aborted
	case answer == http.StatusTooManyRequests:
		return codes.ResourceExhausted
	case answer == http.StatusServiceUnavailable:
		return codes.Unavailable
	case answer >= 400 && answer < 500:
		return codes.InvalidArgument
	}
	return codes.Internal
}
