package guardgorm_test

import (
	"database/sql"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"gorm.io/gorm"

	"github.com/crmguard/crmguard/contrib/guardgorm"
)

const (
	phone1, phone2, phone3 = "+79161234567", "+79161234568", "+79161234569"
	mail1, mail2           = "anna@example.com", "boris@example.com"
)

func anna() *Contact {
	return &Contact{
		ID: "anna", Name: "A", Phone: phone1, Email: new(mail1), Income: sql.Null[int64]{V: 7, Valid: true},
		Profile: &Profile{Born: time.Date(1990, 1, 2, 3, 4, 5, 0, time.UTC), Likes: []string{"tea"}, Scores: map[string]int{"x": 1}},
	}
}

// requireSame compares what is sealed, and the name.
func requireSame(t *testing.T, want, got Contact) {
	t.Helper()
	for _, c := range []*Contact{&want, &got} {
		c.PhoneSealed, c.EmailSealed, c.IncomeSealed, c.ProfileSealed, c.UpdatedAt = nil, nil, nil, nil, time.Time{}
	}
	require.Equal(t, want, got)
}

func TestNew(t *testing.T) {
	each(t, func(t *testing.T, c *crm) {
		type stored struct {
			ID          string `encrypt:",record"`
			Phone       string `encrypt:"phone"`
			PhoneSealed []byte `encrypt:"phone,sealed"`
		}
		type guessed struct {
			ID          string `encrypt:",record"`
			Phone       string `gorm:"-" encrypt:"phone"`
			PhoneSealed []byte `gorm:"default:x" encrypt:"phone,sealed"`
		}
		type columnless struct {
			ID          string `encrypt:",record"`
			Client      string `gorm:"-" encrypt:",client"`
			Phone       string `gorm:"-" encrypt:"phone"`
			PhoneSealed []byte `encrypt:"phone,sealed"`
		}
		for _, row := range []any{stored{}, guessed{}, columnless{}} {
			plugin, err := guardgorm.New(c.keys, guardgorm.Kinds{"k": {row}}, nil)
			require.NoError(t, err)
			db, err := gorm.Open(c.dial)
			require.NoError(t, err)
			require.Error(t, db.Use(plugin), "%T", row)
			closeDB(t, db)
		}
		for _, kinds := range []guardgorm.Kinds{{"k": {Company{}}}, {"k": {nil}}, {"": {Call{}}}, {"k": {Contact{}, &Contact{}}}} {
			_, err := guardgorm.New(c.keys, kinds, nil)
			require.Error(t, err, kinds)
		}
		require.ErrorIs(t, c.Use(c.plugin), gorm.ErrRegistered)
	})
}

func TestCreate(t *testing.T) {
	each(t, func(t *testing.T, c *crm) {
		row := anna()
		require.NoError(t, c.Create(row).Error)
		require.Equal(t, phone1, row.Phone, "the caller's struct keeps its plaintext")
		requireSame(t, *anna(), *row)
		requireSame(t, *anna(), c.get(t, "anna"))
		require.NotContains(t, string(c.column(t, "contacts", "phone_sealed", "anna")), phone1)
		require.Equal(t, []string{"anna"}, c.found(t, phone1))

		hooked := &Contact{Phone: phone2}
		require.NoError(t, c.Create(hooked).Error)
		require.NotEmpty(t, hooked.ID, "BeforeCreate makes the id before it is needed")
		got := c.get(t, hooked.ID)
		require.Equal(t, phone2, got.Phone)
		require.Nil(t, got.Email)
		require.Nil(t, got.Profile)
		require.False(t, got.Income.Valid)
		require.True(t, c.null(t, "contacts", "mail", hooked.ID), "NULL stays NULL")
		require.False(t, c.null(t, "contacts", "phone_sealed", hooked.ID))

		empty := &Contact{ID: "empty", Email: new("")}
		require.NoError(t, c.Create(empty).Error)
		require.False(t, c.null(t, "contacts", "mail", "empty"), "an empty string is a value")
		got = c.get(t, "empty")
		require.Equal(t, "", *got.Email)

		require.NoError(t, c.Omit("Phone").Create(&Contact{ID: "omitted", Phone: phone3, Email: new(mail2)}).Error)
		require.True(t, c.null(t, "contacts", "phone_sealed", "omitted"))
		require.Equal(t, mail2, *c.get(t, "omitted").Email)
		require.NoError(t, c.Select("ID", "phone").Create(&Contact{ID: "selected", Phone: phone3, Email: new(mail2)}).Error)
		require.Equal(t, phone3, c.get(t, "selected").Phone)
		require.Nil(t, c.get(t, "selected").Email)

		require.NotContains(t, c.log.String(), "9161234", "no plaintext is logged")
		require.NotContains(t, c.log.String(), mail1)
	})
}

func TestCreateMany(t *testing.T) {
	each(t, func(t *testing.T, c *crm) {
		var rows []Contact
		var pointers []*Contact
		for i := range 25 {
			rows = append(rows, Contact{ID: string(rune('a' + i)), Phone: phone1})
			pointers = append(pointers, &Contact{ID: string(rune('A' + i)), Phone: phone2})
		}
		require.NoError(t, c.CreateInBatches(rows, 10).Error)
		require.NoError(t, c.CreateInBatches(&pointers, 7).Error)
		require.Equal(t, phone1, rows[24].Phone)
		require.NotEmpty(t, rows[24].PhoneSealed)
		require.Len(t, c.found(t, phone1), 25)
		require.Len(t, c.found(t, phone2), 25)

		c.cold(t)
		loads, opened := c.store.loads.Load(), c.opened.Load()
		var found []Contact
		require.NoError(t, c.Order("id").Find(&found).Error)
		require.Len(t, found, 50)
		for _, row := range found {
			require.Contains(t, []string{phone1, phone2}, row.Phone)
		}
		require.EqualValues(t, 1, c.store.loads.Load()-loads, "one query to the key store")
		require.EqualValues(t, 1, c.opened.Load()-opened, "asked once")
	})
}

func TestRowsWithoutIds(t *testing.T) {
	type Numbered struct {
		ID          uint
		Key         string `gorm:"unique" encrypt:",record"`
		Phone       string `gorm:"-" encrypt:"phone"`
		PhoneSealed []byte `encrypt:"phone,sealed"`
	}
	each(t, func(t *testing.T, c *crm) {
		require.NoError(t, c.raw.AutoMigrate(&Numbered{}))
		db := c.with(t, "numbered", Numbered{})
		err := db.Create(&Numbered{Phone: phone1}).Error
		require.ErrorContains(t, err, "make it in the program")
		row := Numbered{Key: "k1", Phone: phone1}
		require.NoError(t, db.Create(&row).Error)
		require.NotZero(t, row.ID)
		var got Numbered
		require.NoError(t, db.First(&got, row.ID).Error)
		require.Equal(t, phone1, got.Phone)
		require.NoError(t, db.Model(&got).Update("Phone", phone2).Error)
		require.NoError(t, db.First(&got).Error)
		require.Equal(t, phone2, got.Phone)
	})
}

func TestNobodyActs(t *testing.T) {
	each(t, func(t *testing.T, c *crm) {
		require.NoError(t, c.Create(anna()).Error)
		nobody := c.WithContext(t.Context())
		require.ErrorContains(t, nobody.Create(&Contact{ID: "x", Phone: phone1}).Error, "no subject")
		require.ErrorContains(t, nobody.Find(&[]Contact{}).Error, "no subject")
		require.ErrorContains(t, nobody.Model(anna()).Update("phone", phone2).Error, "no subject")

		var found []Contact
		require.Error(t, c.WithContext(as("other")).Find(&found).Error, "another tenant's keys do not open it")
		require.Len(t, found, 1)
		require.Empty(t, found[0].Phone)
	})
}

func TestSave(t *testing.T) {
	each(t, func(t *testing.T, c *crm) {
		row := anna()
		require.NoError(t, c.Save(row).Error, "inserts")
		requireSame(t, *anna(), c.get(t, "anna"))

		row.Phone, row.Email, row.Name = phone2, nil, "Anna"
		require.NoError(t, c.Save(row).Error, "updates")
		require.Equal(t, phone2, row.Phone)
		requireSame(t, *row, c.get(t, "anna"))
		require.True(t, c.null(t, "contacts", "mail", "anna"))
		require.Empty(t, c.found(t, phone1))
		require.Empty(t, c.mailed(t, mail1), "an empty field has no entry")
		require.Equal(t, []string{"anna"}, c.found(t, phone2))

		row.Phone = ""
		require.NoError(t, c.Save(row).Error)
		require.Empty(t, c.get(t, "anna").Phone)
		require.False(t, c.null(t, "contacts", "phone_sealed", "anna"))

		many := []Contact{{ID: "anna", Phone: phone3}, {ID: "b", Phone: phone1}}
		require.NoError(t, c.Save(&many).Error, "an upsert")
		require.Equal(t, phone3, c.get(t, "anna").Phone)
		require.Equal(t, []string{"anna"}, c.found(t, phone3))
		require.Equal(t, []string{"b"}, c.found(t, phone1))
	})
}

func TestSoftDelete(t *testing.T) {
	each(t, func(t *testing.T, c *crm) {
		require.NoError(t, c.Create(anna()).Error)
		require.NoError(t, c.Create(&Contact{ID: "b", Phone: phone2}).Error)
		require.NoError(t, c.Create(&Contact{ID: "c", Phone: phone3}).Error)
		require.NoError(t, c.Delete(&Contact{ID: "anna"}).Error)
		require.ErrorIs(t, c.First(&Contact{}, "id = ?", "anna").Error, gorm.ErrRecordNotFound)
		require.Equal(t, []string{"anna"}, c.found(t, phone1), "it may be undeleted")
		var gone Contact
		require.NoError(t, c.Unscoped().First(&gone, "id = ?", "anna").Error)
		require.Equal(t, phone1, gone.Phone)

		require.NoError(t, c.Unscoped().Delete(&gone).Error)
		require.Empty(t, c.found(t, phone1))
		require.Empty(t, c.mailed(t, mail1))
		require.NoError(t, c.Unscoped().Where("id = ?", "b").Delete(&Contact{}).Error)
		require.Empty(t, c.found(t, phone2), "records that the condition found")
		require.Equal(t, []string{"c"}, c.found(t, phone3))
		require.ErrorIs(t, c.Unscoped().Delete(&Contact{}).Error, gorm.ErrMissingWhereClause)
		require.Error(t, c.Unscoped().Delete(&Contact{}, Contact{Phone: phone3}).Error)
		require.Equal(t, []string{"c"}, c.found(t, phone3))
	})
}

func TestTransactions(t *testing.T) {
	each(t, func(t *testing.T, c *crm) {
		require.NoError(t, c.Create(anna()).Error)
		err := c.Transaction(func(tx *gorm.DB) error {
			require.NoError(t, tx.Model(&Contact{ID: "anna"}).Update("Phone", phone2).Error)
			require.NoError(t, tx.Create(&Contact{ID: "b", Phone: phone2}).Error)
			var rows []Contact
			require.NoError(t, tx.Find(&rows, "id IN ?", []string{"anna", "b"}).Error)
			require.Equal(t, []string{phone2, phone2}, []string{rows[0].Phone, rows[1].Phone})
			return gorm.ErrInvalidData
		})
		require.ErrorIs(t, err, gorm.ErrInvalidData)
		require.Equal(t, phone1, c.get(t, "anna").Phone)
		require.Equal(t, []string{"anna"}, c.found(t, phone1), "entries go back with the row")
		require.Empty(t, c.found(t, phone2))

		require.Error(t, c.Create(&Contact{ID: "anna", Phone: phone2}).Error, "exists already")
		require.Empty(t, c.found(t, phone2))

		loose := c.Session(&gorm.Session{SkipDefaultTransaction: true})
		require.ErrorContains(t, loose.Create(&Contact{ID: "c", Phone: phone3}).Error, "one transaction")
		require.ErrorContains(t, loose.Model(&Contact{ID: "anna"}).Update("phone", phone3).Error, "one transaction")
		require.NoError(t, loose.Transaction(func(tx *gorm.DB) error { return tx.Create(&Contact{ID: "c", Phone: phone3}).Error }))
		require.Equal(t, []string{"c"}, c.found(t, phone3))

		prepared := c.Session(&gorm.Session{PrepareStmt: true})
		require.NoError(t, prepared.Create(&Contact{ID: "d", Phone: phone3}).Error)
		require.Equal(t, []string{"c", "d"}, c.found(t, phone3))
	})
}

// with is the same database with one more kind.
func (c *crm) with(t *testing.T, kind string, row any) *gorm.DB {
	t.Helper()
	return c.use(t, kind, row).WithContext(as("acme"))
}
