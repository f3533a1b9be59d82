package guardgorm_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"gorm.io/gorm"
	"gorm.io/gorm/clause"
)

// gorm turns other spellings into the same columns, and databases overlook case.
func TestOtherSpellings(t *testing.T) {
	each(t, func(t *testing.T, c *crm) {
		require.NoError(t, c.raw.AutoMigrate(&Former{}))
		db := c.use(t, "formers", Former{}).WithContext(as("acme"))
		require.NoError(t, db.Create(&Former{ID: "f", Phone: phone1}).Error)
		one := &Former{ID: "f"}
		unchanged := func(what string, want string) {
			t.Helper()
			require.True(t, c.null(t, "formers", "phone", "f"), what)
			var got Former
			require.NoError(t, db.First(&got, "id = 'f'").Error, what)
			require.Equal(t, want, got.Phone, what)
		}
		for _, name := range []string{"phone_sealed", "PHONE_SEALED", "phoneSealed", "PhoneSealed", "Phone_Sealed", "PhoneLegacy", "phoneLegacy", "formers.phone_sealed", `"phone_sealed"`, `formers."PHONE_SEALED"`} {
			plaintext := map[string]any{name: phone2}
			id := []clause.Column{{Name: "id"}}
			for what, err := range map[string]error{
				"updates": db.Model(one).Updates(plaintext).Error,
				"update":  db.Model(one).Update(name, phone2).Error,
				"bytes":   db.Model(one).UpdateColumn(name, []byte(phone2)).Error,
				"SET":     db.Model(one).Clauses(clause.Set{{Column: clause.Column{Name: name}, Value: phone2}}).Updates(map[string]any{}).Error,
				"table":   db.Table("formers").Where("id = 'f'").Updates(plaintext).Error,
				"Table":   db.Table("FORMERS").Where("id = 'f'").Updates(plaintext).Error,
				"quoted":  db.Table("`formers`").Where("id = 'f'").Updates(plaintext).Error,
				"alias":   db.Table("formers AS f").Where("id = 'f'").Updates(plaintext).Error,
				"tableSET": db.Table("formers").Clauses(clause.Set{{Column: clause.Column{Name: name}, Value: phone2}}).
					Where("id = 'f'").Updates(map[string]any{}).Error,
				"other model": db.Model(&Company{}).Table("formers").Where("id = 'f'").Updates(plaintext).Error,
				"create":      db.Model(&Former{}).Create(map[string]any{"id": "m", name: phone2}).Error,
				"creates":     db.Model(&Former{}).Create([]map[string]any{{"id": "m", name: phone2}}).Error,
				"insert":      db.Table("formers").Create(map[string]any{"id": "m", name: phone2}).Error,
				"upsert": db.Clauses(clause.OnConflict{Columns: id, DoUpdates: clause.Assignments(plaintext)}).
					Create(&Former{ID: "f", Phone: phone3}).Error,
				"table upsert": db.Table("formers").Clauses(clause.OnConflict{Columns: id, DoUpdates: clause.Assignments(plaintext)}).
					Create(map[string]any{"id": "f"}).Error,
				"expression": db.Model(one).Update(name, gorm.Expr("?", phone2)).Error,
			} {
				require.ErrorContains(t, err, "guardgorm: ", "%s %s", what, name)
			}
			unchanged(name, phone1)
		}

		// Spellings of the plain field are sealed like it.
		for i, name := range []string{"PHONE", "phone", "Phone", "pHone", "formers.phone"} {
			to := []string{phone2, phone3}[i%2]
			require.NoError(t, db.Model(&Former{ID: "f"}).Updates(map[string]any{name: to}).Error, name)
			unchanged(name, to)
			require.NoError(t, db.Model(&Former{ID: "f"}).Select(name).Updates(Former{Phone: to, Name: "no"}).Error, name)
			unchanged(name, to)
			require.ErrorContains(t, db.Model(&Former{}).Create(map[string]any{"id": "m", name: to}).Error, "from structs", name)
			require.ErrorContains(t, db.Table("formers").Where("id = 'f'").Updates(map[string]any{name: to}).Error, "through the model", name)
			require.ErrorContains(t, db.Clauses(clause.OnConflict{Columns: []clause.Column{{Name: "id"}}, DoUpdates: clause.Assignments(map[string]any{name: to})}).
				Create(&Former{ID: "f"}).Error, "from the row", name)
		}
		require.Error(t, db.Model(&Former{ID: "f"}).Updates(map[string]any{"PHONE": phone1, "phone": phone2}).Error, "twice")

		type patch struct {
			PHONESealed []byte
			Label       string `gorm:"column:PHONE_SEALED"`
		}
		require.ErrorContains(t, db.Model(one).Updates(patch{PHONESealed: []byte(phone1)}).Error, "not by a")
		require.ErrorContains(t, db.Model(one).Updates(patch{Label: phone1}).Error, "not by a")
		require.ErrorContains(t, db.Model(one).Select("PHONE_SEALED").Updates(patch{}).Error, "not by a")
		type upper struct {
			ID    string
			Label string `gorm:"column:PHONE_SEALED"`
		}
		require.ErrorContains(t, db.Table("formers").Create(&upper{"m", phone1}).Error, "no kind was given")
		for _, name := range []string{"ID", "Id", "formers.id"} {
			require.ErrorContains(t, db.Model(one).Update(name, "z").Error, "bound to id", name)
		}
		require.NoError(t, db.Model(one).Updates(map[string]any{"NAME": "ordinary columns have spellings, too"}).Error)
		for _, phone := range []string{phone1, phone2, phone3} {
			require.NotContains(t, c.log.String(), phone)
		}
	})
}

// Values that would have become SQL are in no log, whatever condition they are in.
func TestConditionsOnSealedFields(t *testing.T) {
	each(t, func(t *testing.T, c *crm) {
		c.fill(t, 2)
		var rows []Contact
		var calls []Call
		var firms []Company
		refused := func(what string, err error) {
			t.Helper()
			require.ErrorContains(t, err, "guardgorm: ", what)
			require.NotContains(t, c.log.String(), phone3, what)
		}
		for _, name := range []string{"Phone", "phone", "PHONE", "pHone", "contacts.phone", "contacts.Phone", `"contacts"."phone"`, "phone_sealed", "PHONE_SEALED", "phoneSealed", "contacts.PhoneSealed"} {
			for _, column := range []any{name, clause.Column{Name: name}, clause.Column{Table: clause.CurrentTable, Name: name}, []clause.Column{{Name: "id"}, {Name: name}}, clause.Expr{SQL: "lower(" + name + ")"}} {
				for i, condition := range []clause.Expression{
					clause.Eq{Column: column, Value: phone3}, clause.Neq{Column: column, Value: phone3}, clause.Gt{Column: column, Value: phone3},
					clause.Gte{Column: column, Value: phone3}, clause.Lt{Column: column, Value: phone3}, clause.Lte{Column: column, Value: phone3},
					clause.Like{Column: column, Value: phone3}, clause.IN{Column: column, Values: []any{phone3}}, &clause.Gt{Column: column, Value: phone3},
				} {
					refused("where", c.Where(condition).Find(&rows).Error)
					if i > 3 {
						continue
					}
					refused("not", c.Not(condition).Find(&rows).Error)
					refused("or", c.Where("id = ?", "x").Or(clause.And(clause.Not(condition))).Find(&rows).Error)
					refused("having", c.Group("id").Having(condition).Find(&rows).Error)
				}
			}
			plaintext := map[string]any{name: phone3}
			refused("map", c.Where(plaintext).Find(&rows).Error)
			refused("any map", c.Where(map[any]any{name: phone3}).Find(&rows).Error)
			refused("pair", c.Where(name, phone3).Find(&rows).Error)
			refused("count", c.Model(&Contact{}).Where(plaintext).Count(new(int64)).Error)
			refused("having", c.Group("id").Having(plaintext).Find(&rows).Error)
			refused("delete", c.Where(clause.Gt{Column: name, Value: phone3}).Delete(&Contact{}).Error)
			refused("delete, table", c.Table("contacts").Where(plaintext).Delete(map[string]any{}).Error)
			refused("update", c.Model(&Contact{}).Where(clause.Lt{Column: name, Value: phone3}).Update("name", "x").Error)
			refused("update, table", c.Table("contacts").Where(plaintext).Update("name", "x").Error)
			refused("table", c.Table("contacts").Where(plaintext).Find(&[]map[string]any{}).Error)
			refused("Table", c.Table("Contacts AS people").Where(plaintext).Find(&[]map[string]any{}).Error)
			refused("join", c.Joins("Contact", c.DB.Where(plaintext)).Find(&calls).Error)
			refused("inner join", c.InnerJoins("Contact", c.DB.Where(clause.Gt{Column: name, Value: phone3})).Find(&calls).Error)
			refused("raw join", c.Joins("JOIN contacts ON contacts.id = calls.contact_id").Where(clause.Eq{Column: name, Value: phone3}).Find(&calls).Error)
			refused("raw join of another", c.Joins("JOIN contacts ON contacts.company_id = companies.id").Where(clause.Eq{Column: name, Value: phone3}).Find(&firms).Error)
			refused("upsert", c.Clauses(clause.OnConflict{
				Columns: []clause.Column{{Name: "id"}}, DoUpdates: clause.AssignmentColumns([]string{"name"}),
				Where: clause.Where{Exprs: []clause.Expression{clause.Gt{Column: name, Value: phone3}}},
			}).Create(&Contact{ID: "c00"}).Error)
		}
		refused("joined struct", c.Joins("Contact", c.DB.Where(&Contact{Phone: phone3})).Find(&calls).Error)
		refused("joined model", c.Joins("Contact").Where(map[string]any{"Contact.Phone": phone3}).Find(&calls).Error)
		refused("nested join", c.Joins("Contact.Company", c.DB.Where(&Contact{Phone: phone3})).Find(&calls).Error)
		refused("alias", c.Joins("JOIN contacts p ON p.id = calls.contact_id").Where(map[string]any{"p.PHONE": phone3}).Find(&calls).Error)
		refused("raw join's value", c.Joins("JOIN contacts p ON p.phone = ?", phone3).Find(&calls).Error)
		refused("text", c.Where("id <> ? AND phone = ?", "x", phone3).Find(&rows).Error)
		refused("text, qualified", c.Where(`contacts."phone" LIKE ?`, phone3).Find(&rows).Error)
		refused("text, named", c.Where("Phone IN @phones", map[string]any{"phones": []string{phone3}}).Find(&rows).Error)
		refused("select", c.Select("id, phone = ?", phone3).Find(&rows).Error)
		refused("order", c.Order(clause.OrderBy{Expression: gorm.Expr("phone = ?", phone3)}).Find(&rows).Error)
		refused("nested text", c.Where("id = ? AND ?", "x", gorm.Expr("phone = ?", phone3)).Find(&rows).Error)
		refused("unknown", c.Where(opaque{phone3}).Find(&rows).Error)
		refused("unknown column", c.Where(clause.Eq{Column: 7, Value: phone3}).Find(&rows).Error)
		for _, column := range []any{nil, "", (*string)(nil), clause.Column{}, struct{ Name string }{"phone"}} {
			refused("no column", c.Where(clause.Eq{Column: column, Value: phone3}).Find(&rows).Error)
		}
		refused("nil", c.Where((*opaque)(nil), clause.Gt{Column: "phone", Value: phone3}).Find(&rows).Error)
		refused("qualified update", c.Model(&Contact{ID: "c00"}).Updates(map[string]any{"contacts.phone_sealed": phone3}).Error)
		require.Len(t, c.found(t, phone1), 2)

		for what, query := range map[string]*gorm.DB{
			"NULL":            c.Where(map[string]any{"phone_sealed": nil}).Find(&rows),
			"bytes":           c.Where(&Contact{PhoneSealed: c.column(t, "contacts", "phone_sealed", "c00")}).Find(&rows),
			"text of NULL":    c.Where("phone_sealed IS NOT NULL AND id = ?", "c00").Find(&rows),
			"another's":       c.Joins("JOIN companies ON companies.id = contacts.company_id").Where("companies.name = ?", "phone").Find(&rows),
			"another's name":  c.Joins("JOIN (SELECT 'x' AS phone) AS firms ON 1 = 1").Select("contacts.id", "firms.phone").Where("firms.phone = ?", "x").Find(&rows),
			"own name":        c.Select("contacts.id", "contacts.Phone").Find(&rows),
			"value":           c.Where(map[string]any{"name": "phone"}).Find(&rows),
			"JSON":            c.Where(jsonQuery{column: "name"}).Find(&rows),
			"other's columns": c.Joins("Contact").Where(map[string]any{"Contact.name": "x"}).Find(&calls),
			"parameter":       c.Where("name = @phone", map[string]any{"phone": "x"}).Find(&rows),
			"no such table":   c.Where(map[string]any{"Phone": 1}).Session(&gorm.Session{DryRun: true}).Find(&[]Numbers{}),
		} {
			require.NoError(t, query.Error, what)
		}
		refused("JSON", c.Where(jsonQuery{column: "Phone"}).Find(&rows).Error)
	})
}

// Numbers has a phone that nobody sealed.
type Numbers struct{ ID, Phone string }

// opaque is a condition that does not show what it is about.
type opaque struct{ value string }

func (o opaque) Build(b clause.Builder) {
	b.WriteQuoted("phone")
	_ = b.WriteByte('=')
	b.AddVar(b, o.value)
}

// jsonQuery is like those of gorm.io/datatypes.
type jsonQuery struct{ column string }

func (q jsonQuery) Build(b clause.Builder) {
	b.WriteQuoted(q.column)
	_, _ = b.WriteString(" = 'x'")
}

// gorm drops the errors of subqueries. Around a refused one nothing may be left that a
// database takes: of NOT IN () SQLite deletes every row.
func TestRefusedSubqueries(t *testing.T) {
	type unknown struct {
		ID          string `encrypt:",record"`
		Phone       string `gorm:"-" encrypt:"phone"`
		PhoneSealed []byte `encrypt:"phone,sealed"`
	}
	each(t, func(t *testing.T, c *crm) {
		for _, id := range []string{"c1", "c2", "c3"} {
			require.NoError(t, c.Create(&Company{ID: id}).Error)
		}
		for what, sub := range map[string]func() *gorm.DB{
			"condition": func() *gorm.DB {
				return c.Model(&Contact{}).Select("company_id").Where(map[string]any{"Phone": phone1})
			},
			"joined": func() *gorm.DB {
				return c.Model(&Call{}).Select("contact_id").Joins("Contact", c.DB.Where(&Contact{Phone: phone1}))
			},
			"having": func() *gorm.DB {
				return c.Model(&Contact{}).Select("id").Group("id").Having(clause.Gt{Column: "Phone", Value: phone1})
			},
			"no model":     func() *gorm.DB { return c.Table("contacts").Select("id").Where(map[string]any{"PHONE": phone1}) },
			"no kind":      func() *gorm.DB { return c.Model(&unknown{}).Select("id") },
			"plain column": func() *gorm.DB { return c.Model(&Contact{}).Clauses(clause.Select{Columns: []clause.Column{{}}}) },
			"unknown":      func() *gorm.DB { return c.Model(&Contact{}).Select("id").Where(opaque{phone1}) },
			"failed before": func() *gorm.DB {
				failed := c.Model(&Contact{}).Select("id")
				_ = failed.AddError(gorm.ErrInvalidData)
				return failed
			},
			"inside another": func() *gorm.DB {
				return c.Model(&Company{}).Select("id").Where("id IN (?)", c.Model(&Contact{}).Select("company_id").Where(&Contact{Phone: phone1}))
			},
		} {
			for _, where := range []string{"id NOT IN (?)", "id NOT IN ?", "NOT EXISTS (?)", "id <> ALL (?)", "id IN (?) OR 1 = 1", "1 = 1 OR id = (?)"} {
				require.Error(t, c.Where(where, sub()).Delete(&Company{}).Error, "%s: %s", what, where)
				require.Error(t, c.Model(&Company{}).Where(where, sub()).Update("name", "x").Error, "%s: %s", what, where)
				require.Error(t, c.Exec("DELETE FROM companies WHERE "+where, sub()).Error, "%s: %s", what, where)
				require.Error(t, c.Where(where, sub()).Find(&[]Company{}).Error, "%s: %s", what, where)
			}
			require.Error(t, c.Not(map[string]any{"id": sub()}).Delete(&Company{}).Error, what)
			require.Error(t, c.Table("(?) AS x", sub()).Find(&[]map[string]any{}).Error, what)
			require.Error(t, c.Model(&Company{ID: "c1"}).Update("name", sub()).Error, what)
		}
		var firms []Company
		require.NoError(t, c.Find(&firms).Error)
		require.Len(t, firms, 3)
		for _, firm := range firms {
			require.Empty(t, firm.Name)
		}
		require.NotContains(t, c.log.String(), phone1)
		require.NoError(t, c.Where("id NOT IN (?)", c.Model(&Contact{}).Select("company_id").Where("company_id IS NOT NULL")).Delete(&Company{}).Error)
		require.True(t, strings.Contains(c.log.String(), "SELECT SELECT"))
	})
}
