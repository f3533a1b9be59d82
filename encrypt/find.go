package encrypt

import (
	"context"
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
	for j := range fields {
		for x := range fields[j].indexes {
			index := &fields[j].indexes[x]
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
				scopes = append(scopes, fieldScope(IndexKey, &crmguard.Place{Tenant: tenant, Kind: m.kind, Field: fields[j].name}))
			}
		}
	}
	return found, scopes
}

// entries makes the index entries of cells.
func (m *Model) entries(cells []Cell, indexed []indexedCell, scopes []Scope, keys []*scopeKeys) ([]IndexEntry, error) {
	entries := make([]IndexEntry, 0, len(indexed))
	for _, x := range indexed {
		if err := keys[x.scope].usable(&scopes[x.scope]); err != nil {
			return nil, err
		}
		place, key := &cells[x.cell].Place, keys[x.scope].newest()
		entries = append(entries, IndexEntry{
			Tenant: place.Tenant, Client: place.Client, Kind: place.Kind, Record: place.Record, Field: place.Field,
			Version: key.version, Value: key.pseudonym(place, []byte(x.normal)),
		})
	}
	return entries, nil
}

// Find returns the records whose field equals value, both normalised alike. It
// opens nothing.
func (t *Table[T]) Find(ctx context.Context, tenant, field, value string) (records []string, err error) {
	return t.model.find(ctx, tenant, field, value)
}

func (m *Model) find(ctx context.Context, tenant, field, value string) (records []string, err error) {
	place := crmguard.Place{Tenant: tenant, Kind: m.kind, Field: field}
	if err := checkPlace(&place); err != nil {
		return nil, err
	}
	if err := checkSubject(ctx, tenant); err != nil {
		return nil, err
	}
	f := m.plan.field(field)
	if f == nil || len(f.indexes) == 0 {
		return nil, fmt.Errorf("encrypt: table %s has no index on %q", m.kind, field)
	}
	normal := f.indexes[0].normalize(value, m.region)
	if normal == "" {
		return nil, nil
	}
	values, err := m.keys.Pseudonyms(ctx, place, []byte(normal))
	if err != nil {
		return nil, err
	}
	return m.keys.opts.Index.Find(ctx, tenant, m.kind, field, values)
}
