package audit_test

import (
	"fmt"
	"slices"
	"time"

	"pgregory.net/rapid"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/audit"
)

// slow is what a log should hold: a list that is searched from end to end.
type slow struct {
	entries []slowEntry // the index is the number
	pruned  int         // entries before this one were removed
	erased  map[[2]string]bool
	deaf    bool // a planted fault: nobody tells it of holds
}

type slowEntry struct {
	tenant   string
	event    crmguard.Event
	recorded time.Time
	hold     *audit.Hold // of entries that place or release one
}

// place returns the number of the entry with the same tenant, id and outcome, -1 if there is none.
func (s *slow) place(tenant string, e *crmguard.Event) int {
	for i := s.pruned; i < len(s.entries); i++ {
		o := &s.entries[i]
		if o.tenant == tenant && o.event.ID == e.ID && o.event.Outcome == e.Outcome {
			return i
		}
	}
	return -1
}

// says reports whether two events say the same, as far as anybody can tell from outside.
func says(a, b *crmguard.Event) bool {
	x, y := *a, *b
	x.Private, y.Private = nil, nil
	return fmt.Sprint(x) == fmt.Sprint(y) && slices.EqualFunc(a.Private, b.Private, func(a, b crmguard.Private) bool { return a.Client == b.Client && a.Name == b.Name })
}

func (e *slowEntry) about(client string) bool {
	return slices.ContainsFunc(e.event.Private, func(p crmguard.Private) bool { return p.Client == client })
}

func (e *slowEntry) matches(q *audit.Query) bool {
	return e.tenant == q.Tenant &&
		(q.Subject == "" || e.event.Subject.ID == q.Subject) &&
		(q.Kind == "" || e.event.Resource.Kind == q.Kind) &&
		(q.Record == "" || e.event.Resource.ID == q.Record) &&
		(q.Client == "" || e.about(q.Client)) &&
		(q.Action == "" || e.event.Action == q.Action) &&
		(q.Outcome == 0 || e.event.Outcome == q.Outcome) &&
		(q.From.IsZero() || !e.event.Time.Before(q.From)) &&
		(q.To.IsZero() || e.event.Time.Before(q.To))
}

// find returns what matches, newest first.
func (s *slow) find(q audit.Query) (found []int64) {
	for i := len(s.entries) - 1; i >= s.pruned; i-- {
		if s.entries[i].matches(&q) && (q.Before == 0 || int64(i) < q.Before) {
			found = append(found, int64(i))
		}
	}
	return found
}

// after returns what a reader gets that has come so far, oldest first. A nil query is for all.
func (s *slow) after(q *audit.Query, seq int64) (found []int64) {
	for i := max(int(seq)+1, s.pruned); i < len(s.entries); i++ {
		if q == nil || s.entries[i].matches(q) {
			found = append(found, int64(i))
		}
	}
	return found
}

// holds returns those in force.
func (s *slow) holds() (list []audit.Hold) {
	for i := s.pruned; i < len(s.entries); i++ {
		if h := s.entries[i].hold; h != nil && s.entries[i].event.Action == audit.ActHold && !s.released(h) {
			list = append(list, *h)
		}
	}
	return list
}

func (s *slow) released(h *audit.Hold) bool {
	return slices.ContainsFunc(s.entries[s.pruned:], func(e slowEntry) bool {
		return e.hold != nil && e.event.Action == audit.ActRelease && e.hold.ID == h.ID && e.hold.Tenant == h.Tenant
	})
}

// prunable returns up to where entries are removed that were recorded before a time, if
// all are signed, and the entry at which a hold stops that, -1 if none does.
func (s *slow) prunable(before time.Time) (to, heldAt int) {
	const tile = 256
	end := len(s.entries) - 1
	for i := s.pruned; i < end; i++ {
		if !s.entries[i].recorded.Before(before) {
			end = i
		}
	}
	holds := s.holds()
	if s.deaf {
		holds = nil
	}
	for to = s.pruned; to+tile <= end; to += tile {
		for i := to; i < to+tile; i++ {
			e := &s.entries[i]
			for _, h := range holds {
				own := e.hold != nil && e.event.Action == audit.ActHold && e.hold.ID == h.ID && e.hold.Tenant == h.Tenant
				if own || e.matches(&audit.Query{Tenant: h.Tenant, Client: h.Client, Subject: h.Subject, Kind: h.Kind, Record: h.Record}) {
					return to, i
				}
			}
		}
	}
	return to, -1
}

// value is what each private value holds.
func value(client string) []byte { return []byte("of " + client) }

var noon = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

func randomEvent(r *rapid.T) crmguard.Event {
	tenant := rapid.SampledFrom([]string{"acme", "other"}).Draw(r, "tenant")
	e := crmguard.Event{
		ID:       fmt.Sprint(rapid.IntRange(0, 30).Draw(r, "id")),
		Time:     noon.Add(time.Duration(rapid.IntRange(0, 5).Draw(r, "time")) * time.Second),
		Subject:  crmguard.Subject{Tenant: tenant, ID: rapid.SampledFrom([]string{"anna", "boris"}).Draw(r, "subject"), Kind: crmguard.KindEmployee},
		Action:   rapid.SampledFrom([]crmguard.Action{crmguard.View, crmguard.Export}).Draw(r, "action"),
		Resource: crmguard.Resource{Tenant: tenant, Kind: rapid.SampledFrom([]string{"contacts", "deals"}).Draw(r, "kind"), ID: rapid.SampledFrom([]string{"1", "2"}).Draw(r, "record")},
		Outcome:  rapid.SampledFrom([]crmguard.Outcome{crmguard.Attempted, crmguard.Done}).Draw(r, "outcome"),
	}
	for range rapid.IntRange(0, 2).Draw(r, "private") {
		client := rapid.SampledFrom([]string{"", "c1", "c2"}).Draw(r, "client")
		e.Private = append(e.Private, crmguard.Private{Client: client, Name: "old", Value: value(client)})
	}
	return e
}

// plainEvent is one of many, so that there is something to prune.
func plainEvent(seq int) crmguard.Event {
	e := crmguard.Event{
		ID: fmt.Sprint("plain-", seq), Time: noon.Add(time.Minute), Action: crmguard.View, Outcome: crmguard.Done,
		Subject:  crmguard.Subject{Tenant: "acme", ID: "clara", Kind: crmguard.KindEmployee},
		Resource: crmguard.Resource{Tenant: "acme", Kind: "tasks", ID: fmt.Sprint(seq % 7)},
	}
	if seq%40 == 0 {
		e.Private = []crmguard.Private{{Client: "c1", Name: "old", Value: value("c1")}}
	}
	return e
}

func randomQuery(r *rapid.T) audit.Query {
	q := audit.Query{
		Tenant:  rapid.SampledFrom([]string{"acme", "other", "nobody"}).Draw(r, "q tenant"),
		Subject: rapid.SampledFrom([]string{"", "", "anna"}).Draw(r, "q subject"),
		Kind:    rapid.SampledFrom([]string{"", "", "deals"}).Draw(r, "q kind"),
		Record:  rapid.SampledFrom([]string{"", "", "2"}).Draw(r, "q record"),
		Client:  rapid.SampledFrom([]string{"", "", "c1"}).Draw(r, "q client"),
		Action:  rapid.SampledFrom([]crmguard.Action{"", "", crmguard.Export}).Draw(r, "q action"),
		Outcome: rapid.SampledFrom([]crmguard.Outcome{0, 0, crmguard.Done}).Draw(r, "q outcome"),
		Limit:   rapid.IntRange(1, 4).Draw(r, "q limit"),
	}
	if rapid.Bool().Draw(r, "q from") {
		q.From = noon.Add(2 * time.Second)
	}
	if rapid.Bool().Draw(r, "q to") {
		q.To = noon.Add(4 * time.Second)
	}
	return q
}
