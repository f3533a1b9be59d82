package app

import (
	"net/http"
	"strconv"
	"time"

	"github.com/crmguard/crmguard/guard"
	"github.com/crmguard/crmguard/rbac"
)

// historyView is what rightshistory.html shows.
type historyView struct {
	Status   *verdict
	Versions []versionLine
	Newest   bool  // this is not the first page
	Older    int64 // cursor of the next page; 0: there is none
	May      bool
}

// versionLine is one version of the rights.
type versionLine struct {
	Number         int64
	Time           time.Time
	Author, Reason string
	Added, Removed []shownRow
	More           int // rows that are left out
	InForce        bool
}

// maxShown is how many rows of a version the page shows.
const maxShown = 60

const historyPage = 20

// rightsHistory shows who changed the rights, when and why, and how what is in force
// stands to what is stored.
func (a *App) rightsHistory(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	before, err := cursor(r.URL.Query().Get("before"))
	if err != nil {
		return err
	}
	versions, err := a.rights.History(ctx, tenant, before, historyPage+1)
	if err != nil {
		return err
	}
	view := historyView{Newest: before > 0, May: a.mayChangeRights(r), Status: statusOf(a.rights.Status())}
	if len(versions) > historyPage {
		versions = versions[:historyPage]
		view.Older = versions[historyPage-1].Number
	}
	inForce := a.rights.Version()
	for _, v := range versions {
		view.Versions = append(view.Versions, versionLine{
			Number: v.Number, Time: v.Time, Author: v.Author, Reason: v.Reason, InForce: v.Digest == inForce,
			Added: a.shownRows(v.Added[:min(maxShown, len(v.Added))]), Removed: a.shownRows(v.Removed[:min(maxShown, len(v.Removed))]),
			More: max(0, len(v.Added)-maxShown) + max(0, len(v.Removed)-maxShown),
		})
	}
	return a.render(w, http.StatusOK, "rightshistory", a.page(r, "History of the rights", false, view))
}

// statusOf says how what is in force stands to what is stored.
func statusOf(s rbac.Status) *verdict {
	v := &verdict{Class: "good", Title: "What is stored is in force", Facts: "Version " + s.InForce + "."}
	switch {
	case s.Stale:
		v.Class, v.Title, v.Text = "bad", "Nothing is decided", "Nobody could look at what is stored for too long: meanwhile somebody may have lost rights."
	case s.Err != nil:
		v.Class, v.Title, v.Text = "bad", "What is stored is not in force", s.Err.Error()+"."
	}
	return v
}

// draftOlder makes a draft that brings an older version back. What persons have stays as it is
// now: somebody may have been dismissed since.
func (a *App) draftOlder(w http.ResponseWriter, r *http.Request) error {
	if err := a.mayDraft(r); err != nil {
		return err
	}
	ctx := r.Context()
	number, err := strconv.ParseInt(r.PathValue("version"), 10, 64)
	if err != nil {
		return guard.ErrNotFound
	}
	stored, err := a.policy.Load(ctx)
	if err != nil {
		return err
	}
	if number < 1 || number > stored.Version.Number {
		return guard.ErrNotFound
	}
	then, err := a.rights.RolledBack(ctx, tenant, number)
	if err != nil {
		return err
	}
	draft := between(stored.Rules, then)
	draft.Reason = "back to version " + strconv.FormatInt(number, 10)
	a.drafts.put(subjectOf(ctx).ID, draft)
	http.Redirect(w, r, "/rights/draft", http.StatusSeeOther)
	return nil
}
