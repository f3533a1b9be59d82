package quota

import (
	"hash/maphash"
	"math/bits"
)

// itemSet is a set of strings with the holder of each. It hashes once to find and to
// add, and has no pointers to its items, which a map of strings would.
type itemSet struct {
	slots []slot // as many as a power of two, at least a quarter of them free
	text  []byte // the items, one after the other
	n     int
}

type slot struct {
	hash   uint32 // 0: free
	length uint32
	from   uint64 // in text
	holder int64  // who may give the item back; 0: nobody
}

const (
	fewestSlots = 8
	keptSlots   = 512 // when a day is over; more came from an export, and may not come again
)

// find returns the index of the item's slot, or of the free one where it would go,
// and whether it is there. Without slots the index is -1.
func (s *itemSet) find(seed maphash.Seed, item string) (index int, hash uint32, found bool) {
	hash = uint32(maphash.String(seed, item)) | 1 //nolint:gosec // half of it is enough
	if len(s.slots) == 0 {
		return -1, hash, false
	}
	mask := len(s.slots) - 1
	for i := int(hash>>1) & mask; ; i = (i + 1) & mask {
		at := &s.slots[i]
		if at.hash == 0 {
			return i, hash, false
		}
		if at.hash == hash && string(s.item(at)) == item {
			return i, hash, true
		}
	}
}

func (s *itemSet) item(at *slot) []byte { return s.text[at.from : at.from+uint64(at.length)] }

// insert adds an item that find has not found.
func (s *itemSet) insert(index int, hash uint32, item string, holder int64) {
	if s.n+1 > len(s.slots)*3/4 {
		s.grow(s.n + 1)
		index = s.free(hash)
	}
	s.slots[index] = slot{hash, uint32(len(item)), uint64(len(s.text)), holder} //nolint:gosec // names are short
	s.text = append(s.text, item...)
	s.n++
}

// free returns the index where a new item goes.
func (s *itemSet) free(hash uint32) int {
	mask := len(s.slots) - 1
	i := int(hash>>1) & mask
	for s.slots[i].hash != 0 {
		i = (i + 1) & mask
	}
	return i
}

// grow makes room for n items and some more.
func (s *itemSet) grow(n int) {
	old := s.slots
	s.slots = make([]slot, max(fewestSlots, 1<<bits.Len(uint(n*4/3)))) //nolint:gosec // not negative
	for _, at := range old {
		if at.hash != 0 {
			s.slots[s.free(at.hash)] = at
		}
	}
}

// removeAll removes the items for which gone says so. It makes the set anew, so that
// no bytes of removed items stay.
func (s *itemSet) removeAll(gone func(item string, holder int64) bool) (removed int) {
	old := *s
	*s = itemSet{}
	for i := range old.slots {
		at := &old.slots[i]
		if at.hash == 0 {
			continue
		}
		item := string(old.item(at))
		if gone(item, at.holder) {
			removed++
			continue
		}
		s.insert(s.place(at.hash), at.hash, item, at.holder)
	}
	return removed
}

// place is free for a set that may have no slots.
func (s *itemSet) place(hash uint32) int {
	if len(s.slots) == 0 {
		return -1
	}
	return s.free(hash)
}

// empty removes all items, and keeps the memory if that is little.
func (s *itemSet) empty() {
	if len(s.slots) > keptSlots {
		*s = itemSet{}
		return
	}
	clear(s.slots)
	s.text, s.n = s.text[:0], 0
}
