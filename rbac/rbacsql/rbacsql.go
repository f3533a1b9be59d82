// Package rbacsql keeps a Casbin policy in SQLite or PostgreSQL, in the table
// that Casbin's other adapters use too: casbin_rule (id, ptype, v0 … v5).
//
//	adapter, err := rbacsql.New(ctx, db, nil)
//	...
//	rights, err := rbac.New(ctx, adapter, nil)
//
// The adapter serves any Casbin enforcer; package rbac checks what it reads.
// Whoever can write the table can give rights: keep the database role of the
// application, and nobody else's, on it.
package rbacsql

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/casbin/casbin/v2/model"
	"github.com/casbin/casbin/v2/persist"

	"github.com/crmguard/crmguard/internal/sqldb"
)

// Migrations are the tables in goose's format, below sqlite/ and postgres/. [New]
// applies them. A host whose application may not create tables runs them before,
// as another role, with a table of goose's versions for these files alone and
// casbin_ (or its prefix) in place of crmguard_; the application's role needs
// SELECT on casbin_migrations, too.
//
//go:embed sqlite postgres
var Migrations embed.FS

// Options are what an [Adapter] can do without.
type Options struct {
	TablePrefix string // of the tables PREFIXrule and PREFIXmigrations; empty: "casbin_"
}

// Adapter reads and writes the table. It is safe for concurrent use.
type Adapter struct {
	db *sqldb.DB
}

var (
	_ persist.BatchAdapter        = (*Adapter)(nil)
	_ persist.ContextBatchAdapter = (*Adapter)(nil)
)

// New brings the table up to date, or creates it. One that another of Casbin's
// adapters made is taken over: rows that are there twice are left once.
func New(ctx context.Context, db *sql.DB, o *Options) (*Adapter, error) {
	prefix := "casbin_"
	if o != nil && o.TablePrefix != "" {
		prefix = o.TablePrefix
	}
	d, err := sqldb.New(ctx, db, prefix)
	if err != nil {
		return nil, fmt.Errorf("rbacsql: %w", err)
	}
	if err := checkTakeover(ctx, d); err != nil {
		return nil, fmt.Errorf("rbacsql: %w", err)
	}
	files, err := fs.Sub(Migrations, d.Dialect.String())
	if err != nil {
		return nil, fmt.Errorf("rbacsql: %w", err)
	}
	if err := d.Migrate(ctx, "rbac", files); err != nil {
		return nil, fmt.Errorf("rbacsql: %w", err)
	}
	return &Adapter{d}, nil
}

// columns of a rule behind its type.
const columns = 6

// Rules returns all rows, oldest first, each with its type first, and where they
// stand, such as "row 17". Empty fields at the end of a row are left out.
func (a *Adapter) Rules(ctx context.Context) (where []string, rules [][]string, err error) {
	// Other adapters write NULL for fields that a row does not have.
	rows, err := a.db.QueryContext(ctx, a.db.Q(`SELECT id, COALESCE(ptype, ''), COALESCE(v0, ''), COALESCE(v1, ''), COALESCE(v2, ''),
		COALESCE(v3, ''), COALESCE(v4, ''), COALESCE(v5, '') FROM crmguard_rule ORDER BY id`))
	if err != nil {
		return nil, nil, fmt.Errorf("rbacsql: read: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var id int64
		rule := make([]string, 1+columns)
		if err := rows.Scan(&id, &rule[0], &rule[1], &rule[2], &rule[3], &rule[4], &rule[5], &rule[6]); err != nil {
			return nil, nil, fmt.Errorf("rbacsql: read: %w", err)
		}
		for len(rule) > 1 && rule[len(rule)-1] == "" {
			rule = rule[:len(rule)-1]
		}
		where = append(where, fmt.Sprintf("row %d", id))
		rules = append(rules, rule)
	}
	if err := rows.Err(); err != nil {
		return nil, nil, fmt.Errorf("rbacsql: read: %w", err)
	}
	return where, rules, nil
}

// LoadPolicyCtx adds all rows to a Casbin model.
func (a *Adapter) LoadPolicyCtx(ctx context.Context, m model.Model) error {
	where, rules, err := a.Rules(ctx)
	if err != nil {
		return err
	}
	for i, rule := range rules {
		if rule[0] == "" {
			return fmt.Errorf("rbacsql: %s has no ptype", where[i])
		}
		if err := persist.LoadPolicyArray(rule, m); err != nil {
			return fmt.Errorf("rbacsql: %s: %w", where[i], err)
		}
	}
	return nil
}

// SavePolicyCtx replaces all rows by those of a Casbin model, in one transaction.
func (a *Adapter) SavePolicyCtx(ctx context.Context, m model.Model) error {
	var rules [][]string
	for _, section := range []string{"p", "g"} {
		for kind, assertion := range m[section] {
			for _, rule := range assertion.Policy {
				rules = append(rules, append([]string{kind}, rule...))
			}
		}
	}
	return a.tx(ctx, "save", func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, a.db.Q(`DELETE FROM crmguard_rule`)); err != nil {
			return err
		}
		for _, rule := range rules {
			if err := a.insert(ctx, tx, rule); err != nil {
				return err
			}
		}
		return nil
	})
}

// AddPolicyCtx adds one row; one that is there already stays as it is.
func (a *Adapter) AddPolicyCtx(ctx context.Context, section, kind string, rule []string) error {
	return a.AddPoliciesCtx(ctx, section, kind, [][]string{rule})
}

// AddPoliciesCtx adds rows, all or none.
func (a *Adapter) AddPoliciesCtx(ctx context.Context, _, kind string, rules [][]string) error {
	return a.tx(ctx, "add", func(tx *sql.Tx) error {
		for _, rule := range rules {
			if err := a.insert(ctx, tx, append([]string{kind}, rule...)); err != nil {
				return err
			}
		}
		return nil
	})
}

// RemovePolicyCtx removes one row; none is no error.
func (a *Adapter) RemovePolicyCtx(ctx context.Context, section, kind string, rule []string) error {
	return a.RemovePoliciesCtx(ctx, section, kind, [][]string{rule})
}

// RemovePoliciesCtx removes rows, all or none.
func (a *Adapter) RemovePoliciesCtx(ctx context.Context, _, kind string, rules [][]string) error {
	return a.tx(ctx, "remove", func(tx *sql.Tx) error {
		for _, rule := range rules {
			args, err := wholeRow(append([]string{kind}, rule...))
			if err != nil {
				return err
			}
			if _, err := tx.ExecContext(ctx, a.db.Q(`DELETE FROM crmguard_rule WHERE ptype = $1 AND COALESCE(v0, '') = $2 AND COALESCE(v1, '') = $3
				AND COALESCE(v2, '') = $4 AND COALESCE(v3, '') = $5 AND COALESCE(v4, '') = $6 AND COALESCE(v5, '') = $7`), args...); err != nil {
				return err
			}
		}
		return nil
	})
}

// RemoveFilteredPolicyCtx removes the rows whose fields from index on have these
// values; an empty value matches any. Values that are all empty are refused:
// they would remove everything.
func (a *Adapter) RemoveFilteredPolicyCtx(ctx context.Context, _, kind string, index int, values ...string) error {
	_, err := a.remove(ctx, kind, index, values)
	return err
}

// RemoveRules is [Adapter.RemoveFilteredPolicyCtx] from the first field on, and
// tells how many rows it removed.
func (a *Adapter) RemoveRules(ctx context.Context, kind string, fields ...string) (removed int, err error) {
	return a.remove(ctx, kind, 0, fields)
}

func (a *Adapter) remove(ctx context.Context, kind string, index int, values []string) (removed int, err error) {
	if index < 0 || index+len(values) > columns {
		return 0, fmt.Errorf("rbacsql: remove: no fields %d to %d in a row", index, index+len(values)-1)
	}
	if !slices.ContainsFunc(values, func(v string) bool { return v != "" }) {
		return 0, errors.New("rbacsql: remove: nothing to match")
	}
	var query strings.Builder
	query.WriteString(`DELETE FROM crmguard_rule WHERE ptype = $1`)
	args := []any{kind}
	for i, value := range values {
		if value != "" {
			args = append(args, value)
			fmt.Fprintf(&query, " AND v%d = $%d", index+i, len(args))
		}
	}
	err = a.tx(ctx, "remove", func(tx *sql.Tx) error {
		done, err := tx.ExecContext(ctx, a.db.Q(query.String()), args...)
		if err != nil {
			return err
		}
		n, err := done.RowsAffected()
		removed = int(n)
		return err
	})
	if err != nil {
		return 0, err
	}
	return removed, nil
}

func (a *Adapter) tx(ctx context.Context, what string, fn func(tx *sql.Tx) error) error {
	if err := a.db.Tx(ctx, fn); err != nil {
		return fmt.Errorf("rbacsql: %s: %w", what, err)
	}
	return nil
}

func (a *Adapter) insert(ctx context.Context, tx *sql.Tx, rule []string) error {
	args, err := wholeRow(rule)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, a.db.Q(`INSERT INTO crmguard_rule (ptype, v0, v1, v2, v3, v4, v5)
		VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING`), args...)
	return err
}

// wholeRow fills a rule, its type first, up to all columns.
func wholeRow(rule []string) ([]any, error) {
	if len(rule) > 1+columns {
		return nil, fmt.Errorf("a row has at most %d fields, not %d", columns, len(rule)-1)
	}
	args := make([]any, 1+columns)
	for i := range args {
		args[i] = ""
		if i < len(rule) {
			args[i] = rule[i]
		}
	}
	return args, nil
}
