package app

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/guard"
	"github.com/crmguard/crmguard/masking"
)

// searchBounds end a search that finds little, so that no request goes on for ever:
// whoever wants to know more goes on with a button.
type searchBounds struct {
	batch int // rows that are read and opened at once
	rows  int
	time  time.Duration
}

const (
	searchRows = 20_000 // that one request looks at
	maxQuery   = 200    // characters
)

// searched are the fields that the box looks into: those of the list.
var searched = []string{"name", "phone", "email", "company", "city"}

// contactSearch is about all contacts: which of them, and what of them, the search itself asks.
func (a *App) contactSearch() *searchBox {
	return &searchBox{path: "/contacts/search", input: "query", action: crmguard.Search, resource: crmguard.Resource{Tenant: tenant, Kind: kind},
		problem: queryProblem,
		draw: func(w http.ResponseWriter, r *http.Request, status int, typed, problem string) error {
			body := a.listPage(r)
			body.Heading, body.Scope = "Search", ""
			body.Search = &searchResult{Query: typed, Problem: problem}
			return a.render(w, status, "contacts", a.page(r, "Search", true, body))
		}}
}

// searchResult is the part of contacts.html about a search.
type searchResult struct {
	Query, Problem string
	First, More    string // addresses of these pages; "": this is the first one, there is nothing more
	Looked         string // how many contacts, where that ended the search; "": it has seen enough
	Skipped        string // contacts that were left out
}

// search shows a page of those contacts in which the subject finds what was typed. All
// others look as if they did not exist.
func (a *App) search(w http.ResponseWriter, r *http.Request) error {
	ctx, asked := r.Context(), r.URL.Query()
	from, err := readPosition(asked.Get("after"))
	if err != nil {
		return err
	}
	state := stateOf(ctx)
	address := state.search.address(asked.Get("q"))
	result := &searchResult{Query: state.query}
	if from != (position{}) {
		result.First = address
	}
	body := a.listPage(r)
	body.Search = result
	found, err := a.find(ctx, result.Query, from)
	if err != nil {
		return err
	}
	// What is shown is a list, and counts as its rows: no norm is passed by searching for
	// what everybody has in their name.
	rows, err := a.rows(crmguard.WithAct(ctx, crmguard.List, crmguard.Resource{Tenant: tenant, Kind: kind}), found.contacts)
	if err != nil {
		return err
	}
	body.Rows = slices.DeleteFunc(rows, func(row row) bool { return row.Erased || row.Damaged })
	if skipped := found.skipped + len(rows) - len(body.Rows); skipped > 0 {
		result.Skipped = plural(skipped, "contact")
	}
	guard.Describe(ctx, func(e *guard.Details) { e.Fields, e.Count = found.fields, len(body.Rows) })
	if found.more != (position{}) {
		result.More = address + "&after=" + found.more.String()
	}
	if found.cut && len(found.contacts) < pageSize {
		result.Looked = grouped(found.looked)
	}
	switch {
	case result.More == "" && result.First == "":
		body.Heading, body.Scope = plural(len(body.Rows), "contact")+" found", ""
	case len(body.Rows) > 0:
		body.Heading = "Contacts found"
	default:
		body.Heading, body.Scope = "Search", ""
	}
	return a.render(w, http.StatusOK, "contacts", a.page(r, "Search", true, body))
}

func queryProblem(query string) string {
	switch {
	case query == "":
		return "Type what you look for."
	case utf8.RuneCountInString(query) > maxQuery:
		return "Type at most " + strconv.Itoa(maxQuery) + " characters."
	case masking.IsMasked(query):
		return "This is a masked value. Search needs the whole one."
	}
	return ""
}

// position is where the next page of a search begins. First come the contacts
// that have exactly this phone or address, behind them those that contain what was
// typed; newest first, both. It says nothing about either.
type position struct {
	behind bool  // the exact ones
	before int64 // as in the list; 0: from the newest on
}

func (p position) String() string {
	part := "exact"
	if p.behind {
		part = "other"
	}
	return part + "-" + strconv.FormatInt(p.before, 10)
}

// readPosition is the inverse of String; empty is the beginning.
func readPosition(text string) (position, error) {
	part, number, _ := strings.Cut(text, "-")
	behind := part == "other"
	if text == "" || behind && number == "0" {
		return position{behind: behind}, nil
	}
	before, err := cursor(number)
	if number == "" || !behind && part != "exact" {
		_, err = cursor("none")
	}
	return position{behind, before}, err
}

// foundPage is a page of what a search has found.
type foundPage struct {
	contacts []*Contact // still sealed
	more     position   // zero: there are no more
	cut      bool       // the bounds of the search ended it
	looked   int        // rows that were opened
	skipped  int        // of them, rows that did not open
	fields   []string   // that were looked into
}

// find returns the next contacts in which the subject finds what was typed: by a whole
// phone or address, wherever they may search for that, and by any part of what they
// see unmasked. What is masked for them is not even opened, so that they learn nothing
// of it by trying.
func (a *App) find(ctx context.Context, query string, from position) (foundPage, error) {
	var page foundPage
	within, err := a.within(ctx, crmguard.Search)
	if err != nil {
		return page, err
	}
	exact, field, err := a.exactly(ctx, within, query)
	if err != nil {
		return page, err
	}
	if field != "" {
		page.fields = []string{field}
	}
	if !from.behind {
		for _, c := range exact {
			if from.before == 0 || c.Seq < from.before {
				page.contacts = append(page.contacts, c)
			}
		}
		if len(page.contacts) > pageSize {
			page.contacts = page.contacts[:pageSize]
			page.more = position{before: page.contacts[pageSize-1].Seq}
			return page, nil
		}
		from = position{behind: true}
	}
	return page, a.addContaining(ctx, within, query, from, exact, &page)
}

// exactly returns the contacts with this phone or address, newest first, and which of
// the two it is; where it is neither, nothing.
func (a *App) exactly(ctx context.Context, within predicate, query string) (contacts []*Contact, field string, err error) {
	if field = wholeField(query); field == "" {
		return nil, "", nil
	}
	ids, err := a.table.Find(ctx, tenant, field, field, query) // each has the index of its name
	if err != nil {
		return nil, "", err
	}
	among, err := a.db.among(ctx, within, ids)
	if err != nil {
		return nil, "", err
	}
	resources := make([]crmguard.Resource, len(among))
	for i, c := range among {
		resources[i] = c.resource()
		resources[i].Field = field
	}
	for i, verdict := range a.guard.CheckAll(ctx, crmguard.Search, resources) {
		if verdict == nil {
			contacts = append(contacts, among[i])
		} else if _, denied := errors.AsType[*crmguard.Denial](verdict); !denied {
			return nil, "", verdict
		}
	}
	return contacts, field, nil
}

// wholeField says which field what was typed may be the whole value of.
func wholeField(query string) string {
	if strings.Contains(query, "@") {
		if strings.ContainsFunc(query, unicode.IsSpace) {
			return ""
		}
		return "email"
	}
	number := phoneExtension.ReplaceAllString(phoneLabel.ReplaceAllString(query, ""), "")
	if strings.ContainsFunc(number, unicode.IsLetter) || !strings.ContainsFunc(number, unicode.IsNumber) {
		return ""
	}
	return "phone"
}

// addContaining fills the page with contacts that contain what was typed, except those
// that were found already.
func (a *App) addContaining(ctx context.Context, within predicate, query string, from position, known []*Contact, page *foundPage) error {
	s := &scan{
		a: a, within: within, rights: fieldRights{a: a, ctx: ctx}, known: map[string]bool{},
		before: from.before, left: a.searches.rows, until: time.Now().Add(a.searches.time),
	}
	for _, c := range known {
		s.known[c.ID] = true
	}
	room := pageSize - len(page.contacts)
	hits, err := a.table.Search(ctx, tenant, encrypt.Query{Text: query, Fields: searched, Limit: room + 1}, s.next)
	if err != nil {
		return err
	}
	page.looked, page.skipped = hits.Looked, hits.Skipped
	page.fields = union(page.fields, s.fields)
	ids := make([]string, 0, room)
	last := from.before
	for _, c := range hits.Rows[:min(room, len(hits.Rows))] {
		ids, last = append(ids, c.ID), c.Seq
	}
	if len(hits.Rows) > room {
		page.more = position{behind: true, before: last}
	} else if s.cut {
		page.cut, page.more = true, position{behind: true, before: s.before}
	}
	whole, err := a.db.among(ctx, within, ids) // with what the search did not look into
	page.contacts = append(page.contacts, whole...)
	return err
}

// union returns the fields of both, in their usual order.
func union(a, b []string) []string {
	return slices.DeleteFunc(slices.Clone(fieldNames), func(name string) bool {
		return !slices.Contains(a, name) && !slices.Contains(b, name)
	})
}

// scan reads the rows that the subject may search, newest first, without what is masked
// for them.
type scan struct {
	a      *App
	within predicate
	rights fieldRights
	known  map[string]bool // ids of contacts that were found already

	before int64 // the last row that was read
	left   int   // rows
	until  time.Time
	begun  bool // whatever the time: each search goes on by a batch
	ended  bool // there are no more rows
	cut    bool
	fields []string
}

// next returns the next batch, for [encrypt.Table.Search].
func (s *scan) next(ctx context.Context, _ *Contact) ([]*Contact, error) {
	if s.ended {
		return nil, nil
	}
	if s.left == 0 || s.begun && !time.Now().Before(s.until) {
		s.cut = true
		return nil, nil
	}
	limit := min(s.a.searches.batch, s.left)
	contacts, err := s.a.db.before(ctx, s.within, s.before, limit)
	if err != nil {
		return nil, err
	}
	s.begun, s.ended = true, len(contacts) < limit
	s.left -= len(contacts)
	for _, c := range contacts {
		s.before = c.Seq
		if err := s.drop(c); err != nil {
			return nil, err
		}
	}
	return contacts, nil
}

// drop takes the fields out in which the subject may find nothing.
func (s *scan) drop(c *Contact) error {
	may, err := s.rights.of(c)
	if err != nil {
		return err
	}
	for _, t := range c.texts() {
		if !may[t.name].Unmask || s.known[c.ID] {
			*t.sealed = nil
		} else if slices.Contains(searched, t.name) && !slices.Contains(s.fields, t.name) {
			s.fields = append(s.fields, t.name)
		}
	}
	return nil
}

// grouped writes a number as 20,000. Templates call it count.
func grouped(n any) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
