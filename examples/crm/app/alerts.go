package app

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/quota"
)

// alertKind is what rights and the journal call an alert. Its record is the person
// it is about, whose department decides which heads see it.
const alertKind = "alerts"

// alert puts into the journal, before the act goes on or is refused, that somebody
// has passed a norm.
func (a *App) alert(ctx context.Context, passed quota.Alert) error {
	units, err := a.people.org.Load(ctx, tenant)
	if err != nil {
		return err
	}
	e, limit := passed.Event(), passed.Norm.Soft
	if passed.Level == quota.Hard {
		limit = passed.Norm.Hard
	}
	e.Reason += ":" + strconv.Itoa(limit)
	e.Fields = []string{passed.Norm.Counter()}
	e.Resource = crmguard.Resource{Tenant: tenant, Kind: alertKind, ID: passed.Person, Owner: passed.Person}
	if of := units.Members[passed.Person]; len(of) > 0 {
		e.Resource.Unit = of[0]
	}
	if err := a.recorder.Record(ctx, e); err != nil {
		return err
	}
	a.board.add(e)
	return nil
}

// alertBoard keeps the newest alerts at hand, because every page counts those of
// today. The journal has all.
type alertBoard struct {
	mu     sync.Mutex
	recent []crmguard.Event
}

// boardKeeps is longer than any day in any zone.
const boardKeeps = 48 * time.Hour

func (b *alertBoard) add(e crmguard.Event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if slices.ContainsFunc(b.recent, func(known crmguard.Event) bool { return known.ID == e.ID }) {
		return
	}
	b.recent = append(slices.DeleteFunc(b.recent, func(old crmguard.Event) bool { return e.Time.Sub(old.Time) > boardKeeps }), e)
}

func (b *alertBoard) since(from time.Time) []crmguard.Event {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(b.recent), func(e crmguard.Event) bool { return e.Time.Before(from) })
}

// loadAlerts reads the newest alerts. One that a crash kept from the journal, after
// it was counted, is recorded now.
func (a *App) loadAlerts(ctx context.Context) error {
	q := audit.Query{Tenant: tenant, Kind: alertKind, From: a.now().Add(-boardKeeps), Limit: 500}
	for {
		found, err := a.journal.Find(ctx, q)
		if err != nil {
			return err
		}
		for _, e := range found.Entries {
			a.board.add(e.Event)
		}
		if q.Before = found.Next; q.Before == 0 {
			break
		}
	}
	accounts, err := a.people.accounts(ctx)
	if err != nil {
		return err
	}
	for _, p := range accounts {
		if err := a.missedAlerts(ctx, p); err != nil {
			return fmt.Errorf("alerts about %s: %w", p.ID, err)
		}
	}
	return nil
}

func (a *App) missedAlerts(ctx context.Context, p account) error {
	usage, err := a.norms.counter.Load().Usage(ctx, tenant, p.ID)
	if err != nil {
		return err
	}
	known := a.board.since(time.Time{})
	for _, used := range usage.Norms {
		for _, level := range []quota.Level{quota.Soft, quota.Hard} {
			missed := quota.Alert{
				Norm: used.Norm, Level: level, Person: p.ID, Subject: crmguard.Subject{Tenant: tenant, ID: p.ID, Kind: p.Kind},
				Count: used.Count, Day: usage.Day, Time: a.now(),
			}
			id := missed.Event().ID
			if used.Passed&level == 0 || slices.ContainsFunc(known, func(e crmguard.Event) bool { return e.ID == id }) {
				continue
			}
			if err := a.alert(ctx, missed); err != nil {
				return err
			}
		}
	}
	return nil
}

// visibleAlerts are those that the subject may see: heads, about people of their
// own departments.
func (a *App) visibleAlerts(ctx context.Context, events []crmguard.Event) []crmguard.Event {
	if len(events) == 0 {
		return nil
	}
	about := make([]crmguard.Resource, len(events))
	for i, e := range events {
		about[i] = e.Resource
	}
	var visible []crmguard.Event
	verdicts := a.guard.CheckAll(ctx, crmguard.Access, about)
	for i, e := range events {
		if verdicts[i] == nil {
			visible = append(visible, e)
		}
	}
	return visible
}

// alertsToday is the number beside the page's name on every page.
func (a *App) alertsToday(ctx context.Context) int {
	return len(a.visibleAlerts(ctx, a.board.since(a.norms.today())))
}

// alertLine is one alert in words.
type alertLine struct {
	Time                     time.Time
	Person, By, What, Result string
	Class                    string
}

// alertsView is what alerts.html shows.
type alertsView struct {
	Lines         []alertLine
	Older, Newest string // addresses
	MayJournal    bool
	Live          bool // the page loads itself again
}

// The page loads itself again every few seconds, for an hour: who has left keeps
// neither the session alive nor the server busy.
const (
	alertsReload = 5 * time.Second
	alertsLook   = time.Hour
)

// alertLooks are the looks at the newest alerts that are recorded and still last, by
// session and, of the journal, what it was narrowed to. A restart forgets them, and
// the next reload is recorded anew.
type alertLooks struct {
	mu    sync.Mutex
	began map[string]time.Time
}

func (l *alertLooks) begin(look string, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.began == nil {
		l.began = map[string]time.Time{}
	}
	maps.DeleteFunc(l.began, func(_ string, began time.Time) bool { return now.Sub(began) > alertsLook })
	l.began[look] = now
}

// left is how much longer a look lasts.
func (l *alertLooks) left(look string, now time.Time) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.began[look].Add(alertsLook).Sub(now)
}

// alertsPage shows the newest alerts, or a page of older ones. That somebody looks
// at the newest is recorded once, not each time the page loads itself again.
func (a *App) alertsPage(w http.ResponseWriter, r *http.Request) error {
	before, err := cursor(r.URL.Query().Get("before"))
	if err != nil {
		return err
	}
	if before == 0 {
		a.looks.begin(subjectOf(r.Context()).Session, a.now())
	}
	return a.showAlerts(w, r, before)
}

// liveAlerts shows the newest alerts within a look that is recorded, and nothing else.
func (a *App) liveAlerts(w http.ResponseWriter, r *http.Request) {
	err := a.guard.Check(r.Context(), crmguard.Access, sectionOf("alerts"))
	if err == nil && a.looks.left(subjectOf(r.Context()).Session, a.now()) <= 0 {
		http.Redirect(w, r, "/alerts", http.StatusSeeOther)
		return
	}
	if err == nil {
		err = a.showAlerts(w, r, 0)
	}
	if err != nil {
		a.guard.WriteError(w, r, err)
	}
}

func (a *App) showAlerts(w http.ResponseWriter, r *http.Request, before int64) error {
	events, older, err := a.findAlerts(r.Context(), before)
	if err != nil {
		return err
	}
	view := alertsView{
		Live:       before == 0 && a.looks.left(subjectOf(r.Context()).Session, a.now()) > alertsReload,
		MayJournal: a.may(r, crmguard.Access, sectionOf("journal")),
	}
	for _, e := range events {
		view.Lines = append(view.Lines, describeAlert(e))
	}
	if older > 0 {
		view.Older = "/alerts?" + url.Values{"before": {strconv.FormatInt(older, 10)}}.Encode()
	}
	if before > 0 {
		view.Newest = "/alerts"
	}
	p := a.page(r, "Alerts", true, view)
	if view.Live {
		p.Reload, p.ReloadFrom = int(alertsReload.Seconds()), "/alerts/live"
	}
	return a.render(w, http.StatusOK, "alerts", p)
}

// findAlerts reads one page of alerts that the subject may see, and where the next
// one starts.
func (a *App) findAlerts(ctx context.Context, before int64) (visible []crmguard.Event, older int64, err error) {
	q := audit.Query{Tenant: tenant, Kind: alertKind, Before: before, Limit: pageSize}
	for {
		found, err := a.journal.Find(ctx, q)
		if err != nil {
			return nil, 0, err
		}
		for _, e := range found.Entries {
			if len(a.visibleAlerts(ctx, []crmguard.Event{e.Event})) == 0 {
				continue
			}
			if len(visible) == pageSize {
				return visible, older, nil
			}
			visible, older = append(visible, e.Event), e.Seq
		}
		if q.Before = found.Next; q.Before == 0 {
			return visible, 0, nil
		}
	}
}

func describeAlert(e crmguard.Event) alertLine {
	line := alertLine{Time: e.Time, Person: e.Resource.ID, Result: "went on", Class: "warn"}
	if e.Subject.ID != line.Person {
		line.By = e.Subject.ID
	}
	noun := strings.Join(e.Fields, " ")
	if known, ok := normNouns[noun]; ok {
		noun = known
	}
	_, limit, _ := strings.Cut(e.Reason, "-norm:")
	line.What = fmt.Sprintf("%d %s in a day; the norm tells after %s", e.Count, noun, limit)
	if e.Outcome == crmguard.Denied {
		line.Result, line.Class = "refused", "bad"
		line.What = fmt.Sprintf("%d %s in a day would pass the norm of %s", e.Count, noun, limit)
	}
	return line
}
