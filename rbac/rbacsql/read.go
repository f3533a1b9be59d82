package rbacsql

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/crmguard/crmguard/internal/sqldb"
	"github.com/crmguard/crmguard/rbac"
)

var (
	// ErrTampered says that rows or versions were changed past the adapter.
	ErrTampered = errors.New("rbacsql: what is stored was changed past the adapter: put it back, or adopt it (Adapter.Adopt, Org.Adopt) if it was you")

	// ErrOlder says that the database has an older state than one that was in force, or a
	// version that is not the one that was seen under its number.
	ErrOlder = errors.New("rbacsql: what is stored is older than what was in force: put a newer backup back, or adopt it (Adapter.Adopt, Org.Adopt) if it was you")

	// ErrUnversioned says that the table has rows, but no version yet.
	ErrUnversioned = errors.New("rbacsql: the rows have no version yet: look at them, and adopt them (Adapter.Adopt)")
)

// querier is the database or a transaction.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

const headColumns = `number, at, tenant, author, reason, digest, whole, changes, mac`

// documents reads versions; added and removed, if they are columns of the query behind the others.
func documents(ctx context.Context, q querier, withRows bool, query string, args ...any) (found []document, added, removed [][]byte, err error) {
	rows, err := q.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, nil, nil, err
	}
	defer rows.Close() //nolint:errcheck // rows.Err says what went wrong
	for rows.Next() {
		var d document
		var at int64
		var plus, minus []byte
		into := []any{&d.Number, &at, &d.Tenant, &d.Author, &d.Reason, &d.Digest, &d.Whole, &d.changes, &d.mac}
		if withRows {
			into = append(into, &plus, &minus)
		}
		if err := rows.Scan(into...); err != nil {
			return nil, nil, nil, err
		}
		d.Time = sqldb.Time(at)
		found, added, removed = append(found, d), append(added, plus), append(removed, minus)
	}
	return found, added, removed, rows.Err()
}

// newest returns the newest version that is stored, genuine or not; its number is 0 if there is none.
func (v *versions) newest(ctx context.Context, q querier) (document, error) {
	found, _, _, err := documents(ctx, q, false, v.db.Q(`SELECT `+headColumns+` FROM crmguard_version WHERE document = $1 ORDER BY number DESC LIMIT 1`), v.document)
	if err != nil || len(found) == 0 {
		return document{Version: rbac.Version{Digest: rbac.Digest(nil)}}, err
	}
	return found[0], nil
}

// floor is what a look must find at least, because it was in force before the look began.
type floor struct {
	seen   rbac.Version
	number int64
}

func (v *versions) floor(ctx context.Context) (floor, error) {
	v.mu.Lock()
	f := floor{v.seen, v.seen.Number}
	v.mu.Unlock()
	if v.marks == nil {
		return f, nil
	}
	marked, err := v.marks.Raise(v.asItself(ctx), v.mark(), f.number)
	if err != nil {
		return f, fmt.Errorf("rbacsql: mark of the highest version: %w", err)
	}
	f.number = max(f.number, marked)
	return f, nil
}

// admit refuses a newest version that is not genuine, or older than what was in force.
func (v *versions) admit(ctx context.Context, f floor, head *document) error {
	if head.Number != 0 {
		if err := v.verify(ctx, head); err != nil {
			return err
		}
	}
	switch {
	case head.Number < f.number:
		return fmt.Errorf("%w: version %d, in force was %d", ErrOlder, head.Number, f.number)
	case head.Number == f.seen.Number && head.Digest != f.seen.Digest && head.Number != 0:
		return fmt.Errorf("%w: another version %d was in force", ErrOlder, head.Number)
	}
	return nil
}

// raise remembers a genuine version as one that was in force.
func (v *versions) raise(ctx context.Context, f floor, was rbac.Version) error {
	if v.marks != nil && was.Number > f.number {
		if _, err := v.marks.Raise(v.asItself(ctx), v.mark(), was.Number); err != nil {
			return fmt.Errorf("rbacsql: mark of the highest version: %w", err)
		}
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if was.Number > v.seen.Number {
		v.seen = rbac.Version{Number: was.Number, Digest: was.Digest}
	}
	return nil
}

// Head implements [rbac.Store].
func (a *Adapter) Head(ctx context.Context) (rbac.Version, error) { return a.head(ctx) }

// head returns the newest version, without its rows.
func (v *versions) head(ctx context.Context) (rbac.Version, error) {
	f, err := v.floor(ctx)
	if err != nil {
		return rbac.Version{}, err
	}
	head, err := v.newest(ctx, v.db)
	if err != nil {
		return rbac.Version{}, fmt.Errorf("rbacsql: read the newest version: %w", err)
	}
	if err := v.admit(ctx, f, &head); err != nil {
		return rbac.Version{}, err
	}
	return head.Version, v.raise(ctx, f, head.Version)
}

// Load implements [rbac.Store]. Empty fields at the end of a row are left out.
func (a *Adapter) Load(ctx context.Context) (rbac.Stored, error) {
	f, err := a.floor(ctx)
	if err != nil {
		return rbac.Stored{}, err
	}
	head, stored, err := a.read(ctx)
	if err != nil {
		return rbac.Stored{}, err
	}
	if err := a.admit(ctx, f, &head); err != nil {
		return rbac.Stored{}, err
	}
	if rbac.Digest(stored.Rules) != head.Digest {
		if head.Number == 0 {
			return rbac.Stored{}, ErrUnversioned
		}
		return rbac.Stored{}, fmt.Errorf("%w: the rows are not those of version %d%s", ErrTampered, head.Number, a.difference(ctx, &head, stored.Rules))
	}
	return stored, a.raise(ctx, f, head.Version)
}

// read returns the newest version and all rows, as of one moment.
func (a *Adapter) read(ctx context.Context) (head document, stored rbac.Stored, err error) {
	var o *sql.TxOptions
	if a.db.Dialect == sqldb.Postgres { // SQLite's transactions are like that anyway
		o = &sql.TxOptions{Isolation: sql.LevelRepeatableRead, ReadOnly: true}
	}
	err = a.db.Retry(ctx, func() error {
		tx, err := a.db.BeginTx(ctx, o)
		if err != nil {
			return err
		}
		defer tx.Rollback() //nolint:errcheck // nothing was written
		if head, err = a.newest(ctx, tx); err != nil {
			return err
		}
		stored, err = a.rows(ctx, tx)
		return err
	})
	if err != nil {
		return document{}, rbac.Stored{}, fmt.Errorf("rbacsql: read: %w", err)
	}
	stored.Version = head.Version
	return head, stored, nil
}

// columns of a rule behind its type.
const columns = 6

// rows returns all rows, oldest first.
func (a *Adapter) rows(ctx context.Context, q querier) (stored rbac.Stored, err error) {
	// Other adapters write NULL for fields that a row does not have.
	rows, err := q.QueryContext(ctx, a.db.Q(`SELECT id, COALESCE(ptype, ''), COALESCE(v0, ''), COALESCE(v1, ''), COALESCE(v2, ''),
		COALESCE(v3, ''), COALESCE(v4, ''), COALESCE(v5, '') FROM crmguard_rule ORDER BY id`))
	if err != nil {
		return stored, err
	}
	defer rows.Close() //nolint:errcheck // rows.Err says what went wrong
	for rows.Next() {
		var id int64
		rule := make([]string, 1+columns)
		if err := rows.Scan(&id, &rule[0], &rule[1], &rule[2], &rule[3], &rule[4], &rule[5], &rule[6]); err != nil {
			return stored, err
		}
		stored.Rules = append(stored.Rules, trimmed(rule))
		stored.Where = append(stored.Where, fmt.Sprintf("row %d", id))
	}
	return stored, rows.Err()
}

// trimmed leaves out empty fields at the end.
func trimmed(rule []string) []string {
	for len(rule) > 1 && rule[len(rule)-1] == "" {
		rule = rule[:len(rule)-1]
	}
	return rule
}

// key is a rule as something to compare.
func key(rule []string) (key [1 + columns]string) {
	copy(key[:], rule)
	return key
}

func keys(rules [][]string) map[[1 + columns]string]bool {
	set := make(map[[1 + columns]string]bool, len(rules))
	for _, rule := range rules {
		set[key(rule)] = true
	}
	return set
}

// without returns the rules that are not in a set.
func without(rules [][]string, set map[[1 + columns]string]bool) [][]string {
	return slices.DeleteFunc(slices.Clone(rules), func(rule []string) bool { return set[key(rule)] })
}

// difference names the rows that somebody else has added and removed, if the history
// still tells.
func (a *Adapter) difference(ctx context.Context, head *document, rules [][]string) string {
	was, err := a.At(ctx, head.Number)
	if err != nil {
		return ""
	}
	var b strings.Builder
	for _, part := range []struct {
		what  string
		rules [][]string
	}{{"added", without(rules, keys(was))}, {"removed", without(was, keys(rules))}} {
		const shown = 5
		for _, rule := range part.rules[:min(shown, len(part.rules))] {
			fmt.Fprintf(&b, "; %s: %q", part.what, strings.Join(rule, ", "))
		}
		if more := len(part.rules) - shown; more > 0 {
			fmt.Fprintf(&b, "; and %d more %s", more, part.what)
		}
	}
	return b.String()
}
