package guardgorm_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/glebarez/sqlite"
	"gorm.io/gorm"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/contrib/guardgorm"
	"github.com/crmguard/crmguard/rbac"
)

// Lead is a record with an owner and a version.
type Lead struct {
	ID      string `gorm:"primaryKey"`
	Tenant  string
	Owner   string
	Title   string
	Version int64
}

var leadColumns = rbac.Columns{Tenant: "tenant", Owner: "owner"}

var errNotFound = errors.New("not found")

// assign gives a lead to another person, if whoever acts may change it as it is and as it
// will be, and if nobody has changed it since it was read.
func assign(ctx context.Context, db *gorm.DB, rights *rbac.Engine, lead Lead, owner string) error {
	s, _ := crmguard.SubjectFrom(ctx)
	after := crmguard.Resource{Tenant: lead.Tenant, Kind: "leads", ID: lead.ID, Owner: owner}
	if err := rights.Check(ctx, s, crmguard.Update, after); err != nil {
		return err
	}
	before, err := rights.Filter(ctx, s, crmguard.Update, "leads")
	if err != nil {
		return err
	}
	changed := db.WithContext(ctx).Model(&lead).Where("version = ?", lead.Version).Scopes(guardgorm.Allowed(before, leadColumns)).
		Updates(map[string]any{"owner": owner, "version": gorm.Expr("version + 1")})
	if changed.Error == nil && changed.RowsAffected == 0 {
		return errNotFound // changed meanwhile, or somebody else's, or no such lead
	}
	return changed.Error
}

func ExampleAllowed() {
	dir, err := os.MkdirTemp("", "crm")
	check(err)
	defer func() { check(os.RemoveAll(dir)) }()
	db, err := gorm.Open(sqlite.Open(filepath.Join(dir, "crm.db")))
	check(err)
	pool, err := db.DB()
	check(err)
	defer func() { check(pool.Close()) }()
	check(db.AutoMigrate(&Lead{}))
	check(db.Create(&[]Lead{{"1", "acme", "anna", "north", 1}, {"2", "acme", "boris", "south", 1}, {"3", "acme", "anna", "east", 1}}).Error)

	policy := filepath.Join(dir, "policy.csv")
	check(os.WriteFile(policy, []byte(`
p, role:seller, acme, leads, list, own, allow
p, role:seller, acme, leads, update, own, allow
p, role:head, acme, leads, update, all, allow
g, u:anna, role:seller, acme
g, u:boris, role:head, acme
`), 0o600))
	rights, err := rbac.FromCSV(context.Background(), policy, nil)
	check(err)
	as := func(id string) context.Context {
		return crmguard.WithSubject(context.Background(), crmguard.Subject{Tenant: "acme", ID: id, Kind: crmguard.KindEmployee})
	}

	anna, _ := crmguard.SubjectFrom(as("anna"))
	mine, err := rights.Filter(as("anna"), anna, crmguard.List, "leads")
	check(err)
	var leads []Lead
	check(db.Scopes(guardgorm.Allowed(mine, leadColumns)).Where("title = ?", "north").Or("title = ?", "south").Find(&leads).Error)
	fmt.Println(leads)

	fmt.Println("boris to himself:", assign(as("boris"), db, rights, leads[0], "boris"))
	fmt.Println("anna, what was hers:", assign(as("anna"), db, rights, leads[0], "anna"))
	fmt.Println("anna to boris:", assign(as("anna"), db, rights, Lead{ID: "3", Tenant: "acme", Version: 1}, "boris"))
	// Output:
	// [{1 acme anna north 1}]
	// boris to himself: <nil>
	// anna, what was hers: not found
	// anna to boris: crmguard: denied by rbac: no-rule
}
