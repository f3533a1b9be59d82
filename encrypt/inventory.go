package encrypt

import (
	"context"
	"iter"
)

// inventoryPage is how many keys are read at once, and wrapped anew by a Turn.
const inventoryPage = 500

// inventoryPages yields all records behind one, many at once, or an error at last. The record
// after them is looked for when they are done with.
func inventoryPages(ctx context.Context, inventory Inventory, after Record) iter.Seq2[[]Record, error] {
	return func(yield func([]Record, error) bool) {
		for {
			page, err := inventory.List(ctx, after, inventoryPage)
			if err != nil {
				yield(nil, unavailable("key store", err))
				return
			}
			if len(page) == 0 {
				return
			}
			after = page[len(page)-1]
			if !yield(page, nil) {
				return
			}
		}
	}
}

// inventoryOf yields the records of a tenant for one purpose, all versions of a scope one after
// another from the oldest on.
func inventoryOf(ctx context.Context, inventory Inventory, tenant string, purpose Purpose) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		for page, err := range inventoryPages(ctx, inventory, Record{Scope: Scope{Tenant: tenant, Purpose: purpose}}) {
			if err != nil {
				yield(Record{}, err)
				return
			}
			for _, r := range page {
				if r.Scope.Tenant != tenant || r.Scope.Purpose != purpose || !yield(r, nil) {
					return
				}
			}
		}
	}
}
