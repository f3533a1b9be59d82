package app

import (
	"crypto/rand"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/guard"
	"github.com/crmguard/crmguard/masking"
)

// hideAfter is how many seconds a revealed value stays on the screen.
const hideAfter = 30

// reason is one of those that people choose from; the code goes to the journal.
type reason struct{ Code, Label string }

var revealReasons = []reason{
	{"call-client", "Call the client"},
	{"write-client", "Write to the client"},
	{"check-data", "Check or correct the data"},
	{"complaint", "Work on a complaint"},
	{"other", "Something else (say what)"},
}

// field is one line of a card.
type field struct {
	value
	Field, Label, Lower       string
	MayReveal, Revealed, Open bool
	MayCall                   bool
}

// cardPage is what card.html and forget.html show.
type cardPage struct {
	ID, Owner, Unit, Country       string
	Version                        int64
	Created, Updated               time.Time
	Name                           value
	Fields                         []field
	Reasons                        []reason
	MayEdit, MayForget, MayJournal bool
	Saved, Problem                 string
	HideAfter                      int    // seconds
	Used                           string // how far the viewer's norm of cards is
	Once                           string // makes one call of a button, however often it is pressed
	Call                           *callNotice
	Attachments                    *attachmentsView
}

// card shows one contact.
func (a *App) card(w http.ResponseWriter, r *http.Request) error {
	c := stateOf(r.Context()).contact
	body, err := a.cardPage(r, c, "")
	if err != nil {
		return err
	}
	if !c.Erased.IsZero() {
		return a.showErased(w, r, c)
	}
	if c.Damaged {
		body.Problem = errDamaged.Title + ". " + errDamaged.Detail
		body.Name, body.MayEdit, body.MayForget = value{"clear", "Damaged record"}, false, false
	}
	if body.Call, err = a.callNotice(r.Context(), r.URL.Query().Get("call")); err != nil {
		return err
	}
	for done, text := range map[string]string{"saved": "Saved.", "attached": "The file was added.", "detached": "The file was deleted."} {
		if r.URL.Query().Has(done) {
			body.Saved = text
		}
	}
	return a.render(w, http.StatusOK, "card", a.page(r, "Contact", true, body))
}

// cardPage opens a contact and masks it, but for the field that was revealed.
func (a *App) cardPage(r *http.Request, c *Contact, revealed string) (cardPage, error) {
	ctx := r.Context()
	rights := fieldRights{a: a, ctx: ctx}
	if err := rights.drop(c); err != nil {
		return cardPage{}, err
	}
	if err := a.openContacts(ctx, []*Contact{c}); err != nil {
		return cardPage{}, err
	}
	used, err := a.cardsUsed(ctx)
	if err != nil {
		return cardPage{}, err
	}
	may, err := rights.of(c)
	if err != nil {
		return cardPage{}, err
	}
	shown, err := masking.View(*c, func(name string) bool { return name == revealed || may[name].Unmask })
	if err != nil {
		return cardPage{}, err
	}
	body := cardPage{
		ID: c.ID, Owner: c.Owner, Unit: a.people.unitName(c.Unit), Country: c.Country, Version: c.Version, Used: used,
		Created: c.Created, Updated: c.Updated, Reasons: revealReasons, HideAfter: hideAfter, Once: rand.Text(),
		MayEdit:    a.may(r, crmguard.Update, c.resource()),
		MayForget:  a.may(r, crmguard.Erase, c.resource()),
		MayJournal: a.may(r, crmguard.Access, sectionOf("journal")),
	}
	for _, t := range shown.texts() {
		f := field{value: show(*t.value, may[t.name]), Field: t.name, Label: t.label, Lower: strings.ToLower(t.label)}
		if t.name == revealed {
			f.Revealed, f.State = true, "clear"
		}
		if t.name == "phone" && f.State == "clear" {
			f.Text = showPhone(f.Text)
		}
		resource := c.resource()
		resource.Field = t.name
		f.MayCall = t.name == "phone" && f.Text != "" && a.may(r, crmguard.Call, resource)
		if f.State == "masked" {
			f.MayReveal = a.may(r, crmguard.Reveal, resource)
		}
		if t.name == "name" {
			body.Name = f.value
		}
		body.Fields = append(body.Fields, f)
	}
	body.Attachments, err = a.attachmentsView(r, c)
	return body, err
}

// revealedField finds the contact and the field whose value somebody wants to
// see, and why. Without a reason nothing is decided or shown.
func (a *App) revealedField(r *http.Request) (crmguard.Resource, error) {
	if err := readForm(r); err != nil {
		return crmguard.Resource{}, err
	}
	resource, err := a.contactOf(r)
	if err != nil {
		return resource, err
	}
	field := r.PostForm.Get("field")
	if !slices.Contains(fieldNames, field) {
		return resource, &guard.Problem{Status: http.StatusBadRequest, Title: "No such field", Code: "field", Detail: "Contacts have no such field."}
	}
	resource.Field = field
	return resource, describeReason(r, resource.ID, revealReasons)
}

// describeReason puts the reason of an act into its entry: the code as it is, the
// free text sealed under the client's key.
func describeReason(r *http.Request, client string, reasons []reason) error {
	code, more := r.PostForm.Get("reason"), strings.TrimSpace(r.PostForm.Get("more"))
	known := slices.ContainsFunc(reasons, func(known reason) bool { return known.Code == code })
	if !known || code == "other" && more == "" || utf8.RuneCountInString(more) > 300 {
		return &guard.Problem{Status: http.StatusUnprocessableEntity, Title: "A reason is needed", Code: "reason",
			Detail: "Nothing was shown or changed. Go back, choose a reason, and say what it is if it is something else (at most 300 characters)."}
	}
	guard.Describe(r.Context(), func(e *guard.Details) {
		e.Reason = code
		if more != "" {
			e.Private = []crmguard.Private{{Client: client, Name: "reason", Value: []byte(more)}}
		}
	})
	return nil
}

// reveal shows a card with one field in the clear, for a short while. The value
// goes into this one answer and into no address.
func (a *App) reveal(w http.ResponseWriter, r *http.Request) error {
	name := r.PostForm.Get("field")
	guard.Describe(r.Context(), func(e *guard.Details) { e.Fields = []string{name} })
	c := stateOf(r.Context()).contact
	body, err := a.cardPage(r, c, name)
	if err != nil {
		return err
	}
	if !c.Erased.IsZero() {
		return crmguard.ErrErased
	}
	if c.Damaged {
		return errDamaged
	}
	guard.Describe(r.Context(), func(e *guard.Details) { e.Private = append(e.Private, c.sealedValues(name)...) })
	p := a.page(r, "Contact", true, body)
	p.HideAfter, p.Back = hideAfter, "/contacts/"+c.ID
	return a.render(w, http.StatusOK, "card", p)
}
