package encrypt

import (
	"sync"
	"time"
)

// firsts remember since when this process has known something, on its own clock: those
// of two nodes may differ by more than a key has left.
type firsts[K outliving[K]] struct {
	mu    sync.Mutex
	since map[K]int64
}

// outliving can be kept when the call has ended, see [Scope.clone].
type outliving[K any] interface {
	comparable
	clone() K
}

// add returns for how long it has been known; what is new is known from now on.
func (f *firsts[K]) add(what K, now int64) time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	first, known := f.since[what]
	if !known {
		if f.since == nil {
			f.since = make(map[K]int64)
		}
		f.since[what.clone()], first = now, now
	}
	return time.Duration(now - first)
}

func (f *firsts[K]) forget(what K) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.since, what)
}

// only adds all of these and forgets everything else.
func (f *firsts[K]) only(these []K, now int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	since := make(map[K]int64, len(these))
	for _, what := range these {
		first, known := f.since[what]
		if !known {
			first = now
		}
		since[what.clone()] = first
	}
	f.since = since
}
