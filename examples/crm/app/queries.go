package app

import (
	"crypto/rand"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/guard"
)

const (
	queryAge    = time.Hour
	keptQueries = 10_000
)

// queries remember what was searched for. Browsers do not go back to the answer of a form, so
// what was found has an address; and because addresses hold no personal data, a random word stands there
// for the query, which means it in this process and to one session alone.
type queries struct {
	mu    sync.Mutex
	known map[string]keptQuery
	order []string // words, oldest first
}

type keptQuery struct {
	session, text string
	at            time.Time
}

// keep returns the word for a query.
func (q *queries) keep(session, text string, now time.Time) string {
	word := rand.Text()
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.known == nil {
		q.known = make(map[string]keptQuery)
	}
	for len(q.order) > 0 && (len(q.order) >= keptQueries || now.Sub(q.known[q.order[0]].at) >= queryAge) {
		delete(q.known, q.order[0])
		q.order = q.order[1:]
	}
	q.known[word], q.order = keptQuery{session, text, now}, append(q.order, word)
	return word
}

// of returns what a word stands for in a session, "" if for nothing.
func (q *queries) of(session, word string, now time.Time) string {
	q.mu.Lock()
	defer q.mu.Unlock()
	if kept := q.known[word]; kept.session == session && now.Sub(kept.at) < queryAge {
		return kept.text
	}
	return ""
}

// newSearch reads the form of a search and leads to what it finds. It decides nothing: whoever may not
// search is refused there.
func (a *App) newSearch(w http.ResponseWriter, r *http.Request) {
	if err := readForm(r); err != nil {
		a.guard.WriteError(w, r, err)
		return
	}
	if !a.may(r, crmguard.Search, allOfKind) {
		http.Redirect(w, r, searchPath, http.StatusSeeOther)
		return
	}
	query := strings.TrimSpace(r.PostForm.Get("query"))
	if problem := queryProblem(query); problem != "" {
		if err := a.searchForm(w, r, http.StatusUnprocessableEntity, query, problem); err != nil {
			a.guard.WriteError(w, r, err)
		}
		return
	}
	http.Redirect(w, r, searchAddress(a.queries.keep(subjectOf(r.Context()).Session, query, a.now())), http.StatusSeeOther)
}

const searchPath = "/contacts/search"

// searchAddress is where what a search finds is shown.
func searchAddress(word string) string { return searchPath + "?q=" + word }

// searchForm draws the box alone, with what is wrong with what was typed.
func (a *App) searchForm(w http.ResponseWriter, r *http.Request, status int, query, problem string) error {
	body := a.listPage(r)
	body.Heading, body.Scope = "Search", ""
	body.Search = &searchResult{Query: query, Problem: problem}
	return a.render(w, status, "contacts", a.page(r, "Search", true, body))
}

// endedSearch is the code of a search whose words nobody remembers.
const endedSearch = "search-ended"

// allOfKind is what a search is about: which contacts, and what of them, it asks itself.
var allOfKind = crmguard.Resource{Tenant: tenant, Kind: kind}

// searchedContacts finds out what an address searches for.
func (a *App) searchedContacts(r *http.Request) (crmguard.Resource, error) {
	query := a.queries.of(subjectOf(r.Context()).Session, r.URL.Query().Get("q"), a.now())
	if query == "" {
		return allOfKind, &guard.Problem{Status: http.StatusGone, Title: "This search has ended", Code: endedSearch,
			Detail: "This search has ended. Type again what you look for."}
	}
	stateOf(r.Context()).query = query
	return allOfKind, nil
}
