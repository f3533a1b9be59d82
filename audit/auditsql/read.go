package auditsql

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/internal/sqldb"
)

// selectEntries does not read what is too long for a record: it does not decode either
// way, and somebody may have put megabytes there.
const selectEntries = `SELECT seq, tenant, event, outcome, subject, kind, object, action, addr, occurred, hashes, CASE WHEN length(record) <= 65536 THEN record END FROM crmguard_audit_entries WHERE log = $1`

// maxSeq is more than there can be entries; one can be added to it.
const maxSeq = 1 << 62

// number is a column that should hold an integer. SQLite keeps whatever somebody
// writes there.
type number struct {
	v  any // as it was read, to go on from; nil if there was no row
	n  int64
	ok bool
}

// Scan implements [sql.Scanner].
func (n *number) Scan(v any) error {
	n.v = v
	n.n, n.ok = v.(int64)
	return nil
}

// Read implements [audit.Store].
func (s *Store) Read(ctx context.Context, from int64, n int) ([]audit.Row, error) {
	next := max(from, 0)
	after := next - 1 // on SQLite a row may stand at 3.5
	if next == 0 {
		after = math.MinInt64 // so that a row below zero is seen
	}
	found, err := s.entries(ctx, selectEntries+` AND seq > $2 ORDER BY seq LIMIT $3`, s.log, after, n)
	if err != nil {
		return nil, fmt.Errorf("auditsql: read: %w", err)
	}
	for i := range found {
		if err := found[i].damage(next); err != nil {
			if i == 0 {
				return nil, err
			}
			found = found[:i]
			break
		}
		next = found[i].row.Seq + 1
	}
	if len(found) == 0 {
		return nil, nil
	}
	if err := s.clients(ctx, found); err != nil {
		return nil, fmt.Errorf("auditsql: read: %w", err)
	}
	rows := make([]audit.Row, len(found))
	for i := range found {
		rows[i] = found[i].row
	}
	return rows, nil
}

// entry is a row as it was found, and what of it is no row of ours.
type entry struct {
	row     audit.Row
	seq     number
	damaged string
}

// damage returns a *BrokenError or nil. Next is the number that is expected.
func (e *entry) damage(next int64) error {
	switch {
	case e.damaged == "":
		return nil
	case !e.seq.ok || e.seq.n > maxSeq:
		return &audit.BrokenError{Seq: next, Detail: e.damaged}
	}
	return &audit.BrokenError{Seq: e.seq.n, Detail: e.damaged}
}

func (s *Store) entries(ctx context.Context, query string, args ...any) ([]entry, error) {
	rows, err := s.db.QueryContext(ctx, s.db.Q(query), args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close() //nolint:errcheck // Err tells
	var list []entry
	for rows.Next() {
		var e entry
		r, k := &e.row, &e.row.Keys
		var outcome, occurred number
		var hashes []byte
		if err := rows.Scan(&e.seq, &k.Tenant, &k.Event, &outcome, &k.Subject, &k.Kind, &k.Record, &k.Action, &k.Addr, &occurred, &hashes, &r.Record); err != nil {
			return nil, err
		}
		switch {
		case !e.seq.ok || e.seq.n < 0 || e.seq.n > maxSeq:
			e.damaged = "a row has what is no number of an entry"
		case !occurred.ok || !outcome.ok || outcome.n < 0 || outcome.n > math.MaxUint8:
			e.damaged = "a column holds no number, or one too large"
		case len(hashes)%32 != 0:
			e.damaged = "a hash has another length"
		default:
			r.Seq, k.Time, k.Outcome = e.seq.n, occurred.n, crmguard.Outcome(outcome.n)
			for ; len(hashes) > 0; hashes = hashes[32:] {
				r.Hashes = append(r.Hashes, [32]byte(hashes[:32]))
			}
		}
		list = append(list, e)
	}
	return list, rows.Err()
}

// clients fills in the clients of consecutive rows.
func (s *Store) clients(ctx context.Context, list []entry) error {
	byLine := make(map[int64]*audit.Row, len(list))
	for i := range list {
		byLine[list[i].row.Seq] = &list[i].row
	}
	rows, err := s.db.QueryContext(ctx, s.db.Q(`SELECT seq, tenant, client FROM crmguard_audit_clients WHERE log = $1 AND seq BETWEEN $2 AND $3`),
		s.log, list[0].row.Seq, list[len(list)-1].row.Seq)
	if err != nil {
		return err
	}
	defer rows.Close() //nolint:errcheck // Err tells
	for rows.Next() {
		var seq number
		var tenant, client string
		if err := rows.Scan(&seq, &tenant, &client); err != nil {
			return err
		}
		r := byLine[seq.n]
		if r == nil || !seq.ok {
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
		slices.Sort(list[i].row.Keys.Clients)
	}
	return nil
}

// Find implements [audit.Store]. A damaged row is left out: the others are found.
func (s *Store) Find(ctx context.Context, q audit.Query) ([]audit.Row, error) {
	var where strings.Builder
	args := []any{s.log}
	and := func(condition string, arg any) {
		args = append(args, arg)
		fmt.Fprintf(&where, " AND %s $%d", condition, len(args))
	}
	and("tenant =", q.Tenant)
	for _, c := range []struct{ column, value string }{
		{"event =", q.Event}, {"subject =", q.Subject}, {"kind =", q.Kind}, {"object =", q.Record}, {"action =", string(q.Action)},
	} {
		if c.value != "" {
			and(c.column, c.value)
		}
	}
	if q.Outcome != 0 {
		and("outcome =", int64(q.Outcome))
	}
	if q.Addr.IsValid() {
		and("addr =", q.Addr.String())
	}
	if !q.From.IsZero() {
		and("occurred >=", sqldb.Micros(q.From))
	}
	if !q.To.IsZero() {
		and("occurred <", sqldb.Micros(q.To))
	}
	if q.Client != "" {
		args = append(args, q.Client)
		fmt.Fprintf(&where, " AND seq IN (SELECT c.seq FROM crmguard_audit_clients c WHERE c.log = $1 AND c.tenant = $2 AND c.client = $%d)", len(args))
	}
	if len(q.Pseudonyms) > 0 {
		args = append(args, q.Private.Name)
		name := len(args)
		for _, p := range q.Pseudonyms {
			args = append(args, p)
		}
		fmt.Fprintf(&where, " AND (event, outcome) IN (SELECT p.event, p.outcome FROM crmguard_audit_pseudonyms p WHERE p.log = $1 AND p.tenant = $2 AND p.name = $%d AND p.pseudonym IN (%s))",
			name, sqldb.Params(name+1, len(q.Pseudonyms)))
	}
	var found []audit.Row
	before := any(int64(maxSeq))
	if q.Before > 0 {
		before = q.Before
	}
	for {
		page := append(slices.Clone(args), before, q.Limit)
		list, err := s.entries(ctx, selectEntries+where.String()+fmt.Sprintf(" AND seq >= 0 AND seq < $%d ORDER BY seq DESC LIMIT $%d", len(page)-1, len(page)), page...)
		if err != nil {
			return nil, fmt.Errorf("auditsql: find: %w", err)
		}
		for i := range list {
			if list[i].damaged == "" {
				found = append(found, list[i].row)
			}
			if len(found) == q.Limit {
				return found, nil
			}
			before = list[i].seq.v
		}
		if len(list) < q.Limit {
			return found, nil
		}
	}
}

// maxWaiting is the size of a body that is read at all: more than a sealed entry
// has.
const maxWaiting = 128 << 10

// text is a column that should hold text. SQLite keeps bytes there, too, which no
// text is equal to.
type text struct {
	s  string
	ok bool
}

// Scan implements [sql.Scanner].
func (t *text) Scan(v any) error {
	t.s, t.ok = v.(string)
	return nil
}

// Waiting implements [audit.Inbox]. What Put cannot have written is returned
// without a body.
func (s *Store) Waiting(ctx context.Context, skip, n int) ([]audit.Waiting, error) {
	query := fmt.Sprintf(`SELECT since, tenant, event, outcome, CASE WHEN length(body) <= %d THEN body END FROM crmguard_audit_inbox WHERE log = $1 ORDER BY since, tenant, event, outcome LIMIT $2 OFFSET $3`, maxWaiting)
	rows, err := s.db.QueryContext(ctx, s.db.Q(query), s.log, n, skip)
	if err != nil {
		return nil, fmt.Errorf("auditsql: inbox: %w", err)
	}
	defer rows.Close() //nolint:errcheck // Err tells
	var list []audit.Waiting
	for rows.Next() {
		var tenant, event text
		var since, outcome number
		var body []byte
		if err := rows.Scan(&since, &tenant, &event, &outcome, &body); err != nil {
			return nil, fmt.Errorf("auditsql: inbox: %w", err)
		}
		w := audit.Waiting{Since: since.n, Tenant: tenant.s, Event: event.s}
		if since.ok && tenant.ok && event.ok && outcome.ok && outcome.n >= 0 && outcome.n <= math.MaxUint8 {
			w.Outcome, w.Body = crmguard.Outcome(outcome.n), body
		}
		list = append(list, w)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("auditsql: inbox: %w", err)
	}
	return list, nil
}
