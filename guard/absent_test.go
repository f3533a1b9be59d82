package guard_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/crmguardtest"
	"github.com/crmguard/crmguard/guard"
)

func TestUnseenLooksLikeAbsent(t *testing.T) {
	c := newCRM(t, nil)
	c.mux.Handle("GET /contacts/{id}", c.guard.Protect(crmguard.View, contactOf, show))
	c.mux.Handle("POST /contacts/{id}/phone", c.guard.ProtectAct(crmguard.Reveal, contactOf, show))
	c.mux.Handle("POST /contacts/{id}/delete", c.guard.ProtectAct(crmguard.Delete, contactOf, show))

	withoutID := func(w *httptest.ResponseRecorder) string {
		var p guard.Problem
		require.NoError(t, json.Unmarshal(w.Body.Bytes(), &p))
		require.NotEmpty(t, p.Instance)
		return strings.ReplaceAll(w.Body.String(), p.Instance, "") + fmt.Sprint(w.Code, w.Header())
	}
	foreign := withoutID(c.request("GET", "/contacts/2", "anna-token"))
	absent := withoutID(c.request("GET", "/contacts/999", "anna-token"))
	require.Equal(t, absent, foreign)
	require.Contains(t, absent, `"status":404`)
	require.Equal(t, absent, withoutID(c.request("POST", "/contacts/2/phone", "anna-token")), "nor does another act tell")
	require.Equal(t, absent, withoutID(c.request("POST", "/contacts/999/phone", "anna-token")))

	require.Equal(t, http.StatusForbidden, c.request("POST", "/contacts/1/delete", "anna-token").Code,
		"who may see the record learns that the act is forbidden")
	require.Equal(t, []string{
		"view contacts/2 denied rights:no-rule",
		"view contacts/ denied not-found",
		"reveal contacts/2 denied rights:no-rule",
		"reveal contacts/ denied not-found",
		"delete contacts/1 denied rights:no-rule",
	}, c.outcomes(), "both leave one entry")
}

// Whatever else a check answers, and whatever is wrong with the request, a foreign
// record is answered like an absent one.
func TestUnseenLooksLikeAbsentInEveryCase(t *testing.T) {
	anyRecord := func(r *http.Request) (crmguard.Resource, error) { // a loader over all tenants
		resource, err := contactOf(r)
		if resource.ID == "2" {
			resource.Tenant = "other"
		}
		return resource, err
	}
	badForm := func(r *http.Request) (crmguard.Resource, error) {
		resource, err := contactOf(r)
		if err == nil {
			err = &guard.Problem{Status: 422, Title: "A reason is needed"}
		}
		return resource, err
	}
	status := func(d crmguard.DenialStatus) crmguard.Checker {
		return crmguard.CheckerFunc(func(context.Context, crmguard.Subject, crmguard.Action, crmguard.Resource) error {
			return &crmguard.Denial{By: "test", Code: "x", Status: d}
		})
	}
	for _, tt := range []struct {
		name      string
		addresses crmguard.Checker
		load      guard.Loader
		down      error
		want      int
	}{
		{"foreign tenant", nil, anyRecord, nil, 404},
		{"bad form", nil, badForm, nil, 404},
		{"step up", status(crmguard.StepUp), contactOf, nil, 401},
		{"exhausted", status(crmguard.Exhausted), contactOf, nil, 429},
		{"closed", status(crmguard.Closed), contactOf, nil, 503},
		{"address", status(crmguard.Forbidden), contactOf, nil, 404},
		{"rights down", nil, contactOf, errors.New("down"), 503},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := newCRM(t, &guard.Options{Addresses: tt.addresses})
			c.rights.err = tt.down
			c.mux.Handle("POST /contacts/{id}/phone", c.guard.ProtectAct(crmguard.Reveal, tt.load, show))
			foreign := c.request("POST", "/contacts/2/phone", "anna-token")
			asked := c.rights.asked
			absent := c.request("POST", "/contacts/999/phone", "anna-token")
			require.Equal(t, tt.want, foreign.Code)
			require.Equal(t, foreign.Code, absent.Code)
			require.Len(t, c.journal.Events(), 2)
			require.Equal(t, 2*asked, c.rights.asked, "at the same cost")
		})
	}
}

// Who may do everything learns nothing of what is hidden from them all the same, by
// being asked for a proof: not of another tenant's record, nor of one that a rule denies.
func TestNoProofIsAskedForTheAbsent(t *testing.T) {
	stale := crmguard.CheckerFunc(func(context.Context, crmguard.Subject, crmguard.Action, crmguard.Resource) error {
		return &crmguard.Denial{By: "mfa", Code: "stale", Status: crmguard.StepUp}
	})
	allButOne := crmguard.CheckerFunc(func(_ context.Context, _ crmguard.Subject, _ crmguard.Action, r crmguard.Resource) error {
		if r.ID == "hidden" {
			return &crmguard.Denial{By: "rights", Code: "deny-rule"}
		}
		return nil
	})
	c := newCRM(t, nil)
	g, err := guard.New(sessions{"anna-token": person("anna")}, allButOne, c.dir, c.journal, &guard.Options{StepUp: stale})
	require.NoError(t, err)
	c.server = g.Handler(c.mux)
	c.mux.Handle("POST /contacts/{id}/phone", g.ProtectAct(crmguard.Reveal, func(r *http.Request) (crmguard.Resource, error) {
		resource := crmguard.Resource{Tenant: "acme", Kind: "contacts", ID: r.PathValue("id")}
		switch resource.ID {
		case "absent":
			return resource, guard.ErrNotFound
		case "foreign":
			resource.Tenant = "other"
		case "foreign-form":
			resource.Tenant, resource.ID = "other", "foreign"
			return resource, &guard.Problem{Status: 422, Title: "A reason is needed"}
		case "nobodys": // the loader forgot
			resource.Tenant = ""
		}
		return resource, nil
	}, show))
	for id, want := range map[string]int{"absent": 404, "foreign": 404, "hidden": 404, "seen": 401, "foreign-form": 404, "nobodys": 500} {
		require.Equal(t, want, c.request("POST", "/contacts/"+id+"/phone", "anna-token").Code, id)
	}
	ctx := crmguard.WithSubject(t.Context(), person("anna"))
	foreign := crmguard.Resource{Tenant: "other", Kind: "contacts", ID: "foreign"}
	require.ErrorIs(t, g.Do(ctx, crmguard.Reveal, foreign, func(context.Context) error { return nil }), guard.ErrNotFound)
	for _, e := range c.journal.Events() {
		require.NotEqual(t, "foreign", e.Resource.ID)
		require.Equal(t, "acme", e.Resource.Tenant)
	}
}

// Also what is wrong with a request about a whole kind is told to those only who may
// do the act: "this number is a client's already" is an answer.
func TestProblemWithoutARecordIsToldToWhoMay(t *testing.T) {
	c := newCRM(t, nil)
	c.rights.own[crmguard.Create] = true
	c.mux.Handle("POST /contacts", c.guard.ProtectAct(crmguard.Create, func(r *http.Request) (crmguard.Resource, error) {
		return crmguard.Resource{Tenant: "acme", Kind: "contacts", Owner: r.URL.Query().Get("owner")}, &guard.Problem{Status: 409, Title: "A client has this number"}
	}, show))
	require.Equal(t, 409, c.request("POST", "/contacts?owner=anna", "anna-token").Code)
	require.Equal(t, 403, c.request("POST", "/contacts?owner=boris", "anna-token").Code)
	require.Equal(t, []string{"create contacts/ failed request", "create contacts/ denied rights:no-rule"}, c.outcomes())
}

// Who may do the act is told what is wrong with the request, and that is recorded.
func TestLoaderProblemIsToldToWhoMay(t *testing.T) {
	c := newCRM(t, nil)
	c.mux.Handle("POST /contacts/{id}/phone", c.guard.ProtectAct(crmguard.Reveal, func(r *http.Request) (crmguard.Resource, error) {
		resource, err := contactOf(r)
		return resource, errors.Join(err, &guard.Problem{Status: 422, Title: "A reason is needed"})
	}, show))
	require.Equal(t, 422, c.request("POST", "/contacts/1/phone", "anna-token").Code)
	require.Equal(t, []string{"reveal contacts/1 failed request"}, c.outcomes())
}

// The id of a record that does not exist, and what was described for it, are what
// the client wrote, so neither is journalled.
func TestNothingIsSealedForAbsentClients(t *testing.T) {
	c := newCRM(t, nil)
	c.mux.Handle("POST /contacts/{id}/phone", c.guard.ProtectAct(crmguard.Reveal, func(r *http.Request) (crmguard.Resource, error) {
		guard.Describe(r.Context(), func(d *guard.Details) {
			d.Private = []crmguard.Private{{Client: r.PathValue("id"), Name: "why", Value: []byte("x")}}
		})
		return contactOf(r)
	}, show))
	c.request("POST", "/contacts/999/phone", "anna-token")
	e := c.journal.Events()[0]
	require.Empty(t, e.Resource.ID)
	require.Empty(t, e.Private)
}

func TestForeignAndEmptyTenantAreRefused(t *testing.T) {
	for _, tenant := range []string{"", "other"} {
		c := newCRM(t, nil)
		g, err := guard.New(sessions{"anna-token": person("anna")}, crmguardtest.Allow(), c.dir, c.journal, &guard.Options{Logger: slog.New(slog.DiscardHandler)})
		require.NoError(t, err)
		ctx := crmguard.WithSubject(t.Context(), person("anna"))
		r := crmguard.Resource{Tenant: tenant, Kind: "contacts", ID: "1"}
		for _, err := range []error{g.Check(ctx, crmguard.View, r), g.CheckAll(ctx, crmguard.View, []crmguard.Resource{r})[0]} {
			denial, ok := errors.AsType[*crmguard.Denial](err)
			require.True(t, ok)
			require.Equal(t, "tenant", denial.Code)
		}
		require.Error(t, g.Do(ctx, crmguard.View, r, func(context.Context) error { t.Error("done"); return nil }))
	}
}

func TestLoaderErrorIsNotAnAnswerAboutTheRecord(t *testing.T) {
	c := newCRM(t, nil)
	c.mux.Handle("GET /contacts/{id}", c.guard.Protect(crmguard.View, func(*http.Request) (crmguard.Resource, error) {
		return crmguard.Resource{}, errors.New("database down")
	}, show))
	w := c.request("GET", "/contacts/1", "anna-token")
	require.Equal(t, 500, w.Code)
	require.NotContains(t, w.Body.String(), "database")
}
