package guardgorm_test

import (
	"crypto/rand"
	"database/sql"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"gorm.io/gorm"
	"gorm.io/gorm/clause"

	"github.com/crmguard/crmguard/contrib/guardgorm"
	"github.com/crmguard/crmguard/encrypt"
)

func TestUpdateOne(t *testing.T) {
	each(t, func(t *testing.T, c *crm) {
		require.NoError(t, c.Create(anna()).Error)
		require.NoError(t, c.Create(&Contact{ID: "b", Phone: phone1}).Error)
		for i, update := range []func(row *Contact, to string) error{
			func(row *Contact, to string) error { return c.Model(row).Update("Phone", to).Error },
			func(row *Contact, to string) error { return c.Model(row).Update("phone", to).Error },
			func(row *Contact, to string) error { return c.Model(row).UpdateColumn("Phone", to).Error },
			func(row *Contact, to string) error {
				return c.Model(row).UpdateColumns(map[string]any{"phone": to}).Error
			},
			func(row *Contact, to string) error {
				return c.Model(row).Updates(map[string]any{"Phone": &to, "name": "Anna"}).Error
			},
			func(row *Contact, to string) error { return c.Model(row).Updates(Contact{Phone: to}).Error },
			func(row *Contact, to string) error {
				return c.Model(row).Select("Phone").Updates(&Contact{Phone: to, Name: "no"}).Error
			},
			func(row *Contact, to string) error { row.Phone = to; return c.Updates(row).Error },
			func(row *Contact, to string) error { row.Phone = to; return c.Select("phone").Save(row).Error },
			func(row *Contact, to string) error { row.Phone = to; return c.Select("phone").Updates(*row).Error },
			func(row *Contact, to string) error {
				return c.Model(row).Where("name <> ?", "no").Or("1 = 1").Update("Phone", to).Error // the id binds all of it
			},
		} {
			to := []string{phone2, phone3}[i%2]
			row := &Contact{ID: "anna"}
			require.NoError(t, update(row, to), i)
			require.Equal(t, to, row.Phone, "%d: the model shows what was written", i)
			got := c.get(t, "anna")
			require.Equal(t, to, got.Phone, i)
			require.Equal(t, mail1, *got.Email, "%d: other fields stay", i)
			require.Equal(t, []string{"anna"}, c.found(t, to), i)
			require.Equal(t, []string{"b"}, c.found(t, phone1), i)
			require.Equal(t, []string{"anna"}, c.mailed(t, mail1), "%d: and so do their entries", i)
			require.NotEqual(t, "no", got.Name)
		}
		require.Equal(t, phone1, c.get(t, "b").Phone)

		require.NoError(t, c.Model(&Contact{ID: "anna"}).Updates(map[string]any{
			"email": nil, "Income": sql.Null[int64]{}, "Profile": &Profile{Likes: []string{"milk"}}, "phone": "",
		}).Error)
		got := c.get(t, "anna")
		require.Nil(t, got.Email)
		require.Equal(t, &Profile{Likes: []string{"milk"}}, got.Profile)
		require.True(t, c.null(t, "contacts", "mail", "anna"), "NULL")
		require.True(t, c.null(t, "contacts", "income_sealed", "anna"))
		require.False(t, c.null(t, "contacts", "phone_sealed", "anna"))
		require.Empty(t, c.mailed(t, mail1))

		require.NoError(t, c.Model(&Contact{ID: "anna"}).Update("Email", mail2).Error, "a string for a *string")
		require.Equal(t, mail2, *c.get(t, "anna").Email)
		require.NoError(t, c.Model(&Contact{ID: "anna"}).Omit("Phone").Updates(map[string]any{"phone": phone1, "name": "B"}).Error)
		require.Empty(t, c.get(t, "anna").Phone)

		missing := c.Model(&Contact{ID: "nobody"}).Update("phone", phone3)
		require.NoError(t, missing.Error)
		require.Zero(t, missing.RowsAffected)
		require.Empty(t, c.found(t, phone3), "no row, no entry")
		require.NotContains(t, c.log.String(), "9161234")
	})
}

// Only what is not empty is updated by a struct, as with other columns, and what was read
// of another row is not written.
func TestUpdatesWithStruct(t *testing.T) {
	each(t, func(t *testing.T, c *crm) {
		require.NoError(t, c.Create(anna()).Error)
		require.NoError(t, c.Create(&Contact{ID: "b", Phone: phone2}).Error)
		other := c.get(t, "b")
		before := c.column(t, "contacts", "phone_sealed", "anna")

		require.NoError(t, c.Model(&Contact{ID: "anna"}).Updates(Contact{Name: "x", PhoneSealed: other.PhoneSealed}).Error)
		require.Equal(t, before, c.column(t, "contacts", "phone_sealed", "anna"))
		require.Equal(t, "x", c.get(t, "anna").Name)

		row := c.get(t, "anna")
		sealed := row.PhoneSealed
		row.Phone, row.Name = "", "y" // empty: not updated
		require.NoError(t, c.Updates(&row).Error)
		require.Equal(t, sealed, row.PhoneSealed, "the struct is as it was")
		require.Equal(t, phone1, c.get(t, "anna").Phone)
		require.Equal(t, "y", c.get(t, "anna").Name)
		require.Equal(t, []string{"anna"}, c.found(t, phone1))

		require.ErrorContains(t, c.Model(&Contact{ID: "anna"}).Updates(Contact{ID: "b", Phone: phone3}).Error, "bound to id")
		type patch struct{ Phone, Name string }
		require.ErrorContains(t, c.Model(&Contact{ID: "anna"}).Updates(patch{Phone: phone3}).Error, "not by a")
		require.NoError(t, c.Model(&Contact{ID: "anna"}).Updates(patch{Name: "z"}).Error)
		require.Equal(t, "z", c.get(t, "anna").Name)
		requireUnchanged(t, c)
	})
}

func requireUnchanged(t *testing.T, c *crm) {
	t.Helper()
	require.Equal(t, phone1, c.get(t, "anna").Phone)
	require.Equal(t, phone2, c.get(t, "b").Phone)
}

func TestUpdatesThatAreRefused(t *testing.T) {
	each(t, func(t *testing.T, c *crm) {
		require.NoError(t, c.Create(anna()).Error)
		require.NoError(t, c.Create(&Contact{ID: "b", Phone: phone2}).Error)
		require.NoError(t, c.Create(&Call{ID: "1", ContactID: "anna", Note: "n"}).Error)
		one := &Contact{ID: "anna"}
		type copied struct {
			ID          string
			PhoneSealed []byte
		}
		for name, err := range map[string]error{
			"no record":         c.Model(&Contact{}).Where("id = ?", "anna").Update("phone", phone3).Error,
			"no record, struct": c.Model(&Contact{}).Where("id = ?", "anna").Updates(Contact{Phone: phone3}).Error,
			"all":               c.Session(&gorm.Session{AllowGlobalUpdate: true}).Model(&Contact{}).Update("phone", phone3).Error,
			"many":              c.Model(&[]Contact{{ID: "anna"}, {ID: "b"}}).Update("phone", phone3).Error,
			"sealed column":     c.Model(one).Update("phone_sealed", []byte(phone3)).Error,
			"sealed field":      c.Model(one).Update("PhoneSealed", []byte(phone3)).Error,
			"expression":        c.Model(one).Update("phone", gorm.Expr("'x'")).Error,
			"query":             c.Model(one).Update("phone", c.Model(&Contact{}).Select("name")).Error,
			"another type":      c.Model(one).Update("income", "secret words").Error,
			"twice":             c.Model(one).Updates(map[string]any{"Phone": phone3, "phone": phone3}).Error,
			"the id":            c.Model(one).Update("id", "z").Error,
			"the client":        c.Model(&Call{ID: "1", ContactID: "anna"}).Update("contact_id", "b").Error,
			"SET":               c.Model(one).Clauses(clause.Set{{Column: clause.Column{Name: "phone_sealed"}, Value: phone3}}).Updates(map[string]any{}).Error,
			"condition":         c.Model(one).Where(Contact{Phone: phone1}).Update("name", "x").Error,
			"condition in map":  c.Model(one).Where(map[string]any{"phone": phone1}).Update("name", "x").Error,
			"no model":          c.Table("contacts").Where("id = 'anna'").Updates(map[string]any{"phone_sealed": phone3}).Error,
			"insert, no model":  c.Table("contacts").Create(map[string]any{"id": "x", "phone_sealed": phone3}).Error,
			"insert, map":       c.Model(&Contact{}).Create(map[string]any{"id": "x", "phone": phone3}).Error,
			"unknown struct":    c.Table("contacts").Create(&copied{"x", []byte(phone3)}).Error,
			"by value":          c.Create(Contact{ID: "x", Phone: phone3}).Error,
		} {
			require.Error(t, err, name)
			require.NotContains(t, err.Error(), "secret words", name)
		}
		requireUnchanged(t, c)
		require.Equal(t, []string{"b"}, c.found(t, phone2))
		require.Empty(t, c.found(t, phone3))

		require.NoError(t, c.Model(&Contact{}).Where("id = ?", "anna").Update("name", "by condition").Error, "other columns")
		require.NoError(t, c.Model(&[]Contact{{ID: "anna"}, {ID: "b"}}).Update("name", "two").Error)
		require.Equal(t, "two", c.get(t, "b").Name)
		require.NotContains(t, c.log.String(), phone3)
	})
}

// The client of a record is bound to its sealed values.
func TestClients(t *testing.T) {
	each(t, func(t *testing.T, c *crm) {
		require.NoError(t, c.Create(anna()).Error)
		require.NoError(t, c.Create(&Contact{ID: "b"}).Error)
		require.NoError(t, c.Create(&Call{ID: "1", ContactID: "anna", Note: "n", Tag: "t"}).Error)
		call := func() (found Call) {
			require.NoError(t, c.First(&found, "id = ?", "1").Error)
			return found
		}
		require.Error(t, c.Model(&Call{ID: "1"}).Update("note", "x").Error, "no client")
		wrong := c.Model(&Call{ID: "1", ContactID: "b"}).Update("note", "x")
		require.NoError(t, wrong.Error)
		require.Zero(t, wrong.RowsAffected, "it is another client's")
		require.NoError(t, c.Model(&Call{ID: "1", ContactID: "anna"}).Update("note", "m").Error)
		require.NoError(t, c.Model(&Call{ID: "1", ContactID: "anna"}).Updates(map[string]any{"contact_id": "anna", "minutes": 2}).Error)
		require.Equal(t, "m", call().Note)

		moved := call()
		moved.ContactID = "b"
		partly := c.Updates(&Call{ID: "1", ContactID: "b", Note: "x"})
		require.NoError(t, partly.Error)
		require.Zero(t, partly.RowsAffected, "Tag would stay anna's")
		onlyClient := c.Select("ContactID").Updates(&moved)
		require.NoError(t, onlyClient.Error)
		require.Zero(t, onlyClient.RowsAffected)
		require.Equal(t, "anna", call().ContactID)
		require.NoError(t, c.Save(&moved).Error)
		require.Equal(t, "b", call().ContactID)
		require.Equal(t, []string{"m", "t"}, []string{call().Note, call().Tag})
	})
}

func TestUpsert(t *testing.T) {
	each(t, func(t *testing.T, c *crm) {
		require.NoError(t, c.Create(anna()).Error)
		require.NoError(t, c.Create(&Contact{ID: "b", Phone: phone2}).Error)
		id := []clause.Column{{Name: "id"}}

		rows := []Contact{{ID: "anna", Phone: phone3, Name: "new"}, {ID: "c", Phone: phone3}}
		require.NoError(t, c.Clauses(clause.OnConflict{DoNothing: true}).Create(&rows).Error)
		require.Equal(t, phone1, c.get(t, "anna").Phone)
		require.Equal(t, []string{"anna"}, c.found(t, phone1), "what was not stored is not found")
		require.Equal(t, []string{"c"}, c.found(t, phone3))
		require.Equal(t, []string{"anna"}, c.mailed(t, mail1))

		rows = []Contact{{ID: "anna", Phone: phone3, Name: "new"}, {ID: "d", Phone: phone3}}
		require.NoError(t, c.Clauses(clause.OnConflict{Columns: id, DoUpdates: clause.AssignmentColumns([]string{"name"})}).Create(&rows).Error)
		require.Equal(t, phone1, c.get(t, "anna").Phone)
		require.Equal(t, "new", c.get(t, "anna").Name)
		require.Equal(t, []string{"c", "d"}, c.found(t, phone3))

		for _, name := range []string{"phone", "Phone", "phone_sealed"} {
			rows = []Contact{{ID: "anna", Phone: phone3, Name: "newer"}}
			require.NoError(t, c.Clauses(clause.OnConflict{Columns: id, DoUpdates: clause.AssignmentColumns([]string{name})}).Create(&rows).Error)
			require.Equal(t, phone3, c.get(t, "anna").Phone)
			require.Equal(t, mail1, *c.get(t, "anna").Email)
			require.Equal(t, []string{"anna", "c", "d"}, c.found(t, phone3))
			require.Equal(t, []string{"anna"}, c.mailed(t, mail1))
		}
		require.NoError(t, c.Clauses(clause.OnConflict{UpdateAll: true}).Create(&Contact{ID: "anna", Phone: phone1}).Error)
		require.Equal(t, phone1, c.get(t, "anna").Phone)
		require.Nil(t, c.get(t, "anna").Email)
		require.Empty(t, c.mailed(t, mail1))

		for name, conflict := range map[string]clause.OnConflict{
			"plaintext":      {Columns: id, DoUpdates: clause.Assignments(map[string]any{"phone_sealed": phone3})},
			"plain field":    {Columns: id, DoUpdates: clause.Assignments(map[string]any{"phone": phone3})},
			"another column": {Columns: []clause.Column{{Name: "mail"}}, DoUpdates: clause.AssignmentColumns([]string{"phone_sealed"})},
			"a constraint":   {OnConstraint: "contacts_pkey", UpdateAll: true},
			"the id":         {Columns: []clause.Column{{Name: "mail"}}, DoUpdates: clause.AssignmentColumns([]string{"id"})},
		} {
			err := c.Clauses(conflict).Create(&Contact{ID: "anna", Phone: phone3}).Error
			require.ErrorContains(t, err, "guardgorm", name)
		}
		require.Equal(t, phone1, c.get(t, "anna").Phone)

		// Records do not change their client unless all of them is sealed anew.
		require.NoError(t, c.Create(&Call{ID: "1", ContactID: "anna", Note: "n", Tag: "t"}).Error)
		err := c.Clauses(clause.OnConflict{Columns: id, DoUpdates: clause.AssignmentColumns([]string{"note"})}).Create(&Call{ID: "1", ContactID: "b", Note: "m"}).Error
		require.ErrorContains(t, err, "another client's")
		err = c.Clauses(clause.OnConflict{Columns: id, DoUpdates: clause.AssignmentColumns([]string{"contact_id"})}).Create(&Call{ID: "1", ContactID: "b", Note: "m"}).Error
		require.ErrorContains(t, err, "another client's")
		var call Call
		require.NoError(t, c.First(&call).Error)
		require.Equal(t, []string{"anna", "n", "t"}, []string{call.ContactID, call.Note, call.Tag})
		require.NoError(t, c.Clauses(clause.OnConflict{UpdateAll: true}).Create(&Call{ID: "1", ContactID: "b", Note: "m"}).Error)
		require.NoError(t, c.First(&call).Error)
		require.Equal(t, []string{"b", "m", ""}, []string{call.ContactID, call.Note, call.Tag})
	})
}

func TestFirstOrCreate(t *testing.T) {
	each(t, func(t *testing.T, c *crm) {
		var row Contact
		require.NoError(t, c.Where(Contact{ID: "anna"}).Attrs(Contact{Phone: phone1}).Assign(Contact{Email: new(mail1)}).FirstOrCreate(&row).Error)
		require.Equal(t, phone1, c.get(t, "anna").Phone)
		require.Equal(t, mail1, *c.get(t, "anna").Email)

		var again Contact
		require.NoError(t, c.Where(Contact{ID: "anna"}).Attrs(Contact{Phone: phone2}).Assign(Contact{Email: new(mail2)}).FirstOrCreate(&again).Error)
		require.Equal(t, phone1, again.Phone)
		require.Equal(t, phone1, c.get(t, "anna").Phone)
		require.Equal(t, mail2, *c.get(t, "anna").Email)
		require.Equal(t, []string{"anna"}, c.mailed(t, mail2))
		require.Equal(t, []string{"anna"}, c.found(t, phone1))

		require.ErrorContains(t, c.FirstOrCreate(&Contact{}, Contact{Phone: phone2}).Error, "a condition on sealed field")
		require.NotContains(t, c.log.String(), phone2)
	})
}

// Qualified has its table in a named schema.
type Qualified struct {
	ID          string `encrypt:",record"`
	Client      string `encrypt:",client"`
	Phone       string `gorm:"-" encrypt:"phone,index=phone"`
	PhoneSealed []byte `encrypt:"phone,sealed"`
}

var apart = "apart_" + strings.ToLower(rand.Text()) // a server may run several tests

func (Qualified) TableName() string { return apart + ".people" }

func TestTableInSchema(t *testing.T) {
	each(t, func(t *testing.T, c *crm) {
		if c.Name() == "sqlite" {
			c.sql.SetMaxOpenConns(1)
			require.NoError(t, c.raw.Exec("ATTACH ':memory:' AS "+apart).Error)
		} else {
			require.NoError(t, c.raw.Exec("CREATE SCHEMA "+apart).Error)
			t.Cleanup(func() { require.NoError(t, c.raw.Exec("DROP SCHEMA "+apart+" CASCADE").Error) })
		}
		require.NoError(t, c.raw.Exec("CREATE TABLE "+apart+".people (id TEXT PRIMARY KEY, client TEXT, phone_sealed "+map[string]string{"sqlite": "BLOB", "postgres": "BYTEA"}[c.Name()]+")").Error)
		plugin, err := guardgorm.New(c.keys, guardgorm.Kinds{"people": {Qualified{}}}, nil)
		require.NoError(t, err)
		require.NoError(t, c.raw.Use(plugin))
		db := c.raw.WithContext(as("acme"))
		table, err := encrypt.NewTable[Qualified](c.keys, "people", nil)
		require.NoError(t, err)
		found := func(phone string) []string {
			ids, err := table.Find(as("acme"), "acme", "phone", "phone", phone)
			require.NoError(t, err)
			return ids
		}
		require.NoError(t, db.Create(&Qualified{"1", "c", phone1, nil}).Error)
		require.NoError(t, db.Clauses(clause.OnConflict{DoNothing: true}).Create(&Qualified{"1", "c", phone2, nil}).Error)
		require.Empty(t, found(phone2))
		guarded := clause.OnConflict{Columns: []clause.Column{{Name: "id"}}, DoUpdates: clause.AssignmentColumns([]string{"phone"})}
		require.NoError(t, db.Clauses(guarded).Create(&Qualified{"1", "c", phone2, nil}).Error)
		require.Equal(t, []string{"1"}, found(phone2))
		require.ErrorContains(t, db.Clauses(guarded).Create(&Qualified{"1", "d", phone2, nil}).Error, "another client's")
		require.NoError(t, db.Model(&Qualified{ID: "1", Client: "c"}).Update("phone", phone3).Error)
		var row Qualified
		require.NoError(t, db.First(&row).Error)
		require.Equal(t, phone3, row.Phone)
		require.Error(t, db.Table(apart+".people").Where("id = '1'").Updates(map[string]any{"phone_sealed": phone1}).Error)
		require.NoError(t, db.Where("client = ?", "c").Delete(&Qualified{}).Error)
		require.Empty(t, found(phone3))
	})
}

// indexed is a model with an index that it loses in a later version of the program.
type indexed struct {
	ID         string `encrypt:",record"`
	Phone      string `gorm:"-" encrypt:"phone,index=phone"`
	PhoneSeal  []byte `encrypt:"phone,sealed"`
	Secret     string `gorm:"-" encrypt:"secret,index=exact"`
	SecretSeal []byte `encrypt:"secret,sealed"`
}

type indexedLater struct {
	ID         string `encrypt:",record"`
	Phone      string `gorm:"-" encrypt:"phone,index=phone"`
	PhoneSeal  []byte `encrypt:"phone,sealed"`
	Secret     string `gorm:"-" encrypt:"secret"`
	SecretSeal []byte `encrypt:"secret,sealed"`
}

func (indexed) TableName() string      { return "indexed" }
func (indexedLater) TableName() string { return "indexed" }

func TestSaveDropsEntriesOfAnIndexThatIsGone(t *testing.T) {
	each(t, func(t *testing.T, c *crm) {
		require.NoError(t, c.raw.AutoMigrate(&indexed{}))
		require.NoError(t, c.use(t, "indexed", indexed{}).WithContext(as("acme")).Create(&indexed{ID: "1", Phone: phone1, Secret: "s"}).Error)
		fields := func() (fields []string) {
			require.NoError(t, c.raw.Raw("SELECT field FROM crmguard_index WHERE kind = 'indexed' ORDER BY field").Scan(&fields).Error)
			return fields
		}
		require.Equal(t, []string{"phone", "secret"}, fields())
		later := c.use(t, "indexed", indexedLater{}).WithContext(as("acme"))
		require.NoError(t, later.Model(&indexedLater{ID: "1"}).Update("Phone", phone2).Error)
		require.Equal(t, []string{"phone", "secret"}, fields(), "an update of some fields leaves the others' alone")
		require.NoError(t, later.Save(&indexedLater{ID: "1", Phone: phone2, Secret: "s"}).Error)
		require.Equal(t, []string{"phone"}, fields())
	})
}
