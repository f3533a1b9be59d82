package app

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"html/template"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/guard"
	"github.com/crmguard/crmguard/quota"
)

//go:embed templates static
var files embed.FS

// pages are the parsed templates and the files beside them.
type pages struct {
	templates map[string]*template.Template
	assets    map[string][]byte // by name
	versions  map[string]string // name → digest, so that browsers may keep them for ever
}

func openPages(zone func() *time.Location) (*pages, error) {
	p := &pages{templates: map[string]*template.Template{}, assets: map[string][]byte{}, versions: map[string]string{}}
	static, err := fs.ReadDir(files, "static")
	if err != nil {
		return nil, err
	}
	for _, f := range static {
		content, err := files.ReadFile("static/" + f.Name())
		if err != nil {
			return nil, err
		}
		digest := sha256.Sum256(content)
		p.assets[f.Name()], p.versions[f.Name()] = content, hex.EncodeToString(digest[:6])
	}
	functions := template.FuncMap{
		"asset":  func(name string) string { return "/static/" + name + "?v=" + p.versions[name] },
		"count":  grouped,
		"plural": plural,
		"when":   func(t time.Time) string { return moment(t, zone()) },
	}
	base, err := template.New("base").Funcs(functions).ParseFS(files, "templates/base.html")
	if err != nil {
		return nil, err
	}
	names, err := fs.Glob(files, "templates/*.html")
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		t, err := base.Clone()
		if err == nil {
			t, err = t.ParseFS(files, name)
		}
		if err != nil {
			return nil, err
		}
		p.templates[strings.TrimSuffix(path.Base(name), ".html")] = t
	}
	return p, nil
}

// static serves style sheet, script and icon.
func (p *pages) static() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := strings.TrimPrefix(r.URL.Path, "/static/")
		content, ok := p.assets[name]
		if !ok {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", mime.TypeByExtension(path.Ext(name)))
		w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
		_, _ = w.Write(content) // the client may be gone
	})
}

// page is what base.html draws around a page's own part.
type page struct {
	Title      string
	Viewer     *viewer
	Watermark  []string
	HideAfter  int    // seconds until the browser leaves for Back
	Reload     int    // seconds until the browser asks for ReloadFrom; 0: never
	Back       string // path
	ReloadFrom string
	Printable  bool // other pages come out of a printer empty
	Body       any
}

// viewer is who looks at a page.
type viewer struct {
	Login  string
	Roles  string
	Zone   string // in which pages tell times
	Nav    []navLink
	Closed bool // the CRM is locked down
}

type navLink struct {
	Path, Label string
	Current     bool
	Count       int // of what is new; 0 is not shown
}

// marks is how often a page repeats the watermark, so that no photo of a part of
// the screen is without it.
const marks = 60

// page starts a page for whoever asks. One that shows personal data carries the
// viewer's name and the time.
func (a *App) page(r *http.Request, title string, personal bool, body any) page {
	p := page{Title: title, Body: body}
	s, ok := crmguard.SubjectFrom(r.Context())
	if !ok {
		return p
	}
	p.Viewer = &viewer{Login: s.ID, Roles: strings.Join(s.Roles, ", "), Zone: a.zone().String()}
	for _, link := range []struct {
		path, label string
		action      crmguard.Action
		kind        string
	}{
		{"/contacts", "Contacts", crmguard.List, kind},
		{"/alerts", "Alerts", crmguard.Access, "section:alerts"},
		{"/journal", "Journal", crmguard.Access, "section:journal"},
		{"/staff", "Staff", crmguard.Access, "section:staff"},
		{"/rights", "Rights", crmguard.Access, "section:rights"},
		{"/exchange", "Exchange", crmguard.Access, "section:exchange"},
		{"/keys", "Keys", crmguard.Access, "section:keys"},
		{"/settings", "Settings", crmguard.Access, "section:settings"},
		{"/lockdown", "Emergency", crmguard.Access, "section:lockdown"},
	} {
		if a.may(r, link.action, crmguard.Resource{Tenant: tenant, Kind: link.kind}) {
			p.Viewer.Nav = append(p.Viewer.Nav, navLink{Path: link.path, Label: link.label, Current: strings.HasPrefix(r.URL.Path, link.path)})
			if link.path == "/alerts" {
				p.Viewer.Nav[len(p.Viewer.Nav)-1].Count = a.alertsToday(r.Context())
			}
		}
	}
	p.Viewer.Closed, _ = a.guard.LockedDown(r.Context(), tenant) // what could not be read is refused anyway
	if personal {
		p.Watermark = a.watermark(s.ID)
	}
	return p
}

func (a *App) watermark(login string) []string {
	return slices.Repeat([]string{login + " · " + a.now().In(a.zone()).Format("2006-01-02 15:04")}, marks)
}

// may asks for a right to decide what a page offers. What is offered is checked
// again when it is asked for, and may want a fresh code then.
func (a *App) may(r *http.Request, action crmguard.Action, resource crmguard.Resource) bool {
	err := a.guard.Check(r.Context(), action, resource)
	denial, denied := errors.AsType[*crmguard.Denial](err)
	return err == nil || denied && denial.Status == crmguard.StepUp
}

var buffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// render draws a page as a whole before it sends the first byte.
func (a *App) render(w http.ResponseWriter, status int, name string, p page) error {
	b, _ := buffers.Get().(*bytes.Buffer)
	defer func() {
		clear(b.Bytes()) // it held personal data
		b.Reset()
		buffers.Put(b)
	}()
	if err := a.pages.templates[name].ExecuteTemplate(b, "base", p); err != nil {
		return fmt.Errorf("draw %s: %w", name, err)
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	if w.Header().Get("Cache-Control") == "" {
		w.Header().Set("Cache-Control", "no-store")
	}
	w.WriteHeader(status)
	_, _ = w.Write(b.Bytes()) // the client may be gone
	return nil
}

// problemPage is what problem.html shows.
type problemPage struct {
	Status               int
	Title, Text, Request string
	Back                 string // path of the page whose form it was; "": there is none
	On                   navLink
}

// What problems mean to whoever meets them. What is not here has its own detail.
var problemTexts = map[int][2]string{
	http.StatusForbidden:             {"Not for you", "Your role does not include this. If you need it, ask the administrator."},
	http.StatusNotFound:              {"Not found", "There is nothing here, or nothing that you may see."},
	http.StatusGone:                  {"Erased", "This client's data was erased on request. Nobody can bring it back."},
	http.StatusRequestEntityTooLarge: {"Too much at once", "The form is larger than the CRM accepts, so nothing of it was read or saved. Go back, shorten it and try again."},
	http.StatusTooManyRequests:       {"Too many attempts", "Please wait a little and try again."},
	http.StatusServiceUnavailable:    {"Not possible right now", "It could not be decided or recorded, so it was not done. Nothing was changed; please try again."},
	http.StatusInternalServerError:   {"Something went wrong", "The CRM could not do this. It was noted; please try again."},
}

// problem draws an error. It is guard.Options.Page.
func (a *App) problem(w http.ResponseWriter, r *http.Request, p guard.Problem) {
	var err error
	form := stateOf(r.Context()).form
	switch {
	case form != nil && (p.Code == "form" || p.Code == "conflict"):
		err = a.render(w, p.Status, "form", a.page(r, form.title(), true, form))
	case p.Code == exportProblem:
		err = a.render(w, p.Status, "export", a.page(r, "Export", false, stateOf(r.Context()).export))
	case p.Code == endedSearch:
		err = stateOf(r.Context()).search.draw(w, r, p.Status, "", p.Detail)
	case p.Code == settingsProblem:
		err = a.showSettings(w, r, p.Status, stateOf(r.Context()).settings)
	case p.Code == draftProblem:
		err = a.showDraft(w, r, p.Status, stateOf(r.Context()).draft)
	case p.Code == deputyProblem:
		err = a.showDeputies(w, r, p.Status, stateOf(r.Context()).deputies)
	case p.Code == passwordProblem:
		err = a.showMe(w, r, p.Status, p.Detail)
	case needsProof(p):
		err = a.askProof(w, r, p)
	case stateOf(r.Context()).enrol != nil && p.Status == http.StatusUnprocessableEntity:
		err = a.render(w, p.Status, "enrol", a.page(r, "Add an app", false, stateOf(r.Context()).enrol))
	case p.Status == http.StatusUnauthorized:
		err = a.render(w, p.Status, "signin", a.doorForm(r.Context(), signInForm{Problem: a.whyNotIn(r)}))
	default:
		shown := problemPage{p.Status, p.Title, p.Detail, p.Instance, a.backFrom(r, p), navLink{Path: home, Label: "Contacts"}}
		if p.Code == guard.LockdownKind {
			shown = a.lockedDown(r, shown)
		} else if p.Code == "address" {
			shown.Title, shown.Text = "It is not known where you come from", "The proxy before the CRM did not say it in a form that can be read. Please tell the administrator."
		} else if p.Code == quota.CodeNorm || p.Code == quota.CodeAttempts {
			shown.Title, shown.Text = "That is all for today", a.normEnds(p.RetryAfter)
		} else if text, ok := problemTexts[p.Status]; ok && (p.Detail == "" || p.Code == "too-large") {
			shown.Title, shown.Text = text[0], text[1]
		}
		err = a.render(w, p.Status, "problem", a.page(r, shown.Title, false, shown))
	}
	if err != nil {
		a.log.ErrorContext(r.Context(), "an error page was not drawn", "error", err)
		http.Error(w, http.StatusText(p.Status), p.Status)
	}
}

// backFrom is the page with the form that was not in order, or with another query. What is
// not found has none: its page is the same whatever was asked for.
func (a *App) backFrom(r *http.Request, p guard.Problem) string {
	if p.Code == unsignedProblem || p.Code == unverifiedProblem { // a file, which the page above it offers
		return a.pageNear(http.MethodGet, path.Dir(r.URL.Path))
	}
	if p.Detail == "" || r.Method == http.MethodGet && r.URL.RawQuery == "" {
		return ""
	}
	if back := a.pageNear(r.Method, r.URL.Path); back != home {
		return back
	}
	return ""
}

// whyNotIn tells somebody whose session has ended from somebody who never had one.
func (a *App) whyNotIn(r *http.Request) string {
	if a.guard.SessionToken(r) != "" {
		return "Your session has ended. Please sign in again."
	}
	return ""
}
