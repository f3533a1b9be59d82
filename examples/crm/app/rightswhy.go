package app

import (
	"context"
	"net/http"
	"regexp"
	"strconv"
	"strings"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/guard"
	"github.com/crmguard/crmguard/rbac"
)

// whyView is what why.html shows: a refusal with its reasons, for whoever administers
// rights.
type whyView struct {
	entry
	Then    *answer // by the rights of that moment, if they were others
	Now     *answer
	MayAdd  bool
	Missing []string // rows that would do, now
	Roles   []string // or roles
}

// answer is an explanation.
type answer struct {
	Allowed bool
	Text    string
}

// explainedEntry is what a request to explain an entry is about.
func explainedEntry(r *http.Request) (crmguard.Resource, error) {
	resource, err := section("rights")(r)
	if err != nil {
		return resource, err
	}
	seq, err := readNumber(r.PathValue("entry"))
	if err == nil {
		guard.Describe(r.Context(), func(e *guard.Details) { e.Reason = "why:" + strconv.FormatInt(seq, 10) })
	}
	return resource, err
}

// explainable reports whether rights decided what an entry says.
func explainable(ev crmguard.Event) bool {
	return ev.Outcome == crmguard.Denied && strings.HasPrefix(ev.Reason, "rbac:")
}

// notTheirOwn keeps people from learning what would have to change for themselves to be
// let in, whatever they administer.
func notTheirOwn(s crmguard.Subject, ev crmguard.Event) error {
	if s.ID != ev.Subject.ID && s.ID != ev.Subject.OnBehalfOf {
		return nil
	}
	return &guard.Problem{Status: http.StatusForbidden, Title: "This was refused to you", Code: "own-refusal",
		Detail: "Why something was refused is told to others than whom it was refused to. Ask somebody else who administers rights."}
}

// whyPage explains a refusal, as it was decided and as it would be now.
func (a *App) whyPage(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	if err := a.guard.Check(ctx, crmguard.Access, sectionOf("journal")); err != nil {
		return err
	}
	e, err := a.entryAt(ctx, r.PathValue("entry"))
	if err != nil {
		return err
	}
	ev := e.Event
	if !explainable(ev) {
		return guard.ErrNotFound
	}
	if err := notTheirOwn(subjectOf(ctx), ev); err != nil {
		return err
	}
	view := whyView{entry: describe(e), MayAdd: a.mayChangeRights(r)}
	now, err := a.rights.Explain(ctx, ev.Subject, ev.Action, a.asItIs(ctx, ev.Resource))
	if err != nil {
		return err
	}
	view.Now = answerOf(now)
	for _, by := range now.By {
		for _, row := range by.Missing {
			if row[0] == "p" {
				view.Missing = append(view.Missing, strings.Join(row, ", "))
			} else if row[0] == "g" && row[1] == personPrefix+ev.Subject.ID { // given on the staff page
				view.Roles = append(view.Roles, labelOf(row[2]))
			}
		}
	}
	if ev.Policy != now.Policy || a.asItIs(ctx, ev.Resource) != ev.Resource {
		then, err := a.rightsThen(ctx, ev.Policy)
		if err != nil {
			return err
		}
		if then != nil {
			was, err := then.Explain(ctx, ev.Subject, ev.Action, ev.Resource)
			if err != nil {
				return err
			}
			view.Then = answerOf(was)
		}
	}
	return a.render(w, http.StatusOK, "why", a.page(r, "Why "+view.Who+" may not", true, view))
}

func answerOf(x rbac.Explanation) *answer {
	return &answer{Allowed: x.Denial == nil, Text: x.String()}
}

// asItIs is a resource with whoever is responsible for it now.
func (a *App) asItIs(ctx context.Context, r crmguard.Resource) crmguard.Resource {
	if r.Kind != kind || r.ID == "" {
		return r
	}
	c, err := a.db.contact(ctx, r.ID)
	if err != nil { // a new one, which was not stored
		return r
	}
	r.Owner, r.Unit = c.Owner, c.Unit
	return r
}

// rightsThen is an engine with the rights that an entry names, nil if the history has them
// no more.
func (a *App) rightsThen(ctx context.Context, digest string) (*rbac.Engine, error) {
	for before := int64(0); ; {
		versions, err := a.policy.History(ctx, before, 100)
		if err != nil || len(versions) == 0 {
			return nil, err
		}
		for _, v := range versions {
			if before = v.Number; v.Digest != digest {
				continue
			}
			rows, err := a.policy.At(ctx, v.Number)
			if err != nil {
				return nil, err
			}
			return a.rights.Draft(ctx, tenant, rows)
		}
	}
}

// requestShape is what the id of a request looks like.
var requestShape = regexp.MustCompile(`^[A-Z2-7]{26}$`)

// soughtRefusals is in how many of the newest refusals one is looked for.
const soughtRefusals = 2000

// findRefusal leads from the number that a refused person was shown to its explanation.
func (a *App) findRefusal(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	if err := readForm(r); err != nil {
		return err
	}
	if err := a.guard.Check(ctx, crmguard.Access, sectionOf("journal")); err != nil {
		return err
	}
	request := strings.ToUpper(strings.TrimSpace(r.PostForm.Get("request")))
	if !requestShape.MatchString(request) {
		return errNoRefusal
	}
	q := audit.Query{Tenant: tenant, Outcome: crmguard.Denied, Limit: 500}
	for range soughtRefusals / q.Limit {
		found, err := a.journal.Find(ctx, q)
		if err != nil {
			return err
		}
		for _, e := range found.Entries {
			if e.Event.Request != request || !explainable(e.Event) {
				continue
			}
			if err := notTheirOwn(subjectOf(ctx), e.Event); err != nil {
				return err
			}
			http.Redirect(w, r, "/journal/entries/"+strconv.FormatInt(e.Seq, 10)+"/why", http.StatusSeeOther)
			return nil
		}
		if q.Before = found.Next; found.Next == 0 {
			break
		}
	}
	return errNoRefusal
}

var errNoRefusal = &guard.Problem{Status: http.StatusNotFound, Title: "No such refusal", Code: "no-refusal",
	Detail: "No right was refused under this number, or it is not in the journal yet, or long ago. The journal has all of them."}
