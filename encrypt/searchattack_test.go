package encrypt_test

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/encrypt"
)

func TestSearchOpensWhatItAskedAbout(t *testing.T) {
	// A host that scans each page into the same structs, while the norm is asked about the
	// page before.
	asked := make(map[string]bool)
	overwritten := make(chan struct{}, 100)
	k := newKeyring(t, encrypt.NewMemory(), &encrypt.Options{OnOpen: func(_ context.Context, _ string, clients []string) error {
		for _, client := range clients {
			asked[client] = true
		}
		<-overwritten
		return nil
	}})
	table, err := encrypt.NewTable[customer](k, "contacts", nil)
	require.NoError(t, err)
	var sealed []customer
	for i := range 40 {
		c := customer{ID: fmt.Sprintf("c%02d", i), Name: "Anna"}
		_, err := table.Seal(acting("acme"), "acme", &c)
		require.NoError(t, err)
		c.Name = ""
		sealed = append(sealed, c)
	}
	page, n := make([]customer, 10), 0
	for i := range page {
		page[i].NameSealed = make([]byte, len(sealed[0].NameSealed))
	}
	found, err := table.Search(acting("acme"), "acme", encrypt.Query{Text: "anna", Fields: []string{"name"}, Limit: 10},
		func(context.Context, *customer) ([]*customer, error) {
			rows := make([]*customer, len(page))
			for i := range page {
				page[i].ID = sealed[n+i].ID
				copy(page[i].NameSealed, sealed[n+i].NameSealed)
				rows[i] = &page[i]
			}
			if n += len(page); n > len(page) {
				overwritten <- struct{}{}
			}
			return rows, nil
		})
	require.NoError(t, err)
	require.Len(t, found.Rows, 10)
	for i, row := range found.Rows {
		require.Equal(t, fmt.Sprintf("c%02d", i), row.ID)
		require.Equal(t, "Anna", row.Name)
		require.True(t, asked[row.ID], "%s was opened without asking", row.ID)
	}
}

func TestSearchPanicsInTheCaller(t *testing.T) {
	k := newKeyring(t, encrypt.NewMemory(), nil)
	s, table := newStored(t, k, 20)
	o := encrypt.Query{Text: "анна", Fields: []string{"name"}, Limit: 100}
	value := &struct{ what string }{"the host's own"}
	for _, first := range []bool{true, false} {
		require.PanicsWithValue(t, value, func() {
			_, _ = table.Search(acting("acme"), "acme", o, func(ctx context.Context, after *customer) ([]*customer, error) {
				if first || after != nil {
					panic(value)
				}
				return s.from(nil)(ctx, after)
			})
		})
	}

	// As testing.T's FailNow ends a goroutine.
	var wg sync.WaitGroup
	returned := false
	wg.Go(func() {
		_, _ = table.Search(acting("acme"), "acme", o, func(context.Context, *customer) ([]*customer, error) {
			runtime.Goexit()
			return nil, nil
		})
		returned = true
	})
	wg.Wait()
	require.False(t, returned)
}
