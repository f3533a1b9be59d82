package guardgorm_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/glebarez/sqlite"
	"gorm.io/gorm"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/contrib/guardgorm"
	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/encrypt/encryptsql"
)

func check(err error) {
	if err != nil {
		panic(err)
	}
}

// Client is a model with a sealed phone. Calls are rows of another table.
type Client struct {
	ID          string `gorm:"primaryKey" encrypt:",record"`
	Name        string
	Phone       string  `gorm:"-" encrypt:"phone,index=phone"`
	PhoneSealed []byte  `encrypt:"phone,sealed"`
	Visits      []Visit `encrypt:"-"`
	Erased      bool    `gorm:"-"`
}

// SetErased tells whether the client's data was destroyed.
func (c *Client) SetErased(erased bool) { c.Erased = erased }

// Visit belongs to a client, whose key seals it.
type Visit struct {
	ID         string `gorm:"primaryKey" encrypt:",record"`
	ClientID   string `encrypt:",client"`
	Note       string `gorm:"-" encrypt:"note"`
	NoteSealed []byte `encrypt:"note,sealed"`
}

func protect(ctx context.Context, db *gorm.DB, keys *encrypt.Keyring) error {
	if err := db.AutoMigrate(&Client{}, &Visit{}); err != nil {
		return err
	}
	kinds := guardgorm.Kinds{"clients": {Client{}}, "visits": {Visit{}}}
	plugin, err := guardgorm.New(keys, kinds, &encrypt.TableOptions{Region: "RU"})
	if err != nil {
		return err
	}
	return db.Use(plugin)
}

func Example() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "crm")
	check(err)
	defer func() { check(os.RemoveAll(dir)) }()
	db, err := gorm.Open(sqlite.Open(filepath.Join(dir, "crm.db") + "?_pragma=secure_delete(1)"))
	check(err)
	pool, err := db.DB()
	check(err)
	defer func() { check(pool.Close()) }()
	index, err := encryptsql.NewIndex(ctx, pool, nil)
	check(err)
	kek, err := encrypt.OpenKeyFile(filepath.Join(dir, "kek.json"), "crm-data", true)
	check(err)
	keys, err := encrypt.New(kek, encrypt.NewMemory(), &encrypt.Options{Index: index}) // encryptsql.OpenSQLite
	check(err)
	check(protect(ctx, db, keys))

	subject := crmguard.Subject{Tenant: "default", ID: "anna", Kind: crmguard.KindEmployee} // guard does this
	tx := db.WithContext(crmguard.WithSubject(ctx, subject))

	client := Client{ID: "17", Name: "Anna", Phone: "+7 916 123-45-67", Visits: []Visit{{ID: "1", Note: "asked for a discount"}}}
	check(tx.Create(&client).Error)
	check(tx.Model(&client).Update("Phone", "8 (916) 765-43-21").Error)

	var found Client
	check(tx.Preload("Visits").First(&found, "id = ?", "17").Error)
	fmt.Println(found.Name, found.Phone, found.Visits[0].Note)

	clients, err := encrypt.NewTable[Client](keys, "clients", &encrypt.TableOptions{Region: "RU"})
	check(err)
	ids, err := clients.Find(tx.Statement.Context, "default", "phone", "phone", "+79167654321")
	check(err)
	fmt.Println(ids)

	fmt.Println(tx.Where(Client{Phone: "+79167654321"}).First(&found).Error)
	fmt.Println(tx.Model(&Client{}).Where("id = ?", "17").Update("Phone", "").Error)
	// Output:
	// Anna 8 (916) 765-43-21 asked for a discount
	// [17]
	// guardgorm: clients: a condition on sealed field "Phone" finds nothing: ask encrypt.Table's Find for ids
	// guardgorm: clients: sealed values are bound to the ids of record and client, and this row lacks one: make it in the program or in BeforeCreate, not in the database; an update needs it in Model
}
