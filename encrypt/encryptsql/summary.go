package encryptsql

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/internal/sqldb"
)

// Summary counts the keys of a tenant that have purpose, version and state in
// common.
type Summary struct {
	Tenant  string
	Purpose encrypt.Purpose
	Named   bool // of one client, or one kind and field; false: of the tenant
	Version uint32
	State   encrypt.State

	Keys           int64
	Oldest, Newest time.Time // when the first and the last of them was made
	Messages       uint64    // the most that nodes have reserved with one of them
}

// Summarize tells which keys a database holds and how old they are, in the order of
// the fields of [Summary]. It reads no key, writes nothing and makes no tables, so
// that a role or connection that may only read is enough, while the host runs.
func Summarize(ctx context.Context, db *sql.DB, o *Options) (list []Summary, err error) {
	if o == nil {
		o = &Options{}
	}
	wrapped, err := sqldb.New(ctx, db, o.TablePrefix)
	if err != nil {
		return nil, fmt.Errorf("encryptsql: %w", err)
	}
	// A number stands for the boolean, which only one of the databases has.
	rows, err := db.QueryContext(ctx, wrapped.Q(`SELECT tenant, purpose, named, version, state, COUNT(*), MIN(created_at), MAX(created_at), MAX(messages)
		FROM (SELECT tenant, substr(name, 1, 2) AS purpose, CASE WHEN length(name) > 2 THEN 1 ELSE 0 END AS named, version, state, created_at, messages FROM crmguard_keys WHERE state < 4) k
		GROUP BY tenant, purpose, named, version, state`))
	if err != nil {
		return nil, fmt.Errorf("encryptsql: count keys: %w", err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var s Summary
		var purpose string
		var oldest, newest int64
		if err := rows.Scan(&s.Tenant, &purpose, &s.Named, &s.Version, &s.State, &s.Keys, &oldest, &newest, &s.Messages); err != nil {
			return nil, fmt.Errorf("encryptsql: count keys: %w", err)
		}
		if s.Purpose, _, err = parseName(purpose); err != nil {
			return nil, err
		}
		s.Oldest, s.Newest = sqldb.Time(oldest), sqldb.Time(newest)
		list = append(list, s)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("encryptsql: count keys: %w", err)
	}
	slices.SortFunc(list, Summary.compare)
	return list, nil
}

// compare orders alike on all databases, whose collations differ.
func (s Summary) compare(t Summary) int {
	named := func(s Summary) int {
		if s.Named {
			return 1
		}
		return 0
	}
	return cmp.Or(strings.Compare(s.Tenant, t.Tenant), cmp.Compare(s.Purpose, t.Purpose), cmp.Compare(named(s), named(t)),
		cmp.Compare(s.Version, t.Version), cmp.Compare(s.State, t.State))
}
