package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/auditsql"
	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/encrypt/encryptsql"
	"github.com/crmguard/crmguard/guard"
	"github.com/crmguard/crmguard/guard/signin"
	"github.com/crmguard/crmguard/ipfilter"
	"github.com/crmguard/crmguard/mfa"
	"github.com/crmguard/crmguard/mfa/mfasql"
	"github.com/crmguard/crmguard/password"
	"github.com/crmguard/crmguard/quota"
	"github.com/crmguard/crmguard/quota/quotasql"
	"github.com/crmguard/crmguard/rbac"
	"github.com/crmguard/crmguard/session"
	"github.com/crmguard/crmguard/session/sessionsql"
)

//go:embed policy.csv
var policy []byte

func (c *crm) openKeys(ctx context.Context, data, keys string, create bool) error {
	kek, err := encrypt.OpenKeyFile(filepath.Join(keys, "kek.json"), data, create)
	if err != nil {
		return err
	}
	store, err := encryptsql.OpenSQLite(ctx, filepath.Join(keys, "keys.db"), create)
	if err != nil {
		return err
	}
	c.closers = append(c.closers, store.Close)
	c.keys, err = encrypt.New(kek, store, &encrypt.Options{OnOpen: c.norms.OnOpen})
	if err != nil {
		return err
	}
	c.closers = append(c.closers, c.keys.Close)
	c.contacts, err = encrypt.NewTable[Contact](c.keys, "contacts", nil)
	return err
}

// install runs once: it opens the company, because one without a state counts as
// locked down, and seals what is there. From then on plaintext in the database is
// never read: nobody can plant any.
func (c *crm) install(ctx context.Context) error {
	if _, err := c.db.ExecContext(ctx, `CREATE TABLE accounts (login TEXT PRIMARY KEY, password BLOB)`); err != nil {
		return fmt.Errorf("installed already: %w", err)
	}
	if err := c.sessions.Reopen(ctx, tenant); err != nil {
		return err
	}
	return c.migrate(ctx)
}

// migrate seals what is in the clear, and empties the old column.
func (c *crm) migrate(ctx context.Context) error {
	if _, err := c.db.ExecContext(ctx, `ALTER TABLE contacts ADD COLUMN phone_sealed BLOB`); err != nil {
		return err
	}
	rows, err := c.db.QueryContext(ctx, `SELECT id, owner, name, phone FROM contacts WHERE phone IS NOT NULL`)
	if err != nil {
		return err
	}
	defer rows.Close() //nolint:errcheck // rows.Err says what went wrong
	var clear []*Contact
	for rows.Next() {
		var one Contact
		if err := rows.Scan(&one.ID, &one.Owner, &one.Name, &one.Phone); err != nil {
			return err
		}
		clear = append(clear, &one)
	}
	if err := rows.Err(); err != nil {
		return err
	}
	if _, err := c.contacts.Seal(crmguard.System(ctx, tenant, "migrate"), tenant, clear...); err != nil {
		return err
	}
	tx, err := c.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() //nolint:errcheck // after Commit there is nothing to take back
	for _, one := range clear {
		if _, err := tx.ExecContext(ctx, `UPDATE contacts SET phone_sealed = $1, phone = NULL WHERE id = $2`, one.PhoneSealed, one.ID); err != nil {
			return err
		}
	}
	if err := tx.Commit(); err != nil {
		return err
	}
	_, err = c.db.ExecContext(ctx, `PRAGMA wal_checkpoint(TRUNCATE)`) // the log held the old rows
	return err
}

func (c *crm) openJournal(ctx context.Context, keys string, create bool) error {
	signer, verifier, err := audit.OpenSigner(filepath.Join(keys, "journal.key"), "crm.example/journal", create)
	if err != nil {
		return err
	}
	store, err := auditsql.New(ctx, c.db, nil)
	if err != nil {
		return err
	}
	c.verifier = verifier
	c.journal, err = audit.New(ctx, store, c.keys, signer, verifier, nil)
	if err != nil {
		return err
	}
	c.closers = append(c.closers, c.journal.Close)
	return nil
}

func (c *crm) openRights(ctx context.Context, keys string) error {
	path := filepath.Join(keys, "policy.csv")
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600) //nolint:gosec // in the keys folder
	if err == nil {                                                          // the first start
		_, err = file.Write(policy)
		err = errors.Join(err, file.Close())
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	c.rights, err = rbac.FromCSV(ctx, path, nil)
	return err
}

func (c *crm) openNorms(ctx context.Context) error {
	store, err := quotasql.New(ctx, c.db, nil)
	if err != nil {
		return err
	}
	zone, err := quota.OneZone("Europe/Moscow") // where your day begins and ends
	if err != nil {
		return err
	}
	c.norms, err = quota.New(store, zone, []quota.Norm{
		{Action: crmguard.View, Kind: "contacts", Soft: 40, Hard: 50},
		{Of: quota.Attempts, Hard: 100},
	}, &quota.Options{Alert: c.alert})
	return err
}

// alert puts into the journal that somebody has passed a norm. Tell the manager here
// too.
func (c *crm) alert(ctx context.Context, a quota.Alert) error {
	return c.journal.Record(ctx, a.Event())
}

func (c *crm) openAddresses(ctx context.Context) error {
	var err error
	if c.addresses, err = ipfilter.New(c.keys, c.rights, nil); err != nil {
		return err
	}
	var stored []byte // what your settings page has stored: the JSON of ipfilter.Document
	return c.addresses.Load(ctx, tenant, stored)
}

func (c *crm) openFactors(ctx context.Context) error {
	store, err := mfasql.New(ctx, c.db, nil)
	if err != nil {
		return err
	}
	c.factors, err = mfa.New(store, c.keys, "Acme CRM", nil)
	return err
}

func (c *crm) openDoor(ctx context.Context) error {
	store, err := sessionsql.New(ctx, c.db, nil)
	if err != nil {
		return err
	}
	if c.sessions, err = session.New(store, c.keys, nil); err != nil {
		return err
	}
	if c.passwords, err = password.New(nil); err != nil {
		return err
	}
	c.door, err = signin.New(c, c.passwords, c.sessions, c.journal, &signin.Options{Addresses: c.addresses, Factors: c.factors})
	if err != nil {
		return err
	}
	c.closers = append(c.closers, func() error { return c.door.Close(context.Background()) })
	return nil
}

func (c *crm) openGuard() error {
	proof, err := mfa.NewStepUp([]mfa.Rule{
		{Action: crmguard.Reveal, Need: crmguard.AssuranceSecondFactor, MaxAge: 30 * time.Minute},
		{Action: crmguard.Grant, Need: crmguard.AssuranceSecondFactor, MaxAge: 5 * time.Minute},
		{Action: crmguard.Configure, Kind: "factors", Need: crmguard.AssurancePassword, MaxAge: 10 * time.Minute},
	}, nil)
	if err != nil {
		return err
	}
	c.guard, err = guard.New(c.sessions, c.rights, c.rights, c.journal, &guard.Options{
		Addresses: c.addresses,
		StepUp:    proof,
		Norms:     c.norms,
		Holders:   []crmguard.Revoker{c.factors, c.rights},
		Switch:    c.sessions,
		Loopback:  true, // this machine only; leave it out behind TLS
	})
	if err != nil {
		return fmt.Errorf("guard: %w", err)
	}
	return nil
}
