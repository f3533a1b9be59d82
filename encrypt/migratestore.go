package encrypt

import (
	"context"
	"fmt"
	"slices"

	"github.com/crmguard/crmguard"
)

// store makes the changes but those that a unique index refuses, which it takes out of changes.
func (g *migration) store(ctx context.Context, page []Row, outcomes []outcome, changes map[string]Change, entries []IndexEntry) (stale []string, err error) {
	s := storing{Model: g.Model, tenant: g.tenant, rows: g.rows, until: g.keys.clock.exact() + int64(Lease),
		refuse: func(duplicate DuplicateError) (kept bool) {
			delete(changes, duplicate.Record)
			i := slices.IndexFunc(page, func(r Row) bool { return r.Record == duplicate.Record })
			outcomes[i].add(&crmguard.Place{Record: duplicate.Record, Field: duplicate.Field}, duplicate)
			return false
		}}
	if len(entries) > 0 {
		s.put = func(tx Execer, swapped []string) error {
			return g.putEntries(ctx, tx, g.tenant, []string{g.field.name}, sealedIn(swapped, changes, g.field.name), entries)
		}
	}
	for _, duplicate := range duplicatesIn(func(record string) bool { _, ok := changes[record]; return ok }, entries) {
		if _, ok := changes[duplicate.Record]; ok {
			s.refuse(duplicate)
		}
	}
	list := make([]Change, 0, len(changes))
	for i := range page {
		if change, ok := changes[page[i].Record]; ok {
			list = append(list, change)
		}
	}
	if err := s.store(ctx, list); err != nil {
		return nil, fmt.Errorf("encrypt: store what was sealed: %w", err)
	}
	return s.stale, nil
}

// sealedIn leaves out records whose change seals nothing: their entries stay.
func sealedIn(swapped []string, changes map[string]Change, field string) []string {
	return slices.DeleteFunc(slices.Clone(swapped), func(record string) bool { return changes[record].Sealed[field] == nil })
}
