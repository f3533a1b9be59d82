package encrypt

import (
	"context"
	"errors"
	"slices"
	"strings"
)

// storing stores what a job made of a page at once, until what made it may be out of date. What
// a unique index refuses holds up nothing else.
type storing struct {
	*Model
	tenant string
	rows   Rows
	until  int64
	put    func(tx Execer, swapped []string) error // puts entries; nil: there are none

	// refuse notes a duplicate. Where it has left out the entry that was one, it returns that
	// the record is stored all the same.
	refuse func(*DuplicateError) (kept bool)
	stale  []string // to be read and made anew
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
	stale, err := s.rows.Swap(ctx, s.tenant, list, s.put)
	duplicate, refused := errors.AsType[*DuplicateError](err)
	i := slices.IndexFunc(list, func(c Change) bool { return refused && c.Was.Record == duplicate.Record })
	if i < 0 {
		s.stale = append(s.stale, stale...)
		return err
	}
	if !s.refuse(duplicate) {
		list = slices.Delete(slices.Clone(list), i, i+1)
	}
	half := (len(list) + 1) / 2
	if err := s.store(ctx, list[:half]); err != nil {
		return err
	}
	return s.store(ctx, list[half:])
}

// duplicatesIn finds records that have a unique value of another one of the same batch, which
// gets it, each once in an index: an index would name them one by one.
func duplicatesIn(stored func(record string) bool, entries []IndexEntry) (duplicates []*DuplicateError) {
	type value struct {
		field, index string
		version      uint32
		value        string
	}
	type place struct{ record, field, index string }
	owners := make(map[value]string)
	found := make(map[place]bool)
	sorted := slices.SortedStableFunc(slices.Values(entries), func(a, b IndexEntry) int { return strings.Compare(a.Record, b.Record) })
	for _, e := range sorted {
		if !e.Unique || !stored(e.Record) {
			continue
		}
		v, p := value{e.Field, e.Index, e.Version, string(e.Value)}, place{e.Record, e.Field, e.Index}
		owner, taken := owners[v]
		switch {
		case !taken:
			owners[v] = e.Record
		case owner != e.Record && !found[p]:
			found[p] = true
			duplicates = append(duplicates, &DuplicateError{Field: e.Field, Index: e.Index, Record: e.Record, Other: owner})
		}
	}
	return duplicates
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
