package calltoken

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/crmguardtest"
	"github.com/crmguard/crmguard/internal/racetest"
)

func order() Order {
	return Order{Tenant: "acme", CallID: goldenID, Leg: "101", Number: Number{newSecret(e17)}, Expires: noon.Add(time.Minute)}
}

// wire is an order as it is posted.
func wire(t testing.TB) (http.Header, []byte) {
	t.Helper()
	o := order()
	body, err := o.encode()
	require.NoError(t, err)
	h := http.Header{}
	testKey(t).sign(h, orderDomain, o.CallID, body, noon)
	return h, body
}

// exchange is a Receiver behind a real HTTP server, and what it dials.
type exchange struct {
	*httptest.Server
	line   *line
	calls  Store
	logged *syncBuffer
	clock  *crmguardtest.Clock
}

func newExchange(t *testing.T) *exchange {
	t.Helper()
	e := &exchange{line: &line{}, calls: NewMemory(), logged: &syncBuffer{}, clock: crmguardtest.NewClock(noon)}
	e.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { e.receiver(t).ServeHTTP(w, r) }))
	t.Cleanup(e.Close)
	return e
}

func (e *exchange) receiver(t require.TestingT) *Receiver {
	r := newRig()
	r.logged = e.logged
	receiver, err := NewReceiver(keyOf(7), e.calls, e.line, &ReceiverOptions{Clock: e.clock.Now, Logger: r.logger()})
	require.NoError(t, err)
	return receiver
}

func sender(t testing.TB, address string, transport http.RoundTripper) *Sender {
	t.Helper()
	s, err := NewSender(address, testKey(t), &SenderOptions{Transport: transport, Clock: func() time.Time { return noon }})
	require.NoError(t, err)
	return s
}

func TestSenderToReceiver(t *testing.T) {
	e := newExchange(t)
	s := sender(t, e.URL, nil)
	for range 3 {
		require.NoError(t, s.Dial(t.Context(), order()))
	}
	require.Equal(t, []Order{order()}, e.line.dialled(), "the same call is dialled once")
	require.Empty(t, e.logged.String())
}

func TestReceiverCannotDial(t *testing.T) {
	e := newExchange(t)
	e.line.err = errors.New("no trunk to " + e17)
	err := sender(t, e.URL, nil).Dial(t.Context(), order())
	require.ErrorContains(t, err, "could not make the call")
	require.ErrorContains(t, sender(t, e.URL, nil).Dial(t.Context(), order()), "could not make the call", "nor is it tried again")
	require.Len(t, e.line.dialled(), 1)
	require.False(t, namesNumber(e.logged.String()+err.Error()), e.logged.String())
	require.Contains(t, e.logged.String(), "withheld")

	e.calls = down{e.calls}
	o := order()
	o.CallID = newID()
	require.ErrorContains(t, sender(t, e.URL, nil).Dial(t.Context(), o), "answered 503")
	require.Len(t, e.line.dialled(), 1)
}

// forgeries are what an exchange must not take. Each changes a genuine request.
var forgeries = map[string]func(h http.Header, body *[]byte){
	"the body":               func(_ http.Header, body *[]byte) { *body = bytes.Replace(*body, []byte("101"), []byte("102"), 1) },
	"the number":             func(_ http.Header, body *[]byte) { *body = bytes.Replace(*body, []byte("916"), []byte("917"), 1) },
	"a space":                func(_ http.Header, body *[]byte) { *body = append(*body, ' ') },
	"the timestamp":          func(h http.Header, _ *[]byte) { h.Set(HeaderTimestamp, strconv.FormatInt(noon.Unix()+1, 10)) },
	"the timestamp's text":   func(h http.Header, _ *[]byte) { h.Set(HeaderTimestamp, "+"+h.Get(HeaderTimestamp)) },
	"the call's id":          func(h http.Header, _ *[]byte) { h.Set(HeaderCall, strings.ToLower(goldenID)) },
	"a byte across":          func(h http.Header, body *[]byte) { h.Set(HeaderCall, goldenID+"{"); *body = (*body)[1:] },
	"the signature":          func(h http.Header, _ *[]byte) { h.Set(HeaderSignature, "v1="+strings.Repeat("0", 64)) },
	"the signature's length": func(h http.Header, _ *[]byte) { h.Set(HeaderSignature, h.Get(HeaderSignature)[:35]) },
	"the version":            func(h http.Header, _ *[]byte) { h.Set(HeaderSignature, "v2"+h.Get(HeaderSignature)[2:]) },
	"no signature":           func(h http.Header, _ *[]byte) { h.Del(HeaderSignature) },
	"no timestamp":           func(h http.Header, _ *[]byte) { h.Del(HeaderTimestamp) },
	"no id":                  func(h http.Header, _ *[]byte) { h.Del(HeaderCall) },
	"two ids":                func(h http.Header, _ *[]byte) { h.Add(HeaderCall, newID()) },
	"two signatures":         func(h http.Header, _ *[]byte) { h.Add(HeaderSignature, h.Get(HeaderSignature)) },
	"another key": func(h http.Header, body *[]byte) {
		keyOf(8).sign(h, orderDomain, goldenID, *body, noon)
	},
	"a report's signature": func(h http.Header, body *[]byte) {
		keyOf(7).sign(h, reportDomain, goldenID, *body, noon)
	},
	"too old": func(h http.Header, body *[]byte) {
		keyOf(7).sign(h, orderDomain, goldenID, *body, noon.Add(-maxAge-time.Second))
	},
	"too young": func(h http.Header, body *[]byte) {
		keyOf(7).sign(h, orderDomain, goldenID, *body, noon.Add(maxAge+time.Second))
	},
}

func TestVerifyNoticesForgeries(t *testing.T) {
	for name, forge := range forgeries {
		h, body := wire(t)
		o, err := Verify(testKey(t), h, body, noon)
		require.NoError(t, err)
		require.Equal(t, order(), o)
		forge(h, &body)
		_, err = Verify(testKey(t), h, body, noon)
		require.ErrorIs(t, err, ErrSignature, name)
		require.False(t, namesNumber(err.Error()))
	}
	// The planted fault: a signature over parts without their lengths takes a byte
	// that moved from the body into the id.
	bare := func(parts ...string) string { return strings.Join(parts, "") }
	require.Equal(t, bare(goldenID, "{}"), bare(goldenID+"{", "}"))
	key := testKey(t)
	require.NotEqual(t, key.mac(orderDomain, "1", goldenID, []byte("{}")), key.mac(orderDomain, "1", goldenID+"{", []byte("}")))
}

// What is signed is not yet an order.
func TestVerifyNoticesWhatIsNoOrder(t *testing.T) {
	_, good := wire(t)
	sign := func(text string) (http.Header, []byte) {
		h := http.Header{}
		testKey(t).sign(h, orderDomain, goldenID, []byte(text), noon)
		return h, []byte(text)
	}
	replace := func(from, to string) string {
		changed := strings.Replace(string(good), from, to, 1)
		require.NotEqual(t, string(good), changed, from)
		return changed
	}
	for _, text := range []string{
		"", "null", "[]", "{}", string(good) + string(good), string(good[:len(good)-1]),
		replace(`"version":1`, `"version":2`), replace(`"acme"`, `""`), replace(goldenID, newID()), replace(`"101"`, `"*72"`),
		replace(e17, "79161234567"), replace(e17, "+7916,,*21"), replace(e17, "+7"), replace(`"leg"`, `"display":"x","leg"`),
		replace("12:01:00", "12:00:00"), replace("12:01:00", "12:11:00"), replace("2026-03-02T12:01:00Z", "0001-01-01T00:00:00Z"),
	} {
		h, body := sign(text)
		_, err := Verify(testKey(t), h, body, noon)
		require.Error(t, err, text)
		require.NotErrorIs(t, err, ErrSignature, text)
		require.False(t, namesNumber(err.Error()))
	}
	h, body := sign(string(good) + strings.Repeat(" ", maxMessage))
	_, err := Verify(testKey(t), h, body, noon)
	require.ErrorIs(t, err, ErrSignature, "too long")
}

func TestReports(t *testing.T) {
	key := testKey(t)
	h := http.Header{}
	body, err := SignReport(key, h, Report{goldenID, Ended}, noon)
	require.NoError(t, err)
	r, err := VerifyReport(key, h, body, noon.Add(maxAge))
	require.NoError(t, err)
	require.Equal(t, Report{goldenID, Ended}, r)
	for name, forge := range forgeries {
		if name == "the number" || name == "a report's signature" || name == "another key" || strings.HasPrefix(name, "too ") || name == "the body" {
			continue // of orders
		}
		forged, text := h.Clone(), bytes.Clone(body)
		forge(forged, &text)
		_, err = VerifyReport(key, forged, text, noon)
		require.ErrorIs(t, err, ErrSignature, name)
	}
	_, err = VerifyReport(key, h, body, noon.Add(maxAge+time.Second))
	require.ErrorIs(t, err, ErrSignature)
	orderHeader, orderBody := wire(t)
	_, err = VerifyReport(key, orderHeader, orderBody, noon)
	require.ErrorIs(t, err, ErrSignature, "an order sent back is no report")
	_, err = Verify(key, h, body, noon)
	require.ErrorIs(t, err, ErrSignature)
	for _, bad := range []Report{{"x", Ended}, {goldenID, 0}, {goldenID, Ringing}} {
		_, err = SignReport(key, h, bad, noon)
		require.Error(t, err)
	}
	for _, text := range []string{`{}`, `{"call":"` + goldenID + `"}`, `{"call":"` + goldenID + `","state":"ringing"}`, `{"call":"` + newID() + `","state":"ended"}`, `{"call":"` + goldenID + `","state":"ended","number":"+7"}`} {
		key.sign(h, reportDomain, goldenID, []byte(text), noon)
		_, err = VerifyReport(key, h, []byte(text), noon)
		require.ErrorIs(t, err, errReport, text)
	}
}

func TestReceiverAnswers(t *testing.T) {
	e := newExchange(t)
	post := func(method string, h http.Header, body []byte) int {
		req := httptest.NewRequest(method, "/", bytes.NewReader(body))
		req.Header = h
		w := httptest.NewRecorder()
		e.receiver(t).ServeHTTP(w, req)
		require.Equal(t, "no-store", w.Header().Get("Cache-Control"))
		require.False(t, namesNumber(w.Body.String()))
		return w.Code
	}
	for name, forge := range forgeries {
		h, body := wire(t)
		forge(h, &body)
		require.Equal(t, http.StatusUnauthorized, post(http.MethodPost, h, body), name)
	}
	h, body := wire(t)
	require.Equal(t, http.StatusMethodNotAllowed, post(http.MethodGet, h, body))
	require.Equal(t, http.StatusBadRequest, post(http.MethodPost, h, append(body, bytes.Repeat([]byte(" "), maxMessage)...)))
	late := []byte(strings.Replace(string(body), "12:01", "11:59", 1))
	testKey(t).sign(h, orderDomain, goldenID, late, noon)
	require.Equal(t, http.StatusBadRequest, post(http.MethodPost, h, late))
	require.Empty(t, e.line.dialled())

	h, body = wire(t)
	require.Equal(t, http.StatusOK, post(http.MethodPost, h, body))
	require.Equal(t, http.StatusOK, post(http.MethodPost, h, body), "a replay is answered")
	require.Len(t, e.line.dialled(), 1)
}

// receiveRace sends one order many times at once.
func receiveRace(t require.TestingT, e *exchange, h http.Header, body []byte) {
	receiver := e.receiver(t)
	racetest.Run(t, func(int) (int, error) {
		req := httptest.NewRequest(http.MethodPost, "/", bytes.NewReader(body))
		req.Header = h.Clone()
		w := httptest.NewRecorder()
		receiver.ServeHTTP(w, req)
		if w.Code != http.StatusOK {
			return w.Code, errors.New(w.Body.String())
		}
		return w.Code, nil
	})
	require.Len(t, e.line.dialled(), 1)
}

func TestReceiverRace(t *testing.T) {
	h, body := wire(t)
	receiveRace(t, newExchange(t), h, body)
	require.False(t, racetest.Passes(func(inner require.TestingT) {
		e := newExchange(t)
		e.calls = forgetful{e.calls} // the planted fault
		receiveRace(inner, e, h, body)
	}))
}

// Another host that an exchange redirects to learns nothing.
func TestSenderFollowsNoRedirect(t *testing.T) {
	var reached atomic.Bool
	thief := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached.Store(true) }))
	defer thief.Close()
	for _, status := range []int{301, 302, 303, 307, 308} {
		e := httptest.NewServer(http.RedirectHandler(thief.URL, status))
		err := sender(t, e.URL, nil).Dial(t.Context(), order())
		require.ErrorContains(t, err, "answered "+strconv.Itoa(status))
		require.False(t, reached.Load())
		// The planted fault: a client as it comes does follow, except where it would
		// have to repeat the body, which it is not given.
		careless := sender(t, e.URL, nil)
		careless.client.CheckRedirect = nil
		require.Error(t, careless.Dial(t.Context(), order()))
		require.Equal(t, status <= http.StatusSeeOther, reached.Swap(false))
		e.Close()
	}
}

func TestNewSender(t *testing.T) {
	key := testKey(t)
	for _, address := range []string{"https://pbx.example/orders", "http://127.0.0.1:8089/x", "http://[::1]/", "http://127.8.9.1", "http://[::ffff:127.0.0.1]/"} {
		_, err := NewSender(address, key, nil)
		require.NoError(t, err, address)
	}
	for _, address := range []string{
		"", "pbx", "http://pbx.example/orders", "http://localhost/", "http://192.0.2.1/", "http://127.0.0.1.example/", "http://[::ffff:192.0.2.1]/",
		"ftp://127.0.0.1/", "https://", "https://user:secret@pbx.example/", "https://pbx.example/#x", "http://0.0.0.0/", "://", "http://127.1/",
	} {
		_, err := NewSender(address, key, nil)
		require.Error(t, err, address)
		require.NotContains(t, err.Error(), "secret")
	}
	_, err := NewSender("https://pbx.example", nil, nil)
	require.Error(t, err)
	_, err = NewSender("https://pbx.example", key, &SenderOptions{Timeout: -1})
	require.Error(t, err)
	_, err = NewSender("https://pbx.example", key, &SenderOptions{Timeout: time.Hour})
	require.Error(t, err)
	_, err = NewKey(make([]byte, 31))
	require.Error(t, err)
	_, err = NewReceiver(key, NewMemory(), nil, nil)
	require.Error(t, err)
	_, err = NewReceiver(key, NewMemory(), &line{}, nil)
	require.NoError(t, err)
	s, err := NewSender("https://pbx.example", key, nil)
	require.NoError(t, err)
	require.Nil(t, s.client.Transport.(*http.Transport).Proxy, "no proxy learns numbers")
	require.Equal(t, defaultTimeout, s.client.Timeout)
	require.ErrorIs(t, s.Dial(t.Context(), Order{}), errOrder)
}

// scripted answers each attempt as the script says.
type scripted struct {
	answers []func(r *http.Request) (*http.Response, error)
	ids     []string
	bodies  []string
}

func (s *scripted) RoundTrip(r *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	s.ids, s.bodies = append(s.ids, r.Header.Get(HeaderCall)), append(s.bodies, string(body))
	answer := s.answers[min(len(s.ids), len(s.answers))-1]
	return answer(r)
}

func status(code int, body string) func(*http.Request) (*http.Response, error) {
	return func(*http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: code, Body: io.NopCloser(strings.NewReader(body)), Header: http.Header{}}, nil
	}
}

func broken(text string) func(*http.Request) (*http.Response, error) {
	return func(*http.Request) (*http.Response, error) { return nil, errors.New(text) }
}

func TestSenderAttempts(t *testing.T) {
	const ringing, failed = `{"call":"` + goldenID + `","state":"ringing"}`, `{"call":"` + goldenID + `","state":"failed"}`
	type answers = []func(r *http.Request) (*http.Response, error)
	for name, tc := range map[string]struct {
		answers  answers
		attempts int
		want     string // of the error; empty: none
	}{
		"at once":             {answers{status(200, ringing)}, 1, ""},
		"after a pause":       {answers{broken("reset"), status(503, ""), status(200, ringing)}, 3, ""},
		"never":               {answers{broken("reset")}, 3, "did not answer: reset"},
		"refused":             {answers{status(401, "")}, 1, "answered 401"},
		"another success":     {answers{status(204, "")}, 1, "answered 204"},
		"server error":        {answers{status(500, "")}, 1, "answered 500"},
		"failed":              {answers{status(200, failed)}, 1, "could not make the call"},
		"another call":        {answers{status(200, strings.Replace(ringing, goldenID, newID(), 1))}, 1, "no report"},
		"no report":           {answers{status(200, "ok")}, 1, "no report"},
		"too long":            {answers{status(200, ringing+strings.Repeat(" ", maxMessage))}, 1, "no report"},
		"names the number":    {answers{broken("cannot send " + e17)}, 3, "withheld"},
		"says it in the body": {answers{status(200, e17)}, 1, "no report"},
	} {
		t.Run(name, func(t *testing.T) {
			script := &scripted{answers: tc.answers}
			err := sender(t, "https://pbx.example/orders?key=hidden", script).Dial(t.Context(), order())
			require.Len(t, script.ids, tc.attempts)
			for i := range script.ids {
				require.Equal(t, goldenID, script.ids[i])
				require.Equal(t, script.bodies[0], script.bodies[i], "the same order each time")
			}
			if tc.want == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, tc.want)
			require.False(t, namesNumber(err.Error()))
			require.NotContains(t, err.Error(), "hidden")
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	script := &scripted{answers: answers{func(*http.Request) (*http.Response, error) { cancel(); return nil, context.Canceled }}}
	require.ErrorIs(t, sender(t, "https://pbx.example", script).Dial(ctx, order()), context.Canceled)
	require.Len(t, script.ids, 1)
}

// A key that NewKey did not make signs and verifies nothing.
func TestZeroKey(t *testing.T) {
	for _, key := range []*Key{nil, {}} {
		_, err := NewSender("https://pbx.example", key, nil)
		require.Error(t, err)
		_, err = NewReceiver(key, NewMemory(), &line{}, nil)
		require.Error(t, err)
		h := http.Header{}
		_, err = SignReport(key, h, Report{CallID: "c", State: Ended}, time.Now())
		require.Error(t, err)
		body := []byte(`{"call_id":"c","state":"ended"}`)
		(&Key{}).sign(h, reportDomain, "c", body, time.Now())
		_, err = VerifyReport(key, h, body, time.Now())
		require.ErrorIs(t, err, ErrSignature)
	}
}
