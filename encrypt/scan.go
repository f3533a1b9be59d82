package encrypt

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/crmguard/crmguard"
)

// Scan reads all rows of a tenant and says whether every column holds only what opens for its
// place, or NULL. It changes nothing. It finds what was written past the hooks and what
// somebody has planted: plaintext, values of other rows, what is left of erased
// clients, damage, and plaintext in columns that should have none any more. The report has
// numbers and records, and no values.
func (t *Table[T]) Scan(ctx context.Context, tenant string, rows Rows, o *JobOptions) (Report, error) {
	m := t.model
	return m.keys.Scan(ctx, tenant, m.kind, namesOf(m.plan.fields), rows, o)
}

// Scan is [Table.Scan] for tools that know no struct: the fields of a kind, by their logical names.
func (k *Keyring) Scan(ctx context.Context, tenant, kind string, fields []string, rows Rows, o *JobOptions) (Report, error) {
	if kind == "" || len(fields) == 0 {
		return Report{}, errors.New("encrypt: scan what? a kind and its fields are needed")
	}
	if kind == ownKind {
		return Report{}, errOwnKind
	}
	return walk(ctx, tenant, rows, o, func(ctx context.Context, page []Row) ([]outcome, []string, error) {
		outcomes, err := k.scan(ctx, tenant, kind, fields, page)
		if err == nil {
			err = k.scanAgain(ctx, tenant, kind, fields, rows, page, outcomes)
		}
		return outcomes, nil, err
	})
}

// scanAgain looks a second time at rows whose plaintext [Table.Migrate] may have sealed since they were read.
func (k *Keyring) scanAgain(ctx context.Context, tenant, kind string, fields []string, rows Rows, page []Row, outcomes []outcome) error {
	rowOf := make(map[string]int)
	var records []string
	for i := range outcomes {
		if slices.ContainsFunc(outcomes[i].bad, func(e *RowError) bool { return errors.Is(e.Err, ErrReadAgain) }) {
			rowOf[page[i].Record] = i
			records = append(records, page[i].Record)
			outcomes[i] = outcome{}
		}
	}
	if len(records) == 0 {
		return nil
	}
	again, err := rows.Get(ctx, tenant, records)
	if err != nil {
		return fmt.Errorf("encrypt: read rows: %w", err)
	}
	found, err := k.scan(ctx, tenant, kind, fields, again)
	if err != nil {
		return err
	}
	for i := range again {
		outcomes[rowOf[again[i].Record]] = found[i]
	}
	return nil
}

func (k *Keyring) scan(ctx context.Context, tenant, kind string, fields []string, page []Row) ([]outcome, error) {
	outcomes := make([]outcome, len(page))
	cells := make([]Cell, 0, len(page)*len(fields))
	var from []int
	for i := range page {
		row := &page[i]
		if err := checkRow(row); err != nil {
			outcomes[i].add(&crmguard.Place{Record: row.Record}, err)
			continue
		}
		for _, field := range fields {
			if sealed := row.Sealed[field]; sealed != nil {
				place := crmguard.Place{Tenant: tenant, Client: row.Client, Kind: kind, Record: row.Record, Field: field}
				cells = append(cells, Cell{Place: place, Sealed: sealed})
				from = append(from, i)
			}
		}
	}
	if err := k.openAll(ctx, tenant, cells); err != nil {
		return nil, err
	}
	for n := range cells {
		c := &cells[n]
		clear(c.Plaintext)
		if passing(ctx, c.Err) {
			return nil, c.Err
		}
		if c.Err != nil {
			outcomes[from[n]].add(&c.Place, c.Err)
		}
	}
	return outcomes, k.scanPlain(ctx, tenant, kind, fields, page, outcomes)
}

// scanPlain finds plaintext that is not accepted.
func (k *Keyring) scanPlain(ctx context.Context, tenant, kind string, fields []string, page []Row, outcomes []outcome) error {
	for _, field := range fields {
		var records []string
		for i := range page {
			if len(page[i].Legacy[field]) > 0 {
				records = append(records, page[i].Record)
			}
		}
		if len(records) == 0 {
			continue
		}
		set, err := k.pendingProofs(ctx, PendingField{tenant, kind, field}, records)
		if err != nil {
			return err
		}
		for i := range page {
			if len(page[i].Legacy[field]) == 0 {
				continue
			}
			place := crmguard.Place{Tenant: tenant, Client: page[i].Client, Kind: kind, Record: page[i].Record, Field: field}
			if err := set.check(ctx, &place); passing(ctx, err) {
				return err
			} else if err != nil {
				outcomes[i].add(&place, err)
			}
		}
	}
	return nil
}
