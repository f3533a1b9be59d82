package auditsql

import (
	"context"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/internal/sqldb"
)

// A batch of any size is one statement, which PostgreSQL prepares once for each
// connection and answers once. Rows come as an array for each column, and as one value
// that holds the bytes of all of them: of each its hashes and its record.
// Nothing is written unless the log stands where the batch begins.
const (
	batchBegins = `WITH before AS MATERIALIZED (
	SELECT 1 WHERE $2::BIGINT = 0 OR EXISTS (SELECT 1 FROM crmguard_audit_entries WHERE log = $1 AND seq = $2 - 1 AND substring(hashes FROM 1 FOR 32) = $3)
), tail AS (
	INSERT INTO crmguard_audit_tail (log, body) SELECT $1, $4::BYTEA FROM before WHERE $4 IS NOT NULL
	ON CONFLICT (log) DO UPDATE SET body = excluded.body
)`

	// A row that is there stays as it is: whoever planted it said what the record
	// says, too.
	batchClients = `, clients AS (
	INSERT INTO crmguard_audit_clients (log, tenant, client, seq)
	SELECT $1, c.tenant, c.client, c.seq
	FROM before, unnest($19::TEXT[], $20::TEXT[], $21::BIGINT[]) AS c (tenant, client, seq)
	ON CONFLICT DO NOTHING
)`

	batchRows = `
INSERT INTO crmguard_audit_entries (log, seq, tenant, event, outcome, subject, kind, object, action, addr, occurred, hashes, record)
SELECT $1, r.seq, r.tenant, r.event, r.outcome, r.subject, r.kind, r.object, r.action, r.addr, r.occurred,
	substring($5::BYTEA FROM r.start FOR r.hashes), substring($5::BYTEA FROM r.start + r.hashes FOR r.record)
FROM before, unnest($6::BIGINT[], $7::TEXT[], $8::TEXT[], $9::SMALLINT[], $10::TEXT[], $11::TEXT[], $12::TEXT[], $13::TEXT[], $14::TEXT[], $15::BIGINT[],
	$16::INT[], $17::INT[], $18::INT[])
	AS r (seq, tenant, event, outcome, subject, kind, object, action, addr, occurred, start, hashes, record)`
)

// insertAtOnce adds the rows of a batch with all that belongs to them.
func (s *Store) insertAtOnce(ctx context.Context, tx audit.Tx, b *audit.Batch) error {
	if len(b.Rows) == 0 && b.Tail == nil {
		return nil
	}
	var seq, tenant, event, outcome, subject, kind, object, action, addr, occurred, start, hashes, record sqldb.Array
	for _, column := range []*sqldb.Array{&seq, &tenant, &event, &outcome, &subject, &kind, &object, &action, &addr, &occurred, &start, &hashes, &record} {
		column.Grow(16 * len(b.Rows))
	}
	var clientTenant, client, clientSeq sqldb.Array
	clients := 0
	size := 0
	for i := range b.Rows {
		size += 32*len(b.Rows[i].Hashes) + len(b.Rows[i].Record)
	}
	bytes := make([]byte, 0, size)
	for i := range b.Rows {
		r, k := &b.Rows[i], &b.Rows[i].Keys
		start.Number(int64(len(bytes) + 1))
		for _, h := range r.Hashes {
			bytes = append(bytes, h[:]...)
		}
		bytes = append(bytes, r.Record...)
		hashes.Number(int64(32 * len(r.Hashes)))
		record.Number(int64(len(r.Record)))
		seq.Number(r.Seq)
		tenant.Text(k.Tenant)
		event.Text(k.Event)
		outcome.Number(int64(k.Outcome))
		subject.Text(k.Subject)
		kind.Text(k.Kind)
		object.Text(k.Record)
		action.Text(string(k.Action))
		addr.Text(k.Addr)
		occurred.Number(k.Time)
		clients += len(k.Clients)
		for _, c := range k.Clients {
			clientTenant.Text(k.Tenant)
			client.Text(c)
			clientSeq.Number(r.Seq)
		}
	}
	after := b.After
	if len(b.Rows) == 0 {
		after.Size = 0 // nothing is continued
	}
	var tail any // a driver may take a slice that is nil for an empty one
	if b.Tail != nil {
		tail = b.Tail
	}
	query := batchBegins + batchRows
	args := []any{
		s.log, after.Size, after.Last[:], tail, bytes,
		seq.String(), tenant.String(), event.String(), outcome.String(), subject.String(), kind.String(), object.String(), action.String(), addr.String(), occurred.String(),
		start.String(), hashes.String(), record.String(),
	}
	if clients > 0 {
		query = batchBegins + batchClients + batchRows
		args = append(args, clientTenant.String(), client.String(), clientSeq.String())
	}
	result, err := tx.ExecContext(ctx, s.db.Q(query), args...)
	return whole(result, err, len(b.Rows))
}

// takeAtOnce deletes entries from the inbox in one statement.
func (s *Store) takeAtOnce(ctx context.Context, tx audit.Tx, taken []audit.Waiting) error {
	if len(taken) == 0 {
		return nil
	}
	var tenant, event, outcome sqldb.Array
	for i := range taken {
		tenant.Text(taken[i].Tenant)
		event.Text(taken[i].Event)
		outcome.Number(int64(taken[i].Outcome))
	}
	result, err := tx.ExecContext(ctx, s.db.Q(`DELETE FROM crmguard_audit_inbox AS i USING unnest($2::TEXT[], $3::TEXT[], $4::SMALLINT[]) AS t (tenant, event, outcome)
		WHERE i.log = $1 AND i.tenant = t.tenant AND i.event = t.event AND i.outcome = t.outcome`),
		s.log, tenant.String(), event.String(), outcome.String())
	return whole(result, err, len(taken))
}
