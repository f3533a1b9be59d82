package guardgorm_test

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"gorm.io/gorm"
	"gorm.io/gorm/clause"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/encrypt"
)

func (c *crm) fill(t *testing.T, n int) {
	t.Helper()
	var rows []Contact
	for i := range n {
		id := fmt.Sprintf("c%02d", i)
		rows = append(rows, Contact{ID: id, Phone: phone1, Calls: []Call{{ID: id + "/1", Note: "note of " + id}, {ID: id + "/2", Minutes: 2}}})
	}
	require.NoError(t, c.Create(&rows).Error)
}

func TestQueries(t *testing.T) {
	each(t, func(t *testing.T, c *crm) {
		c.fill(t, 12)
		var rows []Contact
		var pointers []*Contact
		var one Contact
		for name, query := range map[string]func() *gorm.DB{
			"find":     func() *gorm.DB { return c.Find(&rows) },
			"pointers": func() *gorm.DB { return c.Find(&pointers) },
			"first":    func() *gorm.DB { one = Contact{}; return c.First(&one) },
			"last":     func() *gorm.DB { one = Contact{}; return c.Last(&one) },
			"take":     func() *gorm.DB { one = Contact{}; return c.Take(&one) },
			"limit":    func() *gorm.DB { return c.Limit(1).Find(&one) },
			"select":   func() *gorm.DB { return c.Select("ID", "Phone").Find(&rows) },
			"logical":  func() *gorm.DB { return c.Select("id", "phone").Find(&rows) },
			"omit":     func() *gorm.DB { return c.Omit("Email", "Name").Find(&rows) },
			"raw":      func() *gorm.DB { return c.Raw("SELECT * FROM contacts").Find(&rows) },
			"fields":   func() *gorm.DB { return c.Session(&gorm.Session{QueryFields: true}).Find(&rows) },
			"table":    func() *gorm.DB { return c.Table("contacts").Find(&rows) },
		} {
			rows, pointers = nil, nil
			loads, opened := c.store.loads.Load(), c.opened.Load()
			require.NoError(t, query().Error, name)
			for _, row := range rows {
				require.Equal(t, phone1, row.Phone, name)
			}
			for _, row := range pointers {
				require.Equal(t, phone1, row.Phone, name)
			}
			if len(rows)+len(pointers) == 0 {
				require.Equal(t, phone1, one.Phone, name)
			}
			require.Equal(t, loads, c.store.loads.Load(), "%s: from the cache", name)
			require.EqualValues(t, 1, c.opened.Load()-opened, "%s: asked once", name)
		}

		loads, opened := c.store.loads.Load(), c.opened.Load()
		require.NoError(t, c.Select("id", "name").Find(&rows).Error)
		require.Empty(t, rows[0].Phone)
		one = Contact{Phone: "nothing that was there before"}
		require.NoError(t, c.Omit("phone").First(&one).Error)
		require.Empty(t, one.Phone)
		var count int64
		require.NoError(t, c.Model(&Contact{}).Count(&count).Error)
		require.EqualValues(t, 12, count)
		var names []string
		require.NoError(t, c.Model(&Contact{}).Pluck("name", &names).Error)
		var sealed [][]byte
		require.NoError(t, c.Model(&Contact{}).Pluck("phone_sealed", &sealed).Error)
		require.Len(t, sealed, 12)
		require.NotContains(t, string(sealed[0]), phone1)
		require.Error(t, c.Model(&Contact{}).Pluck("Phone", &sealed).Error, "it has no column")
		var maps []map[string]any
		require.NoError(t, c.Model(&Contact{}).Find(&maps).Error)
		require.NotContains(t, maps[0], "phone")
		require.Equal(t, opened, c.opened.Load(), "nothing was opened")
		require.Equal(t, loads, c.store.loads.Load())

		require.Error(t, c.Select("phone").Find(&rows).Error, "which record's?")
		require.ErrorIs(t, c.First(&one, "id = ?", "nobody").Error, gorm.ErrRecordNotFound)
		for _, condition := range []any{Contact{Phone: phone1}, &Contact{Email: new(mail1)}, map[string]any{"phone": phone1}, map[string]any{"Phone": []string{phone1}}} {
			require.ErrorContains(t, c.Where(condition).Find(&rows).Error, "a condition on sealed field")
			require.ErrorContains(t, c.Where("id = ?", "x").Or(condition).Find(&rows).Error, "a condition on sealed field")
			require.ErrorContains(t, c.Not(condition).Find(&rows).Error, "a condition on sealed field")
		}
		require.NotContains(t, c.log.String(), phone1)
		require.NoError(t, c.Find(&rows, c.found(t, "8 916 123-45-67")).Error)
		require.Len(t, rows, 12)

		generic, err := gorm.G[Contact](c.DB).Where("id = ?", "c03").First(as("acme"))
		require.NoError(t, err)
		require.Equal(t, phone1, generic.Phone)
	})
}

func TestFindInBatches(t *testing.T) {
	each(t, func(t *testing.T, c *crm) {
		c.fill(t, 12)
		c.cold(t)
		loads, opened := c.store.loads.Load(), c.opened.Load()
		var rows []Contact
		var seen []string
		require.NoError(t, c.FindInBatches(&rows, 5, func(*gorm.DB, int) error {
			for _, row := range rows {
				require.Equal(t, phone1, row.Phone)
				seen = append(seen, row.ID)
			}
			return nil
		}).Error)
		require.Len(t, seen, 12)
		require.EqualValues(t, 3, c.store.loads.Load()-loads, "one query a page")
		require.EqualValues(t, 3, c.opened.Load()-opened)
	})
}

func TestAssociations(t *testing.T) {
	each(t, func(t *testing.T, c *crm) {
		c.fill(t, 4)
		calls, err := encrypt.NewTable[Call](c.keys, "calls", nil)
		require.NoError(t, err)
		noted := func(note string) []string {
			ids, err := calls.Find(as("acme"), "acme", "note", "exact", note)
			require.NoError(t, err)
			return ids
		}
		require.Equal(t, []string{"c02/1"}, noted("note of c02"))

		ctx := crmguard.WithAct(as("acme"), crmguard.List, crmguard.Resource{Tenant: "acme", Kind: "contacts"})
		c.cold(t)
		loads, opened := c.store.loads.Load(), c.opened.Load()
		var rows []Contact
		require.NoError(t, c.WithContext(ctx).Preload("Calls", func(tx *gorm.DB) *gorm.DB { return tx.Order("id") }).Order("id").Find(&rows).Error)
		require.Len(t, rows, 4)
		for _, row := range rows {
			require.Equal(t, phone1, row.Phone)
			require.Equal(t, "note of "+row.ID, row.Calls[0].Note)
			require.Empty(t, row.Calls[1].Note)
		}
		require.EqualValues(t, 1, c.store.loads.Load()-loads, "the calls' keys are the contacts'")
		require.EqualValues(t, 1, c.opened.Load()-opened, "once an act")

		var joined []Call
		require.NoError(t, c.Joins("Contact").Order("calls.id").Find(&joined).Error)
		require.Len(t, joined, 8)
		require.Equal(t, "note of c00", joined[0].Note)
		require.Equal(t, phone1, joined[0].Contact.Phone)
		require.Equal(t, phone1, joined[7].Contact.Phone)

		// A model without sealed fields brings ones that have some.
		firm := &Company{ID: "firm", Contacts: []Contact{{ID: "new", Phone: phone2, Calls: []Call{{ID: "new/1", Note: "deep"}}}}}
		require.NoError(t, c.Create(firm).Error)
		require.Equal(t, phone2, firm.Contacts[0].Phone)
		var loaded Company
		require.NoError(t, c.Preload("Contacts.Calls").Preload(clause.Associations).First(&loaded).Error)
		require.Equal(t, phone2, loaded.Contacts[0].Phone)
		require.Equal(t, "deep", loaded.Contacts[0].Calls[0].Note)
		var deep []Call
		require.NoError(t, c.Joins("Contact.Company").Find(&deep, "calls.id = ?", "new/1").Error)
		require.Equal(t, phone2, deep[0].Contact.Phone)
		require.Equal(t, "firm", deep[0].Contact.Company.ID)

		// Saving a row inserts its associations and leaves those that exist.
		loaded.Contacts[0].Phone, loaded.Name = phone3, "Firm"
		loaded.Contacts = append(loaded.Contacts, Contact{ID: "more", Phone: phone3})
		require.NoError(t, c.Save(&loaded).Error)
		require.Equal(t, phone2, c.get(t, "new").Phone)
		require.Equal(t, []string{"new"}, c.found(t, phone2))
		require.Equal(t, []string{"more"}, c.found(t, phone3))
		require.NoError(t, c.Session(&gorm.Session{FullSaveAssociations: true}).Save(&loaded).Error)
		require.Equal(t, phone3, c.get(t, "new").Phone)
		require.Equal(t, []string{"more", "new"}, c.found(t, phone3))

		// The client of a call is its contact, new as it is.
		call := &Call{ID: "made", Note: "with its client", Contact: &Contact{Phone: phone1}}
		require.NoError(t, c.Create(call).Error)
		require.Equal(t, call.Contact.ID, call.ContactID)
		var got Call
		require.NoError(t, c.Preload("Contact").First(&got, "id = ?", "made").Error)
		require.Equal(t, "with its client", got.Note)
		require.Equal(t, phone1, got.Contact.Phone)

		contact := c.get(t, "c00")
		require.NoError(t, c.Model(&contact).Association("Calls").Append(&Call{ID: "appended", Note: "a"}))
		require.Equal(t, []string{"appended"}, noted("a"))
		var of []Call
		require.NoError(t, c.Model(&contact).Association("Calls").Find(&of))
		require.Len(t, of, 3)
		require.Error(t, c.Model(&contact).Association("Calls").Clear(), "calls without a client would not open")
		require.Error(t, c.Model(&contact).Association("Calls").Append(&Call{ID: "c01/1", ContactID: "c01"}), "another client's")
		got = Call{}
		require.NoError(t, c.First(&got, "id = ?", "c01/1").Error)
		require.Equal(t, "note of c01", got.Note)
		require.NoError(t, c.Select("Calls").Unscoped().Delete(&contact).Error)
		require.Empty(t, noted("a"), "DELETE of associations, too")
	})
}

func TestPastTheCallbacks(t *testing.T) {
	each(t, func(t *testing.T, c *crm) {
		c.fill(t, 3)
		var rows []Contact
		require.NoError(t, c.Raw("SELECT * FROM contacts ORDER BY id").Scan(&rows).Error)
		require.Len(t, rows, 3)
		require.Empty(t, rows[0].Phone)
		opened := c.opened.Load()
		require.NoError(t, c.plugin.Open(as("acme"), rows))
		require.Equal(t, phone1, rows[2].Phone)
		require.EqualValues(t, 1, c.opened.Load()-opened)

		cursor, err := c.Model(&Contact{}).Select("ID", "Phone").Rows()
		require.NoError(t, err)
		n := 0
		for cursor.Next() {
			var row Contact
			require.NoError(t, c.ScanRows(cursor, &row))
			require.Empty(t, row.Phone)
			require.NoError(t, c.plugin.Open(as("acme"), &row))
			require.Equal(t, phone1, row.Phone)
			n++
		}
		require.NoError(t, cursor.Err())
		require.NoError(t, cursor.Close())
		require.Equal(t, 3, n)

		require.Error(t, c.plugin.Open(as("acme"), Contact{}))
		require.Error(t, c.plugin.Open(as("acme"), &Company{}))
		require.Error(t, c.plugin.Open(as("acme"), nil))
		require.Error(t, c.plugin.Open(t.Context(), rows))

		type card struct {
			ID          string
			PhoneSealed []byte
		}
		var cards []card
		require.NoError(t, c.Model(&Contact{}).Find(&cards).Error)
		require.NotContains(t, string(cards[0].PhoneSealed), phone1)

		// A view of the same rows is of the same kind.
		type Card struct {
			ID          string `encrypt:",record"`
			Phone       string `gorm:"-" encrypt:"phone"`
			PhoneSealed []byte `encrypt:"phone,sealed"`
		}
		require.ErrorContains(t, c.Model(&Contact{}).Find(&[]Card{}).Error, "no kind was given")
		db := c.use(t, "contacts", Contact{}, Card{}).WithContext(as("acme"))
		var views []Card
		require.NoError(t, db.Model(&Contact{}).Find(&views).Error)
		require.Equal(t, phone1, views[0].Phone)
		require.ErrorContains(t, db.First(&Call{}).Error, "no kind was given")
	})
}

func TestReturning(t *testing.T) {
	each(t, func(t *testing.T, c *crm) {
		c.fill(t, 3)
		var rows []Contact
		require.NoError(t, c.Model(&rows).Clauses(clause.Returning{}).Where("id <> ?", "c00").Update("name", "x").Error)
		require.Len(t, rows, 2)
		require.Equal(t, phone1, rows[1].Phone)
		one := Contact{ID: "c01"}
		require.NoError(t, c.Model(&one).Clauses(clause.Returning{}).Update("phone", phone2).Error)
		require.Equal(t, phone2, one.Phone)
		require.Equal(t, "x", one.Name)
		created := []Contact{{ID: "new", Phone: phone3}}
		require.NoError(t, c.Clauses(clause.Returning{}).Create(&created).Error)
		require.Equal(t, phone3, created[0].Phone)
		var gone []Contact
		require.NoError(t, c.Unscoped().Clauses(clause.Returning{}).Where("id = ?", "new").Delete(&gone).Error)
		require.Equal(t, phone3, gone[0].Phone)
		require.Empty(t, c.found(t, phone3))
	})
}

// One row that does not open costs the page nothing but itself.
func TestRowsThatDoNotOpen(t *testing.T) {
	each(t, func(t *testing.T, c *crm) {
		c.fill(t, 4)
		_, err := c.keys.Erase(as("acme"), "acme", "c01")
		require.NoError(t, err)

		var rows []Contact
		require.NoError(t, c.Order("id").Find(&rows).Error)
		require.Equal(t, []bool{false, true, false, false}, []bool{rows[0].Erased, rows[1].Erased, rows[2].Erased, rows[3].Erased})
		require.Empty(t, rows[1].Phone)
		require.Equal(t, phone1, rows[3].Phone)

		erased := c.get(t, "c01")
		require.True(t, erased.Erased)
		require.NoError(t, c.First(&erased, "id = ?", "c01").Error)
		require.NoError(t, c.Model(&erased).Update("name", "gone").Error, "other columns are written")
		require.ErrorIs(t, c.Model(&erased).Update("phone", phone2).Error, crmguard.ErrErased)
		require.ErrorIs(t, c.Save(&erased).Error, crmguard.ErrErased)
		require.ErrorIs(t, c.Create(&Call{ID: "late", ContactID: "c01", Note: "n"}).Error, crmguard.ErrErased)

		// Calls cannot show it: an error that names them, beside the others, open.
		var calls []Call
		err = c.Order("id").Find(&calls).Error
		failed, ok := errors.AsType[encrypt.RowErrors](err)
		require.True(t, ok, err)
		require.ErrorIs(t, err, crmguard.ErrErased)
		require.Equal(t, []int{2, 3}, []int{failed[0].Row, failed[1].Row})
		require.Len(t, calls, 8)
		require.Equal(t, "note of c03", calls[6].Note)

		// A row above an erased one can be saved.
		firm := Company{ID: "firm", Contacts: rows}
		require.NoError(t, c.Omit("Contacts.Calls").Create(&firm).Error)
		var loaded Company
		require.NoError(t, c.Preload("Contacts").First(&loaded).Error)
		require.Len(t, loaded.Contacts, 4)
		loaded.Name = "Firm"
		require.NoError(t, c.Save(&loaded).Error)
		require.False(t, c.null(t, "contacts", "phone_sealed", "c01"), "it is as it was")
		require.Equal(t, []string{"c00", "c02", "c03"}, c.found(t, phone1))

		// What another row's bytes, or raw SQL, say is an error, whatever the row can show.
		require.NoError(t, c.raw.Exec("UPDATE contacts SET phone_sealed = (SELECT phone_sealed FROM contacts WHERE id = 'c00') WHERE id = 'c02'").Error)
		require.NoError(t, c.raw.Exec("UPDATE contacts SET phone_sealed = ? WHERE id = 'c03'", []byte(phone3)).Error)
		err = c.Order("id").Find(&rows).Error
		failed, ok = errors.AsType[encrypt.RowErrors](err)
		require.True(t, ok, err)
		require.Equal(t, []string{"c02", "c03"}, []string{failed[0].Record, failed[1].Record})
		require.ErrorIs(t, failed[0], encrypt.ErrForeign)
		require.ErrorIs(t, failed[1], encrypt.ErrMalformed)
		require.Equal(t, phone1, rows[0].Phone)
		require.Empty(t, rows[2].Phone)
		require.Empty(t, rows[3].Phone, "never as it is")
		require.False(t, rows[3].Erased)
	})
}

func TestConcurrentUse(t *testing.T) {
	each(t, func(t *testing.T, c *crm) {
		c.fill(t, 8)
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				id := fmt.Sprintf("c%02d", i)
				for j := range 5 {
					phone := fmt.Sprintf("+7916%d%d00000", i, j)
					assertNoError(t, c.Model(&Contact{ID: id}).Update("phone", phone).Error)
					assertNoError(t, c.Create(&Contact{ID: fmt.Sprintf("%s-%d", id, j), Phone: phone}).Error)
					var rows []Contact
					assertNoError(t, c.Preload("Calls").Find(&rows).Error)
					if !slices.ContainsFunc(rows, func(row Contact) bool { return row.ID == id && row.Phone == phone }) {
						t.Errorf("%s lost %s", id, phone)
					}
				}
			})
		}
		wg.Wait()
		for i := range 8 {
			require.Len(t, c.found(t, fmt.Sprintf("+7916%d400000", i)), 2)
		}
	})
}

func assertNoError(t *testing.T, err error) {
	if err != nil {
		t.Error(err)
	}
}
