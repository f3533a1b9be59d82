package app

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/guard"
	"github.com/crmguard/crmguard/masking"
	"github.com/crmguard/crmguard/rbac"
)

const (
	pageSize = 50
	idChunk  = 100 // ids in one query
)

// contactColumns tells the rights where a row says whose it is.
var contactColumns = rbac.Columns{Tenant: "tenant", Owner: "owner", Unit: "unit", ID: "id"}

// value is one field as a page shows it.
type value struct {
	State string // clear, masked, or hidden from those who may not read it
	Text  string
}

// row is one line of the list.
type row struct {
	ID, Owner, Unit                   string
	Erased, Damaged                   bool
	Name, Phone, Email, Company, City value
}

// listPage is what contacts.html shows.
type listPage struct {
	Heading, Scope    string
	Rows              []row
	Older             int64 // cursor of the next page; 0: there is none
	Newest            bool  // this is not the first page
	MayAdd, MaySearch bool
	MayExport         bool
	Search            *searchResult // nil: this is the whole list
}

// within is the condition for the rows on which the subject may do a.
func (a *App) within(ctx context.Context, action crmguard.Action) (predicate, error) {
	filter, err := a.rights.Filter(ctx, subjectOf(ctx), action, kind)
	if err != nil {
		return nil, err
	}
	return func(first int) (string, []any, error) { return filter.SQL(contactColumns, first) }, nil
}

// list shows a page of the contacts that the subject may list, newest first.
func (a *App) list(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	before, err := cursor(r.URL.Query().Get("before"))
	if err != nil {
		return err
	}
	within, err := a.within(ctx, crmguard.List)
	if err != nil {
		return err
	}
	contacts, older, err := a.db.page(ctx, within, before)
	if err != nil {
		return err
	}
	rows, err := a.rows(ctx, contacts)
	if err != nil {
		return err
	}
	body := a.listPage(r)
	body.Rows, body.Older, body.Newest = rows, older, before > 0
	return a.render(w, http.StatusOK, "contacts", a.page(r, "Contacts", true, body))
}

func (a *App) listPage(r *http.Request) listPage {
	s := subjectOf(r.Context())
	return listPage{
		Heading: "Contacts", Scope: "Newest first",
		MayAdd:    a.may(r, crmguard.Create, crmguard.Resource{Tenant: tenant, Kind: kind, ID: "new", Owner: s.ID}),
		MaySearch: a.may(r, crmguard.Search, crmguard.Resource{Tenant: tenant, Kind: kind}),
		MayExport: a.may(r, crmguard.Export, crmguard.Resource{Tenant: tenant, Kind: kind}),
	}
}

// cursor reads a position in the list; empty is the beginning.
func cursor(text string) (int64, error) {
	if text == "" {
		return 0, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 1 {
		return 0, &guard.Problem{Status: http.StatusBadRequest, Title: "No such page", Code: "cursor", Detail: "There is no such page of the list."}
	}
	return n, nil
}

// page reads the rows before a position, still sealed, and where the next page
// starts.
func (s *store) page(ctx context.Context, within predicate, before int64) (contacts []*Contact, older int64, err error) {
	contacts, err = s.before(ctx, within, before, pageSize+1)
	if err != nil {
		return nil, 0, err
	}
	if len(contacts) > pageSize {
		contacts = contacts[:pageSize]
		older = contacts[pageSize-1].Seq
	}
	return contacts, older, nil
}

// before reads the newest rows before a position, still sealed; 0 is before none.
func (s *store) before(ctx context.Context, within predicate, before int64, limit int) ([]*Contact, error) {
	where, args, err := within(1)
	if err != nil {
		return nil, err
	}
	if before > 0 {
		args = append(args, before)
		where += fmt.Sprintf(" AND seq < $%d", len(args))
	}
	return s.queryContacts(ctx, fmt.Sprintf(`SELECT `+listColumns+` FROM contacts WHERE %s ORDER BY seq DESC LIMIT %d`, where, limit), args...)
}

// rows opens a page of contacts at once, and masks what the subject may not see
// in the clear. Fields that the subject may not read are not even opened.
func (a *App) rows(ctx context.Context, contacts []*Contact) ([]row, error) {
	rights := fieldRights{a: a, ctx: ctx}
	for _, c := range contacts {
		if err := rights.drop(c); err != nil {
			return nil, err
		}
	}
	if err := a.openContacts(ctx, contacts); err != nil {
		return nil, err
	}
	rows := make([]row, len(contacts))
	for i, c := range contacts {
		may, err := rights.of(c)
		if err != nil {
			return nil, err
		}
		shown, err := masking.View(*c, func(field string) bool { return may[field].Unmask })
		if err != nil {
			return nil, fmt.Errorf("mask a contact: %w", err)
		}
		rows[i] = row{
			ID: c.ID, Owner: c.Owner, Unit: a.people.unitName(c.Unit), Erased: !c.Erased.IsZero(), Damaged: c.Damaged,
			Name: show(shown.Name, may["name"]), Phone: show(shown.Phone, may["phone"]), Email: show(shown.Email, may["email"]),
			Company: show(shown.Company, may["company"]), City: show(shown.City, may["city"]),
		}
	}
	return rows, nil
}

// show says how a field that was masked as it must be appears on the page.
func show(text string, may rbac.FieldRights) value {
	switch {
	case !may.Read:
		return value{State: "hidden"}
	case !may.Unmask && masking.IsMasked(text):
		return value{"masked", text}
	}
	return value{"clear", text}
}

// fieldRights remembers, for one page, what the subject may do with the fields of
// contacts of the same owner and department: the answer is the same, because no
// contact here is shared. Where rows are (rbac.Columns.Shares), it differs by contact.
type fieldRights struct {
	a     *App
	ctx   context.Context //nolint:containedctx // it lives as long as the request
	known map[[2]string]map[string]rbac.FieldRights
}

func (f *fieldRights) of(c *Contact) (map[string]rbac.FieldRights, error) {
	key := [2]string{c.Owner, c.Unit}
	if may, ok := f.known[key]; ok {
		return may, nil
	}
	may, err := f.a.rights.Fields(f.ctx, subjectOf(f.ctx), c.resource(), fieldNames...)
	if err != nil {
		return nil, fmt.Errorf("rights on fields: %w", err)
	}
	if f.known == nil {
		f.known = map[[2]string]map[string]rbac.FieldRights{}
	}
	f.known[key] = may
	return may, nil
}

// drop takes the fields out that the subject may not read.
func (f *fieldRights) drop(c *Contact) error {
	may, err := f.of(c)
	if err != nil {
		return err
	}
	for _, t := range c.texts() {
		if !may[t.name].Read {
			*t.sealed = nil
		}
	}
	return nil
}

// openContacts opens rows. One whose key was destroyed is marked as erased. One
// that does not open for another reason, because somebody changed it past the CRM
// or the disk did, is marked as damaged and shows nothing; the others stay usable.
func (a *App) openContacts(ctx context.Context, contacts []*Contact) error {
	if err := a.believeErased(ctx, contacts); err != nil {
		return err
	}
	err := a.table.Open(ctx, tenant, contacts...)
	failed, ok := errors.AsType[encrypt.RowErrors](err)
	if !ok {
		return err
	}
	for _, e := range failed {
		c := contacts[e.Row]
		if !errors.Is(e, crmguard.ErrErased) {
			a.log.ErrorContext(ctx, "a contact does not open", "contact", c.ID, "field", e.Field, "error", e.Err)
			c.Damaged = true
		} else if c.Erased.IsZero() {
			c.Erased = c.Updated
		}
		for _, t := range c.texts() {
			*t.value, *t.sealed = "", nil
		}
	}
	return nil
}

// believeErased takes what rows say about their erasure for a hint: whoever can
// write the database can write that too. The key store alone knows. Where no
// erasure was ordered, the row opens as any other, or is damaged if it was emptied.
func (a *App) believeErased(ctx context.Context, contacts []*Contact) error {
	for _, c := range contacts {
		if c.Erased.IsZero() {
			continue
		}
		_, err := a.vault.keys.Receipt(ctx, tenant, c.ID)
		if err == nil {
			continue
		}
		if !errors.Is(err, encrypt.ErrNotErased) {
			return err
		}
		a.log.ErrorContext(ctx, "a contact says that it was erased, but nobody ordered that", "contact", c.ID)
		c.Erased = time.Time{}
		c.Damaged = !slices.ContainsFunc(c.texts(), func(t text) bool { return *t.sealed != nil })
	}
	return nil
}

// among reads those rows of ids that lie within a condition, still sealed, newest
// first.
func (s *store) among(ctx context.Context, within predicate, ids []string) ([]*Contact, error) {
	var found []*Contact
	for chunk := range slices.Chunk(ids, idChunk) {
		where, args, err := within(1)
		if err != nil {
			return nil, err
		}
		params := make([]string, len(chunk))
		for i, id := range chunk {
			args = append(args, id)
			params[i] = fmt.Sprintf("$%d", len(args))
		}
		some, err := s.queryContacts(ctx, `SELECT `+listColumns+` FROM contacts WHERE (`+where+`) AND id IN (`+strings.Join(params, ", ")+`)`, args...)
		if err != nil {
			return nil, err
		}
		found = append(found, some...)
	}
	slices.SortFunc(found, func(x, y *Contact) int { return cmp.Compare(y.Seq, x.Seq) })
	return found, nil
}
