package quota

import (
	"hash/maphash"
	"time"
)

// DayOf lets tests look at dates.
func DayOf(at time.Time, loc *time.Location) Day { return dayOf(at, loc) }

// End lets tests look at the ends of days.
func (d Day) End(from time.Time, loc *time.Location) time.Time { return d.end(from, loc) }

// ItemSet lets tests look at sets.
type ItemSet struct {
	set  itemSet
	seed maphash.Seed
}

// NewItemSet returns an empty set.
func NewItemSet() *ItemSet { return &ItemSet{seed: maphash.MakeSeed()} }

// Add adds what is not there, and reports whether it did.
func (s *ItemSet) Add(item string, holder int64) bool {
	at, hash, found := s.set.find(s.seed, item)
	if !found {
		s.set.insert(at, hash, item, holder)
	}
	return !found
}

// Remove removes what a holder holds.
func (s *ItemSet) Remove(holder int64) int {
	return s.set.removeAll(func(_ string, h int64) bool { return h == holder })
}

// Empty removes everything.
func (s *ItemSet) Empty() { s.set.empty() }

// All returns items and holders.
func (s *ItemSet) All() map[string]int64 {
	all := map[string]int64{}
	for i := range s.set.slots {
		if at := &s.set.slots[i]; at.hash != 0 {
			all[string(s.set.item(at))] = at.holder
		}
	}
	return all
}

// People returns how many persons a memory holds.
func (m *Memory) People() (n int) {
	for i := range m.shards {
		s := &m.shards[i]
		s.mu.Lock()
		for _, p := range s.persons {
			for ; p != nil; p = p.next {
				n++
			}
		}
		s.mu.Unlock()
	}
	return n
}
