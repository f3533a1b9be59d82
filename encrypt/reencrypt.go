package encrypt

import (
	"context"
	"fmt"

	"github.com/crmguard/crmguard"
)

// Reencrypt seals anew what lies in rows of a tenant under an older version of its client's
// key, or padded otherwise than the tag says, while readers and writers go on.
//
// Values of erased clients stay as they are, and so do those that do not open: the report
// counts them and the job goes on. A value that is edited meanwhile is not overwritten. For
// [Lease] and [LongestTransaction] after [Keyring.Rotate] another node may still write rows
// under the older version, with keys that it had cached: a later call seals them anew.
func (t *Table[T]) Reencrypt(ctx context.Context, tenant string, rows Rows, o *JobOptions) (Report, error) {
	if _, err := checkJob(ctx, tenant, rows, o); err != nil {
		return Report{}, err
	}
	t.model.keys.generation.Add(1) // which version is the newest, the store knows
	return walk(ctx, tenant, rows, o, func(ctx context.Context, page []Row) ([]outcome, []string, error) {
		return t.model.reencrypt(ctx, tenant, rows, page)
	})
}

// rowCell is a cell of a row of a page.
type rowCell struct {
	*Cell
	row   int
	field *fieldPlan
}

func (m *Model) reencrypt(ctx context.Context, tenant string, rows Rows, page []Row) ([]outcome, []string, error) {
	outcomes := make([]outcome, len(page))
	cells, where := m.sealedCells(tenant, page, outcomes)
	old, err := m.outdated(ctx, tenant, cells, where)
	if err != nil {
		return nil, nil, err
	}
	opened := make([]Cell, len(old))
	for i := range old {
		opened[i] = *old[i].Cell
	}
	if err := m.keys.openAll(ctx, tenant, opened); err != nil {
		return nil, nil, err
	}
	anew := make([]*Cell, len(old))
	for i := range old {
		opened[i].Pad = old[i].field.pad
		anew[i], old[i].Cell = &opened[i], &opened[i]
	}
	if _, err := m.keys.sealLiving(ctx, tenant, anew, nil); err != nil {
		return nil, nil, err
	}
	var changes []Change
	for _, c := range old {
		if c.Err != nil {
			if passing(ctx, c.Err) {
				return nil, nil, c.Err
			}
			outcomes[c.row].add(&c.Place, c.Err)
			continue
		}
		if o := &outcomes[c.row]; !o.changed {
			o.changed = true
			changes = append(changes, Change{Was: page[c.row], Sealed: make(map[string][]byte, len(m.plan.fields))})
		}
		changes[len(changes)-1].Sealed[c.field.name] = c.Sealed
	}
	if len(changes) == 0 {
		return outcomes, nil, nil
	}
	stale, err := rows.Swap(ctx, tenant, changes, nil)
	if err != nil {
		return nil, nil, fmt.Errorf("encrypt: store what was sealed anew: %w", err)
	}
	return outcomes, stale, nil
}

// sealedCells are all values of rows that are not NULL, in the order of the rows.
func (m *Model) sealedCells(tenant string, page []Row, outcomes []outcome) ([]Cell, []rowCell) {
	cells := make([]Cell, 0, len(page)*len(m.plan.fields))
	where := make([]rowCell, 0, cap(cells))
	for i := range page {
		row := &page[i]
		if err := checkRow(row); err != nil {
			outcomes[i].add(&crmguard.Place{Record: row.Record}, err)
			continue
		}
		for j := range m.plan.fields {
			field := &m.plan.fields[j]
			if sealed := row.Sealed[field.name]; sealed != nil {
				cells = append(cells, Cell{Place: m.place(tenant, row, field.name), Sealed: sealed})
				where = append(where, rowCell{&cells[len(cells)-1], i, field})
			}
		}
	}
	return cells, where
}

// outdated leaves out what is sealed with the newest key, and padded as it should be.
func (m *Model) outdated(ctx context.Context, tenant string, cells []Cell, where []rowCell) ([]rowCell, error) {
	p := borrowGrouping()
	defer p.release()
	if _, err := p.groupSealed(ctx, tenant, cells); err != nil {
		return nil, err
	}
	groups := p.groups
	if err := m.keys.keysOfGroups(ctx, tenant, groups, false); err != nil {
		return nil, err
	}
	if err := m.keys.newerVersions(ctx, tenant, groups); err != nil {
		return nil, err
	}
	fine := make([]bool, len(cells))
	for i := range groups {
		g := &groups[i]
		if g.keys.usable(&g.scope) != nil {
			continue // openAll says why
		}
		newest := g.keys.newest().version
		for i := g.first; i < g.end; i++ {
			_, version, err := parseField(cells[i].Sealed)
			fine[i] = err == nil && version == newest && wellPadded(cells[i].Sealed, where[i].field.pad)
		}
	}
	old := where[:0:0]
	for i := range where {
		if !fine[i] {
			old = append(old, where[i])
		}
	}
	return old, nil
}

// wellPadded says whether a value has a length that its field's padding gives.
func wellPadded(sealed []byte, pad int) bool {
	if sealed[algorithmAt] != algorithmPadded {
		return pad == 0
	}
	return pad > 0 && (len(sealed)-Overhead)%pad == 0
}
