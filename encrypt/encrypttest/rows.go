package encrypttest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/internal/racetest"
)

// RowsTable is a table under test.
type RowsTable struct {
	encrypt.Rows // of rows with the fields "phone" and "note" sealed and "phone" in plaintext, too

	// Put adds or replaces rows of a tenant, as an application would.
	Put func(tenant string, rows ...encrypt.Row)
}

func row(record, client, phone string) encrypt.Row {
	return encrypt.Row{
		Record: record, Client: client,
		Sealed: map[string][]byte{"phone": []byte(phone), "note": nil},
		Legacy: map[string][]byte{"phone": nil},
	}
}

// Rows runs all checks. Each call of open returns an empty table.
func Rows(t *testing.T, open func(t *testing.T) RowsTable) {
	run(t, rowsDuties(), open)
}

func rowsDuties() []duty[RowsTable] {
	ctx := context.Background()
	get := func(t require.TestingT, table RowsTable, record string) encrypt.Row {
		rows, err := table.Get(ctx, "acme", []string{record})
		require.NoError(t, err)
		require.Len(t, rows, 1)
		return rows[0]
	}
	swap := func(t require.TestingT, table RowsTable, changes ...encrypt.Change) (stale []string) {
		stale, err := table.Swap(ctx, "acme", changes, nil)
		require.NoError(t, err)
		return stale
	}
	phone := func(value string) map[string][]byte { return map[string][]byte{"phone": []byte(value)} }

	return []duty[RowsTable]{
		{"a row comes back as it was stored", func(t require.TestingT, open func() RowsTable) {
			table := open()
			want := row("1", "2", "\x00sealed\xff")
			want.Legacy["phone"] = []byte("+7 912 'x' \"y\"")
			empty := row("3", "3", "")
			empty.Legacy["phone"] = []byte{}
			table.Put("acme", want, empty)
			require.Equal(t, want, get(t, table, "1"))
			got := get(t, table, "3")
			require.NotNil(t, got.Sealed["phone"], "empty is not NULL")
			require.NotNil(t, got.Legacy["phone"])
			require.Nil(t, got.Sealed["note"], "NULL is nil")
		}},
		{"nothing is no error", func(t require.TestingT, open func() RowsTable) {
			table := open()
			rows, err := table.Page(ctx, "acme", "", 10)
			require.NoError(t, err)
			require.Empty(t, rows)
			rows, err = table.Get(ctx, "acme", nil)
			require.NoError(t, err)
			require.Empty(t, rows)
			require.Empty(t, swap(t, table))
			require.Equal(t, []string{"7"}, swap(t, table, encrypt.Change{Was: row("7", "7", "a"), Sealed: phone("b")}), "a row that is gone")
		}},
		{"pages have every row once, whatever their size", func(t require.TestingT, open func() RowsTable) {
			for _, total := range []int{1, 9, 10, 11, 30} {
				table := open()
				want := make(map[string]bool)
				for i := range total {
					r := row(fmt.Sprint(i+1), "1", "x")
					table.Put("acme", r)
					want[r.Record] = true
				}
				for _, size := range []int{1, 3, 10, 1000} {
					seen := make(map[string]bool)
					after := ""
					for {
						page, err := table.Page(ctx, "acme", after, size)
						require.NoError(t, err)
						require.LessOrEqual(t, len(page), size)
						for _, r := range page {
							require.False(t, seen[r.Record], "row %s twice", r.Record)
							seen[r.Record] = true
							after = r.Record
						}
						if len(page) < size {
							break
						}
					}
					require.Equal(t, want, seen, "%d rows in pages of %d", total, size)
				}
			}
		}},
		{"another tenant's rows are not there", func(t require.TestingT, open func() RowsTable) {
			table := open()
			table.Put("acme", row("1", "1", "ours"))
			table.Put("other", row("2", "2", "theirs"))
			page, err := table.Page(ctx, "acme", "", 10)
			require.NoError(t, err)
			require.Len(t, page, 1)
			rows, err := table.Get(ctx, "acme", []string{"2"})
			require.NoError(t, err)
			require.Empty(t, rows)
			require.Equal(t, []string{"2"}, swap(t, table, encrypt.Change{Was: row("2", "2", "theirs"), Sealed: phone("x")}))
			page, err = table.Page(ctx, "other", "", 10)
			require.NoError(t, err)
			require.Equal(t, "theirs", string(page[0].Sealed["phone"]))
			page, err = table.Page(ctx, "", "", 10)
			if err == nil {
				require.Empty(t, page, "nobody's rows")
			}
		}},
		{"many rows are changed at once, each as it says", func(t require.TestingT, open func() RowsTable) {
			table := open()
			const n = 300
			changes := make([]encrypt.Change, n)
			for i := range changes {
				was := row(fmt.Sprint(i+1), "1", fmt.Sprint("old ", i))
				was.Legacy["phone"] = []byte("text")
				changes[i] = encrypt.Change{Was: was, Sealed: map[string][]byte{"phone": fmt.Append(nil, "new ", i)}}
				if i%2 == 0 {
					changes[i].Sealed["note"] = []byte("note")
					changes[i].Legacy = map[string][]byte{"phone": nil}
				}
				table.Put("acme", was)
			}
			require.Empty(t, swap(t, table, changes...))
			for i := range 4 {
				got := get(t, table, fmt.Sprint(i+1))
				require.Equal(t, fmt.Sprint("new ", i), string(got.Sealed["phone"]))
				require.Equal(t, i%2 == 0, got.Sealed["note"] != nil, "what is not in the change stays")
				require.Equal(t, i%2 == 0, got.Legacy["phone"] == nil)
			}
		}},
		{"a row that is not as it was is left alone", func(t require.TestingT, open func() RowsTable) {
			was := row("1", "1", "old")
			was.Legacy["phone"] = []byte("old text")
			for name, edit := range map[string]func(r *encrypt.Row){
				"sealed":          func(r *encrypt.Row) { r.Sealed["phone"] = []byte("edited") },
				"sealed, to NULL": func(r *encrypt.Row) { r.Sealed["phone"] = nil },
				"another field":   func(r *encrypt.Row) { r.Sealed["note"] = []byte("edited") },
				"another, empty":  func(r *encrypt.Row) { r.Sealed["note"] = []byte{} },
				"plaintext":       func(r *encrypt.Row) { r.Legacy["phone"] = []byte("edited") },
				"case only":       func(r *encrypt.Row) { r.Legacy["phone"] = []byte("OLD text") },
				"its client":      func(r *encrypt.Row) { r.Client = "2" },
			} {
				table := open()
				edited := clone(was)
				edit(&edited)
				table.Put("acme", edited, row("2", "2", "old"))
				stale := swap(t, table, encrypt.Change{Was: was, Sealed: phone("new")}, encrypt.Change{Was: row("2", "2", "old"), Sealed: phone("new")})
				require.Equal(t, []string{"1"}, stale, name)
				require.Equal(t, edited, get(t, table, "1"), name)
				require.Equal(t, "new", string(get(t, table, "2").Sealed["phone"]), "%s: the others are changed", name)
			}
		}},
		{"what belongs to the change happens with it or not at all", func(t require.TestingT, open func() RowsTable) {
			table := open()
			table.Put("acme", row("1", "1", "old"), row("2", "2", "edited"))
			changes := []encrypt.Change{{Was: row("1", "1", "old"), Sealed: phone("new")}, {Was: row("2", "2", "old"), Sealed: phone("new")}}
			refused := errors.New("refused")
			_, err := table.Swap(ctx, "acme", changes, func(encrypt.Execer, []string) error { return refused })
			require.ErrorIs(t, err, refused)
			require.Equal(t, "old", string(get(t, table, "1").Sealed["phone"]), "undone")

			var told []string
			_, err = table.Swap(ctx, "acme", changes, func(_ encrypt.Execer, swapped []string) error {
				told = slices.Clone(swapped)
				return nil
			})
			require.NoError(t, err)
			require.Equal(t, []string{"1"}, told, "only those that were as they had been")
			require.Equal(t, "new", string(get(t, table, "1").Sealed["phone"]))

			told = nil
			_, err = table.Swap(ctx, "acme", []encrypt.Change{{Was: row("1", "1", "new")}, {Was: row("2", "2", "old")}}, func(_ encrypt.Execer, swapped []string) error {
				told = slices.Clone(swapped)
				return nil
			})
			require.NoError(t, err)
			require.Equal(t, []string{"1"}, told, "without new values, too")
			require.Equal(t, "new", string(get(t, table, "1").Sealed["phone"]))
		}},
		{"bytes are not shared", func(t require.TestingT, open func() RowsTable) {
			table := open()
			r := row("1", "1", "old")
			table.Put("acme", r)
			r.Sealed["phone"][0] = 'x'
			get(t, table, "1").Sealed["phone"][0] = 'y'
			value := []byte("new")
			require.Empty(t, swap(t, table, encrypt.Change{Was: get(t, table, "1"), Sealed: map[string][]byte{"phone": value}}))
			value[0] = 'z'
			require.Equal(t, "new", string(get(t, table, "1").Sealed["phone"]))
		}},
		{"of many that change a row at once, one does", func(t require.TestingT, open func() RowsTable) {
			table := open()
			table.Put("acme", row("1", "1", "old"))
			var mu sync.Mutex
			var winners []int
			racetest.Run(t, func(i int) (any, error) {
				stale, err := table.Swap(ctx, "acme", []encrypt.Change{{Was: row("1", "1", "old"), Sealed: phone(fmt.Sprint("by ", i))}}, nil)
				if err == nil && len(stale) == 0 {
					mu.Lock()
					winners = append(winners, i)
					mu.Unlock()
				}
				return nil, err
			})
			require.Len(t, winners, 1)
			require.Equal(t, fmt.Sprint("by ", winners[0]), string(get(t, table, "1").Sealed["phone"]))
		}},
	}
}
