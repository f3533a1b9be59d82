package auditsql

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"

	"github.com/crmguard/crmguard/internal/sqldb"
)

// CursorMigrations are the table of a [Cursor], in goose's format. [NewCursor]
// applies them. See [Migrations].
//
//go:embed cursor/migrations/*.sql
var CursorMigrations embed.FS

// Cursor remembers in a table how far a feed of package auditout has come. Outside the
// journal's database it also tells whether that was cut off.
type Cursor struct {
	db   *sqldb.DB
	name string
}

// NewCursor brings the table up to date. The name is that of the feed; the database
// stays the caller's to close. Of the options, TablePrefix is used.
func NewCursor(ctx context.Context, db *sql.DB, name string, o *Options) (*Cursor, error) {
	if name == "" || len(name) > 100 {
		return nil, errors.New("auditsql: the name of a cursor has 1 to 100 bytes")
	}
	var opts Options
	if o != nil {
		opts = *o
	}
	d, err := sqldb.New(ctx, db, opts.TablePrefix)
	if err != nil {
		return nil, fmt.Errorf("auditsql: %w", err)
	}
	files, err := fs.Sub(CursorMigrations, "cursor")
	if err != nil {
		return nil, fmt.Errorf("auditsql: %w", err)
	}
	if err := d.Migrate(ctx, "audit-cursor", files); err != nil {
		return nil, fmt.Errorf("auditsql: %w", err)
	}
	return &Cursor{db: d, name: name}, nil
}

// Load returns the log and the number that were saved; a zero log and -1 if none were.
func (c *Cursor) Load(ctx context.Context) (log [16]byte, seq int64, err error) {
	var id []byte
	var n number
	err = c.db.QueryRowContext(ctx, c.db.Q(`SELECT id, seq FROM crmguard_audit_cursors WHERE name = $1`), c.name).Scan(&id, &n)
	if errors.Is(err, sql.ErrNoRows) {
		return log, -1, nil
	}
	if err != nil {
		return log, -1, fmt.Errorf("auditsql: cursor: %w", err)
	}
	if len(id) != len(log) || !n.ok || n.n < 0 {
		return log, -1, errors.New("auditsql: the cursor was changed")
	}
	return [16]byte(id), n.n, nil
}

// Save keeps the log and the number of the last entry delivered. Of one log it never
// goes back, so that of two processes which run a feed the slower one undoes nothing.
func (c *Cursor) Save(ctx context.Context, log [16]byte, seq int64) error {
	err := c.db.Retry(ctx, func() error {
		_, err := c.db.ExecContext(ctx, c.db.Q(`INSERT INTO crmguard_audit_cursors (name, id, seq) VALUES ($1, $2, $3)
			ON CONFLICT (name) DO UPDATE SET id = excluded.id, seq = excluded.seq
			WHERE crmguard_audit_cursors.id <> excluded.id OR crmguard_audit_cursors.seq < excluded.seq`), c.name, log[:], seq)
		return err
	})
	if err != nil {
		return fmt.Errorf("auditsql: cursor: %w", err)
	}
	return nil
}
