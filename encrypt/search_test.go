package encrypt_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/encrypt"
)

type customer struct {
	ID          string  `encrypt:",record"`
	Name        string  `encrypt:"name"`
	NameSealed  []byte  `encrypt:"name,sealed"`
	Phone       *string `encrypt:"phone"`
	PhoneSealed []byte  `encrypt:"phone,sealed"`
	Age         int     `encrypt:"age"`
	AgeSealed   []byte  `encrypt:"age,sealed"`
}

func (c *customer) sealed() *customer {
	return &customer{ID: c.ID, NameSealed: c.NameSealed, PhoneSealed: c.PhoneSealed, AgeSealed: c.AgeSealed}
}

// stored is a host's table: rows in the order of their ids.
type stored struct {
	rows  []*customer
	page  int
	calls atomic.Int64
}

// after is what a host's SQL does: WHERE id > after ORDER BY id LIMIT page.
func (s *stored) after(ctx context.Context, id string) ([]*customer, error) {
	s.calls.Add(1)
	var page []*customer
	for _, row := range s.rows {
		if row.ID > id && len(page) < s.page {
			page = append(page, row.sealed())
		}
	}
	return page, ctx.Err()
}

// from starts behind a row, as a search for more does.
func (s *stored) from(start *customer) func(ctx context.Context, after *customer) ([]*customer, error) {
	return func(ctx context.Context, after *customer) ([]*customer, error) {
		if after == nil {
			after = start
		}
		if after == nil {
			return s.after(ctx, "")
		}
		return s.after(ctx, after.ID)
	}
}

var people = []string{"Анна Петрова", "Пётр Смирнов", "Anna Petit", "José García", "Семён Петров", "Петра Ann", "Иван Кузнецов"}

func newStored(t testing.TB, keys *encrypt.Keyring, rows int) (*stored, *encrypt.Table[customer]) {
	t.Helper()
	table, err := encrypt.NewTable[customer](keys, "clients", nil)
	require.NoError(t, err)
	s := &stored{page: 5}
	for i := range rows {
		row := &customer{ID: fmt.Sprintf("c%03d", i), Name: people[i%len(people)], Age: i}
		if i%3 != 0 {
			phone := fmt.Sprintf("+7 (495) %03d-00-12", i)
			row.Phone = &phone
		}
		s.rows = append(s.rows, row)
	}
	_, err = table.Seal(acting("acme"), "acme", s.rows...)
	require.NoError(t, err)
	return s, table
}

func ids(rows []*customer) (ids []string) {
	for _, row := range rows {
		ids = append(ids, row.ID)
	}
	return ids
}

func ExampleTable_Search() {
	keys, _, done := openExample()
	defer done()
	ctx := acting("acme")
	clients, err := encrypt.NewTable[customer](keys, "clients", nil)
	if err != nil {
		fmt.Println(err)
	}
	phone := "+7 (495) 123-45-67"
	table := &stored{page: 500, rows: []*customer{{ID: "c1", Name: "Пётр Смирнов"}, {ID: "c2", Name: "Анна Петрова", Phone: &phone, Age: 44}}}
	if _, err := clients.Seal(ctx, "acme", table.rows...); err != nil {
		fmt.Println(err)
	}

	found, err := clients.Search(ctx, "acme", encrypt.Query{Text: "анна 495 12", Fields: []string{"name", "phone"}, Limit: 20},
		func(ctx context.Context, after *customer) ([]*customer, error) {
			// SELECT … FROM clients WHERE <what the subject may see> AND id > $1 ORDER BY id LIMIT 500
			if after == nil {
				return table.after(ctx, "")
			}
			return table.after(ctx, after.ID)
		})
	fmt.Println(len(found.Rows), found.Rows[0].Name, found.Rows[0].Age, found.Looked, err)
	// Output: 1 Анна Петрова 44 2 <nil>
}

func TestSearchFindsPageByPage(t *testing.T) {
	keys := newKeyring(t, encrypt.NewMemory(), nil)
	s, table := newStored(t, keys, 43)
	for _, fields := range [][]string{{"name"}, {"phone"}, {"name", "phone"}} {
		for _, query := range []string{"петр", "anna", "ПЕТРОВ", "jose", "495 0", "анна 495", "00-12", "никто", "а 12"} {
			var want []string
			matcher := encrypt.NewMatcher(query)
			for _, row := range s.rows {
				var values []string
				if slices.Contains(fields, "name") {
					values = append(values, row.Name)
				}
				if slices.Contains(fields, "phone") && row.Phone != nil {
					values = append(values, *row.Phone)
				}
				if matcher.Match(values...) {
					want = append(want, row.ID)
				}
			}
			for _, limit := range []int{1, 2, 7, 100} {
				var got []string
				var last *customer
				looked := 0
				for {
					found, err := table.Search(acting("acme"), "acme", encrypt.Query{Text: query, Fields: fields, Limit: limit}, s.from(last))
					require.NoError(t, err)
					require.LessOrEqual(t, len(found.Rows), limit)
					require.Zero(t, found.Skipped)
					looked += found.Looked
					for _, row := range found.Rows {
						i := slices.IndexFunc(s.rows, func(r *customer) bool { return r.ID == row.ID })
						require.Equal(t, s.rows[i], row, "all fields are open")
					}
					got = append(got, ids(found.Rows)...)
					if last = found.Last; last == nil {
						break
					}
				}
				require.Equal(t, want, got, "%q in %v by %d", query, fields, limit)
				require.Equal(t, len(s.rows), looked, "each row once")
			}
		}
	}
}

func TestSearchLeavesOthersClosed(t *testing.T) {
	keys := newKeyring(t, encrypt.NewMemory(), nil)
	s, table := newStored(t, keys, 12)
	var read []*customer
	found, err := table.Search(acting("acme"), "acme", encrypt.Query{Text: "jose", Fields: []string{"name"}, Limit: 5},
		func(ctx context.Context, after *customer) ([]*customer, error) {
			page, err := s.from(nil)(ctx, after)
			for _, row := range page {
				row.Name, row.Age = "José", 7 // what stands there is not believed
			}
			read = append(read, page...)
			return page, err
		})
	require.NoError(t, err)
	require.Equal(t, []string{"c003", "c010"}, ids(found.Rows))
	require.Equal(t, "José García", found.Rows[0].Name)
	require.Equal(t, 3, found.Rows[0].Age)
	for _, row := range read { // the host's are as it gave them
		require.Equal(t, "José", row.Name)
		require.Nil(t, row.Phone)
		require.Equal(t, 7, row.Age)
	}
}

func TestSearchSkipsWhatDoesNotOpen(t *testing.T) {
	keys := newKeyring(t, encrypt.NewMemory(), nil)
	s, table := newStored(t, keys, 20)
	for _, row := range s.rows {
		row.Name = "same"
	}
	_, err := table.Seal(acting("acme"), "acme", s.rows...)
	require.NoError(t, err)
	_, err = keys.Erase(acting("acme"), "acme", "c004")
	require.NoError(t, err)
	s.rows[7].NameSealed[20] ^= 1                      // damaged
	s.rows[8].NameSealed = s.rows[9].NameSealed        // moved
	s.rows[11].AgeSealed = []byte("not looked into")   // damaged elsewhere: a row is shown in full or not at all
	s.rows[13].PhoneSealed = s.rows[12].PhoneSealed    // NULL, which is no damage
	s.rows[14].ID, s.rows[14].NameSealed = "c014", nil // nothing to look into
	found, err := table.Search(acting("acme"), "acme", encrypt.Query{Text: "same", Fields: []string{"name"}, Limit: 100}, s.from(nil))
	require.NoError(t, err)
	require.Equal(t, 4, found.Skipped)
	require.Equal(t, 20, found.Looked)
	require.Len(t, found.Rows, 15)
	for _, lost := range []string{"c004", "c007", "c008", "c011", "c014"} {
		require.NotContains(t, ids(found.Rows), lost)
	}
}

var errNorm = errors.New("norm exhausted")

// searchUnder searches under a norm of so many clients and returns which it refused although
// they were found.
func searchUnder(t *testing.T, norm int, swallow bool) (found encrypt.Found[customer], leaked []string, batches [][]string, err error) {
	refused := make(map[string]bool)
	taken := 0
	keys := newKeyring(t, encrypt.NewMemory(), &encrypt.Options{OnOpen: func(_ context.Context, _ string, clients []string) error {
		batches = append(batches, clients)
		if taken += len(clients); taken <= norm {
			return nil
		}
		for _, c := range clients {
			refused[c] = true
		}
		if swallow {
			return nil
		}
		return errNorm
	}})
	s, table := newStored(t, keys, 23)
	found, err = table.Search(acting("acme"), "acme", encrypt.Query{Text: "12", Fields: []string{"phone"}, Limit: 100}, s.from(nil))
	for _, id := range ids(found.Rows) {
		if refused[id] {
			leaked = append(leaked, id)
		}
	}
	return found, leaked, batches, err
}

func TestSearchAsksOncePerPage(t *testing.T) {
	found, _, batches, err := searchUnder(t, 100, false)
	require.NoError(t, err)
	require.Len(t, found.Rows, 15)
	require.Equal(t, [][]string{{"c001", "c002", "c004"}, {"c005", "c007", "c008"}, {"c010", "c011", "c013", "c014"}, {"c016", "c017", "c019"}, {"c020", "c022"}}, batches,
		"those with a phone, and not again for what was found")
}

func TestSearchReturnsNothingThatWasRefused(t *testing.T) {
	found, leaked, _, err := searchUnder(t, 7, false)
	require.ErrorIs(t, err, errNorm)
	require.Empty(t, leaked)
	require.Equal(t, []string{"c001", "c002", "c004", "c005", "c007", "c008"}[:len(found.Rows)], ids(found.Rows), "what was found before")
	require.NotEmpty(t, found.Rows)

	_, leaked, _, _ = searchUnder(t, 7, true)
	require.NotEmpty(t, leaked, "a search that goes on after a refusal is noticed")
}

func TestSearchAsksOnceWithoutAnAct(t *testing.T) {
	asked := 0
	keys := newKeyring(t, encrypt.NewMemory(), &encrypt.Options{OnOpen: func(_ context.Context, _ string, clients []string) error {
		asked += len(clients)
		return nil
	}})
	s, table := newStored(t, keys, 10)
	found, err := table.Search(as("acme", "anna"), "acme", encrypt.Query{Text: "petit", Fields: []string{"name"}, Limit: 100}, s.from(nil))
	require.NoError(t, err)
	require.NotEmpty(t, found.Rows)
	require.Equal(t, 10, asked, "nobody counts twice")
}

func TestSearchEnds(t *testing.T) {
	kek, store := newKEK(t), encrypt.NewMemory()
	keys := openKeyring(t, kek, store, nil)
	s, table := newStored(t, keys, 40)
	o := encrypt.Query{Text: "петр", Fields: []string{"name"}, Limit: 100}

	t.Run("between batches when it is cancelled", func(t *testing.T) {
		ctx, cancel := context.WithCancel(acting("acme"))
		pages := 0
		found, err := table.Search(ctx, "acme", o, func(ctx context.Context, after *customer) ([]*customer, error) {
			if pages++; pages == 3 {
				cancel()
			}
			return s.from(nil)(context.WithoutCancel(ctx), after)
		})
		require.ErrorIs(t, err, context.Canceled)
		require.LessOrEqual(t, found.Looked, 15)
		require.LessOrEqual(t, pages, 4)
	})
	t.Run("with what is full, and next is not called any more", func(t *testing.T) {
		o := o
		o.Limit = 1
		found, err := table.Search(acting("acme"), "acme", o, s.from(nil))
		require.NoError(t, err)
		require.Len(t, found.Rows, 1)
		require.Same(t, found.Rows[0], found.Last)
		calls := s.calls.Load()
		for range 100 {
			require.Equal(t, calls, s.calls.Load())
		}
	})
	t.Run("with the error of next", func(t *testing.T) {
		broken := errors.New("database gone")
		found, err := table.Search(acting("acme"), "acme", o, func(ctx context.Context, after *customer) ([]*customer, error) {
			if after != nil {
				return nil, broken
			}
			return s.from(nil)(ctx, after)
		})
		require.ErrorIs(t, err, broken)
		require.NotEmpty(t, found.Rows)
	})
	t.Run("with an outage, and the search for more misses no row", func(t *testing.T) {
		s := &stored{rows: s.rows, page: 20} // more than the cache holds: rows that are found are asked for again
		for down := 1; down < 40; down++ {
			found, err := table.Search(acting("acme"), "acme", o, s.from(nil))
			require.NoError(t, err)
			want := ids(found.Rows)

			short := &outage{Store: store, after: down}
			cold, err := encrypt.NewTable[customer](openKeyring(t, kek, short, &encrypt.Options{CacheEntries: 1}), "clients", nil)
			require.NoError(t, err)
			found, err = cold.Search(acting("acme"), "acme", o, s.from(nil))
			if err == nil {
				return
			}
			require.ErrorIs(t, err, crmguard.ErrUnavailable)
			more, err := table.Search(acting("acme"), "acme", o, s.from(found.Last))
			require.NoError(t, err)
			require.Equal(t, want, append(ids(found.Rows), ids(more.Rows)...), "after %d queries", down)
		}
		require.Fail(t, "no search came to its end")
	})
	t.Run("without a look", func(t *testing.T) {
		never := func(context.Context, *customer) ([]*customer, error) {
			t.Error("called")
			return nil, nil
		}
		for _, query := range []string{"", "  ", "-", " , "} {
			o := o
			o.Text = query
			found, err := table.Search(acting("acme"), "acme", o, never)
			require.NoError(t, err)
			require.Zero(t, found)
		}
		for name, call := range map[string]func(o encrypt.Query) (encrypt.Found[customer], error){
			"no tenant": func(o encrypt.Query) (encrypt.Found[customer], error) {
				return table.Search(acting("acme"), "", o, never)
			},
			"foreign": func(o encrypt.Query) (encrypt.Found[customer], error) {
				return table.Search(acting("other"), "acme", o, never)
			},
			"nobody": func(o encrypt.Query) (encrypt.Found[customer], error) {
				return table.Search(context.Background(), "acme", o, never)
			},
			"no limit": func(o encrypt.Query) (encrypt.Found[customer], error) {
				o.Limit = 0
				return table.Search(acting("acme"), "acme", o, never)
			},
			"no field": func(o encrypt.Query) (encrypt.Found[customer], error) {
				o.Fields = nil
				return table.Search(acting("acme"), "acme", o, never)
			},
			"unknown field": func(o encrypt.Query) (encrypt.Found[customer], error) {
				o.Fields = []string{"city"}
				return table.Search(acting("acme"), "acme", o, never)
			},
			"a number": func(o encrypt.Query) (encrypt.Found[customer], error) {
				o.Fields = []string{"age"}
				return table.Search(acting("acme"), "acme", o, never)
			},
		} {
			found, err := call(o)
			require.Error(t, err, name)
			require.Zero(t, found, name)
		}
	})
	t.Run("at a nil row", func(t *testing.T) {
		_, err := table.Search(acting("acme"), "acme", o, func(context.Context, *customer) ([]*customer, error) { return []*customer{nil}, nil })
		require.Error(t, err)
	})
}

func TestSearchTellsNobodyWhatWasTyped(t *testing.T) {
	var log bytes.Buffer
	store := encrypt.NewMemory()
	keys := newKeyring(t, store, &encrypt.Options{Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	s, table := newStored(t, keys, 20)
	o := encrypt.Query{Text: "typed-in-secret", Fields: []string{"name"}, Limit: 1}
	_, err := table.Search(acting("acme"), "acme", o, s.from(nil))
	require.NoError(t, err)
	_, err = table.Search(acting("acme"), "acme", o, func(context.Context, *customer) ([]*customer, error) { return nil, errNorm })
	require.Error(t, err)
	require.NotContains(t, err.Error()+log.String(), "secret")
}
