// Package auditsql keeps the journal of package audit in SQLite or PostgreSQL,
// beside the host's own tables, so that an entry can be part of the transaction of
// the change that it tells of.
//
//	store, err := auditsql.New(ctx, db, nil)
//	journal, err := audit.New(ctx, store, keys, signer, verifier, nil)
//
// On PostgreSQL give New a pool of its own to the host's database, of a few connections and
// with the same search_path: then the journal neither takes the host's connections nor waits
// for them, and what it prepared on its own stays prepared. Transactions of audit.Log.InTx
// and RecordTx stay those of the host's pool.
//
// # Security notes
//
// Several processes may share one log: PRIMARY KEY (log, seq) makes an append a
// compare-and-swap. New creates tables; after that the journal only does SELECT and
// INSERT, and DELETE on the inbox. Whoever changes or removes rows of the journal is
// found by audit.Verify.
//
// The columns that entries are found by are outside the record that is hashed.
// Verify compares them with it.
//
// # Format
//
// Migrations holds the tables; docs/formats/audit.md says what the columns hold.
package auditsql

import (
	"context"
	"crypto/rand"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/internal/sqldb"
)

// Migrations are the tables, in goose's format, below sqlite/ and postgres/. [New]
// applies them. A host whose application may not create tables runs them before, as
// another role and with a table of goose's versions for these files alone; the
// application's role needs SELECT on crmguard_migrations, too.
//
//go:embed sqlite postgres
var Migrations embed.FS

// Options of a [Store]. Nil means all defaults.
type Options struct {
	TablePrefix string // "": "crmguard_"
	Log         string // name of the log in this database; "": "main"
}

// Store is an [audit.Store] and an [audit.Inbox].
type Store struct {
	db  *sqldb.DB
	log string
	id  [16]byte
}

var (
	_ audit.Store  = (*Store)(nil)
	_ audit.Inbox  = (*Store)(nil)
	_ audit.Ledger = (*Store)(nil)
	_ audit.Tail   = (*Store)(nil)
)

// New brings the tables up to date and makes the log if it does not exist. The
// database stays the caller's to close.
//
// On SQLite every connection needs a busy timeout, and synchronous FULL if
// acknowledged entries are to survive a power cut.
func New(ctx context.Context, db *sql.DB, o *Options) (*Store, error) {
	var opts Options
	if o != nil {
		opts = *o
	}
	if opts.Log == "" {
		opts.Log = "main"
	}
	if len(opts.Log) > 100 {
		return nil, errors.New("auditsql: the name of the log is longer than 100 bytes")
	}
	d, err := sqldb.New(ctx, db, opts.TablePrefix)
	if err != nil {
		return nil, fmt.Errorf("auditsql: %w", err)
	}
	files, err := fs.Sub(Migrations, d.Dialect.String())
	if err != nil {
		return nil, fmt.Errorf("auditsql: %w", err)
	}
	if err := d.Migrate(ctx, "audit", files); err != nil {
		return nil, fmt.Errorf("auditsql: %w", err)
	}
	s := &Store{db: d, log: opts.Log}
	if err := s.identify(ctx); err != nil {
		return nil, fmt.Errorf("auditsql: the log's id: %w", err)
	}
	return s, nil
}

// identify makes the id of a new log; of several processes one wins.
func (s *Store) identify(ctx context.Context) error {
	fresh := make([]byte, 16)
	_, _ = rand.Read(fresh) // never fails
	var id []byte
	read := func() error {
		return s.db.QueryRowContext(ctx, s.db.Q(`SELECT id FROM crmguard_audit_logs WHERE log = $1`), s.log).Scan(&id)
	}
	err := s.db.Retry(ctx, func() error {
		// Who only verifies a log that is there may have no right to write.
		if err := read(); !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		if _, err := s.db.ExecContext(ctx, s.db.Q(`INSERT INTO crmguard_audit_logs (log, id) VALUES ($1, $2) ON CONFLICT DO NOTHING`), s.log, fresh); err != nil {
			return err
		}
		return read()
	})
	if err != nil {
		return err
	}
	if len(id) != 16 {
		return &audit.BrokenError{Detail: "the id of the log was changed"}
	}
	s.id = [16]byte(id)
	return nil
}

// Head implements [audit.Store]. A row that no reader would come across, because
// its number is below zero or beyond the last entry, is a *[audit.BrokenError].
func (s *Store) Head(ctx context.Context) (audit.Head, error) {
	// Index rows are committed with their entries, so these come first.
	first, last, err := s.ends(ctx, "clients")
	if err != nil {
		return audit.Head{}, fmt.Errorf("auditsql: head: %w", err)
	}
	h, err := s.top(ctx)
	if err != nil {
		return h, err
	}
	lowest, _, err := s.ends(ctx, "entries")
	switch {
	case err != nil:
		return h, fmt.Errorf("auditsql: head: %w", err)
	case lowest.v != nil && (!lowest.ok || lowest.n < 0):
		return h, &audit.BrokenError{Seq: lowest.n, Detail: "its number is below zero"}
	case first.v == nil || first.ok && first.n >= 0 && last.ok && last.n < h.Size:
		return h, nil
	}
	// Where entries were removed from the end, the checkpoint over them says more.
	signed, err := s.Checkpoints(ctx, h.Size, 1)
	if err != nil || len(signed) > 0 {
		return h, err
	}
	return h, &audit.BrokenError{Seq: h.Size, Detail: "there is a client of an entry that there is not"}
}

// ends returns the lowest and the highest number in a table. They are of one moment: who
// asked twice while the first row is written would see one end without the other.
func (s *Store) ends(ctx context.Context, table string) (first, last number, err error) {
	end := `(SELECT seq FROM crmguard_audit_` + table + ` WHERE log = $1 ORDER BY seq %s LIMIT 1)`
	query := s.db.Q(fmt.Sprintf(`SELECT `+end+`, `+end, "ASC", "DESC"))
	err = s.db.QueryRowContext(ctx, query, s.log).Scan(&first, &last)
	return first, last, err
}

// top returns where the last row says that the log stands.
func (s *Store) top(ctx context.Context) (audit.Head, error) {
	h := audit.Head{Log: s.id}
	var last number
	var leaf []byte
	err := s.db.QueryRowContext(ctx, s.db.Q(`SELECT seq, substr(hashes, 1, 32) FROM crmguard_audit_entries WHERE log = $1 ORDER BY seq DESC LIMIT 1`), s.log).Scan(&last, &leaf)
	if errors.Is(err, sql.ErrNoRows) {
		return h, nil
	}
	if err != nil {
		return h, fmt.Errorf("auditsql: head: %w", err)
	}
	// A reader goes as far as there can be rows, and says where they end.
	h.Size = maxSeq
	if !last.ok || last.n >= maxSeq {
		return h, &audit.BrokenError{Seq: last.n, Detail: "that is no number of an entry"}
	}
	h.Size = max(last.n+1, 0)
	if len(leaf) != 32 {
		return h, &audit.BrokenError{Seq: last.n, Detail: "its hashes have another length"}
	}
	h.Last = [32]byte(leaf)
	return h, nil
}

// Checkpoints implements [audit.Store].
func (s *Store) Checkpoints(ctx context.Context, after int64, n int) ([]audit.Checkpoint, error) {
	rows, err := s.db.QueryContext(ctx, s.db.Q(`SELECT size, note FROM crmguard_audit_checkpoints WHERE log = $1 AND size > $2 ORDER BY size LIMIT $3`), s.log, after, n)
	if err != nil {
		return nil, fmt.Errorf("auditsql: checkpoints: %w", err)
	}
	defer rows.Close() //nolint:errcheck // Err tells
	var list []audit.Checkpoint
	for rows.Next() {
		var c audit.Checkpoint
		var size number
		if err := rows.Scan(&size, &c.Note); err != nil {
			return nil, fmt.Errorf("auditsql: checkpoints: %w", err)
		}
		if !size.ok {
			return nil, &audit.BrokenError{Detail: "a checkpoint has no number for its size"}
		}
		c.Size = size.n
		list = append(list, c)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("auditsql: checkpoints: %w", err)
	}
	return list, nil
}
