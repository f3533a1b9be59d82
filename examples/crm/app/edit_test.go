package app

import (
	"context"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/guard"
)

// TestEditOfAForgottenClient: a change that comes too late shows nothing of the
// client who was forgotten meanwhile, not even what the person had typed.
func TestEditOfAForgottenClient(t *testing.T) {
	each(t, func(t *testing.T, on database) {
		in := newInstallation(t, on, sample(8))
		editor, forgetter := in.signedIn("owner"), in.signedIn("owner")
		for i := range 8 {
			card := "/contacts/" + in.idOf(i)
			_, page := editor.get(card + "/edit")
			seen := version(t, page)
			var status int
			var both sync.WaitGroup
			both.Go(func() { status, page = editor.post(card+"/edit", "version", seen, "city", "Elsewhere") })
			both.Go(func() { forgetter.post(card+"/forget", "reason", "client-request") })
			both.Wait()
			if status == http.StatusOK { // the change came first
				continue
			}
			require.Equal(t, http.StatusGone, status)
			require.Equal(t, "Erased", heading(page))
			hasNot(t, page, "Quillfeather")
		}
	})
}

// TestWhenTheFormComesBack: the form is drawn again for what the person can mend in
// it, and for nothing else.
func TestWhenTheFormComesBack(t *testing.T) {
	t.Parallel()
	in := newInstallation(t, onSQLite, nil)
	for _, test := range []struct {
		p    guard.Problem
		form bool
	}{
		{guard.Problem{Status: http.StatusUnprocessableEntity, Code: "form"}, true},
		{guard.Problem{Status: http.StatusConflict, Code: "conflict"}, true},
		{guard.Problem{Status: http.StatusForbidden, Code: "forbidden"}, false},
		{guard.Problem{Status: http.StatusNotFound, Code: "not-found"}, false},
		{guard.Problem{Status: http.StatusGone, Code: "erased"}, false},
		{guard.Problem{Status: http.StatusTooManyRequests, Code: "norm"}, false},
		{guard.Problem{Status: http.StatusServiceUnavailable, Code: "undecided"}, false},
	} {
		filled := &formPage{ID: "abc", Inputs: []input{{Name: "name", Value: "Quillfeather"}}}
		r := httptest.NewRequest(http.MethodPost, "/contacts/abc/edit", nil)
		w := httptest.NewRecorder()
		in.app.problem(w, r.WithContext(context.WithValue(r.Context(), stateKey{}, &state{form: filled})), test.p)
		require.Equal(t, test.p.Status, w.Code)
		if test.form {
			has(t, w.Body.String(), "Quillfeather", test.p.Code)
		} else {
			hasNot(t, w.Body.String(), "Quillfeather", test.p.Code)
		}
	}
}
