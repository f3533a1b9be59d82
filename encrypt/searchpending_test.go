package encrypt_test

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/encrypt"
)

// A search during a migration finds what Open shows, and counts what it does not.
func TestSearchDuringAMigration(t *testing.T) {
	n := &norm{}
	p := newPlainTable(t, 6, encrypt.NewMemory(), nil, n.OnOpen)
	p.begin(t)
	p.Put("acme", plainRow(6)) // planted after the cut
	_, err := p.keys.Erase(job("acme"), "acme", "c03")
	require.NoError(t, err)
	sealed := &grown{ID: "c01", Phone: "+7 912 345-67-01"}
	_, err = p.contacts.Seal(job("acme"), "acme", sealed)
	require.NoError(t, err)
	var page []*grown
	for i := range 7 {
		page = append(page, asGrown(p.row(t, fmt.Sprintf("c%02d", i))))
	}
	page[1].PhoneSealed, page[1].PhoneLegacy = sealed.PhoneSealed, nil
	search := func(text string, fields ...string) (encrypt.Found[grown], error) {
		return p.contacts.Search(acting("acme"), "acme", encrypt.Query{Text: text, Fields: fields, Limit: 10}, func(_ context.Context, after *grown) ([]*grown, error) {
			if after != nil {
				return nil, nil
			}
			return page, nil
		})
	}
	found, err := search("912 345", "phone", "note")
	require.NoError(t, err)
	var names []string
	for _, row := range found.Rows {
		require.Equal(t, fmt.Sprintf("+7 912 345-67-%s", row.ID[1:]), row.Phone)
		require.NotNil(t, row.Born, "what was not looked into is opened as well")
		names = append(names, row.ID)
	}
	require.Equal(t, []string{"c00", "c01", "c02", "c04", "c05"}, names)
	require.Equal(t, 7, found.Looked)
	require.Equal(t, 2, found.Skipped, "the planted one, and that of the client who is erased")
	require.Len(t, n.asked, 1, "once for the page")
	require.Subset(t, n.asked[0], names)

	found, err = search("note 4", "note")
	require.NoError(t, err)
	require.Len(t, found.Rows, 1)
	require.Equal(t, "c04", found.Rows[0].ID)

	n.full = true
	found, err = search("note", "note")
	require.Error(t, err)
	require.Empty(t, found.Rows)
}

// Searches leave the host's rows as they are, so that two may look at the same ones.
func TestSearchesShareRowsOfTheHost(t *testing.T) {
	keys := newKeyring(t, encrypt.NewMemory(), nil)
	cached, table := newStored(t, keys, 10) // which are open
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for range 20 {
				found, err := table.Search(acting("acme"), "acme", encrypt.Query{Text: "петр", Fields: []string{"name"}, Limit: 10}, func(_ context.Context, after *customer) ([]*customer, error) {
					if after != nil {
						return nil, nil
					}
					return cached.rows, nil
				})
				if err != nil || len(found.Rows) == 0 {
					t.Errorf("found %d, %v", len(found.Rows), err)
				}
			}
		})
	}
	wg.Wait()
	for i, row := range cached.rows {
		require.Equal(t, people[i%len(people)], row.Name)
		require.Equal(t, i, row.Age)
	}
}
