package audit

import (
	"strings"
	"sync"
	"time"

	"github.com/crmguard/crmguard"
)

// GapKind is the kind of resource of entries that stand for events which were not
// recorded one by one: see [GapOf].
const GapKind = "audit.gap"

// gapDropped is the reason of such entries.
const gapDropped = "dropped"

// maxGaps is how many counters there are: for more, those of one tenant, action and
// outcome are added up, without the actor.
const maxGaps = 4096

// Gap is what an entry says of events that were not recorded one by one.
type Gap struct {
	Tenant  string
	Subject string // who acted; empty: more people than there are counters for
	Action  crmguard.Action
	Outcome crmguard.Outcome
	Count   int // of events
	From    time.Time
	To      time.Time
}

// GapOf reads an event of [GapKind], and reports whether it is one.
//
//	page, err := journal.Find(ctx, audit.Query{Tenant: tenant, Kind: audit.GapKind})
//	gap, ok := audit.GapOf(page.Entries[0].Event)
func GapOf(e crmguard.Event) (Gap, bool) {
	if e.Resource.Kind != GapKind || len(e.Fields) != 2 {
		return Gap{}, false
	}
	from, okFrom := gapTime(e.Fields[0], "from=")
	to, okTo := gapTime(e.Fields[1], "to=")
	if !okFrom || !okTo || e.Count < 1 {
		return Gap{}, false
	}
	g := Gap{Tenant: e.Resource.Tenant, Subject: e.Subject.ID, Action: e.Action, Outcome: e.Outcome, Count: e.Count, From: from, To: to}
	if g.Subject == gapOthers {
		g.Subject = ""
	}
	return g, true
}

func gapTime(field, name string) (time.Time, bool) {
	text, ok := strings.CutPrefix(field, name)
	if !ok {
		return time.Time{}, false
	}
	t, err := time.Parse(time.RFC3339Nano, text)
	return t, err == nil
}

func gapFields(from, to time.Time) []string {
	return []string{"from=" + stored(from).Format(time.RFC3339Nano), "to=" + stored(to).Format(time.RFC3339Nano)}
}

// gapOthers acts in entries for whom there was no counter.
const gapOthers = "system:audit"

// gapKey is what is counted together.
type gapKey struct {
	tenant, subject string
	kind            crmguard.SubjectKind
	action          crmguard.Action
	outcome         crmguard.Outcome
}

type gapCount struct {
	n        int
	from, to time.Time
}

// gaps counts what was dropped, until the journal says so.
type gaps struct {
	mu     sync.Mutex
	counts map[gapKey]*gapCount
	ready  []crmguard.Event // with IDs: they may be in the journal already
	since  time.Time        // of the first that neither log nor spool has
}

// add counts n events, and reports whether it could.
func (g *gaps) add(tenant string, e *crmguard.Event, n int, now time.Time) bool {
	k := gapKey{tenant: tenant, subject: e.Subject.ID, kind: e.Subject.Kind, action: e.Action, outcome: e.Outcome}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.counts == nil {
		g.counts = make(map[gapKey]*gapCount)
	}
	c := g.counts[k]
	if c == nil && len(g.counts) >= maxGaps {
		k.subject, k.kind = gapOthers, crmguard.KindSystem
		c = g.counts[k]
	}
	if c == nil {
		if len(g.counts) >= 2*maxGaps {
			return false
		}
		if len(g.counts)+len(g.ready) == 0 {
			g.since = now
		}
		c = &gapCount{from: now, to: now}
		g.counts[k] = c
	}
	c.n += n
	if now.After(c.to) {
		c.to = now
	}
	return true
}

// take makes entries of what was counted, unless there are some that were made
// before and more is false: in an outage what is counted meanwhile is better added up
// than kept as more and more entries. They stay until settle.
func (g *gaps) take(now time.Time, more bool) []crmguard.Event {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.ready) > 0 && !more {
		return g.ready
	}
	for k, c := range g.counts {
		g.ready = append(g.ready, crmguard.Event{
			ID: newID(now), Time: c.to,
			Subject: crmguard.Subject{Tenant: k.tenant, ID: k.subject, Kind: k.kind},
			Action:  k.action, Outcome: k.outcome, Reason: gapDropped, Count: c.n, Fields: gapFields(c.from, c.to),
			Resource: crmguard.Resource{Tenant: k.tenant, Kind: GapKind},
		})
	}
	clear(g.counts)
	return g.ready
}

// settle forgets the first n entries of take: the journal or the spool has them.
func (g *gaps) settle(n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.ready = g.ready[n:]
	if len(g.ready) == 0 {
		g.ready = nil
	}
}

// age is how long something has been counted that nothing durable knows of.
func (g *gaps) age(now time.Time) time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.counts)+len(g.ready) == 0 {
		return 0
	}
	return now.Sub(g.since)
}

// total is how many events are counted and not yet in the journal or the spool.
func (g *gaps) total() (events int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, c := range g.counts {
		events += c.n
	}
	for i := range g.ready {
		events += g.ready[i].Count
	}
	return events
}
