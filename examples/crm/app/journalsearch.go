package app

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/encrypt"
)

// foundBy are the fields whose values entries of the journal hold, sealed, and are
// found by.
var foundBy = []string{"phone", "email"}

// sealedValues are what the journal holds of a contact, in the form in which it is
// looked for.
func (c *Contact) sealedValues(fields ...string) (list []crmguard.Private) {
	for _, field := range fields {
		if value := soughtValue(field, *c.text(field)); slices.Contains(foundBy, field) && value != "" {
			list = append(list, crmguard.Private{Client: c.ID, Name: field, Value: []byte(value)})
		}
	}
	return list
}

// changedValues are those of a contact before and after a change of these fields.
func changedValues(before, after *Contact, fields []string) []crmguard.Private {
	return append(before.sealedValues(fields...), after.sealedValues(fields...)...)
}

// soughtValue leaves out what tells two writings of one value apart: an extension, and
// capitals.
func soughtValue(field, stored string) string {
	if field == "phone" {
		stored, _, _ = strings.Cut(stored, " ")
		return stored
	}
	return strings.ToLower(stored)
}

// readSought says which sealed value somebody looks for.
func readSought(typed string) (p crmguard.Private, problem string) {
	field := wholeField(typed)
	value, err := cleanText(field, typed)
	if err == nil && field == "phone" {
		value, err = cleanPhone(value, homeRegion)
	} else if err == nil {
		value, err = cleanEmail(value)
	}
	if field == "" || value == "" || err != nil {
		return p, "Type a whole phone number or e-mail address."
	}
	return crmguard.Private{Name: field, Value: []byte(soughtValue(field, value))}, ""
}

func (a *App) journalSearch() *searchBox {
	return &searchBox{path: "/journal/find", input: "value", action: crmguard.Access, resource: sectionOf("journal"),
		problem: func(typed string) string {
			_, problem := readSought(typed)
			return problem
		},
		draw: func(w http.ResponseWriter, r *http.Request, status int, typed, problem string) error {
			view := foundView(typed)
			view.Problem = problem
			return a.render(w, status, "journal", a.page(r, "Journal", true, view))
		}}
}

func foundView(value string) journalView {
	return journalView{Value: value, Filtered: true, Subtitle: "Entries that hold this phone number or e-mail address, sealed. Newest first."}
}

// findInJournal shows the entries that hold a phone number or e-mail address: who
// entered, changed or saw it. That somebody looked for such a value is an entry.
func (a *App) findInJournal(w http.ResponseWriter, r *http.Request) error {
	state, asked := stateOf(r.Context()), r.URL.Query()
	before, err := cursor(asked.Get("before"))
	if err != nil {
		return err
	}
	sought, _ := readSought(state.query)
	found, err := a.journal.Read(r.Context(), audit.Query{Tenant: tenant, Private: sought, Before: before, Limit: pageSize})
	if err != nil {
		return err
	}
	view := foundView(state.query)
	for _, e := range found.Entries {
		view.Entries = append(view.Entries, describe(e))
	}
	view.Damaged, view.MayOpen = found.Damaged, a.mayOpenSealed(r)
	address := state.search.address(asked.Get("q"))
	if before != 0 {
		view.Newest = address
	}
	if found.Next != 0 {
		view.Older = address + "&before=" + strconv.FormatInt(found.Next, 10)
	}
	return a.render(w, http.StatusOK, "journal", a.page(r, "Journal", true, view))
}

func (a *App) mayOpenSealed(r *http.Request) bool {
	return a.may(r, crmguard.Reveal, crmguard.Resource{Tenant: tenant, Kind: "journal", ID: "any"})
}

// ageJournalKeys ends the life of the keys by which sealed values are found. Before an
// old one goes, all entries are entered under the newest.
func (a *App) ageJournalKeys(ctx context.Context) error {
	var errs []error
	for _, field := range foundBy {
		errs = append(errs, a.ageKey(ctx, encrypt.IndexScope(tenant, "audit", field, ""), func() error {
			_, err := a.journal.Reindex(ctx, tenant)
			return err
		}))
	}
	return errors.Join(errs...)
}
