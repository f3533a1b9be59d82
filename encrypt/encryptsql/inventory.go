package encryptsql

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/internal/sqldb"
)

// List implements encrypt.Inventory. The order is that of the primary key, under the
// database's collation.
func (s *Store) List(ctx context.Context, after encrypt.Record, limit int) ([]encrypt.Record, error) {
	records, err := s.query(ctx, s.db, `SELECT `+columns+` FROM crmguard_keys WHERE (tenant, name, version) > ($1, $2, $3) AND state < 4
		ORDER BY tenant, name, version LIMIT $4`, after.Scope.Tenant, name(after.Scope), after.Version, limit)
	if err != nil {
		return nil, fmt.Errorf("encryptsql: list keys: %w", err)
	}
	return records, nil
}

var errReplace = errors.New("encryptsql: to replace records, give each as it was and as it shall be")

// Replace implements encrypt.Inventory.
func (s *Store) Replace(ctx context.Context, was, now []encrypt.Record) (int, error) {
	if len(was) != len(now) {
		return 0, errReplace
	}
	if err := s.wipeRemoved(ctx); err != nil {
		return 0, fmt.Errorf("encryptsql: wipe removed keys: %w", err)
	}
	total := 0
	for from := range slices.Chunk(indexes(len(was)), chunk) {
		first, last := from[0], from[len(from)-1]+1
		n, err := s.replace(ctx, was[first:last], now[first:last])
		total += n
		if err != nil {
			return total, fmt.Errorf("encryptsql: replace keys: %w", err)
		}
	}
	if slices.ContainsFunc(indexes(len(was)), func(i int) bool { return removes(was[i], now[i]) }) {
		if err := s.wipeRemoved(ctx); err != nil {
			return total, fmt.Errorf("encryptsql: wipe removed keys: %w", err)
		}
	}
	return total, nil
}

func indexes(n int) []int {
	list := make([]int, n)
	for i := range list {
		list[i] = i
	}
	return list
}

func removes(was, now encrypt.Record) bool { return len(was.Wrapped) > 0 && len(now.Wrapped) == 0 }

// replace is one statement, because hundreds would take as many round trips.
func (s *Store) replace(ctx context.Context, was, now []encrypt.Record) (n int, err error) {
	blob := "BLOB"
	gone := "zeroblob(length(k.wrapped))" // written over the old one in its place, and dropped later
	if s.db.Dialect == sqldb.Postgres {
		blob, gone = "BYTEA", "NULL"
	}
	var values strings.Builder
	kinds := []string{"TEXT", "TEXT", "BIGINT", blob, blob, "BIGINT", "BIGINT", blob, blob, "BIGINT", "BIGINT", "BIGINT"}
	args := make([]any, 0, len(kinds)*len(was))
	for i := range was {
		values.WriteString(map[bool]string{true: "(", false: ", ("}[i == 0])
		for j, kind := range kinds {
			if j > 0 {
				values.WriteString(", ")
			}
			values.WriteString("CAST($" + strconv.Itoa(len(args)+j+1) + " AS " + kind + ")")
		}
		values.WriteString(")")
		remove := 0
		if removes(was[i], now[i]) {
			remove = 1
		}
		args = append(args, was[i].Scope.Tenant, name(was[i].Scope), was[i].Version,
			orNull(was[i].Wrapped), orNull(was[i].Note), sqldb.Micros(was[i].ClosedAt), sqldb.Micros(was[i].DestroyedAt),
			orNull(now[i].Wrapped), orNull(now[i].Note), sqldb.Micros(now[i].ClosedAt), sqldb.Micros(now[i].DestroyedAt), remove)
	}
	err = s.db.Tx(ctx, func(tx *sql.Tx) error {
		changed, err := s.exec(ctx, tx, `WITH v (tenant, name, version, old_wrapped, old_note, old_closed, old_destroyed, wrapped, note, closed_at, destroyed_at, removed) AS (VALUES `+values.String()+`)
			UPDATE crmguard_keys AS k SET
				state = CASE WHEN v.removed = 1 THEN 4 ELSE k.state END,
				wrapped = CASE WHEN v.removed = 1 THEN `+gone+` ELSE v.wrapped END,
				note = v.note, closed_at = v.closed_at, destroyed_at = v.destroyed_at
			FROM v WHERE k.tenant = v.tenant AND k.name = v.name AND k.version = v.version AND k.state < 4
				AND k.wrapped IS NOT DISTINCT FROM v.old_wrapped AND k.note IS NOT DISTINCT FROM v.old_note
				AND k.closed_at = v.old_closed AND k.destroyed_at = v.old_destroyed
				AND (v.removed = 0 OR EXISTS (SELECT 1 FROM crmguard_keys n WHERE n.tenant = k.tenant AND n.name = k.name AND n.version > k.version))`, args...)
		if err != nil || changed == 0 {
			return err
		}
		n = int(changed)
		return s.revise(ctx, tx)
	})
	return n, err
}

// wipeRemoved empties the write-ahead log as long as it may hold a removed key, and
// takes the marks from the rows then. What another process removes meanwhile has a
// mark of its own.
func (s *Store) wipeRemoved(ctx context.Context) error {
	if s.db.Dialect != sqldb.SQLite {
		return nil
	}
	var one int
	switch err := s.db.QueryRowContext(ctx, s.db.Q(`SELECT 1 FROM crmguard_keys WHERE state = 4 AND wrapped IS NOT NULL LIMIT 1`)).Scan(&one); {
	case errors.Is(err, sql.ErrNoRows):
		return nil
	case err != nil:
		return err
	}
	mark := []byte(rand.Text())
	set := func(query string, args ...any) error {
		return s.db.Tx(ctx, func(tx *sql.Tx) error {
			_, err := s.exec(ctx, tx, `UPDATE crmguard_keys SET wrapped = `+query, args...)
			return err
		})
	}
	if err := set(`$1 WHERE state = 4 AND wrapped IS NOT NULL`, mark); err != nil {
		return err
	}
	if err := truncateWAL(ctx, s.db.DB); err != nil {
		return err
	}
	return set(`NULL WHERE state = 4 AND wrapped = $1`, mark)
}
