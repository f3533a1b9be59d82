package quotasql

import (
	"context"
	"database/sql"
	"errors"
	"strconv"
	"strings"

	"github.com/crmguard/crmguard/internal/sqldb"
	"github.com/crmguard/crmguard/quota"
)

// chunk is how many items one statement names. Drivers for SQLite compare each
// parameter with each, so that many would be slow.
const chunk = 100

// person is the counters of one person in a transaction.
type person struct {
	db             *sqldb.DB
	tx             *sql.Tx
	tenant, person string
	day            quota.Day
}

func (p *person) take(ctx context.Context, t *quota.Taking) (quota.Taken, error) {
	if err := p.turn(ctx, t.Day); err != nil {
		return quota.Taken{}, err
	}
	attempts, err := p.lock(ctx)
	if err != nil {
		return quota.Taken{}, err
	}
	counts, err := p.counts(ctx, t.Limits)
	if err != nil {
		return quota.Taken{}, err
	}
	fresh := make([][]string, len(t.Limits))
	held := make([][]string, len(t.Limits)) // by somebody else
	for i, l := range t.Limits {
		if fresh[i], held[i], err = p.sort(ctx, l.Counter, t.Items, t.Holder); err != nil {
			return quota.Taken{}, err
		}
	}
	was, wereCounts := attempts, append([]quota.Count(nil), counts...)
	taken := quota.Taken{Day: p.day}
	taken.Refused, taken.Fired = t.Decide(&attempts, counts, lengths(fresh))
	if attempts != was {
		if err := p.put(ctx, quota.AttemptsCounter, attempts); err != nil {
			return quota.Taken{}, err
		}
	}
	added := 0
	for i, l := range t.Limits {
		if counts[i] != wereCounts[i] {
			if err := p.put(ctx, l.Counter, counts[i]); err != nil {
				return quota.Taken{}, err
			}
		}
		if taken.Refused != "" || t.Ask {
			continue
		}
		if err := p.add(ctx, l.Counter, fresh[i], t.Holder); err != nil {
			return quota.Taken{}, err
		}
		if err := p.claim(ctx, l.Counter, held[i]); err != nil {
			return quota.Taken{}, err
		}
		added += len(fresh[i])
	}
	return taken, p.sweep(ctx, added)
}

// turn makes day the tenant's, unless that is later, and keeps the later one. It
// writes first, even if nothing, so that SQLite locks before anything is read.
func (p *person) turn(ctx context.Context, day quota.Day) error {
	if _, err := p.tx.ExecContext(ctx, p.db.Q(`UPDATE crmguard_quota_days SET day = $1 WHERE tenant = $2 AND day < $3`),
		int64(day), p.tenant, int64(day)); err != nil {
		return err
	}
	var d int32
	err := p.tx.QueryRowContext(ctx, p.db.Q(`SELECT day FROM crmguard_quota_days WHERE tenant = $1`), p.tenant).Scan(&d)
	if errors.Is(err, sql.ErrNoRows) {
		err = p.tx.QueryRowContext(ctx, p.db.Q(`INSERT INTO crmguard_quota_days (tenant, day) VALUES ($1, $2)
			ON CONFLICT (tenant) DO UPDATE SET day = CASE WHEN excluded.day > crmguard_quota_days.day THEN excluded.day
				ELSE crmguard_quota_days.day END
			RETURNING day`), p.tenant, int64(day)).Scan(&d)
	}
	p.day = quota.Day(d)
	return err
}

// lock makes everybody else who counts for the person wait until the commit, and
// returns the attempts. The row is made if it is missing.
func (p *person) lock(ctx context.Context) (quota.Count, error) {
	return scanCount(p.tx.QueryRowContext(ctx, p.db.Q(`INSERT INTO crmguard_quota_counts (tenant, day, person, counter, n, fired)
		VALUES ($1, $2, $3, $4, 0, 0)
		ON CONFLICT (tenant, day, person, counter) DO UPDATE SET n = crmguard_quota_counts.n
		RETURNING n, fired`), p.tenant, int64(p.day), p.person, quota.AttemptsCounter))
}

func (p *person) counts(ctx context.Context, limits []quota.Limit) ([]quota.Count, error) {
	counts := make([]quota.Count, len(limits))
	for i, l := range limits {
		c, err := scanCount(p.tx.QueryRowContext(ctx, p.db.Q(`SELECT n, fired FROM crmguard_quota_counts
			WHERE tenant = $1 AND day = $2 AND person = $3 AND counter = $4`), p.tenant, int64(p.day), p.person, l.Counter))
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return nil, err
		}
		counts[i] = c
	}
	return counts, nil
}

func scanCount(row *sql.Row) (quota.Count, error) {
	var c quota.Count
	err := row.Scan(&c.N, &c.Fired)
	return c, err
}

func (p *person) put(ctx context.Context, counter string, c quota.Count) error {
	_, err := p.tx.ExecContext(ctx, p.db.Q(`INSERT INTO crmguard_quota_counts (tenant, day, person, counter, n, fired)
		VALUES ($1, $2, $3, $4, $5, $6)
		ON CONFLICT (tenant, day, person, counter) DO UPDATE SET n = excluded.n, fired = excluded.fired`),
		p.tenant, int64(p.day), p.person, counter, c.N, int64(c.Fired))
	return err
}

// sort finds the items that are new to a counter, and those that somebody other
// than holder could give back.
func (p *person) sort(ctx context.Context, counter string, items []string, holder int64) (fresh, held []string, err error) {
	seen := make(map[string]bool, len(items))
	for part := range chunks(items) {
		args := append([]any{p.tenant, int64(p.day), p.person, counter}, anys(part)...)
		rows, err := p.tx.QueryContext(ctx, p.db.Q(`SELECT item, holder FROM crmguard_quota_items
			WHERE tenant = $1 AND day = $2 AND person = $3 AND counter = $4 AND item IN (`+sqldb.Params(5, len(part))+`)`), args...)
		if err != nil {
			return nil, nil, err
		}
		defer rows.Close()
		for rows.Next() {
			var item string
			var by int64
			if err := rows.Scan(&item, &by); err != nil {
				return nil, nil, err
			}
			seen[item] = true
			if by != 0 && by != holder {
				held = append(held, item)
			}
		}
		if err := rows.Err(); err != nil {
			return nil, nil, err
		}
	}
	for _, item := range items {
		if !seen[item] {
			fresh = append(fresh, item)
		}
	}
	return fresh, held, nil
}

func (p *person) add(ctx context.Context, counter string, items []string, holder int64) error {
	for part := range chunks(items) {
		var values strings.Builder
		for i := range part {
			if i > 0 {
				values.WriteString(", ")
			}
			values.WriteString("($1, $2, $3, $4, $5, $" + strconv.Itoa(6+i) + ")")
		}
		args := append([]any{p.tenant, int64(p.day), p.person, counter, holder}, anys(part)...)
		if _, err := p.tx.ExecContext(ctx, p.db.Q(`INSERT INTO crmguard_quota_items (tenant, day, person, counter, holder, item)
			VALUES `+values.String()), args...); err != nil {
			return err
		}
	}
	return nil
}

// claim takes items from their holders: they are opened now.
func (p *person) claim(ctx context.Context, counter string, items []string) error {
	for part := range chunks(items) {
		args := append([]any{p.tenant, int64(p.day), p.person, counter}, anys(part)...)
		if _, err := p.tx.ExecContext(ctx, p.db.Q(`UPDATE crmguard_quota_items SET holder = 0
			WHERE tenant = $1 AND day = $2 AND person = $3 AND counter = $4 AND item IN (`+sqldb.Params(5, len(part))+`)`), args...); err != nil {
			return err
		}
	}
	return nil
}

// sweep removes rows of days that are over: more than were added, so that they
// become fewer, and not all at once. The day before stays, for a Take that was
// under way when the tenant's day changed.
func (p *person) sweep(ctx context.Context, added int) error {
	if added == 0 {
		return nil
	}
	for _, table := range []struct{ name, key string }{
		{"crmguard_quota_items", "tenant, day, person, counter, item"},
		{"crmguard_quota_counts", "tenant, day, person, counter"},
	} {
		query := `DELETE FROM ` + table.name + ` WHERE (` + table.key + `) IN (SELECT ` + table.key + ` FROM ` + table.name + `
			WHERE tenant = $1 AND day < $2 ORDER BY ` + table.key + ` LIMIT ` + strconv.Itoa(quota.SweepRows+2*added)
		if p.db.Dialect == sqldb.Postgres {
			query += ` FOR UPDATE SKIP LOCKED` // or two that remove the same rows could wait for each other
		}
		if _, err := p.tx.ExecContext(ctx, p.db.Q(query+`)`), p.tenant, int64(p.day)-1); err != nil {
			return err
		}
	}
	return nil
}

func (p *person) giveBack(ctx context.Context, t *quota.Taking, fired []quota.Fired) error {
	if _, err := p.tx.ExecContext(ctx, p.db.Q(`UPDATE crmguard_quota_counts SET n = n
		WHERE tenant = $1 AND day = $2 AND person = $3 AND counter = $4`),
		p.tenant, int64(p.day), p.person, quota.AttemptsCounter); err != nil { // see lock
		return err
	}
	for _, f := range fired {
		if _, err := p.tx.ExecContext(ctx, p.db.Q(`UPDATE crmguard_quota_counts SET fired = fired & CAST($1 AS SMALLINT)
			WHERE tenant = $2 AND day = $3 AND person = $4 AND counter = $5`),
			int64(^f.Level&(quota.Soft|quota.Hard)), p.tenant, int64(p.day), p.person, f.Counter); err != nil {
			return err
		}
	}
	if t.Holder == 0 {
		return nil
	}
	for _, l := range t.Limits {
		var removed int64
		for part := range chunks(t.Items) {
			args := append([]any{p.tenant, int64(p.day), p.person, l.Counter, t.Holder}, anys(part)...)
			result, err := p.tx.ExecContext(ctx, p.db.Q(`DELETE FROM crmguard_quota_items
				WHERE tenant = $1 AND day = $2 AND person = $3 AND counter = $4 AND holder = $5 AND item IN (`+sqldb.Params(6, len(part))+`)`), args...)
			if err != nil {
				return err
			}
			n, err := result.RowsAffected()
			if err != nil {
				return err
			}
			removed += n
		}
		if _, err := p.tx.ExecContext(ctx, p.db.Q(`UPDATE crmguard_quota_counts SET n = n - $1
			WHERE tenant = $2 AND day = $3 AND person = $4 AND counter = $5`),
			removed, p.tenant, int64(p.day), p.person, l.Counter); err != nil {
			return err
		}
	}
	return nil
}
