package signin

import (
	"sync"
	"time"
)

const (
	// homeFor is how long a login is known at a network after it came in from there.
	homeFor = 30 * 24 * time.Hour
	// maxHomes bounds memory; only who has signed in takes a place.
	maxHomes = 100_000
)

// homes remembers from which networks logins came in, so that strangers elsewhere
// cannot make their persons wait.
type homes struct {
	mu   sync.Mutex
	last map[key]time.Time // by login and network
}

// homeKey names the login of an attempt at its network.
func homeKey(a Attempt) key { return loginKey(a.Login, networkKey(a.Addr, 64)) }

func newHomes() *homes { return &homes{last: make(map[key]time.Time)} }

func (h *homes) has(k key, now time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	last, ok := h.last[k]
	return ok && now.Sub(last) < homeFor
}

func (h *homes) add(k key, now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, known := h.last[k]; !known && len(h.last) >= maxHomes {
		for other := range h.last { // any: they all belong to people who came in
			delete(h.last, other)
			break
		}
	}
	h.last[k] = now
}

// take counts an attempt, or returns how long to wait. Where the login came in
// before, what is done with logins that did not, or to the same login elsewhere, is
// no reason to wait. Its first attempt in an hour is in nobody's way, either, so that
// a person at whose login nobody guesses comes in; the others are counted together,
// because one guess at each of very many people is many guesses.
func (d *Door) take(a Attempt, now time.Time) (taken counted, wait time.Duration) {
	login, network := homeKey(a), networkKey(a.Addr, 64)
	if !d.homes.has(login, now) {
		taken = counted{{d.logins, login}, {d.networks, network}, {d.sites, networkKey(a.Addr, 48)}, {d.persons, loginKey(a.Login, key{})}}
		return taken, taken.take(now)
	}
	taken = counted{{d.logins, login}, {d.firsts, login}}
	if taken.take(now) == 0 {
		return taken, 0
	}
	taken = counted{{d.logins, login}, {d.offices, network}}
	return taken, taken.take(now)
}
