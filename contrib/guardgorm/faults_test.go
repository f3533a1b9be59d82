package guardgorm_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"

	"github.com/crmguard/crmguard/contrib/guardgorm"
	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/encrypt/encryptsql"
)

// scan reads all contacts as a job does.
func (c *crm) scan(t *testing.T) encrypt.Report {
	t.Helper()
	rows, err := encryptsql.NewRows(t.Context(), c.sql, encryptsql.Layout{
		Table: "contacts", Record: "id",
		Sealed: map[string]string{"phone": "phone_sealed", "email": "mail", "income": "income_sealed", "profile": "profile_sealed"},
	})
	require.NoError(t, err)
	report, err := c.contacts.Scan(as("acme"), "acme", rows, nil)
	require.NoError(t, err)
	return report
}

// Planted faults: each callback is missing in turn, and so is the plugin. Plaintext has no
// column in which it could be stored.
func TestWithoutCallbacks(t *testing.T) {
	each(t, func(t *testing.T, c *crm) {
		writes := func(db *gorm.DB, id string) {
			require.NoError(t, db.Session(&gorm.Session{SkipHooks: true}).Create(&Contact{ID: id, Name: "n", Phone: phone3, Email: new(mail2)}).Error)
			row := &Contact{ID: id, Phone: phone3, Email: new(mail2)}
			require.NoError(t, db.Save(row).Error)
			require.NoError(t, db.Model(row).Updates(Contact{Phone: phone3, Name: "m"}).Error)
			_ = db.Model(row).Updates(map[string]any{"Phone": phone3}).Error
			require.Error(t, db.Session(&gorm.Session{Logger: logger.Discard}).Model(row).Updates(map[string]any{"phone": phone3, "name": "m"}).Error, "no such column")
		}
		for i, remove := range []func(db *gorm.DB) error{
			func(db *gorm.DB) error { return db.Callback().Create().Remove("guardgorm:seal") },
			func(db *gorm.DB) error { return db.Callback().Update().Remove("guardgorm:seal") },
		} {
			db, err := gorm.Open(c.dial, &gorm.Config{Logger: logger.Discard})
			require.NoError(t, err)
			t.Cleanup(func() { closeDB(t, db) })
			plugin, err := guardgorm.New(c.keys, guardgorm.Kinds{"contacts": {Contact{}}, "calls": {Call{}}}, nil)
			require.NoError(t, err)
			require.NoError(t, db.Use(plugin))
			require.NoError(t, remove(db))
			id := []string{"no create", "no update"}[i]
			row := &Contact{ID: id, Phone: phone3, Email: new(mail2)}
			require.NoError(t, db.WithContext(as("acme")).Create(row).Error)
			row.Phone = phone2
			require.NoError(t, db.WithContext(as("acme")).Save(row).Error)
		}
		report := c.scan(t)
		require.True(t, report.OK(), report)
		require.Equal(t, 2, report.Rows)
		writes(c.raw, "bare")
		for _, id := range []string{"bare", "no create", "no update"} {
			for _, name := range []string{"phone_sealed", "mail", "name"} {
				require.NotContains(t, string(c.column(t, "contacts", name, id)), "7916")
			}
		}
		require.Empty(t, c.column(t, "contacts", "phone_sealed", "bare"), "nothing is stored at all")
		require.NoError(t, c.raw.Exec("DELETE FROM contacts WHERE id = 'bare'").Error)

		// Only SQL text can put plaintext where sealed values belong. It does not open, and a
		// scan finds it.
		require.NoError(t, c.Exec("UPDATE contacts SET phone_sealed = ? WHERE id = 'no create'", []byte(phone3)).Error)
		report = c.scan(t)
		require.False(t, report.OK())
		require.Equal(t, 1, report.Malformed)
		require.Equal(t, "no create", report.Findings[0].Record)
		var row Contact
		require.ErrorIs(t, c.First(&row, "id = 'no create'").Error, encrypt.ErrMalformed)
		require.Empty(t, row.Phone)
	})
}

// Former is a row whose phone was a column of plaintext before it was sealed.
type Former struct {
	ID          string `gorm:"primaryKey" encrypt:",record"`
	Name        string
	Phone       string  `gorm:"-" encrypt:"phone,index=phone"`
	PhoneSealed []byte  `encrypt:"phone,sealed"`
	PhoneLegacy *string `gorm:"column:phone" encrypt:"phone,legacy"`
	Note        string  `gorm:"-" encrypt:"note"`
	NoteSealed  []byte  `encrypt:"note,sealed"`
}

// While a table is migrated, whatever is written leaves the column of plaintext, and
// nothing goes back there.
func TestColumnsOfPlaintext(t *testing.T) {
	each(t, func(t *testing.T, c *crm) {
		require.NoError(t, c.raw.AutoMigrate(&Former{}))
		ids := []string{"f0", "f1", "f2", "f3", "f4", "f5", "f6"}
		for _, id := range ids {
			require.NoError(t, c.raw.Exec("INSERT INTO formers (id, name, phone) VALUES (?, 'n', ?)", id, phone1).Error)
		}
		rows, err := encryptsql.NewRows(t.Context(), c.sql, encryptsql.Layout{
			Table: "formers", Record: "id",
			Sealed: map[string]string{"phone": "phone_sealed", "note": "note_sealed"}, Legacy: map[string]string{"phone": "phone"},
		})
		require.NoError(t, err)
		table, err := encrypt.NewTable[Former](c.keys, "formers", nil)
		require.NoError(t, err)
		_, err = table.Collect(as("acme"), "acme", rows, nil)
		require.NoError(t, err)
		db := c.with(t, "formers", Former{})
		get := func(id string) (row Former) {
			require.NoError(t, db.First(&row, "id = ?", id).Error)
			return row
		}
		require.Equal(t, phone1, get("f0").Phone, "not sealed yet")
		var some []Former
		require.NoError(t, db.Select("ID", "Phone").Find(&some).Error)
		require.Equal(t, phone1, some[0].Phone)

		row := get("f0")
		row.Name, row.Phone = "x", ""
		require.NoError(t, db.Updates(&row).Error)
		require.Equal(t, phone1, string(c.column(t, "formers", "phone", "f0")), "untouched")
		for id, write := range map[string]func(row *Former) error{
			"f1": func(row *Former) error { return db.Model(row).Update("phone", phone2).Error },
			"f2": func(row *Former) error { return db.Model(row).Updates(Former{Phone: phone2}).Error },
			"f3": func(row *Former) error { row.Phone = phone2; return db.Updates(row).Error },
			"f4": func(row *Former) error { row.Phone = phone2; return db.Save(row).Error },
			"f5": func(row *Former) error { row.Phone = phone2; return db.Save(&[]Former{*row}).Error },
			"f6": func(row *Former) error { row.Phone = phone2; return db.Select("Phone").Updates(row).Error },
		} {
			row := get(id)
			require.NoError(t, write(&row), id)
			require.True(t, c.null(t, "formers", "phone", id), id)
			require.Equal(t, phone2, get(id).Phone, id)
		}
		require.Error(t, db.Model(&Former{ID: "f1"}).Update("phone_plain", phone1).Error)
		require.Error(t, db.Model(&Former{ID: "f1"}).Update("PhoneLegacy", phone1).Error)
		require.NoError(t, db.Create(&Former{ID: "new", PhoneLegacy: new(phone1)}).Error)
		require.True(t, c.null(t, "formers", "phone", "new"))
		report, err := table.Migrate(as("acme"), "acme", rows, nil)
		require.NoError(t, err)
		require.True(t, report.OK(), report)
		require.Equal(t, phone1, get("f0").Phone)
		ids, err = table.Find(as("acme"), "acme", "phone", "phone", phone2)
		require.NoError(t, err)
		require.Len(t, ids, 6)
	})
}
