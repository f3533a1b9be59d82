package app

import (
	"errors"
	"fmt"
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
	Outcomes                          []string
	Entries                           []entry
	Newest, Older                     string // addresses
	Verdict                           *verdict
	MayOpen                           bool
	Opened                            *opened
}

// opened is what was sealed in one entry.
type opened struct {
	Seq    int64
	Values []struct{ Name, Text string }
}

// verdict is the result of a verification in plain words.
type verdict struct {
	Class, Title, Text, Facts string
}

var outcomeClasses = map[crmguard.Outcome]string{
	crmguard.Attempted: "", crmguard.Done: "good", crmguard.Denied: "bad", crmguard.Failed: "warn", crmguard.Undecided: "warn",
}

// outcomes are what the page can be narrowed to.
var outcomes = []crmguard.Outcome{crmguard.Done, crmguard.Denied, crmguard.Failed, crmguard.Attempted, crmguard.Undecided}

// journalPage shows the journal, or the timeline of a record or a person.
func (a *App) journalPage(w http.ResponseWriter, r *http.Request) error {
	view, err := a.journalView(r, r.URL.Query())
	if err != nil {
		return err
	}
	return a.render(w, http.StatusOK, "journal", a.page(r, "Journal", true, view))
}

func (a *App) journalView(r *http.Request, asked url.Values) (journalView, error) {
	view := journalView{
		Person: strings.TrimSpace(asked.Get("person")), Record: strings.TrimSpace(asked.Get("record")), Outcome: asked.Get("outcome"),
		Subtitle: "Who saw, changed and tried what. Newest first.",
	}
	if err := view.checkFilter(); err != nil {
		return view, err
	}
	q := audit.Query{Tenant: tenant, Subject: view.Person, Record: view.Record, Limit: pageSize}
	for _, o := range outcomes {
		view.Outcomes = append(view.Outcomes, o.String())
		if o.String() == view.Outcome {
			q.Outcome = o
		}
	}
	if view.Record != "" {
		view.Subtitle = "Timeline of record " + view.Record + ". Newest first."
	} else if view.Person != "" {
		view.Subtitle = "Timeline of " + view.Person + ". Newest first."
	}
	view.MayOpen = a.may(r, crmguard.Reveal, crmguard.Resource{Tenant: tenant, Kind: "journal", ID: "any"})
	view.Filtered = view.Person != "" || view.Record != "" || q.Outcome != 0
	var err error
	if q.Before, err = cursor(asked.Get("before")); err != nil {
		return view, err
	}
	found, err := a.journal.Find(r.Context(), q)
	if err != nil {
		return view, err
	}
	for _, e := range found.Entries {
		view.Entries = append(view.Entries, describe(e))
	}
	if found.Next > 0 {
		view.Older = view.address(found.Next)
	}
	if q.Before > 0 {
		view.Newest = view.address(0)
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
		Detail: "Give the login of a person, or the id of a contact as its card's address shows it. Names, phones and e-mail addresses of clients are not in the journal.",
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
	case ev.Resource.Kind == "journal":
		line.What, line.Record = "open what is sealed", "entry "+ev.Resource.ID
	case ev.Resource.Kind == alertKind:
		line.What = "pass a norm"
	case ev.Resource.Field != "":
		line.What += " " + ev.Resource.Field
	case strings.HasPrefix(ev.Reason, verifyReason):
		line.What = "verify journal"
	case ev.Action == crmguard.Revoke && ev.Resource.Kind == "sessions":
		line.What = "sign out"
	case ev.Action == crmguard.Access:
		line.What = "open " + strings.TrimPrefix(ev.Resource.Kind, "section:")
	case ev.Resource.ID == "":
		line.What += " " + ev.Resource.Kind
	}
	var details []string
	if ev.Reason != "" {
		details = append(details, ev.Reason)
	}
	if len(ev.Fields) > 0 && !(len(ev.Fields) == 1 && ev.Fields[0] == ev.Resource.Field) {
		details = append(details, strings.Join(ev.Fields, ", "))
	}
	if ev.Count > 0 {
		details = append(details, plural(ev.Count, "record"))
	}
	for _, p := range ev.Private {
		details = append(details, "sealed: "+p.Name)
	}
	if ev.Subject.Addr.IsValid() && ev.Action == crmguard.SignIn {
		details = append(details, "from "+ev.Subject.Addr.String())
	}
	line.Sealed = len(ev.Private) > 0
	line.Details = strings.Join(details, " · ")
	return line
}

const verifyReason = "verify"

// verification is what a request to verify the journal is about.
func verification(r *http.Request) (crmguard.Resource, error) {
	guard.Describe(r.Context(), func(e *guard.Details) { e.Reason = verifyReason })
	return section("journal")(r)
}

func plural(n int, word string) string {
	if n == 1 {
		return "1 " + word
	}
	return fmt.Sprintf("%d %ss", n, word)
}

// verifyJournal recomputes the whole journal and says what it found.
func (a *App) verifyJournal(w http.ResponseWriter, r *http.Request) error {
	report, err := a.journal.Verify(r.Context(), a.vault.verifier, nil)
	if err != nil {
		return err
	}
	guard.Describe(r.Context(), func(e *guard.Details) {
		e.Reason = verifyReason + ":" + strings.ReplaceAll(report.Verdict.String(), " ", "-")
	})
	view, err := a.journalView(r, url.Values{})
	if err != nil {
		return err
	}
	view.Verdict = explain(report)
	return a.render(w, http.StatusOK, "journal", a.page(r, "Journal", true, view))
}

// explain says what a report means to somebody who does not know how it is made.
func explain(report audit.Report) *verdict {
	v := &verdict{Class: "bad", Text: report.Detail + "."}
	switch report.Verdict {
	case audit.Intact:
		v.Class, v.Title = "good", "The journal is intact"
		v.Text = "Every entry is as it was written, and something outside this machine says so too."
	case audit.Unanchored:
		// No green without something outside: who can write the database can cut
		// checkpoints off and write the entries after them anew.
		v.Class, v.Title = "warn", "Every entry is as it was written, as far as this machine can tell"
		v.Text = "The entries fit together and contradict no signature that is here. Nothing outside this machine vouches for them: keep a copy of the newest checkpoint elsewhere."
	case audit.AnchorStale:
		v.Class, v.Title = "warn", "Intact, but last vouched for long ago"
	case audit.Pruned:
		v.Class, v.Title = "good", "Intact; old entries were removed by retention"
	case audit.Broken:
		v.Title = fmt.Sprintf("Entry %d was changed or damaged", report.At)
		v.Text = fmt.Sprintf("%s. The %d entries before it are as they were written. Save a copy of the data folder before anything else.", report.Detail, report.Entries)
	case audit.Truncated:
		v.Title = fmt.Sprintf("Entries from %d on are missing", report.At)
	case audit.Forked:
		v.Title = "This is not the journal that was signed"
	case audit.Restored:
		v.Title = "The journal was restored from elsewhere"
	default:
		v.Title = "The journal cannot be verified"
	}
	v.Facts = fmt.Sprintf("%d entries checked, %d of them signed. Log %s.", report.Entries, report.Signed, report.Log)
	return v
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

// entryNumber is the number in the form. The largest one has no successor, before
// which the entry would be looked for.
func entryNumber(r *http.Request) (int64, error) {
	seq, err := strconv.ParseInt(r.PostForm.Get("entry"), 10, 64)
	if err != nil || seq < 0 || seq == math.MaxInt64 {
		return 0, guard.ErrNotFound
	}
	return seq, nil
}

// openEntry shows what is sealed in an entry, as long as its client was not
// erased. That it was read is an entry too.
func (a *App) openEntry(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	seq, err := entryNumber(r)
	if err != nil {
		return err
	}
	found, err := a.journal.Find(ctx, audit.Query{Tenant: tenant, Before: seq + 1, Limit: 1})
	if err != nil {
		return err
	}
	if len(found.Entries) == 0 || found.Entries[0].Seq != seq {
		return guard.ErrNotFound
	}
	values, err := a.journal.OpenPrivate(ctx, found.Entries[0])
	if err != nil && !errors.Is(err, crmguard.ErrErased) {
		return err
	}
	view, err := a.journalView(r, url.Values{})
	if err != nil {
		return err
	}
	view.Opened = &opened{Seq: seq}
	for _, v := range values {
		text := string(v.Value)
		if v.Value == nil {
			text = "erased with the client"
		}
		view.Opened.Values = append(view.Opened.Values, struct{ Name, Text string }{v.Name, text})
	}
	return a.render(w, http.StatusOK, "journal", a.page(r, "Journal", true, view))
}
