package auditsql

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/internal/sqldb"
)

const selectEntries = `SELECT seq, tenant, event, outcome, subject, kind, object, action, occurred, chain, hashes, record FROM crmguard_audit_entries WHERE log = $1`

// Read implements [audit.Store].
func (s *Store) Read(ctx context.Context, from int64, n int) ([]audit.Row, error) {
	rows, damaged, err := s.entries(ctx, selectEntries+` AND seq >= $2 ORDER BY seq LIMIT $3`, s.log, from, n)
	if err != nil {
		return nil, fmt.Errorf("auditsql: read: %w", err)
	}
	if damaged != nil && len(rows) == 0 {
		return nil, damaged
	}
	if len(rows) == 0 {
		return nil, nil
	}
	if err := s.clients(ctx, rows); err != nil {
		return nil, fmt.Errorf("auditsql: read: %w", err)
	}
	return rows, nil
}

// entries stops before the first row whose hashes do not have their length.
func (s *Store) entries(ctx context.Context, query string, args ...any) (list []audit.Row, damaged *audit.BrokenError, err error) {
	rows, err := s.db.QueryContext(ctx, s.db.Q(query), args...)
	if err != nil {
		return nil, nil, err
	}
	defer rows.Close() //nolint:errcheck // Err tells
	for rows.Next() {
		var r audit.Row
		k := &r.Keys
		var outcome int64
		var chain, hashes []byte
		if err := rows.Scan(&r.Seq, &k.Tenant, &k.Event, &outcome, &k.Subject, &k.Kind, &k.Record, &k.Action, &k.Time, &chain, &hashes, &r.Record); err != nil {
			return nil, nil, err
		}
		if len(chain) != 32 || len(hashes)%32 != 0 || outcome < 0 || outcome > 255 {
			return list, &audit.BrokenError{Seq: r.Seq, Detail: "a hash or number has another length"}, nil
		}
		k.Outcome = crmguard.Outcome(outcome)
		r.Chain = [32]byte(chain)
		for ; len(hashes) > 0; hashes = hashes[32:] {
			r.Hashes = append(r.Hashes, [32]byte(hashes[:32]))
		}
		list = append(list, r)
	}
	return list, nil, rows.Err()
}

// clients fills in the clients of consecutive rows.
func (s *Store) clients(ctx context.Context, list []audit.Row) error {
	byLine := make(map[int64]*audit.Row, len(list))
	for i := range list {
		byLine[list[i].Seq] = &list[i]
	}
	rows, err := s.db.QueryContext(ctx, s.db.Q(`SELECT seq, tenant, client FROM crmguard_audit_clients WHERE log = $1 AND seq BETWEEN $2 AND $3`),
		s.log, list[0].Seq, list[len(list)-1].Seq)
	if err != nil {
		return err
	}
	defer rows.Close() //nolint:errcheck // Err tells
	for rows.Next() {
		var seq int64
		var tenant, client string
		if err := rows.Scan(&seq, &tenant, &client); err != nil {
			return err
		}
		r := byLine[seq]
		if r == nil {
			continue
		}
		if tenant != r.Keys.Tenant { // makes the row differ from its record
			client = tenant + "\x00" + client
		}
		r.Keys.Clients = append(r.Keys.Clients, client)
	}
	if err := rows.Err(); err != nil {
		return err
	}
	for i := range list {
		slices.Sort(list[i].Keys.Clients)
	}
	return nil
}

// Find implements [audit.Store].
func (s *Store) Find(ctx context.Context, q audit.Query) ([]audit.Row, error) {
	var where strings.Builder
	args := []any{s.log}
	and := func(condition string, arg any) {
		args = append(args, arg)
		fmt.Fprintf(&where, " AND %s $%d", condition, len(args))
	}
	and("tenant =", q.Tenant)
	for _, c := range []struct{ column, value string }{
		{"subject =", q.Subject}, {"kind =", q.Kind}, {"object =", q.Record}, {"action =", string(q.Action)},
	} {
		if c.value != "" {
			and(c.column, c.value)
		}
	}
	if q.Outcome != 0 {
		and("outcome =", int64(q.Outcome))
	}
	if !q.From.IsZero() {
		and("occurred >=", sqldb.Micros(q.From))
	}
	if !q.To.IsZero() {
		and("occurred <", sqldb.Micros(q.To))
	}
	if q.Before > 0 {
		and("seq <", q.Before)
	}
	if q.Client != "" {
		args = append(args, q.Client)
		fmt.Fprintf(&where, " AND seq IN (SELECT c.seq FROM crmguard_audit_clients c WHERE c.log = $1 AND c.tenant = $2 AND c.client = $%d)", len(args))
	}
	args = append(args, q.Limit)
	rows, _, err := s.entries(ctx, selectEntries+where.String()+fmt.Sprintf(" ORDER BY seq DESC LIMIT $%d", len(args)), args...)
	if err != nil {
		return nil, fmt.Errorf("auditsql: find: %w", err)
	}
	return rows, nil
}

// Waiting implements [audit.Inbox].
func (s *Store) Waiting(ctx context.Context, n int) ([]audit.Waiting, error) {
	rows, err := s.db.QueryContext(ctx, s.db.Q(`SELECT since, tenant, event, outcome, body FROM crmguard_audit_inbox WHERE log = $1 ORDER BY since, event, outcome LIMIT $2`), s.log, n)
	if err != nil {
		return nil, fmt.Errorf("auditsql: inbox: %w", err)
	}
	defer rows.Close() //nolint:errcheck // Err tells
	var list []audit.Waiting
	for rows.Next() {
		var w audit.Waiting
		var outcome int64
		if err := rows.Scan(&w.Since, &w.Tenant, &w.Event, &outcome, &w.Body); err != nil {
			return nil, fmt.Errorf("auditsql: inbox: %w", err)
		}
		w.Outcome = crmguard.Outcome(outcome) //nolint:gosec // compared with the body's
		list = append(list, w)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("auditsql: inbox: %w", err)
	}
	return list, nil
}
