package app

import (
	"context"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
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

// TestEditOfAContactThatIsGivenAway: of two who change a contact at the same moment one is
// the first. Who has lost the contact by that finds none.
func TestEditOfAContactThatIsGivenAway(t *testing.T) {
	each(t, func(t *testing.T, on database) {
		in := newInstallation(t, on, sample(24))
		seller, owner := in.signedIn("seller1"), in.signedIn("owner")
		for i := 0; i < 24; i += 3 { // seller1's
			card := "/contacts/" + in.idOf(i)
			_, page := seller.get(card + "/edit")
			seen := version(t, page)
			var edited, given int
			var both sync.WaitGroup
			both.Go(func() { edited, page = seller.post(card+"/edit", "version", seen, "city", "Elsewhere") })
			both.Go(func() { given, _ = owner.post(card+"/edit", "version", seen, "owner", "seller5") })
			both.Wait()
			var holder string
			var now int64
			require.NoError(t, in.app.db.QueryRowContext(t.Context(), `SELECT owner, version FROM contacts WHERE id = $1`, in.idOf(i)).Scan(&holder, &now))
			require.EqualValues(t, 2, now, "one of them")
			if edited == http.StatusOK {
				require.Equal(t, "seller1", holder)
				require.Equal(t, http.StatusConflict, given)
				continue
			}
			require.Equal(t, "seller5", holder)
			require.Equal(t, http.StatusOK, given)
			require.Equal(t, http.StatusNotFound, edited, heading(page))
			hasNot(t, page, "Quillfeather", "Elsewhere")
		}
	})
}

// TestAChangeMeetsOnlyRowsWithinTheRights: the row is found by its version and by whose it is
// in the very statement that changes it; each of the two is enough to miss it.
func TestAChangeMeetsOnlyRowsWithinTheRights(t *testing.T) {
	each(t, func(t *testing.T, on database) {
		in := newInstallation(t, on, sample(1))
		ctx := crmguard.WithSubject(t.Context(), crmguard.Subject{Tenant: tenant, ID: "seller1", Kind: employee})
		mine, err := in.app.within(ctx, crmguard.Update)
		require.NoError(t, err)
		change := func(c Contact, within predicate) error {
			tx, err := in.app.db.BeginTx(ctx, nil)
			require.NoError(t, err)
			defer tx.Rollback() //nolint:errcheck // nothing is kept
			return updateContact(ctx, tx, &c, within)
		}
		c, err := in.app.db.contact(ctx, in.idOf(0))
		require.NoError(t, err)
		require.NoError(t, change(*c, mine))
		older := *c
		older.Version--
		require.ErrorIs(t, change(older, mine), errChanged)
		in.tamper(`UPDATE contacts SET owner = 'seller5' WHERE id = $1`, c.ID) // and leaves the version
		require.ErrorIs(t, change(*c, mine), errChanged)
		require.NoError(t, change(*c, func(int) (string, []any, error) { return "1=1", nil, nil }), "planted fault: without the rights it is met")
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
