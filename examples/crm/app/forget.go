package app

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"net/http"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/guard"
)

var forgetReasons = []reason{
	{"client-request", "The client asked for it"},
	{"consent-withdrawn", "The client withdrew consent"},
	{"no-purpose", "There is no purpose any more"},
	{"authority", "An authority ordered it"},
}

// forgetForm asks whether it is meant.
func (a *App) forgetForm(w http.ResponseWriter, r *http.Request) error {
	c := stateOf(r.Context()).contact
	if err := a.guard.Check(r.Context(), crmguard.Erase, c.resource()); err != nil {
		return err
	}
	body, err := a.cardPage(r, c, "")
	if err != nil {
		return err
	}
	if !c.Erased.IsZero() {
		return crmguard.ErrErased
	}
	body.Reasons = forgetReasons
	return a.render(w, http.StatusOK, "forget", a.page(r, "Forget a client", true, body))
}

// forgottenContact finds the contact and why it is to be forgotten.
func (a *App) forgottenContact(r *http.Request) (crmguard.Resource, error) {
	if err := readForm(r); err != nil {
		return crmguard.Resource{}, err
	}
	resource, err := a.contactOf(r)
	if err != nil {
		return resource, err
	}
	return resource, describeReason(r, resource.ID, forgetReasons)
}

// forget closes the client's key first: from then on nothing of the client opens,
// whatever happens next. Then it empties the row, if it still is the one that the
// person may erase. What that or a crash leaves is finished in the background.
func (a *App) forget(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	c := stateOf(ctx).contact
	within, err := a.within(ctx, crmguard.Erase)
	if err != nil {
		return err
	}
	// Opened once more, so that each client who is forgotten counts as a card: nobody
	// destroys the client base in a day, unnoticed.
	if err := a.openContacts(ctx, []*Contact{c}); err != nil {
		return err
	}
	receipt, err := a.eraseKey(ctx, c)
	if err != nil {
		return err
	}
	a.dropKeptPages(w)
	err = guard.Settle(ctx, func(done crmguard.Event) error {
		return a.recorded(ctx, done, func(ctx context.Context, tx *sql.Tx) error {
			err := emptyContact(ctx, tx, c, a.now(), within)
			if errors.Is(err, errChanged) && isEmptied(ctx, tx, c.ID) {
				return nil // the button was pressed twice: the other press has entered the receipt
			}
			if err != nil {
				return err
			}
			return enterReceipt(ctx, tx, receipt)
		})
	})
	if errors.Is(err, errChanged) {
		return &guard.Problem{Status: http.StatusConflict, Title: "Changed meanwhile", Code: "conflict",
			Detail: "The key of this client is closed, so nothing of the client opens any more. Somebody changed the row at the same moment; it is emptied when the key is destroyed."}
	}
	if err != nil {
		return err
	}
	http.Redirect(w, r, "/contacts/"+c.ID+"?forgotten", http.StatusSeeOther)
	return nil
}

// dropKeptPages keeps Back from showing a client as it was: for that browsers keep whole pages,
// no-store or not, until a cookie changes that scripts cannot read.
func (a *App) dropKeptPages(w http.ResponseWriter) {
	http.SetCookie(w, &http.Cookie{ //nolint:gosec // as the session's: Secure is off on this machine only
		Name: "forgotten", Value: rand.Text(), Path: "/", MaxAge: 1, HttpOnly: true, Secure: !a.cfg.Loopback, SameSite: http.SameSiteStrictMode,
	})
}
