package encrypt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/crmguard/crmguard"
)

// Collect begins a migration: it collects the records of a tenant that have a value in a column tagged ",legacy" and no
// sealed one. Only what lies in these records is read from there from now on, until
// [Table.Migrate] has sealed it. Collect may be called again, for what was written
// meanwhile by programs that do not seal yet; once Migrate was called it is [ErrCutOff].
//
// Until Migrate has come to its end, [Keyring.FinishErasures] destroys no key of the tenant: who is
// erased is closed, but the plaintext may still lie there.
//
// Collect believes what it finds: what lies in the column, and what the key store says about the state of the
// field. So call it by hand, not at each start. Report.Changed counts the rows that
// are collected, those of earlier calls too: [Table.Pending] tells how many values a call has added.
func (t *Table[T]) Collect(ctx context.Context, tenant string, rows Rows, o *JobOptions) (Report, error) {
	m := t.model
	options, err := checkJob(ctx, tenant, rows, o)
	if err != nil {
		return Report{}, err
	}
	if err := m.eachPending(func(field *fieldPlan) error {
		return pendingError(m.pending().AddPending(ctx, m.pendingField(tenant, field), nil))
	}); err != nil {
		return Report{Cursor: options.After}, err
	}
	return walk(ctx, tenant, rows, o, func(ctx context.Context, page []Row) ([]outcome, []string, error) {
		outcomes := make([]outcome, len(page))
		err := m.eachPending(func(field *fieldPlan) error {
			set := m.pendingField(tenant, field)
			var records []PendingRecord
			for i := range page {
				row := &page[i]
				if row.Sealed[field.name] != nil || m.legacyOf(field, row) == nil {
					continue
				}
				if err := checkRow(row); err != nil {
					outcomes[i].add(&crmguard.Place{Record: row.Record}, err)
					continue
				}
				mac, err := m.keys.provePending(ctx, set, row.Client, row.Record)
				if err != nil {
					return err
				}
				outcomes[i].changed = true
				records = append(records, PendingRecord{row.Record, mac})
			}
			return pendingError(m.pending().AddPending(ctx, set, records))
		})
		return outcomes, nil, err
	})
}

// Migrate seals what lies in columns of plaintext, of the records that [Table.Collect] has
// collected, writes their index entries and sets the columns to NULL, while readers and writers go on. No
// further records are collected from now on. What it could not seal, such as what TableOptions.DecodeLegacy refuses
// and duplicates of a unique value, stays readable and is in the report. Called again, also after a
// kill -9, it goes on with what is left: the set of records itself remembers that.
//
// When none is left the fields are strict: no plaintext is ever accepted again, wherever
// it comes from. The plaintext of erased clients is set to NULL, and not sealed. Of a record
// that has another client than when it was collected nothing is accepted.
//
// The database and its backups still hold the old text: see docs/guides/encrypt-existing.md.
func (t *Table[T]) Migrate(ctx context.Context, tenant string, rows Rows, o *JobOptions) (Report, error) {
	m := t.model
	options, err := checkUncut(ctx, tenant, rows, o)
	if err != nil {
		return Report{}, err
	}
	if !m.plan.migrates {
		return Report{}, errNoLegacy
	}
	var report Report
	for j := range m.plan.fields {
		if field := &m.plan.fields[j]; field.legacy != nil {
			job := migration{Model: m, tenant: tenant, rows: rows, field: field, set: m.pendingField(tenant, field)}
			if err := job.run(ctx, &options, &report); err != nil {
				return report, err
			}
		}
	}
	return report, nil
}

// Pending counts the values whose plaintext is still accepted.
func (t *Table[T]) Pending(ctx context.Context, tenant string) (left int, err error) {
	m := t.model
	if err := checkSubject(ctx, tenant); err != nil {
		return 0, err
	}
	for j := range m.plan.fields {
		if m.plan.fields[j].legacy == nil {
			continue
		}
		_, n, err := m.pending().CountPending(ctx, m.pendingField(tenant, &m.plan.fields[j]))
		if err != nil {
			return 0, unavailable("key store", err)
		}
		left += n
	}
	return left, nil
}

var errNoLegacy = errors.New(`encrypt: no field is tagged ",legacy"`)

// eachPending does something with each field that has a column of plaintext.
func (m *Model) eachPending(do func(field *fieldPlan) error) error {
	if !m.plan.migrates {
		return errNoLegacy
	}
	for j := range m.plan.fields {
		field := &m.plan.fields[j]
		if field.legacy == nil {
			continue
		}
		if err := do(field); err != nil {
			return err
		}
	}
	return nil
}

// migration of one field.
type migration struct {
	*Model
	tenant string
	rows   Rows
	field  *fieldPlan
	set    PendingField
	proofs proofs // of the batch at hand
}

func (g *migration) run(ctx context.Context, o *JobOptions, report *Report) error {
	left, err := g.pending().RemovePending(ctx, g.set, nil)
	if err != nil {
		return unavailable("key store", err)
	}
	for after := ""; left > 0; {
		next, err := g.pending().NextPending(ctx, g.set, after, o.Batch)
		if err != nil {
			return unavailable("key store", err)
		}
		if len(next) == 0 {
			return nil
		}
		g.proofs = g.keys.proofsOf(g.set, next)
		records := make([]string, len(next))
		for i, r := range next {
			records[i] = r.Record
		}
		done := make(map[string]bool, len(records))
		page, err := g.rows.Get(ctx, g.tenant, records)
		if err != nil {
			return fmt.Errorf("encrypt: read rows: %w", err)
		}
		if len(page) > 0 {
			if err := report.settle(ctx, g.tenant, g.rows, page, func(ctx context.Context, page []Row) ([]outcome, []string, error) {
				return g.seal(ctx, page, done)
			}); err != nil {
				return err
			}
		}
		if err := g.dropGone(ctx, records, done); err != nil {
			return err
		}
		finished := make([]string, 0, len(done))
		for record := range done {
			finished = append(finished, record)
		}
		if left, err = g.pending().RemovePending(ctx, g.set, finished); err != nil {
			return unavailable("key store", err)
		}
		after = records[len(records)-1]
		if err := o.progress(ctx, report); err != nil {
			return err
		}
	}
	return nil
}

// dropGone adds to done the records of which there is no row any more, be it that it was deleted
// while others were sealed.
func (g *migration) dropGone(ctx context.Context, records []string, done map[string]bool) error {
	left := slices.DeleteFunc(slices.Clone(records), func(record string) bool { return done[record] })
	if len(left) == 0 {
		return nil
	}
	there, err := g.rows.Get(ctx, g.tenant, left)
	if err != nil {
		return fmt.Errorf("encrypt: read rows: %w", err)
	}
	gone := setOf(left)
	for i := range there {
		delete(gone, there[i].Record)
	}
	maps.Copy(done, gone)
	return nil
}

// batch is a page of a migration.
type batch struct {
	page     []Row
	outcomes []outcome
	changes  map[string]Change // by record
	done     map[string]bool   // records that need nothing any more
	until    int64             // when what was made of it may be out of date
}

// seal seals the plaintext of one page. Records that need none any more are added to done.
func (g *migration) seal(ctx context.Context, page []Row, done map[string]bool) ([]outcome, []string, error) {
	b := &batch{page, make([]outcome, len(page)), make(map[string]Change), done, g.keys.clock.exact() + int64(Lease)}
	cells, both, err := g.read(ctx, b)
	if err != nil {
		return nil, nil, err
	}
	entries, err := g.change(ctx, b, cells)
	if err != nil {
		return nil, nil, err
	}
	if err := g.compare(ctx, b, both); err != nil {
		return nil, nil, err
	}
	stale, err := g.store(ctx, b, entries)
	if err != nil {
		return nil, nil, err
	}
	for i := range page {
		if _, ok := b.changes[page[i].Record]; ok && !slices.Contains(stale, page[i].Record) {
			b.outcomes[i].changed = true
			done[page[i].Record] = true
		}
	}
	return b.outcomes, stale, nil
}

// read returns a cell for each row, which is NULL where nothing is to be sealed, and the rows that have a
// sealed value, too.
func (g *migration) read(ctx context.Context, b *batch) (cells []Cell, both []int, err error) {
	cells = make([]Cell, len(b.page))
	for i := range b.page {
		row, c := &b.page[i], &cells[i]
		if err := checkRow(row); err != nil {
			b.outcomes[i].add(&crmguard.Place{Record: row.Record}, err)
			continue
		}
		*c = Cell{Place: g.place(g.tenant, row, g.field.name), Pad: g.field.pad}
		switch stored := g.legacyOf(g.field, row); {
		case stored == nil:
			b.done[row.Record] = true
		case row.Sealed[g.field.name] != nil:
			both = append(both, i)
		default:
			err := g.proofs.check(ctx, &c.Place)
			if errors.Is(err, ErrPlaintext) {
				b.done[row.Record] = true
			}
			if err == nil {
				c.Plaintext, err = g.decodePending(ctx, g.field, &c.Place, stored)
			}
			if passing(ctx, err) {
				return nil, nil, err
			}
			if err != nil {
				b.outcomes[i].add(&c.Place, err)
			}
		}
	}
	return cells, both, nil
}

// change seals cells and makes their entries.
func (g *migration) change(ctx context.Context, b *batch, cells []Cell) ([]IndexEntry, error) {
	sealing := make([]*Cell, 0, len(cells))
	for i := range cells {
		if cells[i].Plaintext != nil {
			sealing = append(sealing, &cells[i])
		}
	}
	indexed, scopes := g.indexed(g.tenant, []fieldPlan{*g.field}, cells)
	keys, err := g.keys.sealLiving(ctx, g.tenant, sealing, scopes)
	if err != nil {
		return nil, err
	}
	indexed = slices.DeleteFunc(indexed, func(x indexedCell) bool { return cells[x.cell].Err != nil })
	entries, err := g.entries(cells, indexed, scopes, keys)
	if err != nil {
		return nil, err
	}
	for i := range cells {
		c, row := &cells[i], &b.page[i]
		if c.Err != nil {
			b.outcomes[i].add(&c.Place, c.Err)
		}
		switch {
		case errors.Is(c.Err, crmguard.ErrErased):
			b.changes[row.Record] = g.emptied(row)
		case c.Err == nil && c.Plaintext != nil:
			change := g.emptied(row)
			change.Sealed = map[string][]byte{g.field.name: c.Sealed}
			b.changes[row.Record] = change
		}
	}
	return entries, nil
}

// emptied sets the column of plaintext of a row to NULL.
func (g *migration) emptied(row *Row) Change {
	return Change{Was: *row, Legacy: map[string][]byte{g.field.name: nil}}
}

// compare looks at rows that have both a sealed value, which counts, and plaintext: the
// latter goes where both are the same, and is reported otherwise.
func (g *migration) compare(ctx context.Context, b *batch, both []int) error {
	cells := make([]Cell, len(both))
	for n, i := range both {
		cells[n] = Cell{Place: g.place(g.tenant, &b.page[i], g.field.name), Sealed: b.page[i].Sealed[g.field.name]}
	}
	if err := g.keys.openAll(ctx, g.tenant, cells); err != nil {
		return err
	}
	for n, i := range both {
		c, row := &cells[n], &b.page[i]
		if passing(ctx, c.Err) {
			return c.Err
		}
		plaintext, err := g.decodePending(ctx, g.field, &c.Place, row.Legacy[g.field.name])
		if passing(ctx, err) {
			return err
		}
		switch {
		case errors.Is(c.Err, crmguard.ErrErased):
			b.outcomes[i].add(&c.Place, c.Err)
			b.changes[row.Record] = g.emptied(row)
		case c.Err == nil && err == nil && bytes.Equal(c.Plaintext, plaintext):
			b.changes[row.Record] = g.emptied(row)
		default:
			b.outcomes[i].add(&c.Place, ErrPlaintext)
			b.done[row.Record] = true
		}
	}
	return nil
}

// store makes the changes but those that a unique index refuses, which it takes out of them.
func (g *migration) store(ctx context.Context, b *batch, entries []IndexEntry) (stale []string, err error) {
	s := storing{Model: g.Model, tenant: g.tenant, rows: g.rows, until: b.until,
		refuse: func(duplicate *DuplicateError) (kept bool) {
			delete(b.changes, duplicate.Record)
			i := slices.IndexFunc(b.page, func(r Row) bool { return r.Record == duplicate.Record })
			b.outcomes[i].add(&crmguard.Place{Record: duplicate.Record, Field: duplicate.Field}, duplicate)
			return false
		}}
	if len(entries) > 0 {
		s.put = func(tx Execer, swapped []string) error {
			return g.putEntries(ctx, tx, g.tenant, []string{g.field.name}, sealedIn(swapped, b.changes, g.field.name), entries)
		}
	}
	for _, duplicate := range duplicatesIn(func(record string) bool { _, ok := b.changes[record]; return ok }, entries) {
		if _, ok := b.changes[duplicate.Record]; ok {
			s.refuse(duplicate)
		}
	}
	list := make([]Change, 0, len(b.changes))
	for i := range b.page {
		if change, ok := b.changes[b.page[i].Record]; ok {
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
