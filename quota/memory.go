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
	name string
	day  atomic.Int32 // the tenant's day
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
	persons map[uint64]*memoryPerson // by hash; others with the same hash follow as next
	sweep   []personDay              // in the order of their days, to be looked at when these may be over
}

type personDay struct {
	person *memoryPerson
	day    Day
}

type memoryPerson struct {
	hash     uint64
	tenant   *memoryTenant
	name     string
	next     *memoryPerson
	day      Day
	attempts Count
	counters []memoryCounter // few
}

type memoryCounter struct {
	name  string
	count Count
	items itemSet
}

// NewMemory returns an empty store.
func NewMemory() *Memory {
	m := &Memory{seed: maphash.MakeSeed()}
	for i := range m.shards {
		m.shards[i].persons = map[uint64]*memoryPerson{}
	}
	return m
}

func (m *Memory) shard(person string) (*shard, uint64) {
	hash := maphash.String(m.seed, person)
	return &m.shards[hash%shards], hash
}

func (m *Memory) tenant(name string) *memoryTenant {
	if t, ok := m.tenants.Load(name); ok {
		return t.(*memoryTenant)
	}
	first := &memoryTenant{name: strings.Clone(name)}
	first.day.Store(int32(never))
	t, _ := m.tenants.LoadOrStore(first.name, first)
	return t.(*memoryTenant)
}

// Take implements [Store].
func (m *Memory) Take(_ context.Context, t Taking) (Taken, error) {
	s, hash := m.shard(t.Person)
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.today(m, hash, &t)
	var somePlaces [4]place // on the stack, for as many limits as there usually are
	var someFresh [4]int
	var someCounts [4]Count
	places, fresh, counts := somePlaces[:0], someFresh[:0], someCounts[:0]
	changes := len(t.Items) == 0
	for i := range t.Limits {
		at := place{counter: p.counter(t.Limits[i].Counter)}
		c := &p.counters[at.counter]
		n := 0
		for _, item := range t.Items {
			at.slot, at.hash, at.seen = c.items.find(m.seed, item)
			if !at.seen {
				n++
			}
			changes = changes || !at.seen || c.items.slots[at.slot].holder != 0
		}
		places, fresh, counts = append(places, at), append(fresh, n), append(counts, c.count)
	}
	taken := Taken{Day: p.day}
	if !changes {
		return taken, nil
	}
	taken.Refused, taken.Fired = t.Decide(&p.attempts, counts, fresh)
	for i, at := range places {
		c := &p.counters[at.counter]
		c.count = counts[i]
		if taken.Refused == "" && !t.Ask {
			c.add(m.seed, &t, at)
		}
	}
	return taken, nil
}

// place is where the last item of a Taking is, or would go, in one counter.
type place struct {
	counter, slot int
	hash          uint32
	seen          bool
}

func (s *shard) find(hash uint64, tenant, person string) *memoryPerson {
	for p := s.persons[hash]; p != nil; p = p.next {
		if p.name == person && p.tenant.name == tenant {
			return p
		}
	}
	return nil
}

// today returns the person as of the tenant's day.
func (s *shard) today(m *Memory, hash uint64, t *Taking) *memoryPerson {
	p := s.find(hash, t.Tenant, t.Person)
	if p == nil {
		p = &memoryPerson{hash: hash, tenant: m.tenant(t.Tenant), name: strings.Clone(t.Person), next: s.persons[hash], day: never}
		s.persons[hash] = p
	}
	if day := p.tenant.turn(t.Day); p.day != day {
		p.begin(day)
		s.sweep = append(s.sweep, personDay{p, day})
		s.removeOld()
	}
	return p
}

// begin empties the counters for a day.
func (p *memoryPerson) begin(day Day) {
	p.day, p.attempts = day, Count{}
	for i := range p.counters {
		p.counters[i].count = Count{}
		p.counters[i].items.empty()
	}
}

// removeOld looks at the two persons that have waited longest, so that there are
// never many more in memory than have opened something today or the day before. Who
// comes every day is not made anew every day.
func (s *shard) removeOld() {
	for range min(2, len(s.sweep)) {
		p, day := s.sweep[0].person, s.sweep[0].day
		if p.day == day {
			if day >= Day(p.tenant.day.Load())-1 {
				return
			}
			s.remove(p)
		}
		s.sweep[0].person = nil
		s.sweep = s.sweep[1:]
	}
}

func (s *shard) remove(gone *memoryPerson) {
	kept := (*memoryPerson)(nil)
	for p := s.persons[gone.hash]; p != nil; {
		next := p.next
		if p != gone {
			p.next, kept = kept, p
		}
		p = next
	}
	if kept == nil {
		delete(s.persons, gone.hash)
		return
	}
	s.persons[gone.hash] = kept
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

// add takes the items. If there is one, it is at the place that was found.
func (c *memoryCounter) add(seed maphash.Seed, t *Taking, at place) {
	for _, item := range t.Items {
		if len(t.Items) > 1 {
			at.slot, at.hash, at.seen = c.items.find(seed, item)
		}
		if !at.seen {
			c.items.insert(at.slot, at.hash, item, t.Holder)
		} else if c.items.slots[at.slot].holder != t.Holder {
			c.items.slots[at.slot].holder = 0
		}
	}
}

// Return implements [Store].
func (m *Memory) Return(_ context.Context, t Taking, fired []Fired) error {
	s, hash := m.shard(t.Person)
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.find(hash, t.Tenant, t.Person)
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
	if t.Holder == 0 || len(t.Items) == 0 {
		return nil
	}
	wanted := make(map[string]bool, len(t.Items))
	for _, item := range t.Items {
		wanted[item] = true
	}
	for _, l := range t.Limits {
		c := &p.counters[p.counter(l.Counter)]
		c.count.N -= c.items.removeAll(func(item string, holder int64) bool { return holder == t.Holder && wanted[item] })
	}
	return nil
}

// Read implements [Store].
func (m *Memory) Read(_ context.Context, tenant, person string, day Day) (Reading, error) {
	if t, ok := m.tenants.Load(tenant); ok {
		day = max(day, Day(t.(*memoryTenant).day.Load()))
	}
	r := Reading{Day: day, Counters: map[string]Count{}}
	s, hash := m.shard(person)
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.find(hash, tenant, person)
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
