package app

import (
	"errors"
	"math"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/guard"
)

// entry is one line of the journal's page.
type entry struct {
	Seq                                        int64
	Time                                       time.Time
	Who, What, Record, Outcome, Class, Details string
	Person, Link                               bool // Who is somebody of the staff; Record is a contact
	Sealed                                     bool // there is something to open
}

// journalView is what journal.html shows.
type journalView struct {
	Subtitle, Person, Record, Outcome string
	Filtered                          bool
	Entries                           []entry
	Damaged                           []int64 // numbers of entries that belong here, and were changed
	Newest, Older                     string  // addresses
	Before                            int64   // where this page begins; 0: with the newest
	Live                              bool    // it loads itself again
	Follow                            string  // the address of the live view
	MayOpen                           bool
	Value, Problem                    string // of a search for a sealed value
	Contact                           string // whose timeline it is
	Health                            journalHealth
	Opened                            *opened
}

// opened is what was sealed in one entry.
type opened struct {
	Seq    int64
	Values []struct{ Name, Text string }
}

var outcomeClasses = map[crmguard.Outcome]string{
	crmguard.Attempted: "", crmguard.Done: "good", crmguard.Denied: "bad", crmguard.Failed: "warn", crmguard.Undecided: "warn",
}

// outcomes are what the page can be narrowed to.
var outcomes = []crmguard.Outcome{crmguard.Done, crmguard.Denied, crmguard.Failed, crmguard.Attempted, crmguard.Undecided}

// Outcomes are what the form offers.
func (journalView) Outcomes() (names []string) {
	for _, o := range outcomes {
		names = append(names, o.String())
	}
	return names
}

// journalPage shows the journal, or the timeline of a record or a person.
func (a *App) journalPage(w http.ResponseWriter, r *http.Request) error {
	view, err := a.journalView(r, r.URL.Query(), false)
	if err != nil {
		return err
	}
	if view.Live = r.URL.Query().Has("live") && view.Newest == ""; view.Live {
		a.follows.begin(view.look(r), a.now())
	}
	return a.showJournal(w, r, view)
}

func (a *App) showJournal(w http.ResponseWriter, r *http.Request, view journalView) error {
	view.Health = health(a.recorder.Status())
	p := a.page(r, "Journal", true, view)
	if view.Live {
		p.Reload, p.ReloadFrom = int(alertsReload.Seconds()), strings.Replace(view.address(0), "/journal", "/journal/live", 1)
	}
	return a.render(w, http.StatusOK, "journal", p)
}

// liveJournal shows the newest entries within a look that is recorded, and nothing else.
func (a *App) liveJournal(w http.ResponseWriter, r *http.Request) {
	err := a.guard.Check(r.Context(), crmguard.Access, sectionOf("journal"))
	asked := r.URL.Query()
	asked.Del("before")
	var view journalView
	if err == nil {
		view, err = a.journalView(r, asked, true)
	}
	if err == nil && a.follows.left(view.look(r), a.now()) <= 0 {
		http.Redirect(w, r, view.address(0), http.StatusSeeOther) // #nosec G710 -- the path is always /journal
		return
	}
	if err == nil {
		view.Live = true
		err = a.showJournal(w, r, view)
	}
	if err != nil {
		a.guard.WriteError(w, r, err)
	}
}

func (a *App) journalView(r *http.Request, asked url.Values, live bool) (journalView, error) {
	view := journalView{
		Person: strings.TrimSpace(asked.Get("person")), Record: strings.TrimSpace(asked.Get("record")), Outcome: asked.Get("outcome"),
		Subtitle: "Who saw, changed and tried what. Newest first.",
	}
	if err := view.checkFilter(); err != nil {
		return view, err
	}
	q := audit.Query{Tenant: tenant, Subject: view.Person, Record: view.Record, Limit: pageSize}
	for _, o := range outcomes {
		if o.String() == view.Outcome {
			q.Outcome = o
		}
	}
	if view.Record != "" {
		view.Subtitle = "Timeline of record " + view.Record + ". Newest first."
	} else if view.Person != "" {
		view.Subtitle = "Timeline of " + view.Person + ". Newest first."
	}
	view.MayOpen = a.mayOpenSealed(r)
	view.Filtered = view.Person != "" || view.Record != "" || q.Outcome != 0
	var err error
	if q.Before, err = cursor(asked.Get("before")); err != nil {
		return view, err
	}
	// That somebody reads is an entry itself, but not each time the live view loads again.
	read := a.journal.Read
	if live {
		read = a.journal.Find
	}
	view.Before = q.Before
	found, err := read(r.Context(), q)
	if err != nil {
		return view, err
	}
	view.Damaged = found.Damaged
	for _, e := range found.Entries {
		line := describe(e)
		if line.Link && line.Record == view.Record {
			view.Contact = line.Record
		}
		view.Entries = append(view.Entries, line)
	}
	if found.Next > 0 {
		view.Older = view.address(found.Next)
	}
	if q.Before > 0 {
		view.Newest = view.address(0)
	} else {
		view.Follow = follow(view.address(0))
	}
	return view, nil
}

// What the journal can be narrowed to: by login or "system:" and a job, and by the
// id of a contact or a login.
var (
	actorShape  = regexp.MustCompile(`^(system:)?[a-z][a-z0-9._-]{1,31}$`)
	recordShape = regexp.MustCompile(`^([a-z2-7]{20}|[a-z][a-z0-9._-]{1,31})$`)
)

// checkFilter refuses everything else, because it stands in addresses, which
// histories keep: somebody may look for a client by name or phone here.
func (v *journalView) checkFilter() error {
	known := v.Outcome == "" || slices.ContainsFunc(outcomes, func(o crmguard.Outcome) bool { return o.String() == v.Outcome })
	if known && (v.Person == "" || actorShape.MatchString(v.Person)) && (v.Record == "" || recordShape.MatchString(v.Record)) {
		return nil
	}
	return &guard.Problem{
		Status: http.StatusUnprocessableEntity, Title: "The journal cannot be narrowed to that", Code: "journal-filter",
		Detail: "Give the login of a person, or the id of a contact as its card's address shows it. What addresses hold is kept in histories: look for a phone number or e-mail address in the other field.",
	}
}

// address keeps what the page was narrowed to.
func (v *journalView) address(before int64) string {
	query := url.Values{}
	for name, value := range map[string]string{"person": v.Person, "record": v.Record, "outcome": v.Outcome} {
		if value != "" {
			query.Set(name, value)
		}
	}
	if before > 0 {
		query.Set("before", strconv.FormatInt(before, 10))
	}
	if len(query) == 0 {
		return "/journal"
	}
	return "/journal?" + query.Encode()
}

// look is what a recorded look is remembered by: the entry says what the page was
// narrowed to, so a page that is narrowed to something else is another look.
func (v *journalView) look(r *http.Request) string {
	return subjectOf(r.Context()).Session + " " + v.address(0)
}

// follow is the live view of a page of the journal.
func follow(address string) string {
	if strings.Contains(address, "?") {
		return address + "&live"
	}
	return address + "?live"
}

// describe puts an entry into words. It holds no personal data of clients; what
// is sealed in it is only named.
func describe(e audit.Entry) entry {
	ev := e.Event
	line := entry{
		Seq: e.Seq, Time: ev.Time, Who: ev.Subject.ID, Person: ev.Subject.Kind != crmguard.KindSystem,
		What: string(ev.Action), Record: ev.Resource.ID, Link: ev.Resource.Kind == kind && ev.Resource.ID != "",
		Outcome: ev.Outcome.String(), Class: outcomeClasses[ev.Outcome],
	}
	switch {
	case ev.Action == audit.ActRead:
		line.What = "read the journal"
	case ev.Resource.Kind == "journal":
		line.What, line.Record = "open what is sealed", "entry "+ev.Resource.ID
	case lockdownWords(ev) != "":
		line.What = lockdownWords(ev)
	case ev.Resource.Kind == alertKind:
		line.What = "pass a norm"
	case ev.Resource.Field != "":
		line.What += " " + ev.Resource.Field
	case strings.HasPrefix(ev.Reason, verifyReason):
		line.What = "verify journal"
	case strings.HasPrefix(ev.Reason, "entry:"):
		line.What = "look at an entry"
	case strings.HasPrefix(ev.Reason, "why:"):
		line.What = "ask why it was refused"
	case ev.Reason == whatIfReason:
		line.What = "prepare other rights"
	case strings.HasPrefix(ev.Reason, "proof:"):
		line.What = "download a proof"
	case ev.Resource == receipts && ev.Reason == "extract":
		line.What = "download an extract"
	case ev.Action == crmguard.Revoke && ev.Resource.Kind == "sessions":
		line.What = "sign out"
	case ev.Action == crmguard.Access:
		line.What = "open " + strings.TrimPrefix(ev.Resource.Kind, "section:")
	case ev.Resource.ID == "":
		line.What += " " + ev.Resource.Kind
	}
	var details []string
	if ev.Reason != "" {
		details = append(details, reasonWords(ev.Reason))
	}
	if len(ev.Fields) > 0 && !(len(ev.Fields) == 1 && ev.Fields[0] == ev.Resource.Field) {
		details = append(details, fieldWords(ev))
	}
	switch {
	case ev.Count > 0 && ev.Resource.Kind == alertKind:
		details = append(details, grouped(ev.Count)+" in the day")
	case ev.Count > 0:
		details = append(details, plural(ev.Count, "record"))
	}
	if names := sealedNames(e); len(names) > 0 {
		details = append(details, "sealed: "+strings.Join(names, ", "))
	}
	if ev.Subject.Addr.IsValid() && ev.Action == crmguard.SignIn {
		details = append(details, "from "+ev.Subject.Addr.String())
	}
	line.Sealed = len(ev.Private) > 0
	line.Details = strings.Join(details, " · ")
	return line
}

// sealedNames are the names of what is sealed in an entry, each once: of a change the old
// value and the new one have the same.
func sealedNames(e audit.Entry) (names []string) {
	for _, p := range e.Event.Private {
		if !slices.Contains(names, p.Name) {
			names = append(names, p.Name)
		}
	}
	return names
}

func plural(n int, word string) string {
	if n == 1 {
		return "1 " + word
	}
	return grouped(n) + " " + word + "s"
}

// journalEntry is the entry in which something sealed is to be read.
func journalEntry(r *http.Request) (crmguard.Resource, error) {
	resource := crmguard.Resource{Tenant: tenant, Kind: "journal"}
	if err := readForm(r); err != nil {
		return resource, err
	}
	seq, err := entryNumber(r)
	if err != nil {
		return resource, err
	}
	resource.ID = strconv.FormatInt(seq, 10)
	return resource, nil
}

// entryNumber is the number in the form.
func entryNumber(r *http.Request) (int64, error) { return readNumber(r.PostForm.Get("entry")) }

// readNumber reads the number of an entry. The largest one has no successor, before
// which the entry would be looked for.
func readNumber(text string) (int64, error) {
	seq, err := strconv.ParseInt(text, 10, 64)
	if err != nil || seq < 0 || seq == math.MaxInt64 {
		return 0, guard.ErrNotFound
	}
	return seq, nil
}

// openEntry shows what is sealed in an entry, as long as its client was not
// erased. That it was read is an entry too.
func (a *App) openEntry(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	e, err := a.entryAt(ctx, r.PostForm.Get("entry"))
	if err != nil {
		return err
	}
	values, err := a.journal.OpenPrivate(ctx, e)
	if err != nil && !errors.Is(err, crmguard.ErrErased) {
		return err
	}
	view, err := a.journalView(r, r.PostForm, true) // opening it is an entry already
	if err != nil {
		return err
	}
	view.Opened = &opened{Seq: e.Seq}
	for _, v := range values {
		text := string(v.Value)
		if v.Value == nil {
			text = "erased with the client"
		}
		view.Opened.Values = append(view.Opened.Values, struct{ Name, Text string }{v.Name, text})
	}
	return a.render(w, http.StatusOK, "journal", a.page(r, "Journal", true, view))
}
