package signin

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/crmguard/crmguard"
)

// stepUp is the reason of its events; that of a refusal follows a colon.
const stepUp = "step-up"

// StepUp proves a code of an app anew in the session of token, and returns the
// token that takes its place: the session then has [crmguard.AssuranceSecondFactor]
// as of now. Only codes of apps do that: a recovery code proves less than a
// password, and is not used up here.
//
// The client's address is that of the subject in ctx, where Handler of package
// guard puts it; with Options.Addresses it must be there.
//
// It is the person's own session, so that they are told what is wrong, by a
// *[crmguard.Denial] with one of these codes, or of the addresses or the session:
//   - "no-factor", Forbidden: they have no app.
//   - "weaker", StepUp: the session has more than a code of an app proves, and only
//     a proof of that strength, which Need names, makes it fresh. No code is used up.
//   - "refused", StepUp: the code is not good, for whatever reason.
//   - "paused", Exhausted: too many codes were not good.
//
// The token then stays as good as it was. A step-up that could not be recorded ends
// the session.
func (d *Door) StepUp(ctx context.Context, token, code, request string) (newToken string, err error) {
	started := time.Now()
	newToken, err = d.stepUp(ctx, token, code, request)
	if _, denied := errors.AsType[*crmguard.Denial](err); denied {
		pause(ctx, d.refusalTime-time.Since(started))
		return "", err
	}
	if err != nil {
		return "", fmt.Errorf("signin: step-up: %w", err)
	}
	return newToken, nil
}

func (d *Door) stepUp(ctx context.Context, token, code, request string) (string, error) {
	s, err := d.sessions.Authenticate(ctx, token)
	if err != nil {
		return "", err
	}
	if acts, ok := crmguard.SubjectFrom(ctx); ok {
		if acts.Tenant != s.Tenant || acts.ID != s.ID || acts.Session != s.Session {
			return "", errors.New("the token is not of the session that asks")
		}
		s.Addr = acts.Addr
	}
	e := crmguard.Event{
		Time: d.o.Clock(), Subject: s, Action: crmguard.SignIn, Reason: stepUp, Request: trim(request),
		Resource: crmguard.Resource{Tenant: s.Tenant, Kind: resourceKind, ID: s.Session, Owner: s.ID},
	}
	raised, reason, err := d.raise(ctx, e, token, code)
	if err == nil && reason == "" {
		err = d.recordDone(ctx, e, raised)
	}
	if denial, denied := errors.AsType[*crmguard.Denial](err); denied && denial != nil && reason == "" {
		reason = denial.By + ":" + denial.Code
	}
	switch {
	case reason != "":
		d.recordNo(ctx, e, crmguard.Denied, stepUp+":"+reason)
	case err != nil:
		d.recordNo(ctx, e, crmguard.Undecided, stepUp+":"+undecided)
	}
	if err != nil {
		return "", err
	}
	return raised, nil
}

// raise proves a code of the person of e anew and notes so in the session. An error
// may come with a reason for the journal.
func (d *Door) raise(ctx context.Context, e crmguard.Event, token, code string) (raised, reason string, err error) {
	s := e.Subject
	if d.o.Addresses != nil {
		if !s.Addr.IsValid() {
			return "", "", errors.New("nobody told the client's address: mount it inside guard.Handler")
		}
		if err := d.o.Addresses.Check(ctx, s, crmguard.SignIn, e.Resource); err != nil {
			return "", "", err
		}
	}
	has, err := d.has(ctx, s)
	switch {
	case err != nil:
		return "", "", err
	case !has:
		return "", "", &crmguard.Denial{By: "signin", Code: "no-factor"}
	case s.Assurance > crmguard.AssuranceSecondFactor:
		return "", "", &crmguard.Denial{By: "signin", Code: "weaker", Status: crmguard.StepUp, Need: s.Assurance}
	case isBlank(code):
		return "", codeMissing, refusedStepUp()
	}
	reason, wait, err := try(counted{{d.codes, codeKey("session", s.Session)}}, e.Time, func() error {
		return d.o.Factors.Verify(ctx, s.Tenant, s.ID, code)
	})
	switch {
	case err != nil:
		return "", "", err
	case wait > 0:
		return "", reason, &crmguard.Denial{By: "signin", Code: "paused", Status: crmguard.Exhausted, RetryAfter: wait}
	case reason != "":
		return "", reason, refusedStepUp()
	}
	raised, err = d.sessions.Raise(ctx, token, crmguard.AssuranceSecondFactor)
	return raised, "", err
}

func refusedStepUp() error {
	return &crmguard.Denial{By: "signin", Code: "refused", Status: crmguard.StepUp, Need: crmguard.AssuranceSecondFactor}
}
