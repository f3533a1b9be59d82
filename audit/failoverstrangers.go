package audit

import (
	"errors"
	"net/netip"
	"sync"
	"time"

	"github.com/crmguard/crmguard"
)

const (
	strangerWindow = time.Minute
	maxStrangers   = 4096 // windows; for more addresses, those of one kind of refusal are added up
)

var errStrangers = errors.New("audit: too many different refusals of strangers in a minute")

// strangerKey is what is added up: refusals without a known subject, of one kind,
// from one address. Of IPv6 that is a network of 64 bits: its holder has all of it.
type strangerKey struct {
	tenant  string
	from    netip.Prefix
	action  crmguard.Action
	outcome crmguard.Outcome
	kind    string
	reason  string
}

type strangerCount struct {
	first crmguard.Event
	n     int // after the first
	from  time.Time
	to    time.Time
	until time.Time
}

// strangers adds up refusals, so that nobody fills the disk who has no account. The
// first of a minute is recorded at once, the others as one entry when it is over.
type strangers struct {
	mu      sync.Mutex
	windows map[strangerKey]*strangerCount
	ready   []crmguard.Event
}

func stranger(e *crmguard.Event) bool {
	return e.Subject.ID == "" && (e.Outcome == crmguard.Denied || e.Outcome == crmguard.Failed) && e.Resource.Kind != GapKind
}

func strangerFrom(addr netip.Addr) netip.Prefix {
	addr = addr.Unmap().WithZone("")
	bits := 64
	if addr.Is4() {
		bits = 32
	}
	p, err := addr.Prefix(bits)
	if err != nil { // no address at all
		return netip.Prefix{}
	}
	return p
}

// add reports whether e is one of a minute that has begun, and then counts it. If
// not, it begins one; undo takes that back, since e was not recorded.
func (s *strangers) add(tenant string, e *crmguard.Event, now time.Time) (counted bool, undo func(), err error) {
	k := strangerKey{tenant, strangerFrom(e.Subject.Addr), e.Action, e.Outcome, e.Resource.Kind, e.Reason}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.windows == nil {
		s.windows = make(map[strangerKey]*strangerCount)
	}
	c := s.windows[k]
	if c == nil && len(s.windows) >= maxStrangers {
		k.from = netip.Prefix{}
		c = s.windows[k]
	}
	if c == nil && len(s.windows) >= 2*maxStrangers { // reasons without end
		k.kind, k.reason = "", ""
		c = s.windows[k]
	}
	if c == nil && len(s.windows) >= 3*maxStrangers { // tenants without end: strangers may name any
		return false, nil, errStrangers
	}
	if c != nil && now.Before(c.until) {
		if c.n == 0 {
			c.from = now
		}
		c.n += max(1, e.Count)
		c.to = now
		return true, nil, nil
	}
	if c != nil {
		s.end(c, now)
	}
	first := *e
	first.Private = nil // the first of them keeps it, the others are only counted
	if k.from == (netip.Prefix{}) {
		first.Subject.Addr = netip.Addr{}
	}
	first.Resource.Kind, first.Reason = k.kind, k.reason
	c = &strangerCount{first: first, until: now.Add(strangerWindow)}
	s.windows[k] = c
	return false, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.windows[k] == c && c.n == 0 {
			delete(s.windows, k)
		}
	}, nil
}

// end makes an entry of a minute that is over.
func (s *strangers) end(c *strangerCount, now time.Time) {
	if c.n == 0 {
		return
	}
	e := c.first
	e.ID, e.Time, e.Request, e.Count = newID(now), c.to, "", c.n
	e.Fields = gapFields(c.from, c.to)
	e.Resource.ID, e.Resource.Field, e.Resource.Owner, e.Resource.Unit, e.Resource.Shared = "", "", "", "", false
	s.ready = append(s.ready, e)
}

// take makes entries of the minutes that are over, or of all. They stay until settle.
func (s *strangers) take(now time.Time, all bool) []crmguard.Event {
	s.mu.Lock()
	defer s.mu.Unlock()
	for k, c := range s.windows {
		if all || !now.Before(c.until) {
			s.end(c, now)
			delete(s.windows, k)
		}
	}
	return s.ready
}

func (s *strangers) settle(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ready = s.ready[n:]
	if len(s.ready) == 0 {
		s.ready = nil
	}
}

// waiting is how many refusals are added up and not yet recorded, and whether there
// are minutes to end.
func (s *strangers) waiting() (n int, any bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.windows {
		n += c.n
	}
	for i := range s.ready {
		n += s.ready[i].Count
	}
	return n, len(s.windows) > 0 || len(s.ready) > 0
}
