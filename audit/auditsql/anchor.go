package auditsql

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"math"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/internal/sqldb"
)

// AnchorMigrations are the table of an [Anchor], in goose's format. [NewAnchor]
// applies them. See [Migrations].
//
//go:embed anchor/migrations/*.sql
var AnchorMigrations embed.FS

// anchorPage is how many checkpoints are read at once.
const anchorPage = 256

// Anchor is an [audit.Anchor] in a table. In the database of the journal itself it is
// worth nothing: use another one, of another owner, where the role of the application
// may INSERT and SELECT and nothing else.
type Anchor struct {
	db       *sqldb.DB
	log      string
	verifier note.Verifier
}

var _ audit.Anchor = (*Anchor)(nil)

// NewAnchor brings the table up to date. Only what v signed is kept and returned. The
// database stays the caller's to close. Of the options Log names the log, if the
// database keeps checkpoints of several.
func NewAnchor(ctx context.Context, db *sql.DB, v note.Verifier, o *Options) (*Anchor, error) {
	if v == nil {
		return nil, errors.New("auditsql: a verifier is needed")
	}
	var opts Options
	if o != nil {
		opts = *o
	}
	if opts.Log == "" {
		opts.Log = "main"
	}
	d, err := sqldb.New(ctx, db, opts.TablePrefix)
	if err != nil {
		return nil, fmt.Errorf("auditsql: %w", err)
	}
	files, err := fs.Sub(AnchorMigrations, "anchor")
	if err != nil {
		return nil, fmt.Errorf("auditsql: %w", err)
	}
	if err := d.Migrate(ctx, "audit-anchor", files); err != nil {
		return nil, fmt.Errorf("auditsql: %w", err)
	}
	return &Anchor{db: d, log: opts.Log, verifier: v}, nil
}

// String names the log.
func (a *Anchor) String() string { return "database table, log " + a.log }

// Keep implements [audit.Anchor].
func (a *Anchor) Keep(ctx context.Context, checkpoint []byte) error {
	c, err := audit.OpenCheckpoint(checkpoint, a.verifier)
	if err != nil {
		return err
	}
	digest := sha256.Sum256(checkpoint)
	err = a.db.Retry(ctx, func() error {
		_, err := a.db.ExecContext(ctx, a.db.Q(`INSERT INTO crmguard_audit_anchors (log, size, digest, kept, note) VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING`),
			a.log, c.Size, digest[:], sqldb.Micros(time.Now()), checkpoint)
		return err
	})
	if err != nil {
		return fmt.Errorf("auditsql: keep a checkpoint: %w", err)
	}
	return nil
}

// anchored is a row.
type anchored struct {
	note         sqldb.Blob
	digest       sqldb.Blob
	size, keptAt sqldb.Number
}

// Newest implements [audit.Anchor].
func (a *Anchor) Newest(ctx context.Context) (checkpoint []byte, at time.Time, err error) {
	// What somebody planted is passed over; the first row is right as a rule.
	for limit, skip := 1, 0; ; limit, skip = anchorPage, skip+limit {
		page, err := a.page(ctx, `ORDER BY size DESC, kept DESC LIMIT $2 OFFSET $3`, limit, skip)
		if err != nil {
			return nil, time.Time{}, err
		}
		for _, row := range page {
			c, err := audit.OpenCheckpoint(row.note, a.verifier)
			if err == nil && row.keptAt.Valid && row.size == (sqldb.Number{Int64: c.Size, Valid: true}) {
				return row.note, sqldb.Time(row.keptAt.Int64), nil
			}
		}
		if len(page) < limit {
			return nil, time.Time{}, nil
		}
	}
}

// All returns every checkpoint in the table, by size.
func (a *Anchor) All(ctx context.Context) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		size, digest, kept := int64(math.MinInt64), []byte{}, int64(0)
		for {
			page, err := a.page(ctx, `AND (size, digest, kept) > ($2, $3, $4) ORDER BY size, digest, kept LIMIT $5`, size, digest, kept, anchorPage)
			if err != nil {
				yield(nil, err)
				return
			}
			for _, row := range page {
				if !row.size.Valid || !row.keptAt.Valid { // SQLite stores text there, too
					yield(nil, errors.New("auditsql: a row of the anchor has what is no number"))
					return
				}
				if !yield(row.note, nil) {
					return
				}
				size, digest, kept = row.size.Int64, row.digest, row.keptAt.Int64
			}
			if len(page) < anchorPage {
				return
			}
		}
	}
}

func (a *Anchor) page(ctx context.Context, query string, args ...any) ([]anchored, error) {
	rows, err := a.db.QueryContext(ctx, a.db.Q(`SELECT size, digest, kept, note FROM crmguard_audit_anchors WHERE log = $1 `+query), append([]any{a.log}, args...)...) //nolint:gosec // fixed texts
	if err != nil {
		return nil, fmt.Errorf("auditsql: read checkpoints: %w", err)
	}
	defer rows.Close() //nolint:errcheck // Err tells
	var page []anchored
	for rows.Next() {
		var row anchored
		if err := rows.Scan(&row.size, &row.digest, &row.keptAt, &row.note); err != nil {
			return nil, fmt.Errorf("auditsql: read checkpoints: %w", err)
		}
		page = append(page, row)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("auditsql: read checkpoints: %w", err)
	}
	return page, nil
}
