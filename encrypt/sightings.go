package encrypt

import (
	"maps"
	"sync"
	"sync/atomic"
)

// sightings remember since when this process has known scopes to be closing, on
// its own clock: those of two nodes may differ by more than a key has left.
type sightings struct {
	mu    sync.Mutex
	since map[Scope]int64
}

func (s *sightings) add(scope Scope, now int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, known := s.since[scope]; known {
		return
	}
	if s.since == nil {
		s.since = make(map[Scope]int64)
	}
	s.since[scope] = now
}

// update takes in all scopes that are closing and forgets the others.
func (s *sightings) update(closing []Record, now int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	since := make(map[Scope]int64, len(closing))
	for _, r := range closing {
		first, known := s.since[r.Scope]
		if !known {
			first = now
		}
		since[r.Scope] = first
	}
	s.since = since
}

// longEnough says whether a scope has been seen closing for [ClosingTime].
func (s *sightings) longEnough(scope Scope, now int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	first, known := s.since[scope]
	return known && now-first >= int64(ClosingTime)
}

// endings are the clients that this process has closed of late, and when on the exact
// clock: keys that were read before are not used, though nothing else has changed for
// which all other keys would have to be read again.
type endings struct {
	mu   sync.Mutex // for writers
	ends atomic.Pointer[map[Scope]int64]
}

// endingsFor is more than a lease: a poll that began after the end knows of it by the revision.
const endingsFor = int64(2 * Lease)

func (e *endings) add(scope Scope, now int64) {
	e.change(func(ends map[Scope]int64) {
		ends[scope] = now
	})
}

// forget drops what polls know by now.
func (e *endings) forget(now int64) {
	if e.ends.Load() != nil {
		e.change(func(ends map[Scope]int64) {
			maps.DeleteFunc(ends, func(_ Scope, end int64) bool { return now-end > endingsFor })
		})
	}
}

func (e *endings) change(fn func(ends map[Scope]int64)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	ends := make(map[Scope]int64)
	if now := e.ends.Load(); now != nil {
		maps.Copy(ends, *now)
	}
	fn(ends)
	if len(ends) == 0 {
		e.ends.Store(nil)
		return
	}
	e.ends.Store(&ends)
}

// after says whether a scope was closed at a time or after it.
func (e *endings) after(scope *Scope, loaded int64) bool {
	ends := e.ends.Load()
	if ends == nil { // as nearly always
		return false
	}
	end, closed := (*ends)[*scope]
	return closed && loaded <= end
}
