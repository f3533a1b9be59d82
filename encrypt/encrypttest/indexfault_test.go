package encrypttest

import (
	"context"
	"slices"
	"testing"

	"github.com/crmguard/crmguard/encrypt"
)

// faultyIndex is a MemoryIndex some of whose methods are another's.
type faultyIndex struct {
	*encrypt.MemoryIndex
	put        func(ctx context.Context, tx encrypt.Execer, x encrypt.IndexEntries) error
	find       func(ctx context.Context, tenant, kind, field, index string, values [][]byte) ([]string, error)
	duplicates func(ctx context.Context, tenant, client string) ([]string, error)
	stale      func(ctx context.Context, tenant, kind, field, index string, version uint32, after string, limit int) ([]string, error)
	dropClient func(ctx context.Context, tenant, client string) (int, error)
}

func (f *faultyIndex) Put(ctx context.Context, tx encrypt.Execer, x encrypt.IndexEntries) error {
	x.Entries = slices.Clone(x.Entries)
	return f.put(ctx, tx, x)
}

func (f *faultyIndex) Find(ctx context.Context, tenant, kind, field, index string, values [][]byte) ([]string, error) {
	return f.find(ctx, tenant, kind, field, index, values)
}

func (f *faultyIndex) Duplicates(ctx context.Context, tenant, client string) ([]string, error) {
	return f.duplicates(ctx, tenant, client)
}

func (f *faultyIndex) Stale(ctx context.Context, tenant, kind, field, index string, version uint32, after string, limit int) ([]string, error) {
	return f.stale(ctx, tenant, kind, field, index, version, after, limit)
}

func (f *faultyIndex) DropClient(ctx context.Context, tenant, client string) (int, error) {
	return f.dropClient(ctx, tenant, client)
}

func indexFault(duty, name string, plant func(f *faultyIndex)) fault[indexUnderTest] {
	return fault[indexUnderTest]{duty, name, func() indexUnderTest {
		m := encrypt.NewMemoryIndex()
		f := &faultyIndex{m, m.Put, m.Find, m.Duplicates, m.Stale, m.DropClient}
		plant(f)
		return indexUnderTest{Index: f}
	}}
}

func TestIndexNoticesFaults(t *testing.T) { requireNoticed(t, indexDuties(), indexFaults) }

var indexFaults = []fault[indexUnderTest]{
	indexFault("finds equal values, sorted, and nothing else", "all indexes are one", func(f *faultyIndex) {
		f.put = func(ctx context.Context, tx encrypt.Execer, x encrypt.IndexEntries) error {
			for i := range x.Entries {
				if x.Entries[i].Index == "last4" {
					x.Entries[i].Index, x.Entries[i].Version = "phone", 7
				}
			}
			return f.MemoryIndex.Put(ctx, tx, x)
		}
	}),
	indexFault("finds equal values, sorted, and nothing else", "for the first value only", func(f *faultyIndex) {
		f.find = func(ctx context.Context, tenant, kind, field, index string, values [][]byte) ([]string, error) {
			return f.MemoryIndex.Find(ctx, tenant, kind, field, index, values[:min(1, len(values))])
		}
	}),
	indexFault("put replaces the entries of its records", "only in fields that have new ones", func(f *faultyIndex) {
		f.put = func(ctx context.Context, tx encrypt.Execer, x encrypt.IndexEntries) error {
			x.Fields = nil
			for _, e := range x.Entries {
				x.Fields = append(x.Fields, e.Field)
			}
			return f.MemoryIndex.Put(ctx, tx, x)
		}
	}),
	indexFault("put of some fields leaves the others", "it replaces all", func(f *faultyIndex) {
		f.put = func(ctx context.Context, tx encrypt.Execer, x encrypt.IndexEntries) error {
			x.Fields = nil
			return f.MemoryIndex.Put(ctx, tx, x)
		}
	}),
	indexFault("foreign and incomplete entries are refused", "entries may have no client", func(f *faultyIndex) {
		f.put = func(ctx context.Context, tx encrypt.Execer, x encrypt.IndexEntries) error {
			for i := range x.Entries {
				if x.Entries[i].Client == "" {
					x.Entries[i].Client = "nobody"
				}
			}
			return f.MemoryIndex.Put(ctx, tx, x)
		}
	}),
	indexFault("a client's entries are dropped in all kinds, and counted", "of all tenants", func(f *faultyIndex) {
		f.dropClient = func(ctx context.Context, _, client string) (int, error) {
			return f.MemoryIndex.DropClient(ctx, "acme", client)
		}
	}),
	indexFault("an import of thousands", "a statement takes a thousand", func(f *faultyIndex) {
		f.put = func(ctx context.Context, tx encrypt.Execer, x encrypt.IndexEntries) error {
			x.Entries = x.Entries[:min(len(x.Entries), 1000)]
			return f.MemoryIndex.Put(ctx, tx, x)
		}
	}),
	indexFault("a unique value has one record", "any has it", func(f *faultyIndex) {
		f.put = func(ctx context.Context, tx encrypt.Execer, x encrypt.IndexEntries) error {
			x.Entries = loose(x.Entries)
			return f.MemoryIndex.Put(ctx, tx, x)
		}
	}),
	indexFault("of fifty who put a unique value at once one succeeds", "the others are looked for before", func(f *faultyIndex) {
		meet := gathering()
		f.put = func(ctx context.Context, tx encrypt.Execer, x encrypt.IndexEntries) error {
			e := x.Entries[len(x.Entries)-1]
			others, err := f.MemoryIndex.Find(ctx, x.Tenant, x.Kind, e.Field, e.Index, [][]byte{e.Value})
			meet()
			if err != nil || len(others) > 0 {
				return &encrypt.DuplicateError{}
			}
			x.Entries = loose(x.Entries)
			return f.MemoryIndex.Put(ctx, tx, x)
		}
	}),
	indexFault("duplicates of a client are other clients' records with its exact values", "ends of values, too", func(f *faultyIndex) {
		f.duplicates = func(ctx context.Context, tenant, client string) ([]string, error) {
			records, err := f.MemoryIndex.Duplicates(ctx, tenant, client)
			if client == "client of a" && tenant == "acme" {
				same, _ := f.MemoryIndex.Find(ctx, tenant, "contacts", "phone", "last4", [][]byte{[]byte("3")})
				records = slices.Concat(records, slices.DeleteFunc(same, func(r string) bool { return r == "a" }))
				slices.Sort(records)
			}
			return records, err
		}
	}),
	indexFault("stale records lack the version", "in any index", func(f *faultyIndex) {
		f.stale = func(ctx context.Context, tenant, kind, field, _ string, version uint32, after string, limit int) ([]string, error) {
			return f.MemoryIndex.Stale(ctx, tenant, kind, field, "phone", version, after, limit)
		}
	}),
}

func loose(entries []encrypt.IndexEntry) []encrypt.IndexEntry {
	for i := range entries {
		entries[i].Unique = false
	}
	return entries
}
