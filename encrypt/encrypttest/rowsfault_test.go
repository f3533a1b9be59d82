package encrypttest

import (
	"bytes"
	"context"
	"slices"
	"testing"

	"github.com/crmguard/crmguard/encrypt"
)

// faultyRows is a MemoryRows some of whose methods are another's.
type faultyRows struct {
	*MemoryRows
	page func(ctx context.Context, tenant, after string, limit int) ([]encrypt.Row, error)
	get  func(ctx context.Context, tenant string, records []string) ([]encrypt.Row, error)
	swap swapping
}

type swapping = func(ctx context.Context, tenant string, changes []encrypt.Change, then func(tx encrypt.Execer, swapped []string) error) ([]string, error)

func (f *faultyRows) Page(ctx context.Context, tenant, after string, limit int) ([]encrypt.Row, error) {
	return f.page(ctx, tenant, after, limit)
}

func (f *faultyRows) Get(ctx context.Context, tenant string, records []string) ([]encrypt.Row, error) {
	return f.get(ctx, tenant, records)
}

func (f *faultyRows) Swap(ctx context.Context, tenant string, changes []encrypt.Change, then func(tx encrypt.Execer, swapped []string) error) ([]string, error) {
	return f.swap(ctx, tenant, slices.Clone(changes), then)
}

// now is the row as it is, if it is there.
func (f *faultyRows) now(record string) (encrypt.Row, bool) {
	rows, _ := f.MemoryRows.Get(context.Background(), "acme", []string{record}) // in memory nothing fails
	if len(rows) == 0 {
		return encrypt.Row{}, false
	}
	return rows[0], true
}

// comparing is a Swap that compares with a row that plant has made the same in something.
func (f *faultyRows) comparing(plant func(was, now *encrypt.Row)) swapping {
	return func(ctx context.Context, tenant string, changes []encrypt.Change, then func(tx encrypt.Execer, swapped []string) error) ([]string, error) {
		for i := range changes {
			if now, ok := f.now(changes[i].Was.Record); ok {
				changes[i].Was = clone(changes[i].Was)
				plant(&changes[i].Was, &now)
			}
		}
		return f.MemoryRows.Swap(ctx, tenant, changes, then)
	}
}

func rowsFault(duty, name string, plant func(f *faultyRows)) fault[RowsTable] {
	return fault[RowsTable]{duty, name, func() RowsTable {
		m := NewMemoryRows()
		f := &faultyRows{m, m.Page, m.Get, m.Swap}
		plant(f)
		return RowsTable{Rows: f, Put: m.Put}
	}}
}

func TestRowsNoticesFaults(t *testing.T) { requireNoticed(t, rowsDuties(), rowsFaults) }

const leftAlone = "a row that is not as it was is left alone"

var rowsFaults = []fault[RowsTable]{
	rowsFault("a row comes back as it was stored", "empty is NULL", func(f *faultyRows) {
		f.get = func(ctx context.Context, tenant string, records []string) ([]encrypt.Row, error) {
			rows, err := f.MemoryRows.Get(ctx, tenant, records)
			for _, r := range rows {
				for field, value := range r.Legacy {
					if len(value) == 0 {
						r.Legacy[field] = nil
					}
				}
			}
			return rows, err
		}
	}),
	rowsFault("nothing is no error", "a row that is gone was changed", func(f *faultyRows) {
		f.swap = func(ctx context.Context, tenant string, changes []encrypt.Change, then func(tx encrypt.Execer, swapped []string) error) ([]string, error) {
			stale, err := f.MemoryRows.Swap(ctx, tenant, changes, then)
			return slices.DeleteFunc(stale, func(record string) bool { _, there := f.now(record); return !there }), err
		}
	}),
	rowsFault("pages have every row once, whatever their size", "the one behind a border is skipped", func(f *faultyRows) {
		f.page = func(ctx context.Context, tenant, after string, limit int) ([]encrypt.Row, error) {
			rows, err := f.MemoryRows.Page(ctx, tenant, after, limit)
			if after != "" && len(rows) > 0 {
				rows = rows[1:]
			}
			return rows, err
		}
	}),
	rowsFault("another tenant's rows are not there", "records alone are asked for", func(f *faultyRows) {
		f.get = func(ctx context.Context, _ string, records []string) ([]encrypt.Row, error) {
			return f.MemoryRows.Get(ctx, "other", records)
		}
	}),
	rowsFault("many rows are changed at once, each as it says", "all as the first says", func(f *faultyRows) {
		f.swap = func(ctx context.Context, tenant string, changes []encrypt.Change, then func(tx encrypt.Execer, swapped []string) error) ([]string, error) {
			for i := range changes {
				changes[i].Sealed = changes[0].Sealed
			}
			return f.MemoryRows.Swap(ctx, tenant, changes, then)
		}
	}),
	rowsFault(leftAlone, "what is not changed is not compared", func(f *faultyRows) {
		f.swap = f.comparing(func(was, now *encrypt.Row) { was.Sealed["note"] = now.Sealed["note"] })
	}),
	rowsFault(leftAlone, "the client is not compared", func(f *faultyRows) {
		f.swap = f.comparing(func(was, now *encrypt.Row) { was.Client = now.Client })
	}),
	rowsFault(leftAlone, "plaintext is not compared", func(f *faultyRows) {
		f.swap = f.comparing(func(was, now *encrypt.Row) { was.Legacy = now.Legacy })
	}),
	rowsFault(leftAlone, "NULL is as good as empty", func(f *faultyRows) {
		f.swap = f.comparing(func(was, now *encrypt.Row) {
			if len(was.Sealed["note"]) == 0 && len(now.Sealed["note"]) == 0 {
				was.Sealed["note"] = now.Sealed["note"]
			}
		})
	}),
	rowsFault(leftAlone, "case is ignored", func(f *faultyRows) {
		f.swap = f.comparing(func(was, now *encrypt.Row) {
			if bytes.EqualFold(was.Legacy["phone"], now.Legacy["phone"]) {
				was.Legacy["phone"] = now.Legacy["phone"]
			}
		})
	}),
	rowsFault("what belongs to the change happens with it or not at all", "it happens afterwards", func(f *faultyRows) {
		f.swap = func(ctx context.Context, tenant string, changes []encrypt.Change, then func(tx encrypt.Execer, swapped []string) error) ([]string, error) {
			var all []string
			stale, err := f.MemoryRows.Swap(ctx, tenant, changes, func(_ encrypt.Execer, swapped []string) error {
				all = swapped
				return nil
			})
			if err != nil || then == nil {
				return stale, err
			}
			return stale, then(nil, all)
		}
	}),
	rowsFault("bytes are not shared", "what was read is read again", func(f *faultyRows) {
		known := make(map[string]encrypt.Row)
		f.get = func(_ context.Context, _ string, records []string) (rows []encrypt.Row, err error) {
			for _, record := range records {
				if _, ok := known[record]; !ok {
					known[record], _ = f.now(record)
				}
				rows = append(rows, known[record])
			}
			return rows, nil
		}
	}),
	rowsFault("of many that change a row at once, one does", "it is compared before", func(f *faultyRows) {
		meet := gathering()
		f.swap = func(ctx context.Context, tenant string, changes []encrypt.Change, then func(tx encrypt.Execer, swapped []string) error) ([]string, error) {
			now, _ := f.now(changes[0].Was.Record)
			same := same(now.Sealed, changes[0].Was.Sealed)
			meet()
			if !same {
				return []string{now.Record}, nil
			}
			for {
				changes[0].Was, _ = f.now(now.Record)
				if stale, err := f.MemoryRows.Swap(ctx, tenant, changes, then); err != nil || len(stale) == 0 {
					return stale, err
				}
			}
		}
	}),
}
