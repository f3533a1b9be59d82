package main

import (
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/mod/sumdb/note"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/auditsql"
	"github.com/crmguard/crmguard/internal/sqldb"
)

// sqliteMagic begins each database of SQLite: https://sqlite.org/fileformat.html
const sqliteMagic = "SQLite format 3\x00"

// openAnchor opens an anchor that exists, to read: a database, or a file with checkpoints.
func (c *call) openAnchor(name string, v note.Verifier, prefix string) (anchor audit.Anchor, done func() error, err error) {
	database, err := isDatabase(name)
	if err != nil {
		return nil, nil, err
	}
	if !database {
		anchor, err = audit.NewFileAnchor(name, v)
		return anchor, func() error { return nil }, err
	}
	db, err := openDatabase(c, name)
	if err != nil {
		return nil, nil, err
	}
	if err := c.anchored(db, prefix); err != nil {
		return nil, nil, errors.Join(err, db.Close())
	}
	if anchor, err = auditsql.NewAnchor(c, db, v, &auditsql.Options{TablePrefix: prefix}); err != nil {
		return nil, nil, errors.Join(err, db.Close())
	}
	return anchor, db.Close, nil
}

// isDatabase tells a database from a file with checkpoints.
func isDatabase(name string) (bool, error) {
	if isPostgres(name) || strings.HasPrefix(name, "sqlite:") {
		return true, nil
	}
	begins := make([]byte, len(sqliteMagic))
	file, err := os.Open(name) //nolint:gosec // the caller's own path
	if err != nil {
		return false, err
	}
	n, _ := file.Read(begins) // a file of fewer bytes is none of SQLite
	return string(begins[:n]) == sqliteMagic, file.Close()
}

// anchorHelp is what commands say of the anchors that they keep.
const anchorHelp = `An -anchor is a file, which is made, or a database, in which a table is made: a SQLite file that
exists (one that is still empty as sqlite:PATH), or a URL of PostgreSQL. One that holds nothing, when the
journal has entries, is refused: somebody may have removed it and cut the journal off. If it is new, or you
know why it is empty, say so once with -new-anchor; the reason goes to the journal. A -webhook gets each
checkpoint signed with the secret in -webhook-secret, as Standard Webhooks says. A -witness is one of C2SP: its address
and its public key, with a space between them; what it signs is kept in the first -anchor.
`

// anchorFlags say where checkpoints are kept besides.
type anchorFlags struct {
	anchors, webhooks, witnesses []string
	secret                       string // file
	begin                        string // why an anchor is empty
}

func (c *call) anchorFlags() *anchorFlags {
	f := &anchorFlags{}
	list := func(to *[]string, name, usage string) {
		c.flags.Func(name, usage+"; may be given several times", func(text string) error {
			*to = append(*to, text)
			return nil
		})
	}
	list(&f.anchors, "anchor", "`file` or database to which checkpoints are added")
	c.flags.StringVar(&f.begin, "new-anchor", "", "`reason` why an anchor holds nothing although the journal has entries")
	list(&f.webhooks, "webhook", "`address` to which checkpoints are sent")
	c.flags.StringVar(&f.secret, "webhook-secret", "", "`file` with the secret that webhooks share, of at least 32 bytes")
	list(&f.witnesses, "witness", "`'URL KEY'` of a witness that signs checkpoints, too")
	return f
}

func (f *anchorFlags) check() error {
	for _, w := range f.witnesses {
		if len(strings.Fields(w)) != 2 {
			return errors.New("-witness is the address and the public key of a witness, with a space between them")
		}
	}
	switch {
	case len(f.webhooks) > 0 && f.secret == "":
		return errors.New("-webhook needs -webhook-secret")
	case len(f.witnesses) > 0 && len(f.anchors) == 0:
		return errors.New("-witness needs an -anchor: what a witness signed is kept there")
	case f.begin != "" && len(f.anchors) == 0:
		return errors.New("-new-anchor needs an -anchor")
	}
	return nil
}

// open opens all anchors of a journal, to write.
func (f *anchorFlags) open(c *call, store audit.Store, v note.Verifier, prefix string) (list []audit.Anchor, done func() error, err error) {
	var databases []*sql.DB
	closeAll := func() (err error) {
		for _, db := range databases {
			err = errors.Join(err, db.Close())
		}
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, closeAll())
		}
	}()
	for _, name := range f.anchors {
		database, err := isDatabase(name)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, nil, err
		}
		if !database {
			anchor, err := audit.NewFileAnchor(name, v)
			if err != nil {
				return nil, nil, err
			}
			list = append(list, anchor)
			continue
		}
		db, err := openToWrite(c, name)
		if err != nil {
			return nil, nil, err
		}
		databases = append(databases, db)
		anchor, err := auditsql.NewAnchor(c, db, v, &auditsql.Options{TablePrefix: prefix})
		if err != nil {
			return nil, nil, err
		}
		list = append(list, anchor)
	}
	for _, text := range f.witnesses {
		url, key, _ := strings.Cut(strings.TrimSpace(text), " ")
		cosigner, err := audit.NewCosigner(strings.TrimSpace(key))
		if err != nil {
			return nil, nil, err
		}
		witness, err := audit.NewWitness(url, cosigner, store, v, list[0], nil)
		if err != nil {
			return nil, nil, err
		}
		list = append(list, witness)
	}
	if len(f.webhooks) == 0 {
		return list, closeAll, nil
	}
	secret, err := passphraseFile(f.secret)
	if err != nil {
		return nil, nil, fmt.Errorf("-webhook-secret: %w", err)
	}
	for _, address := range f.webhooks {
		hook, err := audit.NewWebhook(address, secret, nil)
		if err != nil {
			return nil, nil, err
		}
		list = append(list, hook)
	}
	return list, closeAll, nil
}

// vouched refuses anchors that hold nothing of a journal with entries, as they would vouch from now
// on for what is left of it, and a journal without any of which they hold a checkpoint.
func (f *anchorFlags) vouched(c *call, store audit.Store, list []audit.Anchor, v note.Verifier) error {
	head, err := store.Head(c)
	if err != nil {
		return err
	}
	empty := false
	for i, name := range f.anchors { // list begins with them
		newest, _, err := list[i].Newest(c)
		if err != nil {
			return advised{err, "Nothing was signed. Put it back and call crmguard audit verify; if it is lost, keep it elsewhere and call this once with -new-anchor and the reason"}
		}
		if newest == nil {
			if empty = true; head.Size > 0 && f.begin == "" {
				return advised{fmt.Errorf("the anchor %s holds no checkpoint, and the journal has %d entries: somebody may have removed it and cut the journal off", plain(name), head.Size),
					"Nothing was signed. Put it back and call crmguard audit verify; if it is new, or you know why it is empty, call this once with -new-anchor and the reason"}
			}
			continue
		}
		kept, err := audit.OpenCheckpoint(newest, v)
		if err != nil {
			return err
		}
		if head.Size == 0 && kept.Size > 0 {
			return advised{fmt.Errorf("the journal is empty, and the anchor %s holds a checkpoint of %d entries: somebody emptied it or put another one in its place", plain(name), kept.Size),
				"Nothing was signed. Put back a backup of the database and call crmguard audit verify; if the journal is a new one, name another -anchor"}
		}
	}
	if f.begin != "" && !empty {
		return errors.New("every anchor holds checkpoints: leave out -new-anchor, which is for one that is new or was lost")
	}
	return nil
}

// anchored refuses a database without the table of an anchor: none is made there.
func (c *call) anchored(db *sql.DB, prefix string) error {
	d, err := sqldb.New(c, db, prefix)
	if err != nil {
		return err
	}
	files, err := fs.Glob(auditsql.AnchorMigrations, "anchor/migrations/*.sql")
	if err != nil {
		return err
	}
	var version int
	err = d.QueryRowContext(c, d.Q(`SELECT COALESCE(MAX(version), 0) FROM crmguard_migrations WHERE store = 'audit-anchor'`)).Scan(&version)
	switch {
	case err != nil || version == 0:
		return errors.Join(errors.New("no checkpoints are kept in it: is it the database of auditsql.NewAnchor, and is -prefix that of its tables?"), err)
	case version != len(files):
		return fmt.Errorf("its table has version %d, this program reads version %d: use the release of crmguard that the CRM is built with", version, len(files))
	}
	return nil
}
