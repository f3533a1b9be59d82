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

// searchBox is a form for what must not stand in an address, and the page of what is found.
type searchBox struct {
	path, input string // of both; of the form
	action      crmguard.Action
	resource    crmguard.Resource
	problem     func(typed string) string // "": it can be looked for
	draw        func(w http.ResponseWriter, r *http.Request, status int, typed, problem string) error
}

func (b *searchBox) address(word string) string { return b.path + "?q=" + word }

// remember reads the form and leads to what is found. It decides nothing: whoever may not search is
// refused there.
func (a *App) remember(b *searchBox) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if err := readForm(r); err != nil {
			a.guard.WriteError(w, r, err)
			return
		}
		if !a.may(r, b.action, b.resource) {
			http.Redirect(w, r, b.path, http.StatusSeeOther)
			return
		}
		typed := strings.TrimSpace(r.PostForm.Get(b.input))
		if problem := b.problem(typed); problem != "" {
			if err := b.draw(w, r, http.StatusUnprocessableEntity, typed, problem); err != nil {
				a.guard.WriteError(w, r, err)
			}
			return
		}
		http.Redirect(w, r, b.address(a.queries.keep(subjectOf(r.Context()).Session, typed, a.now())), http.StatusSeeOther)
	}
}

// endedSearch is the code of a search of which nobody remembers what was typed.
const endedSearch = "search-ended"

// sought finds out what an address looks for.
func (a *App) sought(b *searchBox) guard.Loader {
	return func(r *http.Request) (crmguard.Resource, error) {
		state := stateOf(r.Context())
		state.search = b
		state.query = a.queries.of(subjectOf(r.Context()).Session, r.URL.Query().Get("q"), a.now())
		if b.problem(state.query) != "" { // nobody knows the word, or it is one of another box
			return b.resource, &guard.Problem{Status: http.StatusGone, Title: "This search has ended", Code: endedSearch,
				Detail: "This search has ended. Type again what you look for."}
		}
		return b.resource, nil
	}
}
