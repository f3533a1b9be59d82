package app

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/masking"
)

// input is one field of the form.
type input struct {
	Name, Label, Type, Value string
	Masked                   string // what the person may see of the value that an empty input keeps
	Error                    string
	Long, Wide               bool
}

// choice is one responsible person of the form.
type choice struct{ ID, Label string }

// formPage is what form.html shows: what was typed, and what is wrong with it.
type formPage struct {
	ID                       string // empty: a new contact
	Version                  int64
	Inputs                   []input
	Owners                   []choice
	Owner, Country           string
	OwnerError, CountryError string
	General                  string
	Problems, Conflict       bool
}

func (f *formPage) title() string {
	if f.ID == "" {
		return "Add contact"
	}
	return "Edit contact"
}

// form makes the form for a contact. Fields that the person may not change are
// left out; those that are masked for the person start empty.
func (a *App) form(ctx context.Context, c *Contact, isNew bool) (*formPage, error) {
	may, err := a.rights.Fields(ctx, subjectOf(ctx), c.resource(), fieldNames...)
	if err != nil {
		return nil, err
	}
	shown, err := masking.View(*c, nil)
	if err != nil {
		return nil, err
	}
	f := &formPage{Version: c.Version, Owner: c.Owner, Country: c.Country}
	if !isNew {
		f.ID = c.ID
	}
	masked := shown.texts()
	for i, t := range c.texts() {
		if !may[t.name].Write {
			continue
		}
		in := input{Name: t.name, Label: t.label, Long: t.name == "note", Wide: t.name == "note" || t.name == "name"}
		switch {
		case may[t.name].Unmask || isNew:
			in.Value = *t.value
		case may[t.name].Read:
			in.Masked = *masked[i].value
		default:
			in.Masked = "you may not read it"
		}
		switch t.name {
		case "phone":
			in.Type = "tel"
		case "email":
			in.Type = "email"
		}
		f.Inputs = append(f.Inputs, in)
	}
	f.Owners, err = a.owners(ctx, c)
	return f, err
}

// openEmployees are those who can be responsible for contacts: people, not programs,
// whose account is not closed.
func (a *App) openEmployees(ctx context.Context) ([]account, error) {
	open, err := a.openAccounts(ctx)
	return slices.DeleteFunc(open, func(p account) bool { return p.Kind != employee }), err
}

// openAccounts are people and programs that are not closed.
func (a *App) openAccounts(ctx context.Context) ([]account, error) {
	accounts, err := a.people.accounts(ctx)
	if err != nil {
		return nil, err
	}
	var open []account
	for _, p := range accounts {
		state, err := a.sessions.State(ctx, tenant, p.ID)
		if err != nil {
			return nil, err
		}
		if !state.Closed {
			open = append(open, p)
		}
	}
	return open, nil
}

// owners are those whom the person may make responsible: the contact as it would
// be then must still be one that the person may change. Whoever is responsible now
// stays a choice.
func (a *App) owners(ctx context.Context, c *Contact) ([]choice, error) {
	accounts, err := a.openEmployees(ctx)
	if err != nil {
		return nil, err
	}
	if c.Owner != "" && !slices.ContainsFunc(accounts, func(p account) bool { return p.ID == c.Owner }) {
		accounts = append(accounts, account{ID: c.Owner, Title: "not open"})
	}
	choices := []choice{{"", "Nobody"}}
	resources := []crmguard.Resource{ownedBy(c, account{Unit: c.Unit})}
	for _, p := range accounts {
		choices = append(choices, choice{p.ID, p.ID + " · " + p.Title})
		resources = append(resources, ownedBy(c, p))
	}
	verdicts := a.guard.CheckAll(ctx, crmguard.Update, resources)
	i := -1
	return slices.DeleteFunc(choices, func(ch choice) bool { i++; return verdicts[i] != nil && ch.ID != c.Owner }), nil
}

// ownedBy is the contact's resource if p were responsible: it would belong to
// p's department.
func ownedBy(c *Contact, p account) crmguard.Resource {
	r := c.resource()
	r.Owner, r.Unit = p.ID, p.Unit
	if p.ID == c.Owner {
		r.Unit = c.Unit
	}
	return r
}

func (f *formPage) input(name string) *input {
	for i := range f.Inputs {
		if f.Inputs[i].Name == name {
			return &f.Inputs[i]
		}
	}
	return nil
}

// fail notes what is wrong with a field; an unknown one concerns the whole form.
func (f *formPage) fail(name, reason string) {
	f.Problems = true
	in := f.input(name)
	switch {
	case in != nil && in.Error == "":
		in.Error = sentence(reason)
	case in != nil:
	case name == "country":
		f.CountryError = sentence(reason)
	default:
		f.General = sentence(strings.TrimSpace(name + " " + reason))
	}
}

// sentence makes "is not a phone number" stand alone.
func sentence(reason string) string {
	if rest, ok := strings.CutPrefix(reason, "is "); ok {
		reason = "This is " + rest
	} else if rest, ok := strings.CutPrefix(reason, "holds "); ok {
		reason = "This holds " + rest
	}
	reason = strings.ToUpper(reason[:1]) + reason[1:]
	if !strings.HasSuffix(reason, ".") {
		reason += "."
	}
	return reason
}

// problemsOf takes what clean joined apart.
func problemsOf(err error) []fieldError {
	joined, ok := err.(interface{ Unwrap() []error }) //nolint:errorlint // clean returns joined errors
	if !ok {
		return nil
	}
	var problems []fieldError
	for _, e := range joined.Unwrap() {
		if f, ok := errors.AsType[*fieldError](e); ok {
			problems = append(problems, *f)
		} else {
			problems = append(problems, fieldError{"", "A contact " + e.Error()})
		}
	}
	return problems
}
