package quota

import (
	"context"
	"hash/maphash"
	"math"
	"strings"
	"sync"
	"sync/atomic"
)

// shards of a Memory, so that people do not wait for each other.
const shards = 64

// keptItems is the size of a set that is worth keeping for the next day.
const keptItems = 256

var _ Store = (*Memory)(nil)

// Memory is a [Store] in memory, for tests and for hosts of one process whose norms
// may begin anew when it ends. What it holds is bounded by the people of today times
// their norms. Make one with [NewMemory].
type Memory struct {
	seed    maphash.Seed
	tenants sync.Map // tenant → *memoryTenant
	shards  [shards]shard
}

// never is before all days.
const never Day = math.MinInt32

type memoryTenant struct {
	day atomic.Int32 // the tenant's day
}

// turn returns the later of day and the tenant's day, which it becomes.
func (t *memoryTenant) turn(day Day) Day {
	for {
		last := Day(t.day.Load())
		if day <= last {
			return last
		}
		if t.day.CompareAndSwap(int32(last), int32(day)) {
			return day
		}
	}
}

type shard struct {
	mu      sync.Mutex
	persons map[personKey]*memoryPerson
	sweep   []personDay // in the order of their days, to be looked at when these may be over
}

type personKey struct{ tenant, person string }

type personDay struct {
	key personKey
	day Day
}

type memoryPerson struct {
	tenant   *memoryTenant
	day      Day
	attempts Count
	counters []memoryCounter // few
}

type memoryCounter struct {
	name  string
	count Count
	items map[string]int64 // item → holder, 0 if nobody may give it back
}

// NewMemory returns an empty store.
func NewMemory() *Memory {
	m := &Memory{seed: maphash.MakeSeed()}
	for i := range m.shards {
		m.shards[i].persons = map[personKey]*memoryPerson{}
	}
	return m
}

func (m *Memory) shard(person string) *shard {
	return &m.shards[maphash.String(m.seed, person)%shards]
}

func (m *Memory) tenant(name string) *memoryTenant {
	if t, ok := m.tenants.Load(name); ok {
		return t.(*memoryTenant)
	}
	first := &memoryTenant{}
	first.day.Store(int32(never))
	t, _ := m.tenants.LoadOrStore(name, first)
	return t.(*memoryTenant)
}

// Take implements [Store].
func (m *Memory) Take(_ context.Context, t Taking) (Taken, error) {
	s := m.shard(t.Person)
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.today(m, &t)
	var someIndexes, someFresh [4]int // on the stack, for as many limits as there usually are
	var someCounts [4]Count
	indexes, fresh, counts := someIndexes[:0], someFresh[:0], someCounts[:0]
	for i := range t.Limits {
		index := p.counter(t.Limits[i].Counter)
		c := &p.counters[index]
		n := 0
		for _, item := range t.Items {
			if _, seen := c.items[item]; !seen {
				n++
			}
		}
		indexes, fresh, counts = append(indexes, index), append(fresh, n), append(counts, c.count)
	}
	taken := Taken{Day: p.day}
	taken.Refused, taken.Fired = t.Decide(&p.attempts, counts, fresh)
	for i, index := range indexes {
		c := &p.counters[index]
		c.count = counts[i]
		if taken.Refused == "" && !t.Ask {
			c.add(&t, fresh[i])
		}
	}
	return taken, nil
}

// today returns the person as of the tenant's day.
func (s *shard) today(m *Memory, t *Taking) *memoryPerson {
	key := personKey{t.Tenant, t.Person}
	p := s.persons[key]
	if p == nil {
		p = &memoryPerson{tenant: m.tenant(t.Tenant), day: never}
		s.persons[key] = p
	}
	if day := p.tenant.turn(t.Day); p.day != day {
		p.begin(day)
		s.sweep = append(s.sweep, personDay{key, day})
		s.removeOld()
	}
	return p
}

// begin empties the counters for a day.
func (p *memoryPerson) begin(day Day) {
	p.day, p.attempts = day, Count{}
	for i := range p.counters {
		c := &p.counters[i]
		c.count = Count{}
		if len(c.items) > keptItems {
			c.items = nil
		}
		clear(c.items)
	}
}

// removeOld looks at the two persons that have waited longest, so that there are
// never many more in memory than have opened something today.
func (s *shard) removeOld() {
	for range 2 {
		if len(s.sweep) == 0 {
			return
		}
		oldest := s.sweep[0]
		p := s.persons[oldest.key]
		if p != nil && p.day == oldest.day {
			if p.day >= Day(p.tenant.day.Load()) {
				return
			}
			delete(s.persons, oldest.key)
		}
		s.sweep = s.sweep[1:]
	}
}

// counter returns the index of a counter, which may be new.
func (p *memoryPerson) counter(name string) int {
	for i := range p.counters {
		if p.counters[i].name == name {
			return i
		}
	}
	p.counters = append(p.counters, memoryCounter{name: name})
	return len(p.counters) - 1
}

// add takes the items, of which fresh are new.
func (c *memoryCounter) add(t *Taking, fresh int) {
	if fresh > 0 && c.items == nil && len(t.Items) > 0 {
		c.items = make(map[string]int64)
	}
	for _, item := range t.Items {
		holder, seen := c.items[item]
		switch {
		case !seen:
			c.items[strings.Clone(item)] = t.Holder // not a part of something larger
		case holder != 0 && holder != t.Holder:
			c.items[item] = 0
		}
	}
}

// Return implements [Store].
func (m *Memory) Return(_ context.Context, t Taking, fired []Fired) error {
	s := m.shard(t.Person)
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.persons[personKey{t.Tenant, t.Person}]
	if p == nil || p.day != t.Day {
		return nil // that day is over
	}
	for _, f := range fired {
		if f.Counter == AttemptsCounter {
			p.attempts.Fired &^= f.Level
			continue
		}
		p.counters[p.counter(f.Counter)].count.Fired &^= f.Level
	}
	for _, l := range t.Limits {
		c := &p.counters[p.counter(l.Counter)]
		for _, item := range t.Items {
			if holder, ok := c.items[item]; ok && holder != 0 && holder == t.Holder {
				delete(c.items, item)
				c.count.N--
			}
		}
	}
	return nil
}

// Read implements [Store].
func (m *Memory) Read(_ context.Context, tenant, person string, day Day) (Reading, error) {
	if t, ok := m.tenants.Load(tenant); ok {
		day = max(day, Day(t.(*memoryTenant).day.Load()))
	}
	r := Reading{Day: day, Counters: map[string]Count{}}
	s := m.shard(person)
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.persons[personKey{tenant, person}]
	if p == nil || p.day != day {
		return r, nil
	}
	if p.attempts != (Count{}) {
		r.Counters[AttemptsCounter] = p.attempts
	}
	for _, c := range p.counters {
		if c.count != (Count{}) {
			r.Counters[c.name] = c.count
		}
	}
	return r, nil
}
