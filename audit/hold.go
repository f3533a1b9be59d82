package audit

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/crmguard/crmguard"
)

// Hold keeps entries from [Log.Prune], for a lawsuit or an inquiry: all of a tenant,
// or those about a client, by a person, or about a record. Holds are entries of the
// log's own journal, so that nobody removes one unnoticed.
type Hold struct {
	ID      string // chosen by the caller: the number of the case, say; of one tenant used once
	Tenant  string
	Client  string // whose private values the entry holds
	Subject string // who acted
	Kind    string // of the resource
	Record  string // id of the resource
	Reason  string // a code
}

// Actions of the entries that [Log.Hold] and [Log.Release] make.
const (
	ActHold    crmguard.Action = "hold"
	ActRelease crmguard.Action = "release"
)

var errHold = errors.New("audit: a hold needs an id and a tenant, and texts of at most 200 bytes without line breaks")

func (h *Hold) texts() [5]string { return [5]string{h.Tenant, h.Client, h.Subject, h.Kind, h.Record} }

var holdNames = [5]string{"tenant=", "client=", "subject=", "kind=", "record="}

func (h *Hold) fields() []string {
	var fields []string
	for i, text := range h.texts() {
		if text != "" {
			fields = append(fields, holdNames[i]+text)
		}
	}
	return fields
}

// Hold places a hold. It counts for entries that are there and for later ones; an
// entry that a Prune named before the hold was placed may be gone. The same hold
// again changes nothing. The subject in ctx, of the tenant, is who placed it.
func (l *Log) Hold(ctx context.Context, h Hold) error {
	for _, text := range append(h.fields(), h.ID, h.Reason) {
		if clean(text) != text || keyText(text) != text {
			return errHold
		}
	}
	if h.ID == "" || h.Tenant == "" {
		return errHold
	}
	set, err := l.allHolds(ctx)
	if err != nil {
		return err
	}
	if before := set[holdKey{h.Tenant, h.ID}]; before != nil && before.released {
		return fmt.Errorf("audit: the hold %q was released: another needs another id", h.ID)
	}
	return l.recordHold(ctx, h, ActHold, h.Reason)
}

// Release ends a hold of the tenant of the subject in ctx.
func (l *Log) Release(ctx context.Context, id, reason string) error {
	subject, _ := crmguard.SubjectFrom(ctx)
	set, err := l.allHolds(ctx)
	if err != nil {
		return err
	}
	h := set[holdKey{subject.Tenant, id}]
	if h == nil || !h.placed {
		return fmt.Errorf("audit: there is no hold %q", id)
	}
	if h.released {
		return nil
	}
	return l.recordHold(ctx, h.Hold, ActRelease, reason)
}

func (l *Log) recordHold(ctx context.Context, h Hold, act crmguard.Action, reason string) error {
	subject, _ := crmguard.SubjectFrom(ctx)
	if err := crmguard.CheckTenant(subject, h.Tenant); err != nil {
		return fmt.Errorf("audit: %s: %w", act, err)
	}
	return l.recordOwn(ctx, crmguard.Event{
		ID:       fmt.Sprintf("%s %q %q", act, h.Tenant, h.ID),
		Action:   act,
		Resource: crmguard.Resource{Kind: "hold", ID: h.ID},
		Outcome:  crmguard.Done,
		Reason:   reason,
		Fields:   h.fields(),
	})
}

// recordOwn chains an entry of the subject in ctx in the log's own journal.
func (l *Log) recordOwn(ctx context.Context, e crmguard.Event) error {
	own := ownTenant(l.id)
	e.Subject, _ = crmguard.SubjectFrom(ctx)
	e.Resource.Tenant = own
	e.Time = stored(l.clock())
	normalise(&e)
	e.Subject.AuthenticatedAt = stored(e.Subject.AuthenticatedAt)
	if at := e.Subject.AuthenticatedAt; !writable(e.Time) || !at.IsZero() && !writable(at) {
		return errTime // nobody could read the record, nor anything after it
	}
	e.Private = nil
	c := &content{tenant: own, event: e}
	return l.put(ctx, c, c.fit())
}

// Holds returns those in force, of all tenants, oldest first.
func (l *Log) Holds(ctx context.Context) ([]Hold, error) {
	set, err := l.allHolds(ctx)
	return set.list(), err
}

func (l *Log) allHolds(ctx context.Context) (holdSet, error) {
	set := make(holdSet)
	for _, act := range []crmguard.Action{ActHold, ActRelease} {
		for row, err := range allRows(ctx, l.store, Query{Tenant: ownTenant(l.id), Action: act}) {
			if err != nil {
				return nil, fmt.Errorf("audit: find holds: %w", err)
			}
			set.see(row)
		}
	}
	return set, nil
}

type holdKey struct{ tenant, id string }

// holdState is what became of a hold.
type holdState struct {
	Hold
	seq      int64
	placed   bool
	released bool
}

// holdSet are all holds, whichever of their entries was seen first.
type holdSet map[holdKey]*holdState

// see takes in a row of the log's own journal.
func (s holdSet) see(row *Row) {
	if row.Keys.Action != ActHold && row.Keys.Action != ActRelease {
		return
	}
	rec, err := decodeRecord(row.Record)
	if err != nil {
		return
	}
	said := Hold{ID: rec.event.Resource.ID, Reason: rec.event.Reason}
	for i, text := range []*string{&said.Tenant, &said.Client, &said.Subject, &said.Kind, &said.Record} {
		for _, field := range rec.event.Fields {
			if value, ok := strings.CutPrefix(field, holdNames[i]); ok {
				*text = value
			}
		}
	}
	key := holdKey{said.Tenant, said.ID}
	if s[key] == nil {
		s[key] = &holdState{}
	}
	if rec.event.Action == ActRelease {
		s[key].released = true
		return
	}
	s[key].Hold, s[key].placed, s[key].seq = said, true, rec.seq
}

func (s holdSet) list() []Hold {
	var states []*holdState
	for _, h := range s {
		if h.placed && !h.released {
			states = append(states, h)
		}
	}
	slices.SortFunc(states, func(a, b *holdState) int { return cmp.Compare(a.seq, b.seq) })
	holds := make([]Hold, len(states))
	for i, h := range states {
		holds[i] = h.Hold
	}
	return holds
}

// keeps returns a hold that keeps the row: one that is about it, or its own entry.
func (s holdSet) keeps(row *Row) *Hold {
	for _, h := range s {
		if !h.placed || h.released {
			continue
		}
		q := Query{Tenant: keyText(h.Tenant), Client: keyText(h.Client), Subject: keyText(h.Subject), Kind: keyText(h.Kind), Record: keyText(h.Record)}
		if row.Seq == h.seq || row.Keys.matches(&q) {
			return &h.Hold
		}
	}
	return nil
}

// heldSince reports whether a hold was placed in entries from seq on.
func (l *Log) heldSince(ctx context.Context, seq int64) (bool, error) {
	for {
		rows, err := l.store.Read(ctx, seq, maxBatch)
		if err != nil {
			return false, fmt.Errorf("look for new holds: %w", err)
		}
		if len(rows) == 0 {
			return false, nil
		}
		for i := range rows {
			if rows[i].Keys.Action == ActHold && rows[i].Keys.Tenant == ownTenant(l.id) {
				return true, nil
			}
		}
		seq = rows[len(rows)-1].Seq + 1
	}
}
