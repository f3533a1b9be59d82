package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/encrypt/encryptsql"
	"github.com/crmguard/crmguard/internal/uptime"
)

// hurried is the command on a clock that runs fifty times as fast where HURRY is set: what
// waits for other processes waits for seconds.
func hurried() {
	if os.Getenv("HURRY") != "" {
		began := time.Now()
		uptime.Move(func() time.Duration { return 50 * time.Since(began) })
	}
	main()
}

type clientRow struct {
	ID          string `encrypt:",record"`
	Phone       string `encrypt:"phone,index=phone"`
	PhoneSealed []byte `encrypt:"phone,sealed"`
}

// crm is what a CRM has open.
type crm struct {
	db    *sql.DB
	store *sql.DB
	keys  *encrypt.Keyring
	index *encryptsql.Index
	table *encrypt.Table[clientRow]
}

// openCRM opens a CRM's database, its key store and its KEK.
func openCRM(ctx context.Context, database, keyStore, kekFile string) (*crm, error) {
	kek, err := encrypt.OpenKeyFile(kekFile, "", true)
	if err != nil {
		return nil, err
	}
	db, err := open(ctx, database)
	if err != nil {
		return nil, err
	}
	keysDB, err := open(ctx, keyStore)
	if err != nil {
		return nil, err
	}
	if !isPostgres(keyStore) {
		if err := os.Chmod(keyStore, 0o600); err != nil {
			return nil, err
		}
	}
	store, err := encryptsql.New(ctx, keysDB, nil)
	if err != nil {
		return nil, err
	}
	c := &crm{db: db, store: keysDB}
	if c.index, err = encryptsql.NewIndex(ctx, db, nil); err != nil {
		return nil, err
	}
	if c.keys, err = encrypt.New(kek, store, &encrypt.Options{Index: c.index}); err != nil {
		return nil, err
	}
	c.table, err = encrypt.NewTable[clientRow](c.keys, "contacts", nil)
	return c, err
}

func (c *crm) close() error { return errors.Join(c.keys.Close(), c.store.Close(), c.db.Close()) }

func (c *crm) add(ctx context.Context, tenant, id string) error {
	row := &clientRow{ID: id, Phone: "+7 912 345-67-89"}
	entries, err := c.table.Seal(ctx, tenant, row)
	if err != nil {
		return err
	}
	if _, err := c.db.ExecContext(ctx, `INSERT INTO contacts VALUES ($1, $2, $3)`, tenant, id, row.PhoneSealed); err != nil {
		return err
	}
	return c.index.Put(ctx, c.db, entries)
}

// makeClients stores three clients of each tenant, who can be found by phone:
// clients DB STORE KEK TENANT…
func makeClients(ctx context.Context, args []string) error {
	c, err := openCRM(ctx, args[0], args[1], args[2])
	if err != nil {
		return err
	}
	defer c.close() //nolint:errcheck // a fixture
	if _, err := c.db.ExecContext(ctx, `CREATE TABLE contacts (tenant TEXT NOT NULL, id TEXT NOT NULL, phone_sealed BYTEA, PRIMARY KEY (tenant, id))`); err != nil {
		return err
	}
	for _, tenant := range args[3:] {
		for _, id := range []string{"c1", "c2", "c3"} {
			if err := c.add(crmguard.System(ctx, tenant, "fixture"), tenant, id); err != nil {
				return err
			}
		}
	}
	return nil
}

// openClients prints which clients of a tenant open, and whom a search by phone finds:
// opens DB STORE KEK TENANT
func openClients(ctx context.Context, args []string) error {
	c, err := openCRM(ctx, args[0], args[1], args[2])
	if err != nil {
		return err
	}
	defer c.close() //nolint:errcheck // a fixture
	tenant := args[3]
	ctx = crmguard.System(ctx, tenant, "fixture")
	for _, id := range []string{"c1", "c2", "c3"} {
		row := &clientRow{ID: id}
		if err := c.db.QueryRowContext(ctx, `SELECT phone_sealed FROM contacts WHERE tenant = $1 AND id = $2`, tenant, id).Scan(&row.PhoneSealed); err != nil {
			return err
		}
		switch err := c.table.Open(ctx, tenant, row); {
		case errors.Is(err, crmguard.ErrErased):
			fmt.Println(id, "erased")
		case err != nil:
			fmt.Println(id, err)
		default:
			fmt.Println(id, "opens")
		}
	}
	found, err := c.table.Find(ctx, tenant, "phone", "phone", "+79123456789")
	fmt.Println("found", found)
	return err
}
