package guardtest

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/crmguard/crmguard"
)

// callCase is one duty of every adapter.
type callCase struct {
	name, rule string
	check      func(t testing.TB, start StartCalls) error
}

// expectation is what one call leads to.
type expectation struct {
	name, rule string
	call       Call
	jam        bool // the journal fails
	status     int
	code       string
	need       string
	after      time.Duration
	text       string
	ran        bool
	journal    []string
}

const (
	ruleOnce     = "a permitted act is recorded before its handler runs and answered by it"
	ruleStranger = "a request without a good session is refused before anything is loaded, and is not journalled"
	ruleHidden   = "what may not be seen is answered like what does not exist"
	ruleKnown    = "who may see a record learns that another act on it is refused, and why"
	ruleDown     = "what cannot be decided or recorded is refused"
	ruleError    = "an error of a handler becomes guard's answer and the act's outcome"
	ruleLoader   = "an error of a loader stops the act before its handler"
	ruleOpen     = "an unprotected route has the subject in its context, if there is one, and no act"
)

func expectations() []expectation {
	return []expectation{
		{name: "view", rule: ruleOnce, call: Call{Route: "show", ID: "1", Token: "anna-token"}, status: 200, text: "card 1", ran: true,
			journal: []string{"anna view contacts/1 done "}},
		{name: "act", rule: ruleOnce, call: Call{Route: "reveal", ID: "1", Token: "anna-token"}, status: 200, text: "card 1", ran: true,
			journal: []string{"anna reveal contacts/1 attempted ", "anna reveal contacts/1 done "}},
		{name: "body", rule: ruleOnce, call: Call{Route: "update", ID: "1", Token: "anna-token", Body: strings.Repeat("x", bodyLimit)}, status: 200, text: "65536 bytes", ran: true,
			journal: []string{"anna update contacts/1 attempted ", "anna update contacts/1 done "}},

		{name: "nobody views", rule: ruleStranger, call: Call{Route: "show", ID: "1"}, status: 401, code: "no-session"},
		{name: "nobody acts", rule: ruleStranger, call: Call{Route: "reveal", ID: "1"}, status: 401, code: "no-session"},
		{name: "forged token", rule: ruleStranger, call: Call{Route: "show", ID: "1", Token: "forged"}, status: 401, code: "unknown"},

		{name: "another's record", rule: ruleHidden, call: Call{Route: "show", ID: "2", Token: "anna-token"}, status: 404, code: "not-found",
			journal: []string{"anna view contacts/2 denied rights:no-rule"}},
		{name: "another tenant's record", rule: ruleHidden, call: Call{Route: "show", ID: "3", Token: "anna-token"}, status: 404, code: "not-found",
			journal: []string{"anna view contacts/ denied not-found"}},
		{name: "no record", rule: ruleHidden, call: Call{Route: "show", ID: "999", Token: "anna-token"}, status: 404, code: "not-found",
			journal: []string{"anna view contacts/ denied not-found"}},
		{name: "act on another's record", rule: ruleHidden, call: Call{Route: "delete", ID: "2", Token: "anna-token"}, status: 404, code: "not-found",
			journal: []string{"anna delete contacts/2 denied rights:no-rule"}},
		{name: "another's record in conflict", rule: ruleHidden, call: Call{Route: "reveal", ID: "theirs", Token: "anna-token"}, status: 404, code: "not-found",
			journal: []string{"anna reveal contacts/theirs denied rights:no-rule"}},

		{name: "forbidden act on an own record", rule: ruleKnown, call: Call{Route: "delete", ID: "1", Token: "anna-token"}, status: 403, code: "no-rule",
			journal: []string{"anna delete contacts/1 denied rights:no-rule"}},
		{name: "norm used up", rule: ruleKnown, call: Call{Route: "show", ID: "norm", Token: "anna-token"}, status: 429, code: "norm", after: 90 * time.Second,
			journal: []string{"anna view contacts/norm denied rights:norm"}},
		{name: "closed", rule: ruleKnown, call: Call{Route: "show", ID: "closed", Token: "anna-token"}, status: 503, code: "lockdown", after: time.Minute,
			journal: []string{"anna view contacts/closed denied rights:lockdown"}},
		{name: "step-up", rule: ruleKnown, call: Call{Route: "reveal", ID: "step-up", Token: "anna-token"}, status: 401, code: "step-up", need: "second-factor",
			journal: []string{"anna reveal contacts/step-up denied rights:factor"}},

		{name: "rights down", rule: ruleDown, call: Call{Route: "show", ID: "down", Token: "anna-token"}, status: 503, code: "undecided",
			journal: []string{"anna view contacts/down undecided check-failed"}},
		{name: "sessions down", rule: ruleDown, call: Call{Route: "show", ID: "1", Token: "store-down"}, status: 503, code: "undecided"},
		{name: "journal down at a view", rule: ruleDown, call: Call{Route: "show", ID: "1", Token: "anna-token"}, jam: true, status: 503, code: "undecided"},
		{name: "journal down at an act", rule: ruleDown, call: Call{Route: "reveal", ID: "1", Token: "anna-token"}, jam: true, status: 503, code: "undecided"},

		{name: "failed act", rule: ruleError, call: Call{Route: "fails", ID: "1", Token: "anna-token"}, status: 500, code: "internal", ran: true,
			journal: []string{"anna call contacts/1 attempted ", "anna call contacts/1 failed error"}},
		{name: "failed view", rule: ruleError, call: Call{Route: "show-fails", ID: "1", Token: "anna-token"}, status: 500, code: "internal", ran: true,
			journal: []string{"anna view contacts/1 done ", "anna view contacts/1 failed error"}},
		{name: "client's mistake", rule: ruleError, call: Call{Route: "refuses", ID: "1", Token: "anna-token"}, status: 422, code: "reason", ran: true,
			journal: []string{"anna call contacts/1 attempted ", "anna call contacts/1 failed error"}},
		{name: "erased", rule: ruleError, call: Call{Route: "erased", ID: "1", Token: "anna-token"}, status: 410, code: "erased", ran: true,
			journal: []string{"anna reveal contacts/1 attempted ", "anna reveal contacts/1 failed error"}},
		{name: "denied while it opens", rule: ruleError, call: Call{Route: "opened", ID: "1", Token: "anna-token"}, status: 429, code: "norm", after: time.Hour, ran: true,
			journal: []string{"anna reveal contacts/1 attempted ", "anna reveal contacts/1 failed error"}},
		{name: "long body", rule: ruleError, call: Call{Route: "update", ID: "1", Token: "anna-token", Body: strings.Repeat("x", bodyLimit+1)}, status: 413, code: "too-large", ran: true,
			journal: []string{"anna update contacts/1 attempted ", "anna update contacts/1 failed error"}},

		{name: "conflict", rule: ruleLoader, call: Call{Route: "reveal", ID: "conflict", Token: "anna-token"}, status: 409, code: "changed",
			journal: []string{"anna reveal contacts/conflict failed request"}},
		{name: "broken loader", rule: ruleLoader, call: Call{Route: "show", ID: "broken", Token: "anna-token"}, status: 500, code: "internal"},

		{name: "open route, nobody", rule: ruleOpen, call: Call{Route: "public", ID: "1"}, status: 200, text: "hello ", ran: true},
		{name: "open route, somebody", rule: ruleOpen, call: Call{Route: "public", ID: "1", Token: "anna-token"}, status: 200, text: "hello anna", ran: true},
	}
}

func callCases() []callCase {
	var cases []callCase
	for _, e := range expectations() {
		cases = append(cases, callCase{e.name, e.rule, e.check})
	}
	return append(cases,
		callCase{"absent and hidden alike", ruleHidden, checkAlike},
		callCase{"panic", "a panic is the outcome failed; nothing of it is shown, and the server goes on", checkPanic},
		callCase{"client leaves", "the outcome is recorded although the client has gone", checkLeaving},
		callCase{"at the same time", "each request has its own subject, resource and id, also when the framework uses its memory again", checkTogether},
	)
}

// ask sends one call to a new host.
func ask(t testing.TB, start StartCalls, c Call, jam bool) (*host, Answer, error) {
	h, routes, err := newHost()
	if err != nil {
		return nil, Answer{}, err
	}
	client := start(t, h.guard, routes)
	if jam {
		h.journal.Fail(errors.New(secret))
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	a, err := client(ctx, c)
	return h, a, err
}

func (e expectation) check(t testing.TB, start StartCalls) error {
	h, a, err := ask(t, start, e.call, e.jam)
	if err != nil {
		return fmt.Errorf("no answer: %w", err)
	}
	journal := h.settled(len(e.journal))
	var errs []error
	expect := func(what string, got, want any) {
		if !reflect.DeepEqual(got, want) {
			errs = append(errs, fmt.Errorf("%s is %q, expected %q", what, fmt.Sprint(got), fmt.Sprint(want)))
		}
	}
	expect("status", a.Status, e.status)
	expect("code", a.Code, e.code)
	expect("need", a.Need, e.need)
	expect("retry after", a.RetryAfter, e.after)
	expect("text", a.Text, e.text)
	expect("journal", append([]string{}, journal...), append([]string{}, e.journal...))
	expect("that the handler ran", len(h.sights()) > 0, e.ran)
	if e.code != "" && a.Instance == "" {
		errs = append(errs, errors.New("an error without the id of the request"))
	}
	if strings.Contains(a.Raw, secret) {
		errs = append(errs, fmt.Errorf("the client was told what is the server's: %s", a.Raw))
	}
	for _, s := range h.sights() {
		errs = append(errs, h.checkSight(e.call, s))
	}
	for _, event := range h.journal.Events() {
		if e.code != "" && event.Request != a.Instance {
			errs = append(errs, fmt.Errorf("the client was told of request %q, the journal of %q", a.Instance, event.Request))
		}
	}
	return errors.Join(errs...)
}

// checkSight holds what a handler saw against what it has to see.
func (h *host) checkSight(c Call, s sight) error {
	var errs []error
	if s.id != c.ID {
		errs = append(errs, fmt.Errorf("the handler has the parameter %q instead of %q", s.id, c.ID))
	}
	if s.route == "update" && len(c.Body) <= bodyLimit && s.body != c.Body {
		errs = append(errs, errors.New("the handler does not have the body"))
	}
	if s.request == "" {
		errs = append(errs, errors.New("the handler's context has no id of the request: mounted without Handler, or the wrong context"))
	}
	if c.Token != "" && (s.subject.ID+"-token" != c.Token || len(s.subject.Roles) == 0 || !s.subject.Addr.IsValid()) {
		errs = append(errs, fmt.Errorf("the handler's context has the subject %q: the wrong context", s.subject.ID))
	}
	if s.route == "public" || s.route == "sign-in" || s.route == "sign-out" {
		if s.act != nil {
			errs = append(errs, errors.New("an unprotected handler has an act"))
		}
		return errors.Join(errs...)
	}
	if s.act == nil || s.act.Resource.ID != c.ID || s.act.Action == "" {
		errs = append(errs, fmt.Errorf("the handler's context lacks the act: the wrong context, or not protected: %+v", s.act))
	}
	if len(s.events) != 1 || s.events[0].Request != s.request {
		errs = append(errs, fmt.Errorf("when the handler ran, the journal had %d entries instead of this act's one", len(s.events)))
	}
	return errors.Join(errs...)
}

// varying is what may differ between two equal answers.
var varying = regexp.MustCompile(`(?m)^(Date|date): .*$`)

// plain is an answer without what differs from request to request.
func (a Answer) plain() string {
	raw := varying.ReplaceAllString(a.Raw, "")
	if a.Instance != "" {
		raw = strings.ReplaceAll(raw, a.Instance, "ID")
	}
	return raw
}

func checkAlike(t testing.TB, start StartCalls) error {
	var errs []error
	for _, route := range []string{"show", "reveal", "delete"} {
		var answers []string
		for _, id := range []string{"2", "9", "3", "theirs"} {
			_, a, err := ask(t, start, Call{Route: route, ID: id, Token: "anna-token"}, false)
			if err != nil {
				return err
			}
			if a.Status != 404 {
				errs = append(errs, fmt.Errorf("%s %s: status %d", route, id, a.Status))
			}
			answers = append(answers, a.plain())
		}
		for _, a := range answers[1:] {
			if a != answers[0] {
				errs = append(errs, fmt.Errorf("%s: one answer is\n%s\nand another\n%s", route, answers[0], a))
			}
		}
	}
	return errors.Join(errs...)
}

func checkPanic(t testing.TB, start StartCalls) error {
	h, routes, err := newHost()
	if err != nil {
		return err
	}
	client := start(t, h.guard, routes)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var errs []error
	a, err := client(ctx, Call{Route: "panics", ID: "1", Token: "anna-token"})
	if err == nil && a.Status < 500 { // net/http closes the connection
		errs = append(errs, fmt.Errorf("the answer was %d", a.Status))
	}
	if strings.Contains(a.Raw, secret) {
		errs = append(errs, fmt.Errorf("the client was told what is the server's: %s", a.Raw))
	}
	want := []string{"anna call contacts/1 attempted ", "anna call contacts/1 failed panic"}
	if got := h.settled(2); !reflect.DeepEqual(got, want) {
		errs = append(errs, fmt.Errorf("the journal is %q, expected %q", got, want))
	}
	if a, err := client(ctx, Call{Route: "show", ID: "1", Token: "anna-token"}); err != nil || a.Status != 200 {
		errs = append(errs, fmt.Errorf("the next request: %d %w", a.Status, err))
	}
	return errors.Join(errs...)
}

func checkLeaving(t testing.TB, start StartCalls) error {
	h, routes, err := newHost()
	if err != nil {
		return err
	}
	client := start(t, h.guard, routes)
	ctx, cancel := context.WithCancel(t.Context())
	left := make(chan struct{})
	go func() {
		defer close(left)
		_, _ = client(ctx, Call{Route: "wait", ID: "1", Token: "anna-token"})
	}()
	select {
	case <-h.started:
	case <-time.After(patience):
		cancel()
		return errors.New("the handler does not run")
	}
	cancel()
	<-left
	close(h.release)
	got := h.settled(2)
	if len(got) != 2 || got[0] != "anna export contacts/1 attempted " ||
		!strings.HasPrefix(got[1], "anna export contacts/1 done") && !strings.HasPrefix(got[1], "anna export contacts/1 failed") {
		return fmt.Errorf("the journal is %q", got)
	}
	return nil
}

// checkTogether lets sixteen people open their own records and those of others, and
// looks at what was recorded when all is over.
func checkTogether(t testing.TB, start StartCalls) error {
	const people, rounds = 16, 8
	h, routes, err := newHost()
	if err != nil {
		return err
	}
	client := start(t, h.guard, routes)
	call := func(c Call) (Answer, error) { // each answer has to come, however long all of them take
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		return client(ctx, c)
	}
	errs := make([]error, people)
	var wg sync.WaitGroup
	for i := range people {
		wg.Go(func() {
			me, other := fmt.Sprintf("p%02d", i), fmt.Sprintf("p%02d", (i+1)%people)
			for range rounds {
				own, err := call(Call{Route: "reveal", ID: "of-" + me, Token: me + "-token"})
				if err != nil || own.Status != 200 || own.Text != "card of-"+me {
					errs[i] = fmt.Errorf("%s was answered %d %q %w", me, own.Status, own.Text, err)
					return
				}
				theirs, err := call(Call{Route: "show", ID: "of-" + other, Token: me + "-token"})
				if err != nil || theirs.Status != 404 {
					errs[i] = fmt.Errorf("%s was answered %d for another's record %w", me, theirs.Status, err)
					return
				}
			}
		})
	}
	wg.Wait()
	h.settled(people * rounds * 3)
	requests := map[string]int{}
	entries := map[string]int{}
	for _, e := range h.journal.Events() {
		requests[e.Request]++
		entries[fmt.Sprintf("%s %s %s of %s", e.Subject.ID, e.Outcome, e.Resource.ID, e.Resource.Owner)]++
		if e.Action == crmguard.Reveal && e.Resource.Owner != e.Subject.ID {
			errs = append(errs, fmt.Errorf("the journal has %s on a record of %s", e.Subject.ID, e.Resource.Owner))
		}
	}
	if len(requests) != people*rounds*2 {
		errs = append(errs, fmt.Errorf("%d ids for %d requests", len(requests), people*rounds*2))
	}
	for i := range people {
		me, other := fmt.Sprintf("p%02d", i), fmt.Sprintf("p%02d", (i+1)%people)
		for _, want := range []string{me + " attempted of-" + me + " of " + me, me + " done of-" + me + " of " + me, me + " denied of-" + other + " of " + other} {
			if entries[want] != rounds {
				errs = append(errs, fmt.Errorf("the journal has %q %d times instead of %d", want, entries[want], rounds))
			}
		}
	}
	return errors.Join(errs...)
}
