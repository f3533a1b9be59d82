package encrypt

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/crmguard/crmguard"
)

// Reindex writes the index entries of all rows of a tenant anew: after a restore, as dumps
// leave the index out, or after a field got an index. Entries of erased clients, of values
// that do not open, of rows without a client, and of indexes that the tags no longer name
// are deleted. A row that is edited meanwhile keeps the entries of the edit. Of several rows with
// the same value in a unique index one has it; the others are found by it too, and each is a
// *[DuplicateError] in the report. Report.Changed counts the rows that were done.
func (t *Table[T]) Reindex(ctx context.Context, tenant string, rows Rows, o *JobOptions) (Report, error) {
	return walk(ctx, tenant, rows, o, func(ctx context.Context, page []Row) ([]outcome, []string, error) {
		return t.model.reindex(ctx, tenant, rows, page, t.model.plan.fields)
	})
}

// MaintainIndex keeps the index keys of a tenant young. A host calls it every hour or so. A
// key that is older than Options.IndexLife gets a new version, rows without an entry
// under the newest version get one, and when all have one, older versions are removed. From then on
// whoever holds an old backup and the keys of today can test no value against it. A
// process removes them once it has found nothing to do for [ClosingTime], so in its second call at
// the earliest.
//
// An index, or a whole field, that the tags no longer name is brought to its end as well. A week
// (a third of Options.IndexLife, if that is less) before IndexLife is over its key gets a new
// version, and when it is over the entries that no other program has written under that
// version are deleted, and the older versions are removed. If the field still has another index,
// its entries go when those of the other are made anew. So keep calling it when the last index is
// gone, with Options.Index, or it is [ErrNoIndex]. Where several structs have one kind, call it
// for one that has all their fields and indexes.
func (t *Table[T]) MaintainIndex(ctx context.Context, tenant string, rows Rows, o *JobOptions) (Report, error) {
	options, err := checkUncut(ctx, tenant, rows, o)
	if err != nil {
		return Report{}, err
	}
	upkeeps, err := t.model.upkeeps(ctx, tenant, rows)
	if err != nil {
		return Report{}, err
	}
	var report Report
	for i := range upkeeps {
		if err := upkeeps[i].run(ctx, &options, &report); err != nil {
			return report, err
		}
	}
	return report, nil
}

// abandoned is how long a program that still has an index may take to write its entries under a new
// version: far longer than those take that call [Table.MaintainIndex] every hour.
const abandoned = 7 * 24 * time.Hour

// upkeeps are of the indexes that the tags name, and then of others of this kind that have keys.
func (m *Model) upkeeps(ctx context.Context, tenant string, rows Rows) (list []upkeep, err error) {
	for _, field := range m.plan.fields {
		for x := range field.indexes {
			list = append(list, upkeep{Model: m, tenant: tenant, rows: rows, field: field, index: field.indexes[x].name})
		}
	}
	inventory, ok := m.keys.store.(Inventory)
	if !ok {
		return list, nil
	}
	var last Scope
	for r, err := range inventoryOf(ctx, inventory, tenant, IndexKey) {
		if err != nil {
			return nil, err
		}
		name, index, mine := r.Scope.indexOf(m.kind)
		if r.Scope == last || !mine || m.plan.index(name, index) != nil {
			continue
		}
		if m.keys.opts.Index == nil {
			return nil, fmt.Errorf("%w: tenant %q, kind %q", ErrNoIndex, tenant, m.kind)
		}
		last = r.Scope
		field := fieldPlan{name: name}
		if known := m.plan.field(name); known != nil {
			field = *known
		}
		list = append(list, upkeep{Model: m, tenant: tenant, rows: rows, field: field, index: index, former: true})
	}
	return list, nil
}

// withIndexes leaves out fields that have none.
func withIndexes(fields []fieldPlan) []fieldPlan {
	return slices.DeleteFunc(slices.Clone(fields), func(f fieldPlan) bool { return len(f.indexes) == 0 })
}

// reindex replaces the entries of one page, in these fields, by those under all live versions.
func (m *Model) reindex(ctx context.Context, tenant string, rows Rows, page []Row, fields []fieldPlan) ([]outcome, []string, error) {
	outcomes := make([]outcome, len(page))
	if m.keys.opts.Index == nil {
		return outcomes, nil, nil
	}
	until := m.keys.clock.exact() + int64(Lease)
	entries, err := m.entriesOf(ctx, tenant, page, withIndexes(fields), outcomes)
	if err != nil {
		return nil, nil, err
	}
	var changes []Change
	rowOf := make(map[string]int, len(page))
	for i := range page {
		if err := checkRow(&page[i]); err != nil { // it may have had a client once
			outcomes[i].add(&crmguard.Place{Record: page[i].Record}, err)
		}
		changes = append(changes, Change{Was: page[i]})
		rowOf[page[i].Record] = i
		outcomes[i].changed = true
	}
	s := storing{Model: m, tenant: tenant, rows: rows, until: until,
		put: func(tx Execer, swapped []string) error {
			return m.putEntries(ctx, tx, tenant, namesOf(fields), swapped, entries)
		},
		refuse: func(duplicate *DuplicateError) (kept bool) {
			o := &outcomes[rowOf[duplicate.Record]]
			o.add(&crmguard.Place{Record: duplicate.Record, Field: duplicate.Field}, duplicate)
			kept = loosen(entries, duplicate)
			o.changed = kept
			return kept
		}}
	for _, duplicate := range duplicatesIn(func(string) bool { return true }, entries) {
		s.refuse(duplicate)
	}
	if err := s.store(ctx, changes); err != nil {
		return nil, nil, fmt.Errorf("encrypt: store index entries: %w", err)
	}
	return outcomes, s.stale, nil
}

// entriesOf opens fields of a page and makes their entries. What does not open is in the outcomes and
// has none.
func (m *Model) entriesOf(ctx context.Context, tenant string, page []Row, fields []fieldPlan, outcomes []outcome) ([]IndexEntry, error) {
	cells := make([]Cell, len(page)*len(fields))
	for i := range cells {
		row, field := &page[i/len(fields)], fields[i%len(fields)].name
		if cells[i].Err = checkRow(row); cells[i].Err == nil {
			cells[i] = Cell{Place: m.place(tenant, row, field), Sealed: row.Sealed[field]}
		}
	}
	if err := m.keys.openAll(ctx, tenant, cells); err != nil {
		return nil, err
	}
	for i := range cells {
		c := &cells[i]
		if passing(ctx, c.Err) {
			return nil, c.Err
		}
		if c.Err != nil && c.Place.Record != "" {
			outcomes[i/len(fields)].add(&c.Place, c.Err)
		}
	}
	indexed, scopes := m.indexed(tenant, fields, cells)
	keys, err := m.keys.keysOfAll(ctx, tenant, scopes, true)
	if err != nil {
		return nil, err
	}
	return m.entries(cells, indexed, scopes, keys)
}

// loosen has the entries of a record that is a duplicate find it, without claiming its value.
func loosen(entries []IndexEntry, duplicate *DuplicateError) (loosened bool) {
	for i := range entries {
		e := &entries[i]
		if e.Unique && e.Record == duplicate.Record && e.Field == duplicate.Field && e.Index == duplicate.Index {
			e.Unique, loosened = false, true
		}
	}
	return loosened
}

// upkeep of one index.
type upkeep struct {
	*Model
	tenant string
	rows   Rows
	field  fieldPlan
	index  string
	former bool // no tag names it any more
}

func (u *upkeep) run(ctx context.Context, o *JobOptions, report *Report) error {
	scope := indexScope(&crmguard.Place{Tenant: u.tenant, Kind: u.kind, Field: u.field.name}, u.index)
	records, err := u.keys.stored(ctx, scope)
	if err != nil {
		return err
	}
	if len(records) == 0 {
		return nil
	}
	newest, age := records[len(records)-1].Version, u.keys.wallClock().Sub(records[len(records)-1].CreatedAt)
	life, patience := u.keys.opts.IndexLife, time.Duration(0)
	if u.former { // another program may have the index; the key shall not live longer for it
		patience = min(abandoned, life/3)
		life -= patience
	}
	if age >= life {
		if newest, err = u.keys.Rotate(ctx, scope); err != nil {
			return err
		}
		age = 0
	}
	if age < patience {
		return nil
	}
	// Also where one version is left: an entry under an older one alone that came late
	// would never be found.
	late, behind, err := u.reindexStale(ctx, newest, o, report)
	if err != nil {
		return err
	}
	version := indexVersion{scope, newest}
	if late > 0 {
		u.keys.even.forget(version)
	}
	if behind > 0 || len(records) == 1 && newest == records[0].Version {
		return nil
	}
	if u.keys.even.add(version, u.keys.clock.exact()) < ClosingTime {
		return nil // a transaction may yet commit entries of older versions alone
	}
	_, err = u.keys.Retire(ctx, scope, newest)
	return err
}

// indexVersion is a version of an index under which all rows have been found to have entries.
type indexVersion struct {
	scope   Scope
	version uint32
}

func (v indexVersion) clone() indexVersion { return indexVersion{v.scope.clone(), v.version} }

// reindexStale gives entries under a version to rows that lack them, and returns how many
// it found and how many still do. Entries that have no row do not count: nobody sees what
// they would find.
func (u *upkeep) reindexStale(ctx context.Context, version uint32, o *JobOptions, report *Report) (late, behind int, err error) {
	for after := ""; ; {
		stale, err := u.keys.opts.Index.Stale(ctx, u.tenant, u.kind, u.field.name, u.index, version, after, o.Batch)
		if err != nil || len(stale) == 0 {
			return late, behind, err
		}
		page, err := u.rows.Get(ctx, u.tenant, stale)
		if err != nil {
			return late, behind, fmt.Errorf("encrypt: read rows: %w", err)
		}
		busy := report.Busy
		late += len(page)
		if len(page) > 0 {
			if err := report.settle(ctx, u.tenant, u.rows, page, func(ctx context.Context, page []Row) ([]outcome, []string, error) {
				return u.reindex(ctx, u.tenant, u.rows, page, []fieldPlan{u.field})
			}); err != nil {
				return late, behind, err
			}
		}
		behind += report.Busy - busy
		after = stale[len(stale)-1]
		if err := o.progress(ctx, report); err != nil {
			return late, behind, err
		}
	}
}
