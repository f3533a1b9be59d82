package encrypt

import (
	"context"
	"errors"
	"fmt"

	"github.com/crmguard/crmguard"
)

// indexedCell is a value of a cell that is found again.
type indexedCell struct {
	cell   int
	scope  int // of its index key, among those of the batch
	index  *indexPlan
	normal string
}

// indexed returns what is indexed of cells, of which there is one for each of the fields in
// each row, and the scopes of the keys that this takes.
func (m *Model) indexed(tenant string, fields []fieldPlan, cells []Cell) (found []indexedCell, scopes []Scope) {
	if !m.plan.indexed {
		return nil, nil
	}
	for j := range fields {
		field := &fields[j]
		for x := range field.indexes {
			index := &field.indexes[x]
			scope := len(scopes)
			for i := j; i < len(cells); i += len(fields) {
				if cells[i].Plaintext == nil {
					continue
				}
				if normal := index.normalize(string(cells[i].Plaintext), m.region); normal != "" {
					found = append(found, indexedCell{i, scope, index, normal})
				}
			}
			if len(found) > 0 && found[len(found)-1].scope == scope {
				scopes = append(scopes, indexScope(&crmguard.Place{Tenant: tenant, Kind: m.kind, Field: field.name}, index.name))
			}
		}
	}
	return found, scopes
}

// entries makes the index entries of cells, under all live versions of their keys.
func (m *Model) entries(cells []Cell, indexed []indexedCell, scopes []Scope, keys []*scopeKeys) ([]IndexEntry, error) {
	if len(indexed) == 0 {
		return nil, nil
	}
	entries := make([]IndexEntry, 0, len(indexed))
	for i := range indexed {
		x := &indexed[i]
		if err := keys[x.scope].usable(&scopes[x.scope]); err != nil {
			return nil, err
		}
		place, normal := &cells[x.cell].Place, []byte(x.normal)
		for key := range keys[x.scope].newestFirst() {
			entries = append(entries, IndexEntry{
				Tenant: place.Tenant, Client: place.Client, Kind: place.Kind, Record: place.Record, Field: place.Field,
				Index: x.index.name, Unique: x.index.unique, Version: key.version, Value: key.pseudonym(place, x.index.name, normal),
			})
		}
	}
	return entries, nil
}

// Find returns the records whose field equals value, both normalised as the index (phone,
// email, exact, last4, domain) does it. It opens nothing.
func (t *Table[T]) Find(ctx context.Context, tenant, field, index, value string) (records []string, err error) {
	return t.model.find(ctx, tenant, field, index, value)
}

func (m *Model) find(ctx context.Context, tenant, field, index, value string) (records []string, err error) {
	place := crmguard.Place{Tenant: tenant, Kind: m.kind, Field: field}
	if err := checkSubject(ctx, tenant); err != nil {
		return nil, err
	}
	x := m.plan.index(field, index)
	if x == nil {
		return nil, fmt.Errorf("encrypt: table %s has no index %q on %q", m.kind, index, field)
	}
	normal := x.normalize(value, m.region)
	if normal == "" {
		return nil, nil
	}
	scope := indexScope(&place, index)
	keys, err := m.keys.keysOf(ctx, &scope, false)
	if errors.Is(err, ErrNoKey) { // nothing was ever indexed
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return m.keys.opts.Index.Find(ctx, tenant, m.kind, field, index, keys.pseudonyms(&place, index, []byte(normal)))
}

func (p *plan) index(field, index string) *indexPlan {
	f := p.field(field)
	if f == nil {
		return nil
	}
	for i := range f.indexes {
		if f.indexes[i].name == index {
			return &f.indexes[i]
		}
	}
	return nil
}
