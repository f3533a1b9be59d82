package encrypt

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/crmguard/crmguard"
)

// store makes the changes but those that a unique index refuses, which it takes out of changes.
func (g *migration) store(ctx context.Context, page []Row, outcomes []outcome, changes map[string]Change, entries []IndexEntry) (stale []string, err error) {
	s := storing{migration: g, until: g.keys.clock.exact() + int64(Lease), changes: changes, entries: entries,
		refuse: func(duplicate DuplicateError) {
			delete(changes, duplicate.Record)
			i := slices.IndexFunc(page, func(r Row) bool { return r.Record == duplicate.Record })
			outcomes[i].add(&crmguard.Place{Record: duplicate.Record, Field: duplicate.Field}, duplicate)
		}}
	for _, duplicate := range duplicatesIn(changes, entries) {
		s.refuse(duplicate)
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

// duplicatesIn finds records that have a unique value of another one of the same batch, which
// gets it: an index would name them one by one.
func duplicatesIn(changes map[string]Change, entries []IndexEntry) map[string]DuplicateError {
	type value struct {
		field, index string
		version      uint32
		value        string
	}
	owners := make(map[value]string)
	duplicates := make(map[string]DuplicateError)
	sorted := slices.SortedFunc(slices.Values(entries), func(a, b IndexEntry) int { return strings.Compare(a.Record, b.Record) })
	for _, e := range sorted {
		if _, changing := changes[e.Record]; !changing || !e.Unique {
			continue
		}
		v := value{e.Field, e.Index, e.Version, string(e.Value)}
		owner, taken := owners[v]
		if !taken {
			owners[v] = e.Record
		} else if owner != e.Record {
			duplicates[e.Record] = DuplicateError{Field: e.Field, Index: e.Index, Record: e.Record, Other: owner}
		}
	}
	return duplicates
}

// storing stores what was sealed at once, until what sealed it may be out of date.
type storing struct {
	*migration
	until   int64
	changes map[string]Change
	entries []IndexEntry
	refuse  func(DuplicateError)
	stale   []string // to be read and sealed anew
}

// store halves a list that holds a duplicate of another record: with many of them, one transaction
// after another that fails over the next one would write each row as often.
func (s *storing) store(ctx context.Context, list []Change) error {
	if len(list) == 0 {
		return nil
	}
	if s.keys.clock.exact() >= s.until {
		for i := range list {
			s.stale = append(s.stale, list[i].Was.Record)
		}
		return nil
	}
	var put func(tx Execer, swapped []string) error
	if len(s.entries) > 0 {
		put = func(tx Execer, swapped []string) error {
			return s.putEntries(ctx, tx, s.tenant, []string{s.field.name}, sealedIn(swapped, s.changes, s.field.name), s.entries)
		}
	}
	stale, err := s.rows.Swap(ctx, s.tenant, list, put)
	duplicate, refused := errors.AsType[DuplicateError](err)
	i := slices.IndexFunc(list, func(c Change) bool { return c.Was.Record == duplicate.Record })
	if !refused || i < 0 {
		s.stale = append(s.stale, stale...)
		return err
	}
	s.refuse(duplicate)
	rest := slices.Delete(slices.Clone(list), i, i+1)
	if err := s.store(ctx, rest[:len(rest)/2]); err != nil {
		return err
	}
	return s.store(ctx, rest[len(rest)/2:])
}

// sealedIn leaves out records whose change seals nothing: their entries stay.
func sealedIn(swapped []string, changes map[string]Change, field string) []string {
	return slices.DeleteFunc(slices.Clone(swapped), func(record string) bool { return changes[record].Sealed[field] == nil })
}

// putEntries puts the entries of these records.
func (m *Model) putEntries(ctx context.Context, tx Execer, tenant string, fields, records []string, entries []IndexEntry) error {
	if len(records) == 0 {
		return nil
	}
	known := setOf(records)
	mine := slices.DeleteFunc(slices.Clone(entries), func(e IndexEntry) bool { return !known[e.Record] })
	return m.keys.opts.Index.Put(ctx, tx, IndexEntries{Tenant: tenant, Kind: m.kind, Records: records, Fields: fields, Entries: mine})
}
