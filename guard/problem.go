package guard

import (
	"context"
	"encoding/json"
	"errors"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/crmguard/crmguard"
)

// Problem is what a client is told of an error, in the form of RFC 9457. A
// handler returns a *Problem for what the client did wrong, such as a form that
// does not add up (422) or a record that somebody else has changed (409).
type Problem struct {
	Type     string `json:"type"` // about:blank: Title and Status say it all
	Title    string `json:"title"`
	Status   int    `json:"status"`
	Detail   string `json:"detail,omitempty"`
	Code     string `json:"code,omitempty"`     // stable word for programs
	Instance string `json:"instance,omitempty"` // id of the request, to be found in the journal

	Need       crmguard.Assurance `json:"need,omitzero"` // with code step-up: what to prove, at most MaxAge ago
	MaxAge     time.Duration      `json:"-"`
	RetryAfter time.Duration      `json:"-"` // sent as a header
}

// Error returns status and title.
func (p *Problem) Error() string { return "guard: " + strconv.Itoa(p.Status) + " " + p.Title }

// WriteError answers r with what err means to the client: a page where the
// client accepts HTML and Options.Page is set, application/problem+json
// otherwise. Details of a denial and of errors stay on the server.
func (g *Guard) WriteError(w http.ResponseWriter, r *http.Request, err error) {
	p := problemOf(err)
	p.Instance = RequestID(r.Context())
	decided := denialOf(err) != nil && !errors.Is(err, errUndecided)
	if p.Status >= http.StatusInternalServerError && !decided && !errors.Is(err, context.Canceled) {
		g.o.Logger.ErrorContext(r.Context(), "guard: request failed", "request", p.Instance, "status", p.Status, "error", err)
	} else if errors.Is(err, errAddress) {
		g.o.Logger.WarnContext(r.Context(), "guard: request refused", "request", p.Instance, "peer", r.RemoteAddr, "error", err)
	}
	if p.RetryAfter > 0 {
		seconds := int64((p.RetryAfter + time.Second - 1) / time.Second)
		w.Header().Set("Retry-After", strconv.FormatInt(seconds, 10))
	}
	w.Header().Set("Cache-Control", "no-store")
	if p.Status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", `Session realm="crm"`) // RFC 9110 wants a challenge; ours is the sign-in page
	}
	if g.o.Page != nil && acceptsHTML(r) {
		g.o.Page(w, r, p)
		return
	}
	body, err := json.Marshal(p)
	if err != nil { // cannot happen: Problem is strings and numbers
		http.Error(w, http.StatusText(p.Status), p.Status)
		return
	}
	w.Header().Set("Content-Type", "application/problem+json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(p.Status)
	_, _ = w.Write(body) // whoever has gone does not read it
}

func problemOf(err error) Problem {
	if p, ok := errors.AsType[*Problem](err); ok {
		copied := *p
		if copied.Type == "" {
			copied.Type = "about:blank"
		}
		if copied.Status < 400 || copied.Status > 599 {
			copied.Status = http.StatusInternalServerError
		}
		return copied
	}
	p := Problem{Type: "about:blank", Status: http.StatusInternalServerError, Code: "internal"}
	switch denial := denialOf(err); {
	case errors.Is(err, errAddress):
		p.Status, p.Code = http.StatusBadRequest, "address"
		p.Detail = "It is not known where the request comes from: the proxy before the server did not say it in a form that can be read."
	case errors.Is(err, errUndecided), errors.Is(err, context.Canceled):
		p.Status, p.Code = http.StatusServiceUnavailable, "undecided"
	case errors.Is(err, ErrNotFound):
		p.Status, p.Code = http.StatusNotFound, "not-found"
	case errors.Is(err, crmguard.ErrErased):
		p.Status, p.Code = http.StatusGone, "erased"
	case denial != nil:
		p.Status, p.Code = statusOf(denial), denial.Code
		p.RetryAfter = denial.RetryAfter
		if denial.Status == crmguard.StepUp {
			p.Code, p.Need, p.MaxAge = "step-up", denial.Need, denial.MaxAge
		}
	default:
		if tooLarge, ok := errors.AsType[*http.MaxBytesError](err); ok {
			p.Status, p.Code = http.StatusRequestEntityTooLarge, "too-large"
			p.Detail = "At most " + strconv.FormatInt(tooLarge.Limit, 10) + " bytes are accepted."
		}
	}
	p.Title = http.StatusText(p.Status)
	return p
}

func statusOf(d *crmguard.Denial) int {
	switch d.Status {
	case crmguard.Unauthenticated, crmguard.StepUp:
		return http.StatusUnauthorized
	case crmguard.Exhausted:
		return http.StatusTooManyRequests
	case crmguard.Closed:
		return http.StatusServiceUnavailable
	}
	return http.StatusForbidden
}

// acceptsHTML reports whether the client names HTML among what it accepts. Only
// browsers do; */* is a program.
func acceptsHTML(r *http.Request) bool {
	for _, header := range r.Header.Values("Accept") {
		for part := range strings.SplitSeq(header, ",") {
			kind, params, err := mime.ParseMediaType(part)
			if err == nil && kind == "text/html" && params["q"] != "0" {
				return true
			}
		}
	}
	return false
}
