package audit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/crmguard/crmguard"
)

// Private values are sealed, and so nobody finds an entry by one. For those that
// [Options].Findable names, a keyed pseudonym is kept beside the log: outside the
// records, because its key rotates, and so that it can be deleted with the client.

// Pseudonym is that of a private value of an entry.
type Pseudonym struct {
	Tenant  string
	Event   string
	Outcome crmguard.Outcome
	Client  string
	Name    string
	Value   []byte
}

// Finder is what a store offers besides that keeps pseudonyms: Append adds those of
// its batch, where one that is there is left alone, and Find answers a query with
// Pseudonyms. If it has an [Inbox], it also has a method PutPseudonyms(ctx, tx, list)
// error, which adds some inside tx.
type Finder interface {
	// SetPseudonyms puts list in place of all that there are of an entry.
	SetPseudonyms(ctx context.Context, tenant, event string, outcome crmguard.Outcome, list []Pseudonym) error

	// DropPseudonyms removes all of a client, and returns how many there were.
	DropPseudonyms(ctx context.Context, tenant, client string) (int64, error)
}

// txFinder is the part of a Finder that has an inbox.
type txFinder interface {
	PutPseudonyms(ctx context.Context, tx Tx, list []Pseudonym) error
}

// findable is how a Log finds private values.
type findable struct {
	names  []string
	keys   crmguard.Pseudonymizer
	finder Finder
}

func newFindable(store Store, o *Options) (findable, error) {
	f := findable{names: slices.Clone(o.Findable), keys: o.Pseudonyms}
	f.finder, _ = store.(Finder)
	if len(f.names) == 0 {
		return f, nil
	}
	if f.keys == nil || f.finder == nil {
		return f, errors.New("audit: findable values need a pseudonymizer, and a store that keeps pseudonyms: auditsql or Memory")
	}
	return f, nil
}

func (f *findable) place(tenant, name string) crmguard.Place {
	return crmguard.Place{Tenant: tenant, Kind: "audit", Field: name}
}

// of returns the pseudonym of a value to store, none for one that is not findable.
func (f *findable) of(ctx context.Context, c *content, p *crmguard.Private) ([]Pseudonym, error) {
	if !slices.Contains(f.names, p.Name) {
		return nil, nil
	}
	values, err := f.keys.Pseudonyms(ctx, f.place(c.tenant, p.Name), p.Value)
	if err != nil {
		return nil, err
	}
	if len(values) == 0 {
		return nil, errors.New("the pseudonymizer made none")
	}
	return []Pseudonym{{
		Tenant: keyText(c.tenant), Event: keyText(c.event.ID), Outcome: c.event.Outcome,
		Client: keyText(p.Client), Name: p.Name, Value: values[0],
	}}, nil
}

// ask computes what a query for a value looks for: its pseudonyms under all versions
// of the key that live.
func (f *findable) ask(ctx context.Context, q *Query) ([][]byte, error) {
	if q.Private.Name == "" {
		return nil, nil
	}
	if !slices.Contains(f.names, q.Private.Name) {
		return nil, errors.New("audit: values of that name are not findable")
	}
	values, err := f.keys.Pseudonyms(ctx, f.place(q.Tenant, q.Private.Name), q.Private.Value)
	if err != nil {
		return nil, fmt.Errorf("audit: find a private value: %w", err)
	}
	return values, nil
}

// says reports whether an entry has a value of the name that was asked for. More
// only the key of its client can tell.
func (c *content) says(q *Query) bool {
	return q.Private.Name == "" || slices.ContainsFunc(c.sealed, func(v SealedValue) bool { return v.Name == q.Private.Name })
}

// hit reports whether one of an entry's pseudonyms is asked for.
func (q *Query) hit(list []Pseudonym) bool {
	return slices.ContainsFunc(list, func(p Pseudonym) bool {
		return p.Name == q.Private.Name && slices.ContainsFunc(q.Pseudonyms, func(v []byte) bool { return bytes.Equal(v, p.Value) })
	})
}

// Forget removes the pseudonyms of a client, so that no value finds the client's
// entries any more, and returns how many there were. A host calls it when it begins
// to erase the client, and again when that is complete: a transaction that began
// before may have committed after.
func (l *Log) Forget(ctx context.Context, tenant, client string) (int64, error) {
	if tenant == "" || client == "" {
		return 0, errName
	}
	if l.finding.finder == nil {
		return 0, nil
	}
	n, err := l.finding.finder.DropPseudonyms(ctx, keyText(tenant), keyText(client))
	if err != nil {
		return n, fmt.Errorf("audit: forget a client: %w", err)
	}
	return n, nil
}

// Reindex makes all pseudonyms of a tenant anew under the present keys, and removes
// those of erased clients. It is run before a key ends its life, after the list of
// findable names has changed, after a restore, and after a time in which entries were
// spooled, which are not found until then. It opens the values through the Sealer, as
// the system, and returns how many entries it wrote. A value that does not open does
// not keep it from the others.
func (l *Log) Reindex(ctx context.Context, tenant string) (int, error) {
	f := &l.finding
	if len(f.names) == 0 {
		return 0, errors.New("audit: no names are findable")
	}
	ctx = crmguard.System(ctx, tenant, "audit-reindex")
	q := Query{Tenant: tenant}
	if err := q.normalise(nil); err != nil {
		return 0, err
	}
	written := 0
	var failed error
	for row, err := range allRows(ctx, l.store, q) {
		if err != nil {
			return written, fmt.Errorf("audit: reindex: %w", err)
		}
		rec, err := decodeRecord(row.Record)
		if err != nil || rec.seq != row.Seq {
			continue // Verify tells
		}
		done, err := l.reindex(ctx, &rec.content)
		if err != nil && failed == nil {
			failed = fmt.Errorf("audit: reindex entry %d: %w", rec.seq, err)
		}
		if done {
			written++
		}
	}
	return written, failed
}

func (l *Log) reindex(ctx context.Context, c *content) (done bool, err error) {
	var list []Pseudonym
	found := false
	for i := range c.sealed {
		v := &c.sealed[i]
		if !slices.Contains(l.finding.names, v.Name) || c.isCut {
			continue
		}
		found = true
		if v.Erased {
			continue
		}
		value, err := l.keys.Open(ctx, v.place(c.tenant, c.event.ID), v.Sealed)
		if errors.Is(err, crmguard.ErrErased) {
			continue
		}
		if err != nil {
			return false, err
		}
		more, err := l.finding.of(ctx, c, &crmguard.Private{Client: v.Client, Name: v.Name, Value: value})
		if err != nil {
			return false, err
		}
		list = append(list, more...)
	}
	if !found {
		return false, nil
	}
	return true, l.finding.finder.SetPseudonyms(ctx, keyText(c.tenant), keyText(c.event.ID), c.event.Outcome, list)
}

// SetPseudonyms implements [Finder].
func (m *Memory) SetPseudonyms(_ context.Context, tenant, event string, outcome crmguard.Outcome, list []Pseudonym) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	id := rowID(tenant, event, outcome)
	delete(m.pseudonyms, id)
	m.addPseudonyms(list)
	return nil
}

func (m *Memory) addPseudonyms(list []Pseudonym) {
	for _, p := range list {
		id := rowID(p.Tenant, p.Event, p.Outcome)
		there := slices.ContainsFunc(m.pseudonyms[id], func(o Pseudonym) bool {
			return o.Name == p.Name && o.Client == p.Client && bytes.Equal(o.Value, p.Value)
		})
		if !there {
			p.Value = bytes.Clone(p.Value)
			m.pseudonyms[id] = append(m.pseudonyms[id], p)
		}
	}
}

// DropPseudonyms implements [Finder].
func (m *Memory) DropPseudonyms(_ context.Context, tenant, client string) (int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	dropped := 0
	for id, list := range m.pseudonyms {
		before := len(list)
		list = slices.DeleteFunc(list, func(p Pseudonym) bool { return p.Tenant == tenant && p.Client == client })
		dropped += before - len(list)
		if m.pseudonyms[id] = list; len(list) == 0 {
			delete(m.pseudonyms, id)
		}
	}
	return int64(dropped), nil
}
