package rbacsql

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/internal/policylog"
	"github.com/crmguard/crmguard/internal/sqldb"
	"github.com/crmguard/crmguard/rbac"
)

// Change implements [rbac.Store].
func (a *Adapter) Change(ctx context.Context, was rbac.Stored, add, remove [][]string) (rbac.Version, error) {
	d := &document{Version: rbac.Version{Number: was.Version.Number + 1, Whole: was.Version.Number == 0}}
	there, gone := keys(was.Rules), map[[1 + columns]string]bool{}
	for _, rule := range remove {
		if rule = trimmed(rule); len(rule) <= 1+columns && there[key(rule)] && !gone[key(rule)] {
			gone[key(rule)] = true
			d.Removed = append(d.Removed, rule)
		}
	}
	for _, rule := range add {
		rule = trimmed(rule)
		if err := checkRule(rule); err != nil {
			return rbac.Version{}, fmt.Errorf("rbacsql: %w", err)
		}
		if !there[key(rule)] {
			there[key(rule)] = true
			d.Added = append(d.Added, rule)
		}
	}
	if len(d.Added)+len(d.Removed) == 0 {
		return was.Version, nil
	}
	d.Digest = rbac.Digest(append(without(was.Rules, gone), d.Added...))
	err := a.make(ctx, d, func(tx *sql.Tx) error { return a.apply(ctx, tx, was.Version.Number, d) })
	return d.Version, err
}

// Adopt makes the rows as they stand a new version, whatever there was before, and
// forgets versions that are not genuine: for a table that another adapter made, and after somebody has changed the
// tables, or put back older ones, on purpose. Whoever calls it has looked at the rows and vouches for them.
func (a *Adapter) Adopt(ctx context.Context, reason string) (rbac.Version, error) {
	if reason == "" {
		return rbac.Version{}, errors.New("rbacsql: adopt: a reason is needed")
	}
	f, err := a.floor(ctx)
	if err != nil {
		return rbac.Version{}, err
	}
	newest, stored, err := a.read(ctx)
	if err != nil {
		return rbac.Version{}, err
	}
	if len(stored.Rules) == 0 {
		return rbac.Version{}, errors.New("rbacsql: adopt: there are no rows")
	}
	genuine, err := a.newestGenuine(ctx, newest.Number) // not of versions that came after the rows were read
	if err != nil {
		return rbac.Version{}, err
	}
	d := &document{Version: rbac.Version{Number: max(genuine, f.number) + 1, Whole: true, Digest: rbac.Digest(stored.Rules)}}
	for _, rule := range stored.Rules {
		if err := checkRule(rule); err != nil {
			return rbac.Version{}, fmt.Errorf("rbacsql: adopt: %w", err)
		}
		d.Added = append(d.Added, rule)
	}
	err = a.make(rbac.WithReason(ctx, reason), d, func(tx *sql.Tx) error {
		if err := a.tidy(ctx, tx, genuine, newest.Number); err != nil {
			return err
		}
		return a.enter(ctx, tx, genuine, d)
	})
	return d.Version, err
}

// newestGenuine returns the number of the newest version up to one that verify passes,
// 0 if none does.
func (v *versions) newestGenuine(ctx context.Context, upTo int64) (int64, error) {
	for {
		found, _, _, err := documents(ctx, v.db, false, v.db.Q(`SELECT `+headColumns+` FROM crmguard_version WHERE document = $1 AND number <= $2 ORDER BY number DESC LIMIT 100`), v.document, upTo)
		if err != nil {
			return 0, fmt.Errorf("rbacsql: read the versions: %w", err)
		}
		for i := range found {
			err := v.verify(ctx, &found[i])
			if err == nil || !errors.Is(err, ErrTampered) {
				return found[i].Number, err
			}
			upTo = found[i].Number - 1
		}
		if len(found) == 0 || upTo < 1 {
			return 0, nil
		}
	}
}

// forget removes made-up versions.
func (v *versions) forget(ctx context.Context, tx *sql.Tx, genuine, newest int64) error {
	_, err := tx.ExecContext(ctx, v.db.Q(`DELETE FROM crmguard_version WHERE document = $1 AND (number < 1 OR number > $2 AND number <= $3)`), v.document, genuine, newest)
	return err
}

// tidy removes made-up versions, and makes rows of other adapters like those of this one.
func (a *Adapter) tidy(ctx context.Context, tx *sql.Tx, genuine, newest int64) error {
	if err := a.forget(ctx, tx, genuine, newest); err != nil {
		return err
	}
	for _, query := range []string{
		`DELETE FROM crmguard_rule WHERE id NOT IN (SELECT MIN(id) FROM crmguard_rule
			GROUP BY COALESCE(ptype, ''), COALESCE(v0, ''), COALESCE(v1, ''), COALESCE(v2, ''), COALESCE(v3, ''), COALESCE(v4, ''), COALESCE(v5, ''))`,
		`UPDATE crmguard_rule SET ptype = COALESCE(ptype, ''), v0 = COALESCE(v0, ''), v1 = COALESCE(v1, ''), v2 = COALESCE(v2, ''),
			v3 = COALESCE(v3, ''), v4 = COALESCE(v4, ''), v5 = COALESCE(v5, '')
			WHERE ptype IS NULL OR v0 IS NULL OR v1 IS NULL OR v2 IS NULL OR v3 IS NULL OR v4 IS NULL OR v5 IS NULL`,
	} {
		if _, err := tx.ExecContext(ctx, a.db.Q(query)); err != nil {
			return err
		}
	}
	return nil
}

// make completes a version, records it and stores it with what store does.
func (v *versions) make(ctx context.Context, d *document, store func(tx *sql.Tx) error) error {
	if d.Number > maxVersion {
		return fmt.Errorf("rbacsql: there is no version after %d", maxVersion)
	}
	d.Reason = rbac.ReasonFrom(ctx)
	if err := checkReason(d.Reason); err != nil {
		return err
	}
	d.Time = v.now().UTC().Truncate(time.Microsecond)
	if s, ok := crmguard.SubjectFrom(ctx); ok {
		d.Tenant, d.Author = s.Tenant, s.ID
	}
	if err := v.seal(ctx, d); err != nil {
		return err
	}
	journal := policylog.Log{Journal: v.journal, Logger: v.log, Clock: v.now}
	entry, err := journal.Begin(ctx, policylog.Change{
		Kind: v.kind(), Tenant: v.tenant, Code: fmt.Sprintf("version:%d", d.Number), Reason: d.Reason, Policy: d.Digest,
		Added: d.Added, Removed: d.Removed, Whole: d.Whole,
	})
	if err != nil {
		return fmt.Errorf("rbacsql: %w", err)
	}
	err = v.db.Tx(ctx, store)
	if sqldb.UniqueViolation(err) {
		err = rbac.ErrChanged
	}
	failure := ""
	switch {
	case errors.Is(err, rbac.ErrChanged):
		failure = "changed-meanwhile"
	case err != nil:
		failure = "error"
	}
	entry.End(ctx, d.Digest, failure)
	if err != nil {
		return fmt.Errorf("rbacsql: change: %w", err)
	}
	return v.raise(ctx, floor{}, d.Version)
}

// checkReason refuses reasons that databases and pages could not hold.
func checkReason(reason string) error {
	if len(reason) > 1000 || !utf8.ValidString(reason) || strings.ContainsFunc(reason, unicode.IsControl) {
		return errors.New("rbacsql: a reason is one line of at most 1000 bytes of UTF-8")
	}
	return nil
}

// checkRule refuses a rule, its type first, that the table cannot hold.
func checkRule(rule []string) error {
	if len(rule) == 0 || len(rule) > 1+columns {
		return fmt.Errorf("a row has at most %d fields, not %d", columns, len(rule)-1)
	}
	for _, field := range rule {
		if !utf8.ValidString(field) || strings.ContainsRune(field, 0) {
			return fmt.Errorf("%q: the field of a row is UTF-8 without NUL", field)
		}
	}
	return nil
}

// enter stores a version behind the one that is the newest.
func (v *versions) enter(ctx context.Context, tx *sql.Tx, was int64, d *document) error {
	added, err := rulesJSON(d.Added)
	if err != nil {
		return err
	}
	removed, err := rulesJSON(d.Removed)
	if err != nil {
		return err
	}
	if v.db.Dialect == sqldb.Postgres {
		// One at a time; the channel's name stands for the table.
		if _, err := tx.ExecContext(ctx, `SELECT pg_advisory_xact_lock(hashtext($1)), pg_notify($1, $2)`, v.channel(), v.sign(d)); err != nil {
			return err
		}
	}
	if _, err := tx.ExecContext(ctx, v.db.Q(`INSERT INTO crmguard_version (document, `+headColumns+`, added, removed) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)`),
		v.document, d.Number, sqldb.Micros(d.Time), d.Tenant, d.Author, d.Reason, d.Digest, int64(asByte(d.Whole)), d.changes, d.mac, added, removed); err != nil {
		return err
	}
	found, _, _, err := documents(ctx, tx, false, v.db.Q(`SELECT `+headColumns+` FROM crmguard_version WHERE document = $1 ORDER BY number DESC LIMIT 2`), v.document)
	if err != nil {
		return err
	}
	found = append(found, document{}) // version 0, if there was none
	if found[0].Number != d.Number || found[1].Number != was {
		return rbac.ErrChanged
	}
	return nil
}

// apply stores a version and changes the rows as it says.
func (a *Adapter) apply(ctx context.Context, tx *sql.Tx, was int64, d *document) error {
	if err := a.enter(ctx, tx, was, d); err != nil {
		return err
	}
	for _, rule := range d.Removed {
		if err := a.exec(ctx, tx, 1, `DELETE FROM crmguard_rule WHERE ptype = $1 AND v0 = $2 AND v1 = $3 AND v2 = $4 AND v3 = $5 AND v4 = $6 AND v5 = $7`, rule); err != nil {
			return err
		}
	}
	const atOnce = 100
	for rules := d.Added; len(rules) > 0; {
		n := min(atOnce, len(rules))
		values := make([]string, n)
		for i := range values {
			values[i] = "(" + sqldb.Params(1+i*(1+columns), 1+columns) + ")"
		}
		if err := a.exec(ctx, tx, int64(n), `INSERT INTO crmguard_rule (ptype, v0, v1, v2, v3, v4, v5) VALUES `+strings.Join(values, ", ")+` ON CONFLICT DO NOTHING`, rules[:n]...); err != nil {
			return err
		}
		rules = rules[n:]
	}
	return nil
}

// exec changes rows, so many: others mean that somebody has changed them since they were read.
func (a *Adapter) exec(ctx context.Context, tx *sql.Tx, want int64, query string, rules ...[]string) error {
	var args []any
	for _, rule := range rules {
		for _, field := range key(rule) {
			args = append(args, field)
		}
	}
	result, err := tx.ExecContext(ctx, a.db.Q(query), args...)
	if err != nil {
		return err
	}
	if got, err := result.RowsAffected(); err != nil || got != want {
		return errors.Join(err, rbac.ErrChanged)
	}
	return nil
}
