package guardgorm_test

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"gorm.io/gorm"
	"gorm.io/gorm/clause"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/contrib/guardgorm"
	"github.com/crmguard/crmguard/rbac"
)

// Deal is a row with an owner and a department, which may be NULL.
type Deal struct {
	ID      string `gorm:"primaryKey"`
	Tenant  string
	Owner   *string
	Unit    *string
	Title   string
	Version int
	Goods   []Good
	Deleted gorm.DeletedAt
}

// Good is part of a deal, and has whose it is in columns of its own.
type Good struct {
	ID     string `gorm:"primaryKey"`
	DealID string
	Tenant string
	Owner  string
}

const dealPolicy = `
p, role:seller, acme, deals, list, own, allow
p, role:seller, acme, deals, list, shared, allow
p, role:head, acme, deals, list, tree, allow
p, role:head, acme, deals, list, shared, deny
p, role:auditor, acme, deals, list, all, allow
p, role:auditor, acme, deals, list, own, deny
g, u:Оля, role:seller, acme
g, u:o'neil, role:head, acme
g, u:auditor, role:auditor, acme
`

var dealColumns = rbac.Columns{
	Tenant: "deals.tenant", Owner: "deals.owner", Unit: "deals.unit", ID: "deals.id",
	Shares: &rbac.Shares{Table: "deal_shares", Tenant: "tenant", Record: "deal", Person: "person"},
}

// dealing is a database of deals beside the rights on them.
type dealing struct {
	*gorm.DB
	rights *rbac.Engine
	shared map[string]bool // deal and person
}

func newDealing(t *testing.T, db *gorm.DB) *dealing {
	t.Helper()
	d := &dealing{DB: db, shared: map[string]bool{}}
	path := filepath.Join(t.TempDir(), "policy.csv")
	require.NoError(t, os.WriteFile(path, []byte(dealPolicy), 0o600))
	org := &rbac.StaticOrg{}
	org.Set("acme", rbac.Units{Parent: map[string]string{"Юг-1": "Юг"}, Members: map[string][]string{"o'neil": {"Юг"}, "Оля": {"Юг-1"}}})
	var err error
	d.rights, err = rbac.FromCSV(t.Context(), path, &rbac.Options{Org: org, Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	require.NoError(t, db.AutoMigrate(&Deal{}, &Good{}))
	require.NoError(t, db.Exec("CREATE TABLE deal_shares (tenant TEXT, deal TEXT, person TEXT)").Error)
	n := 0
	for _, tenant := range []string{"acme", "other"} {
		for _, owner := range []*string{nil, new(""), new("Оля"), new("o'neil"), new("auditor"), new("$1")} {
			for _, unit := range []*string{nil, new(""), new("Юг"), new("Юг-1"), new("north")} {
				for _, person := range []string{"", "Оля", "o'neil"} {
					id := fmt.Sprintf("№%03d", n)
					deal := Deal{ID: id, Tenant: tenant, Owner: owner, Unit: unit, Title: fmt.Sprintf("title %d", n%3), Version: 1}
					deal.Goods = []Good{{ID: id + "a", Tenant: tenant, Owner: "Оля"}, {ID: id + "b", Tenant: tenant, Owner: "auditor"}}
					require.NoError(t, db.Create(&deal).Error)
					if person != "" {
						require.NoError(t, db.Exec("INSERT INTO deal_shares VALUES (?, ?, ?)", tenant, id, person).Error)
						d.shared[id+" "+person] = true
					}
					n++
				}
			}
		}
	}
	return d
}

func dealer(id string) crmguard.Subject {
	return crmguard.Subject{Tenant: "acme", ID: id, Kind: crmguard.KindEmployee}
}

var dealers = []string{"Оля", "o'neil", "auditor", "$1", "nobody"}

func (d *dealing) filter(t *testing.T, person string) rbac.Filter {
	t.Helper()
	f, err := d.rights.Filter(t.Context(), dealer(person), crmguard.List, "deals")
	require.NoError(t, err)
	return f
}

// allowed are the ids of deals for which Check says yes.
func (d *dealing) allowed(t *testing.T, person string) []string {
	t.Helper()
	var deals []Deal
	require.NoError(t, d.Order("id").Find(&deals).Error)
	ids := []string{}
	for _, deal := range deals {
		r := crmguard.Resource{Tenant: deal.Tenant, Kind: "deals", ID: deal.ID, Shared: d.shared[deal.ID+" "+person]}
		if deal.Owner != nil {
			r.Owner = *deal.Owner
		}
		if deal.Unit != nil {
			r.Unit = *deal.Unit
		}
		if d.rights.Check(t.Context(), dealer(person), crmguard.List, r) == nil {
			ids = append(ids, deal.ID)
		}
	}
	return ids
}

func idsOf(deals []Deal) []string {
	ids := make([]string, len(deals))
	for i, deal := range deals {
		ids[i] = deal.ID
	}
	return ids
}

// In each way in which gorm reads, the rows are those that Check allows.
func TestAllowedReadsWhatCheckAllows(t *testing.T) {
	each(t, func(t *testing.T, c *crm) {
		d := newDealing(t, c.raw)
		some := 0
		for _, person := range dealers {
			want := d.allowed(t, person)
			some += len(want)
			scope := guardgorm.Allowed(d.filter(t, person), dealColumns)
			one := func(ids []string) []string { return ids[:min(1, len(ids))] }
			for name, read := range map[string]func(db *gorm.DB) (found []string, err error){
				"Pluck": func(db *gorm.DB) (ids []string, err error) {
					return ids, db.Model(&Deal{}).Scopes(scope).Order("id").Pluck("id", &ids).Error
				},
				"pages": func(db *gorm.DB) (ids []string, err error) {
					for {
						var page []Deal
						if err := db.Scopes(scope).Order("id").Offset(len(ids)).Limit(7).Find(&page).Error; err != nil || len(page) == 0 {
							return ids, err
						}
						ids = append(ids, idsOf(page)...)
					}
				},
				"cursor": func(db *gorm.DB) (ids []string, err error) {
					for last := ""; ; last = ids[len(ids)-1] {
						var page []Deal
						if err := db.Where("deals.id > ?", last).Scopes(scope).Order("id").Limit(7).Find(&page).Error; err != nil || len(page) == 0 {
							return ids, err
						}
						ids = append(ids, idsOf(page)...)
					}
				},
				"batches": func(db *gorm.DB) (ids []string, err error) {
					var page []Deal
					return ids, db.Scopes(scope).FindInBatches(&page, 7, func(*gorm.DB, int) error {
						ids = append(ids, idsOf(page)...)
						return nil
					}).Error
				},
				"Rows": func(db *gorm.DB) (ids []string, err error) {
					rows, err := db.Model(&Deal{}).Scopes(scope).Select("id").Order("id").Rows()
					if err != nil {
						return nil, err
					}
					defer rows.Close() //nolint:errcheck // Err tells
					for rows.Next() {
						var id string
						if err := rows.Scan(&id); err != nil {
							return nil, err
						}
						ids = append(ids, id)
					}
					return ids, rows.Err()
				},
				"join": func(db *gorm.DB) (ids []string, err error) {
					return ids, db.Model(&Deal{}).Joins("JOIN goods ON goods.deal_id = deals.id AND goods.owner = ?", "Оля").Scopes(scope).
						Where("deals.title <> ?", "$1").Order("deals.id").Pluck("deals.id", &ids).Error
				},
				"alias": func(db *gorm.DB) (ids []string, err error) {
					columns := rbac.Columns{Tenant: "d.tenant", Owner: "d.owner", Unit: "d.unit", ID: "d.id", Shares: dealColumns.Shares}
					return ids, db.Table("deals AS d").Scopes(guardgorm.Allowed(d.filter(t, person), columns)).Order("d.id").Pluck("d.id", &ids).Error
				},
				"subquery": func(db *gorm.DB) (ids []string, err error) {
					return ids, db.Table("deals AS x").Where("x.title <> ? AND x.id IN (?)", "no", db.Model(&Deal{}).Scopes(scope).Select("id")).
						Where("x.title <> ?", "none").Order("x.id").Pluck("x.id", &ids).Error
				},
				"two filters": func(db *gorm.DB) (ids []string, err error) {
					return ids, db.Model(&Deal{}).Scopes(scope, scope).Order("id").Pluck("id", &ids).Error
				},
				"at once": func(db *gorm.DB) (ids []string, err error) {
					return ids, scope(db.Model(&Deal{})).Order("id").Pluck("id", &ids).Error
				},
			} {
				found, err := read(d.DB)
				require.NoError(t, err, name)
				require.Equal(t, want, append([]string{}, found...), "%s as %s", name, person)
			}
			var n int64
			require.NoError(t, d.Model(&Deal{}).Scopes(scope).Count(&n).Error)
			require.EqualValues(t, len(want), n)
			var first []Deal
			require.NoError(t, d.Scopes(scope).Order("id").Limit(1).Find(&first).Error)
			require.Equal(t, one(want), idsOf(first))

			var parents []Deal
			goods := guardgorm.Allowed(d.filter(t, person), rbac.Columns{Tenant: "goods.tenant", Owner: "goods.owner"})
			require.NoError(t, d.Scopes(scope).Preload("Goods", goods).Find(&parents).Error)
			for _, deal := range parents {
				var of []string
				for _, good := range deal.Goods {
					of = append(of, good.Owner)
				}
				require.Equal(t, map[string][]string{"Оля": {"Оля"}, "auditor": {"Оля"}}[person], of, "goods as %s", person)
			}
		}
		require.Greater(t, some, 80)
	})
}

// ways are those in which other conditions could widen what a filter allows.
var ways = map[string]func(db *gorm.DB, scope func(*gorm.DB) *gorm.DB) *gorm.DB{
	"Or before": func(db *gorm.DB, scope func(*gorm.DB) *gorm.DB) *gorm.DB {
		return db.Where("title = ?", "title 1").Or("title = ?", "title 2").Scopes(scope)
	},
	"Or after": func(db *gorm.DB, scope func(*gorm.DB) *gorm.DB) *gorm.DB {
		return db.Scopes(scope).Where("title = ?", "title 1").Or("title = ?", "title 2")
	},
	"Or in a later scope": func(db *gorm.DB, scope func(*gorm.DB) *gorm.DB) *gorm.DB {
		return db.Scopes(scope, func(db *gorm.DB) *gorm.DB { return db.Or("title = ?", "title 1") })
	},
	"Or after a call": func(db *gorm.DB, scope func(*gorm.DB) *gorm.DB) *gorm.DB {
		return scope(db).Or("title = ?", "title 1")
	},
	"Or in text": func(db *gorm.DB, scope func(*gorm.DB) *gorm.DB) *gorm.DB {
		return db.Scopes(scope).Where("1 = 1 or 1 = 1").Or("1=1\nOR 1=1")
	},
	"Or in a clause": func(db *gorm.DB, scope func(*gorm.DB) *gorm.DB) *gorm.DB {
		return db.Scopes(scope).Clauses(clause.Where{Exprs: []clause.Expression{clause.Or(clause.Expr{SQL: "1=1"})}})
	},
	"a group": func(db *gorm.DB, scope func(*gorm.DB) *gorm.DB) *gorm.DB {
		return db.Where(db.Session(&gorm.Session{NewDB: true}).Scopes(scope, func(db *gorm.DB) *gorm.DB { return db.Or("1=1") }))
	},
	"a group beside": func(db *gorm.DB, scope func(*gorm.DB) *gorm.DB) *gorm.DB {
		return db.Or(db.Session(&gorm.Session{NewDB: true}).Where("1=1")).Scopes(scope)
	},
	"Not": func(db *gorm.DB, scope func(*gorm.DB) *gorm.DB) *gorm.DB {
		return db.Not(db.Session(&gorm.Session{NewDB: true}).Scopes(scope))
	},
	"Unscoped": func(db *gorm.DB, scope func(*gorm.DB) *gorm.DB) *gorm.DB {
		return db.Unscoped().Scopes(scope).Or("1=1")
	},
	"a group that was a statement before": func(db *gorm.DB, scope func(*gorm.DB) *gorm.DB) *gorm.DB {
		used := scope(db.Session(&gorm.Session{NewDB: true})).Where("1=1").Or("1=1")
		used.Find(&[]Deal{})
		return db.Where(used)
	},
	"Raw": func(db *gorm.DB, scope func(*gorm.DB) *gorm.DB) *gorm.DB {
		return db.Scopes(scope).Raw("SELECT * FROM deals")
	},
}

// widened lists the ways in which somebody reads, changes or deletes what a filter does not allow.
func (d *dealing) widened(t *testing.T, scope func(*gorm.DB) *gorm.DB, allowed []string) (found []string) {
	t.Helper()
	outside := func(ids []string) bool {
		return slices.ContainsFunc(ids, func(id string) bool { return !slices.Contains(allowed, id) })
	}
	for name, way := range ways {
		var read []Deal
		if way(d.DB, scope).Find(&read).Error == nil && outside(idsOf(read)) {
			found = append(found, name+": Find")
		}
		for act, do := range map[string]func(db *gorm.DB) *gorm.DB{
			"Updates": func(db *gorm.DB) *gorm.DB { return db.Model(&Deal{}).Updates(map[string]any{"version": 2}) },
			"Delete":  func(db *gorm.DB) *gorm.DB { return db.Delete(&Deal{}) },
		} {
			tx := d.Begin()
			if do(way(tx, scope)).Error == nil {
				var changed []string
				require.NoError(t, tx.Unscoped().Model(&Deal{}).Where("version = 2 OR deleted IS NOT NULL").Pluck("id", &changed).Error)
				if outside(changed) {
					found = append(found, name+": "+act)
				}
			}
			require.NoError(t, tx.Rollback().Error)
		}
	}
	return found
}

func TestNoOtherConditionWidensAllowed(t *testing.T) {
	each(t, func(t *testing.T, c *crm) {
		d := newDealing(t, c.raw)
		for _, person := range dealers {
			require.Empty(t, d.widened(t, guardgorm.Allowed(d.filter(t, person), dealColumns), d.allowed(t, person)), person)
		}
		// Planted fault: the condition as any other scope would add it.
		naive := func(db *gorm.DB) *gorm.DB { return db.Where("deals.tenant = ? AND deals.owner = ?", "acme", "Оля") }
		leaks := d.widened(t, naive, d.allowed(t, "Оля"))
		for _, way := range []string{"Or before", "Or after", "Or in a later scope", "Or after a call", "Or in text", "a group", "a group that was a statement before", "Not", "Unscoped"} {
			require.Contains(t, leaks, way+": Find")
		}
		require.Contains(t, leaks, "Or after: Updates")
		require.Contains(t, leaks, "Or before: Delete")
		require.Contains(t, leaks, "Raw: Find")
	})
}

// Where a condition cannot be put, nothing happens at all.
func TestAllowedRefuses(t *testing.T) {
	each(t, func(t *testing.T, c *crm) {
		d := newDealing(t, c.raw)
		var before []Deal
		require.NoError(t, d.Order("id").Find(&before).Error)
		good := guardgorm.Allowed(d.filter(t, "Оля"), dealColumns)
		columns := dealColumns
		columns.Owner = "deals.owner OR 1=1"
		bad := guardgorm.Allowed(d.filter(t, "Оля"), columns)
		foreign := Deal{ID: before[0].ID, Tenant: "acme", Title: "taken over"}
		for name, do := range map[string]func(db *gorm.DB) error{
			"bad column, Find":    func(db *gorm.DB) error { return db.Scopes(bad).Find(&[]Deal{}).Error },
			"bad column, at once": func(db *gorm.DB) error { return bad(db).Find(&[]Deal{}).Error },
			"bad column, Count":   func(db *gorm.DB) error { return db.Model(&Deal{}).Scopes(bad).Count(new(int64)).Error },
			"bad column, Updates": func(db *gorm.DB) error { return db.Model(&Deal{}).Scopes(bad).Update("title", "x").Error },
			"bad column, Delete":  func(db *gorm.DB) error { return db.Scopes(bad).Delete(&Deal{}).Error },
			"bad column, Preload": func(db *gorm.DB) error { return db.Preload("Goods", bad).Find(&[]Deal{}).Error },
			"bad column, group":   func(db *gorm.DB) error { return db.Where(db.Scopes(bad)).Find(&[]Deal{}).Error },
			"bad column, subquery": func(db *gorm.DB) error {
				return db.Where("id NOT IN (?)", db.Model(&Deal{}).Scopes(bad).Select("id")).Find(&[]Deal{}).Error
			},
			"group in a subquery": func(db *gorm.DB) error {
				group := db.Where(db.Scopes(good))
				return db.Where("id NOT IN (?)", group.Model(&Deal{}).Select("id")).Find(&[]Deal{}).Error
			},
			"Exec":               func(db *gorm.DB) error { return db.Scopes(good).Exec("UPDATE deals SET title = 'x'").Error },
			"Create":             func(db *gorm.DB) error { return db.Scopes(good).Create(&Deal{ID: "new", Tenant: "acme"}).Error },
			"Save":               func(db *gorm.DB) error { return db.Scopes(good).Save(&foreign).Error },
			"Save of many":       func(db *gorm.DB) error { return db.Scopes(good).Save(&[]Deal{foreign}).Error },
			"Save without an id": func(db *gorm.DB) error { return db.Scopes(good).Save(&Deal{Tenant: "acme"}).Error },
			"FirstOrCreate":      func(db *gorm.DB) error { return db.Scopes(good).FirstOrCreate(&Deal{}, Deal{ID: "new"}).Error },
			"CreateInBatches":    func(db *gorm.DB) error { return db.Scopes(good).CreateInBatches(&[]Deal{{ID: "new"}}, 1).Error },
			"upsert": func(db *gorm.DB) error {
				return db.Scopes(good).Clauses(clause.OnConflict{UpdateAll: true}).Create(&foreign).Error
			},
			"the zero filter": func(db *gorm.DB) error {
				return db.Scopes(guardgorm.Allowed(rbac.Filter{}, dealColumns)).First(&Deal{}).Error
			},
			"First of a stranger": func(db *gorm.DB) error { return db.Scopes(good).First(&Deal{}, "deals.id = ?", before[0].ID).Error },
		} {
			require.Error(t, do(d.DB), name)
		}
		var after []Deal
		require.NoError(t, d.Order("id").Find(&after).Error)
		require.Equal(t, before, after)
		require.NoError(t, d.Error, "an error stays with its statement")
	})
}

// The plugin, which refuses conditions that it does not know, knows this one.
func TestAllowedBesideThePlugin(t *testing.T) {
	each(t, func(t *testing.T, c *crm) {
		d := newDealing(t, c.raw)
		mine := Contact{Name: "mine", Phone: "+79161234567"}
		require.NoError(t, c.Create(&mine).Error)
		require.NoError(t, c.Create(&Contact{Name: "other", Phone: "+79161234568"}).Error)
		scope := guardgorm.Allowed(d.filter(t, "Оля"), rbac.Columns{Tenant: "'acme'"})
		require.Error(t, c.Scopes(scope).Find(&[]Contact{}).Error)
		scope = guardgorm.Allowed(d.filter(t, "$1"), rbac.Columns{Tenant: "name"})
		var found []Contact
		require.NoError(t, c.Scopes(scope).Find(&found).Error)
		require.Empty(t, found)
		require.NoError(t, c.raw.Model(&Contact{}).Where("id = ?", mine.ID).Update("name", "acme").Error)
		scope = guardgorm.Allowed(d.filter(t, "auditor"), rbac.Columns{Tenant: "name"})
		require.NoError(t, c.Scopes(scope).Find(&found).Error)
		require.Len(t, found, 1)
		require.Equal(t, "+79161234567", found[0].Phone)
	})
}
