package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/encrypt/encryptsql"
	"github.com/crmguard/crmguard/internal/sqldb"
)

// keysHelp is what commands that change keys say about where these are.
const keysHelp = `Run it as the user of the CRM, and on the KEK file that the CRM reads, not on a copy. The
CRM may run meanwhile, on SQLite too, unless the text above says otherwise. A KEK in a KMS
is turned by the CRM itself, with Keyring.Turn. PASSFILE holds the passphrase of a KEK file
that was made with one, in a file that only you can read; - asks on the terminal or reads it
from a pipe. A database is the path of a SQLite file or a URL of PostgreSQL; for passwords
use PGPASSWORD or a .pgpass file, as others can see the command line.
`

// keyFlags say where the keys are, and what the CRM calls them.
type keyFlags struct {
	store, kek, passphrase, prefix string

	db, indexPrefix string
	noIndex         bool

	retention, indexLife int
}

func (c *call) keyFlags() *keyFlags {
	f := &keyFlags{}
	c.flags.StringVar(&f.store, "store", "", "`database` of the keys, such as crm-keys/keys.db")
	c.flags.StringVar(&f.kek, "kek", "", "`file` of the key-encryption key, such as crm-keys/kek.json")
	c.flags.StringVar(&f.passphrase, "passphrase", "", "`file` with the passphrase of the KEK file, - to ask")
	c.flags.StringVar(&f.prefix, "prefix", "", "`prefix` of the tables of keys, if the CRM has chosen one")
	return f
}

// indexFlags are for what deletes the index rows of clients.
func (f *keyFlags) indexFlags(c *call) {
	c.flags.StringVar(&f.db, "db", "", "`database` of the CRM, which has the index of searchable values")
	c.flags.BoolVar(&f.noIndex, "no-index", false, "the CRM has no such index")
	c.flags.StringVar(&f.indexPrefix, "index-prefix", "", "`prefix` of the table of the index, if the CRM has chosen one")
}

// receiptFlags are what dates in receipts rest on.
func (f *keyFlags) receiptFlags(c *call) {
	c.flags.IntVar(&f.retention, "retention", 30, "`days` until the last backup of the key store is destroyed, encrypt.Options.BackupRetention of the CRM")
	c.flags.IntVar(&f.indexLife, "index-life", 90, "`days` of encrypt.Options.IndexLife of the CRM")
}

// check returns what is wrong with the flags.
func (f *keyFlags) check() error {
	switch {
	case f.store == "" || f.kek == "":
		return errors.New("-store and -kek are needed")
	case f.retention < 0 || f.indexLife < 0:
		return errors.New("-retention and -index-life are days")
	}
	return nil
}

func (f *keyFlags) checkIndex() error {
	if (f.db == "") != f.noIndex {
		return errors.New("-db is needed, as what people searched the client by is deleted there; or -no-index if the CRM has no index")
	}
	return nil
}

// opened are keys at work.
type opened struct {
	*encrypt.Keyring
	store   *encryptsql.Store
	closers []func() error
}

func (o *opened) close() {
	for _, closer := range slices.Backward(o.closers) {
		_ = closer() // what was done is durable already
	}
}

// openKeys opens a key store that exists with the KEK that fits it, to write or to read.
func (c *call) openKeys(f *keyFlags, write bool) (keys *opened, err error) {
	o := &opened{}
	defer func() {
		if err != nil {
			o.close()
		}
	}()
	kek, err := c.openKEK(f.kek, f.passphrase)
	if err != nil {
		return nil, err
	}
	db, err := openDatabase(c, f.store)
	if err != nil {
		return nil, fmt.Errorf("the key store cannot be opened: %w", err)
	}
	o.closers = append(o.closers, db.Close)
	if o.store, err = c.readKeyStore(db, f.prefix); err != nil {
		return nil, err
	}
	options := &encrypt.Options{BackupRetention: days(f.retention), IndexLife: days(f.indexLife)}
	if write {
		if info, err := os.Stat(strings.TrimPrefix(f.store, "sqlite:")); err == nil && !isPostgres(f.store) {
			if err := private(info, f.store); err != nil {
				return nil, err
			}
		}
		if db, err = openToWrite(c, f.store); err != nil {
			return nil, fmt.Errorf("the key store cannot be opened: %w", err)
		}
		o.closers = append(o.closers, db.Close)
		if o.store, err = encryptsql.New(c, db, &encryptsql.Options{TablePrefix: f.prefix}); err != nil {
			return nil, err
		}
	}
	if write && f.db != "" {
		index, err := c.openIndex(o, f)
		if err != nil {
			return nil, err
		}
		options.Index = index
	}
	if o.Keyring, err = encrypt.New(kek, o.store, options); err != nil {
		return nil, err
	}
	o.closers = append(o.closers, o.Keyring.Close)
	return o, advise(o.Check(c))
}

// readKeyStore refuses a database in which there are no keys: a command that makes the first
// one would lock the CRM out, whose KEK may be another.
func (c *call) readKeyStore(db *sql.DB, prefix string) (*encryptsql.Store, error) {
	const which = "Is it the database of the keys, usually keys.db in the keys folder, and is -prefix that of its tables?"
	store, err := encryptsql.NewReader(c, db, &encryptsql.Options{TablePrefix: prefix})
	if err != nil {
		return nil, advised{err, which}
	}
	checks, err := store.Load(c, []encrypt.Scope{{Purpose: encrypt.KEKCheck}})
	if err == nil && len(checks) == 0 {
		err = advised{errors.New("there are no keys in the key store"), which}
	}
	return store, err
}

func (c *call) openKEK(file, passphrase string) (encrypt.RotatingKEK, error) {
	if passphrase == "" {
		kek, err := encrypt.OpenKeyFile(file, "", false)
		return kek, advise(err)
	}
	text, err := c.readPassphrase(passphrase, false)
	if err != nil {
		return nil, err
	}
	defer clear(text)
	kek, err := encrypt.OpenPassphraseFile(file, "", text, false)
	return kek, advise(err)
}

func (c *call) openIndex(o *opened, f *keyFlags) (*encryptsql.Index, error) {
	db, err := openDatabase(c, f.db)
	if err != nil {
		return nil, fmt.Errorf("the database of the CRM cannot be opened: %w", err)
	}
	err = c.indexed(db, f.indexPrefix)
	if err := errors.Join(err, db.Close()); err != nil {
		return nil, err
	}
	if db, err = openToWrite(c, f.db); err != nil {
		return nil, fmt.Errorf("the database of the CRM cannot be opened: %w", err)
	}
	o.closers = append(o.closers, db.Close)
	return encryptsql.NewIndex(c, db, &encryptsql.Options{TablePrefix: f.indexPrefix})
}

// indexed refuses a database without an index: none is made there.
func (c *call) indexed(db *sql.DB, prefix string) error {
	d, err := sqldb.New(c, db, prefix)
	if err != nil {
		return err
	}
	files, err := fs.Glob(encryptsql.IndexMigrations, "migrations/*.sql")
	if err != nil {
		return err
	}
	var version int
	err = d.QueryRowContext(c, d.Q(`SELECT COALESCE(MAX(version), 0) FROM crmguard_migrations WHERE store = 'index'`)).Scan(&version)
	switch {
	case err != nil || version == 0:
		return advised{errors.Join(errors.New("there is no index in the database of -db"), err),
			"Is it the database of the CRM, and is -index-prefix that of the table? If the CRM has none, say -no-index instead"}
	case version != len(files):
		return fmt.Errorf("the index has version %d, this program knows version %d: use the release of crmguard that the CRM is built with", version, len(files))
	}
	return nil
}

// openToWrite connects to a database that exists, with what keys ask of it.
func openToWrite(ctx context.Context, name string) (*sql.DB, error) {
	if isPostgres(name) {
		db, err := connectPostgres(name, false)
		if err != nil {
			return nil, err
		}
		if err := db.PingContext(ctx); err != nil {
			return nil, errors.Join(err, db.Close())
		}
		return db, nil
	}
	path, err := filepath.EvalSymlinks(strings.TrimPrefix(name, "sqlite:"))
	if err != nil {
		return nil, err
	}
	if strings.ContainsAny(path, "?#:") {
		return nil, fmt.Errorf("%s: drivers read more than a path from names with ?, # or a colon", plain(path))
	}
	return sqldb.OpenSQLite(ctx, path)
}

// private refuses a file that others can read.
func private(info fs.FileInfo, name string) error {
	if runtime.GOOS != "windows" && info.Mode().IsRegular() && info.Mode().Perm()&0o077 != 0 {
		return fmt.Errorf("%s has mode %04o, so others can read it: chmod 600", plain(name), info.Mode().Perm())
	}
	return nil
}

func days(n int) time.Duration { return time.Duration(n) * 24 * time.Hour }

// advise adds what to do about an error of package encrypt.
func advise(err error) error {
	next := ""
	switch {
	case err == nil:
		return nil
	case errors.Is(err, encrypt.ErrWrongKEK):
		next = "Nothing was changed. Give the KEK file that the CRM reads; after a restore of the key store, the KEK file as it was when that copy was made"
	case errors.Is(err, encrypt.ErrPassphrase):
		next = "Nothing was changed. Try again; caps lock and the keyboard's language are the usual suspects"
	case errors.Is(err, encrypt.ErrTurning):
		next = "Wait until it has ended; crmguard keys list says when. If nobody is at it, call this again"
	case errors.Is(err, encrypt.ErrDamaged):
		next = "Restore the key store from a copy in which that key is whole, or erase the client that it belongs to; nothing was destroyed"
	case errors.Is(err, encryptsql.ErrNotGoneYet):
		next = "Something reads the key store all the time, perhaps a backup or an sqlite3 shell: end it and call this again"
	case errors.Is(err, context.Canceled):
		next = "It was cut off, and all is as usable as before. Call it again to go on"
	}
	if next == "" {
		return err
	}
	return advised{err, next}
}
