package app

import (
	"crypto/rand"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/guard"
)

// rightsDraft is a change of the rights that somebody prepares: rows to add and to
// remove, each with its type first. It is no version of the rights but a difference, so
// that what others save meanwhile stays.
type rightsDraft struct {
	ID          string // another one with each change
	Add, Remove [][]string
	Reason      string // as it was typed last
}

func (d rightsDraft) empty() bool { return len(d.Add)+len(d.Remove) == 0 }

// on is what rows become by the draft.
func (d rightsDraft) on(rows [][]string) [][]string {
	next := slices.DeleteFunc(slices.Clone(rows), func(row []string) bool { return hasRow(d.Remove, row) })
	return append(next, without(d.Add, next)...)
}

// text is the draft as it can be typed.
func (d rightsDraft) text() string {
	var b strings.Builder
	for _, row := range d.Remove {
		b.WriteString("- " + strings.Join(row, ", ") + "\n")
	}
	for _, row := range d.Add {
		b.WriteString("+ " + strings.Join(row, ", ") + "\n")
	}
	return b.String()
}

// parseDraft is the inverse of text.
func parseDraft(typed string) (d rightsDraft, problem string) {
	for line := range strings.Lines(typed) {
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		sign, size := utf8.DecodeRuneInString(line)
		row := strings.Split(line[size:], ",")
		for i := range row {
			row[i] = strings.TrimSpace(row[i])
		}
		if !slices.Contains([]string{"p", "g", "p2", "p4"}, row[0]) || len(row) < 4 {
			return d, "This is no row: " + line
		}
		switch sign {
		case '+':
			d.Add = append(d.Add, row)
		case '-', '−': // as typed, and as the pages show it
			d.Remove = append(d.Remove, row)
		default:
			return d, "A line begins with + or −: " + line
		}
	}
	return d, ""
}

// between is the draft that makes one policy of another.
func between(before, after [][]string) rightsDraft {
	return rightsDraft{Add: without(after, before), Remove: without(before, after)}
}

func hasRow(rows [][]string, row []string) bool {
	return slices.ContainsFunc(rows, func(other []string) bool { return slices.Equal(other, row) })
}

// without are the rows that others are not.
func without(rows, others [][]string) (left [][]string) {
	for _, row := range rows {
		if !hasRow(others, row) && !hasRow(left, row) {
			left = append(left, row)
		}
	}
	return left
}

// rightsDrafts are one of each person, who alone sees it. A restart forgets them.
type rightsDrafts struct {
	mu sync.Mutex
	by map[string]rightsDraft
}

func (d *rightsDrafts) of(login string) rightsDraft {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.by[login]
}

// put replaces somebody's draft; an empty one is none.
func (d *rightsDrafts) put(login string, draft rightsDraft) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.by == nil {
		d.by = map[string]rightsDraft{}
	}
	if draft.empty() {
		delete(d.by, login)
		return
	}
	draft.ID = rand.Text()
	if draft.Reason == "" {
		draft.Reason = d.by[login].Reason
	}
	d.by[login] = draft
}

const whatIfReason = "what-if"

// drafting is what a request to prepare a change is about: it changes nothing yet.
func drafting(r *http.Request) (crmguard.Resource, error) {
	guard.Describe(r.Context(), func(e *guard.Details) { e.Reason = whatIfReason })
	resource, err := section("rights")(r)
	if err == nil {
		err = readForm(r)
	}
	return resource, err
}

// mayDraft refuses who may look at rights but not change them. Only saving wants a
// fresh code.
func (a *App) mayDraft(r *http.Request) error {
	if a.mayChangeRights(r) {
		return nil
	}
	return a.guard.Check(r.Context(), crmguard.Configure, rightsResource)
}

// What can be chosen for one right of one holder.
const (
	chosenNo    = "no"
	chosenNever = "never"
	chosenKeep  = "keep" // rows that are more than one choice
)

var choiceLabels = map[string]string{
	chosenNo: "–", "own": "own", "dept": "department", "tree": "department and below", "headed": "departments they head", "all": "all", chosenNever: "never", chosenKeep: "as it is",
}

// choicesOf are those of one right. Nothing in this CRM is shared.
func choicesOf(object, chosen string) (list []choice) {
	values := []string{chosenNo, "own", "dept", "tree", "headed", "all", chosenNever}
	if strings.HasPrefix(object, "section:") {
		values = []string{chosenNo, "all", chosenNever}
	}
	if !slices.Contains(values, chosen) {
		values = append(values, chosenKeep)
	}
	for _, value := range values {
		list = append(list, choice{value, choiceLabels[value]})
	}
	return list
}

// rightName is the name of a field of the form.
func rightName(object string, action crmguard.Action) string { return object + "|" + string(action) }

// isAbout reports whether a row is a rule of a holder about one right.
func isAbout(row []string, holder, object string, action crmguard.Action) bool {
	return len(row) == 7 && row[0] == "p" && row[1] == holder && row[3] == object && row[4] == string(action)
}

// chosen is what rows say of one right of one holder alone.
func chosen(rows [][]string, holder, object string, action crmguard.Action) string {
	choice := chosenNo
	for _, row := range rows {
		if !isAbout(row, holder, object, action) {
			continue
		}
		switch {
		case choice != chosenNo:
			return chosenKeep
		case row[6] == "allow":
			choice = row[5]
		case row[5] == "all":
			choice = chosenNever
		default:
			return chosenKeep
		}
	}
	if _, offered := choiceLabels[choice]; !offered {
		return chosenKeep
	}
	return choice
}

// choose makes the rows say what was chosen.
func choose(rows [][]string, holder, object string, action crmguard.Action, choice string) [][]string {
	next := slices.DeleteFunc(slices.Clone(rows), func(row []string) bool { return isAbout(row, holder, object, action) })
	switch choice {
	case chosenNo:
		return next
	case chosenNever:
		return append(next, []string{"p", holder, tenant, object, string(action), "all", "deny"})
	}
	return append(next, []string{"p", holder, tenant, object, string(action), choice, "allow"})
}

// draftHolder takes over what was chosen for one holder, and leads to what it would mean.
func (a *App) draftHolder(w http.ResponseWriter, r *http.Request) error {
	if err := a.mayDraft(r); err != nil {
		return err
	}
	ctx, holder := r.Context(), r.PathValue("holder")
	login := subjectOf(ctx).ID
	version, err := strconv.ParseInt(r.PostForm.Get("version"), 10, 64)
	if err != nil {
		return unreadable()
	}
	looked, err := a.policy.At(ctx, version) // that the person saw
	if err != nil {
		return unreadable()
	}
	matrix, err := a.rights.Matrix(ctx, tenant)
	if err != nil {
		return err
	}
	draft := a.drafts.of(login)
	next := draft.on(looked)
	left := maps.Clone(r.PostForm)
	delete(left, "version")
	for _, object := range matrix.Objects {
		for _, right := range object.Rights {
			name := rightName(object.Object, right.Action)
			if typed, ok := left[name]; ok {
				delete(left, name)
				was := chosen(next, holder, object.Object, right.Action)
				if len(typed) != 1 || !slices.ContainsFunc(choicesOf(object.Object, was), func(c choice) bool { return c.ID == typed[0] }) {
					return unreadable()
				}
				if typed[0] != chosenKeep && typed[0] != was {
					next = choose(next, holder, object.Object, right.Action, typed[0])
				}
			}
		}
	}
	if len(left) > 0 {
		return unreadable()
	}
	a.drafts.put(login, between(looked, next))
	http.Redirect(w, r, "/rights/draft", http.StatusSeeOther)
	return nil
}

// draftRows takes over rows that were typed.
func (a *App) draftRows(w http.ResponseWriter, r *http.Request) error {
	if err := a.mayDraft(r); err != nil {
		return err
	}
	draft, problem := parseDraft(r.PostForm.Get("rows"))
	if problem != "" {
		return notSavedDraft(r, http.StatusUnprocessableEntity, &draftView{Typed: r.PostForm.Get("rows"), TypedError: problem})
	}
	a.drafts.put(subjectOf(r.Context()).ID, draft)
	http.Redirect(w, r, "/rights/draft", http.StatusSeeOther)
	return nil
}

func (a *App) discardDraft(w http.ResponseWriter, r *http.Request) error {
	a.drafts.put(subjectOf(r.Context()).ID, rightsDraft{})
	http.Redirect(w, r, "/rights", http.StatusSeeOther)
	return nil
}
