package app

import (
	"context"
	"database/sql"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/guard"
	"github.com/crmguard/crmguard/masking"
)

// blankForm shows the form for a new contact. It shows nobody's data, so that
// nothing is recorded.
func (a *App) blankForm(w http.ResponseWriter, r *http.Request) {
	c := a.blankContact(r.Context())
	err := a.guard.Check(r.Context(), crmguard.Create, c.resource())
	var form *formPage
	if err == nil {
		form, err = a.form(r.Context(), c, true)
	}
	if err == nil {
		err = a.render(w, http.StatusOK, "form", a.page(r, form.title(), false, form))
	}
	if err != nil {
		a.guard.WriteError(w, r, err)
	}
}

// blankContact is a new contact of whoever asks.
func (a *App) blankContact(ctx context.Context) *Contact {
	s := subjectOf(ctx)
	c := &Contact{ID: newContactID(), Owner: s.ID, Country: homeRegion}
	if len(s.Units) > 0 {
		c.Unit = s.Units[0]
	}
	return c
}

// newContact is what a request to add a contact is about: one of the person's
// own. What the form says is checked when it is read.
func (a *App) newContact(r *http.Request) (crmguard.Resource, error) {
	c := a.blankContact(r.Context())
	stateOf(r.Context()).contact = c
	return c.resource(), readForm(r)
}

// editForm shows the form for a contact.
func (a *App) editForm(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	c := stateOf(ctx).contact
	if err := a.guard.Check(ctx, crmguard.Update, c.resource()); err != nil {
		return err
	}
	if err := a.openForChange(ctx, c); err != nil {
		return err
	}
	form, err := a.form(ctx, c, false)
	if err != nil {
		return err
	}
	return a.render(w, http.StatusOK, "form", a.page(r, form.title(), true, form))
}

// openForChange opens a whole contact, or says that it was erased.
func (a *App) openForChange(ctx context.Context, c *Contact) error {
	if err := a.openContacts(ctx, []*Contact{c}); err != nil {
		return err
	}
	if !c.Erased.IsZero() {
		return crmguard.ErrErased
	}
	if c.Damaged {
		return errDamaged
	}
	return nil
}

// errDamaged keeps what does not open from being overwritten.
var errDamaged = &guard.Problem{Status: http.StatusInternalServerError, Title: "This record does not open", Code: "damaged",
	Detail: "It was changed past the CRM, or the disk has an error. Nothing is lost yet: tell the administrator, who finds the cause in the log."}

// create adds a contact.
func (a *App) create(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	c := stateOf(ctx).contact
	if err := a.fill(r, c, true); err != nil {
		return err
	}
	if err := a.guard.Check(ctx, crmguard.Create, c.resource()); err != nil { // as it is now, with whoever is responsible
		return err
	}
	c.Created = a.now()
	c.Updated = c.Created
	guard.Describe(ctx, func(e *guard.Details) { e.Private = c.sealedValues(foundBy...) })
	err := a.save(ctx, c, func(tx *sql.Tx) error { return insertContact(ctx, tx, c, nil) })
	if err != nil {
		return err
	}
	http.Redirect(w, r, "/contacts/"+c.ID+"?saved", http.StatusSeeOther)
	return nil
}

// edit changes a contact, if it still is what the person saw.
func (a *App) edit(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	if err := readForm(r); err != nil {
		return err
	}
	c := stateOf(ctx).contact
	if err := a.openForChange(ctx, c); err != nil {
		return err
	}
	seen, err := strconv.ParseInt(r.PostForm.Get("version"), 10, 64)
	if err != nil {
		return unreadable()
	}
	before := *c
	if err := a.fill(r, c, false); err != nil {
		return err
	}
	if seen != before.Version {
		return a.conflict(r, &before)
	}
	if changed := differences(&before, c); len(changed) > 0 {
		guard.Describe(ctx, func(e *guard.Details) { e.Fields, e.Private = changed, changedValues(&before, c, changed) })
		within, err := a.within(ctx, crmguard.Update)
		if err != nil {
			return err
		}
		c.Updated = a.now()
		err = a.save(ctx, c, func(tx *sql.Tx) error { return updateContact(ctx, tx, c, within) })
		if errors.Is(err, errChanged) {
			current, readErr := a.db.contact(ctx, c.ID)
			if readErr != nil {
				return readErr
			}
			if err := a.guard.Check(ctx, crmguard.Update, current.resource()); err != nil {
				if _, denied := errors.AsType[*crmguard.Denial](err); denied { // it is somebody else's by now
					return guard.ErrNotFound
				}
				return err
			}
			if err := a.openForChange(ctx, current); err != nil { // forgotten, perhaps
				return err
			}
			return a.conflict(r, current)
		}
		if err != nil {
			return err
		}
	}
	http.Redirect(w, r, "/contacts/"+c.ID+"?saved", http.StatusSeeOther)
	return nil
}

// save seals a contact and then, in one transaction, writes the row, its index
// entries and the entry of the journal.
func (a *App) save(ctx context.Context, c *Contact, write func(tx *sql.Tx) error) error {
	entries, err := a.table.Seal(ctx, tenant, c)
	if err != nil {
		return err
	}
	return guard.Settle(ctx, func(done crmguard.Event) error {
		return a.recorded(ctx, done, func(ctx context.Context, tx *sql.Tx) error {
			if err := write(tx); err != nil {
				return err
			}
			return a.index.Put(ctx, tx, entries)
		})
	})
}

// fill puts what was typed into the contact and checks it. What is wrong comes
// back as the form, with everything that was typed still in it.
func (a *App) fill(r *http.Request, c *Contact, isNew bool) error {
	ctx := r.Context()
	form, err := a.form(ctx, c, isNew)
	if err != nil {
		return err
	}
	if r.PostForm.Has("owner") {
		form.Owner = r.PostForm.Get("owner")
	}
	if r.PostForm.Has("country") {
		form.Country = strings.TrimSpace(r.PostForm.Get("country"))
	}
	form.Version, _ = strconv.ParseInt(r.PostForm.Get("version"), 10, 64)
	stateOf(ctx).form = form
	typed := Contact{Country: form.Country}
	values := typed.texts()
	for i, t := range c.texts() {
		in := form.input(t.name)
		if in == nil || !r.PostForm.Has(t.name) {
			continue
		}
		in.Value = strings.ReplaceAll(r.PostForm.Get(t.name), "\r\n", "\n")
		*values[i].value = in.Value
		if strings.TrimSpace(in.Value) == "" && in.Masked != "" {
			continue // keeps what is hidden: nobody clears what they do not see
		}
		*t.value = in.Value
	}
	c.Country = form.Country
	// A mask that comes back must not replace what it hides.
	for {
		masked, ok := errors.AsType[*masking.MaskedError](masking.RefuseMasked(typed))
		if !ok {
			break
		}
		form.fail(masked.Field, "This is a masked value. Type the real one, or leave the field empty to keep what is there.")
		*typed.text(masked.Field) = ""
	}
	for _, problem := range problemsOf(c.clean()) {
		form.fail(problem.field, problem.reason)
	}
	a.assign(ctx, form, c)
	if form.Problems {
		return &guard.Problem{Status: http.StatusUnprocessableEntity, Title: "Not saved", Code: "form"}
	}
	return nil
}

// assign makes somebody responsible, if the person may give the contact away so.
func (a *App) assign(ctx context.Context, form *formPage, c *Contact) {
	if form.Owner == c.Owner {
		return
	}
	if !slices.ContainsFunc(form.Owners, func(o choice) bool { return o.ID == form.Owner }) {
		form.Problems, form.OwnerError = true, "You cannot make this person responsible."
		return
	}
	accounts, err := a.openEmployees(ctx)
	if err != nil {
		form.Problems, form.OwnerError = true, "The staff could not be read. Please try again."
		return
	}
	for _, p := range accounts {
		if p.ID == form.Owner {
			c.Unit = p.Unit
		}
	}
	c.Owner = form.Owner
}

// conflict shows the form again, with what was typed, over the row as it is now.
func (a *App) conflict(r *http.Request, current *Contact) error {
	form := stateOf(r.Context()).form
	form.Conflict, form.Version = true, current.Version
	return &guard.Problem{Status: http.StatusConflict, Title: "Changed meanwhile", Code: "conflict"}
}
