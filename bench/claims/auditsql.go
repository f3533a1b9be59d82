package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"database/sql"
	"errors"
	"sync/atomic"
	"time"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/auditsql"
)

// auditSQLClaims compare the journal on PostgreSQL with what a host would do instead.
// All sides have 32 clients with a connection each, and each commit is flushed to the disk,
// as PostgreSQL does by default. Entries of the journal are found by tenant, person, record,
// action and address, in the order in which they came, rows of the others by person and time
// alone: six indexes against two.
func auditSQLClaims() []claim {
	return []claim{
		{name: "audit.pg", unit: "/s", direction: atLeast, limit: 1, open: openAuditPG(insertPlain)},
		{name: "audit.pg-chain", unit: "/s", direction: atLeast, limit: 5, open: openAuditPG(insertChained)},
		{name: "audit.tx", unit: "ms", direction: atMost, limit: 1.5, open: openAuditTx},
	}
}

const pgClients = 32

// journalConnections are the journal's own: so it waits for none of the clients', and what it
// prepared stays prepared.
const journalConnections = 2

// chainedWithin is after how long it is an error that what was committed is not chained.
const chainedWithin = time.Minute

// txTime is how long one round of transactions takes: so long that what is chained after the
// last of them has little weight.
const txTime = time.Second

// database is a schema of its own.
type database struct {
	*sql.DB
	*auditor
	store audit.Store
	drop  func() error
}

func newDatabase(ctx context.Context, s *servers) (_ *database, err error) {
	d := &database{}
	if d.DB, d.drop, err = s.schema(ctx, pgClients); err != nil {
		return nil, err
	}
	for _, statement := range []string{
		`CREATE TABLE plain (id TEXT PRIMARY KEY, tenant TEXT NOT NULL, subject TEXT NOT NULL, occurred BIGINT NOT NULL, data BYTEA NOT NULL)`,
		`CREATE INDEX plain_by_subject ON plain (tenant, subject, occurred)`,
		`CREATE TABLE chained (seq BIGINT PRIMARY KEY, chain BYTEA NOT NULL, tenant TEXT NOT NULL, subject TEXT NOT NULL, occurred BIGINT NOT NULL, data BYTEA NOT NULL)`,
		`CREATE INDEX chained_by_subject ON chained (tenant, subject, occurred)`,
		`CREATE TABLE contacts (id BIGINT PRIMARY KEY, name TEXT NOT NULL, calls BIGINT NOT NULL)`,
		`INSERT INTO contacts SELECT i, 'contact ' || i, 0 FROM generate_series(0, 9999) AS i`,
		`CREATE TABLE notes (id TEXT PRIMARY KEY, contact BIGINT NOT NULL, text BYTEA NOT NULL)`,
	} {
		if _, err := d.ExecContext(ctx, statement); err != nil {
			return nil, errors.Join(err, d.drop())
		}
	}
	own, err := s.beside(ctx, d.DB, journalConnections)
	if err != nil {
		return nil, errors.Join(err, d.drop())
	}
	drop := d.drop
	d.drop = func() error { return errors.Join(own.Close(), drop()) }
	store, err := auditsql.New(ctx, own, nil)
	if err != nil {
		return nil, errors.Join(err, d.drop())
	}
	d.store = store
	if d.auditor, err = newAuditor(ctx, store); err != nil {
		return nil, errors.Join(err, d.drop())
	}
	return d, nil
}

func (d *database) close() error { return errors.Join(d.auditor.close(), d.drop()) }

// openAuditPG records with one journal; peer writes an entry its own way.
func openAuditPG(peer func(ctx context.Context, db *sql.DB) error) func(context.Context, *servers) (trial, error) {
	return func(ctx context.Context, s *servers) (trial, error) {
		d, err := newDatabase(ctx, s)
		if err != nil {
			return trial{}, err
		}
		e := auditEvent()
		return trial{
			ours:  rate(pgClients, auditTime, func(ctx context.Context) error { return d.Record(ctx, e) }),
			peer:  rate(pgClients, auditTime, func(ctx context.Context) error { return peer(ctx, d.DB) }),
			close: d.close,
		}, nil
	}
}

var plainRow = make([]byte, 300)

// insertPlain is a row a transaction, with an index to find it by, and no protection.
func insertPlain(ctx context.Context, db *sql.DB) error {
	_, err := db.ExecContext(ctx, `INSERT INTO plain (id, tenant, subject, occurred, data) VALUES ($1, $2, $3, $4, $5)`,
		rand.Text(), "default", "employee-7", time.Now().UnixMicro(), plainRow)
	return err
}

// insertChained chains each row to the one before, one transaction after the other.
func insertChained(ctx context.Context, db *sql.DB) error {
	return inTx(ctx, db, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `SELECT pg_advisory_xact_lock(104729)`); err != nil {
			return err
		}
		var seq int64
		var chain []byte
		err := tx.QueryRowContext(ctx, `SELECT seq, chain FROM chained ORDER BY seq DESC LIMIT 1`).Scan(&seq, &chain)
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		next := sha256.Sum256(append(chain, plainRow...))
		_, err = tx.ExecContext(ctx, `INSERT INTO chained (seq, chain, tenant, subject, occurred, data) VALUES ($1, $2, $3, $4, $5, $6)`,
			seq+1, next[:], "default", "employee-7", time.Now().UnixMicro(), plainRow)
		return err
	})
}

func inTx(ctx context.Context, db *sql.DB, do func(tx *sql.Tx) error) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	if err := do(tx); err != nil {
		return errors.Join(err, tx.Rollback())
	}
	return tx.Commit()
}

// openAuditTx reads a contact, changes it and adds a note, in one transaction; ours
// adds an entry. Meanwhile the journal chains what was committed.
func openAuditTx(ctx context.Context, s *servers) (trial, error) {
	d, err := newDatabase(ctx, s)
	if err != nil {
		return trial{}, err
	}
	change := func(ctx context.Context, tx *sql.Tx) error {
		var id [2]byte
		_, _ = rand.Read(id[:]) // never fails
		contact := (int64(id[0])<<8 | int64(id[1])) % 10_000
		var name string
		if err := tx.QueryRowContext(ctx, `SELECT name FROM contacts WHERE id = $1`, contact).Scan(&name); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `UPDATE contacts SET calls = calls + 1 WHERE id = $1`, contact); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, `INSERT INTO notes (id, contact, text) VALUES ($1, $2, $3)`, rand.Text(), contact, plainRow)
		return err
	}
	e := auditEvent()
	var made atomic.Int64
	changes := rate(pgClients, txTime, func(ctx context.Context) error {
		made.Add(1)
		return d.InTx(ctx, d.DB, func(ctx context.Context, tx *sql.Tx, record func(crmguard.Event) error) error {
			return errors.Join(change(ctx, tx), record(e))
		})
	})
	return trial{
		// What is committed and not yet chained is ours to wait for, and no burden on the peer.
		ours: func(ctx context.Context) (float64, error) {
			before, err := d.store.Head(ctx)
			if err != nil {
				return 0, err
			}
			made.Store(0)
			start := time.Now()
			if _, err := changes(ctx); err != nil {
				return 0, err
			}
			ctx, cancel := context.WithTimeout(ctx, chainedWithin)
			defer cancel()
			last := before.Size + made.Load() - 1
			for chained := []audit.Row(nil); len(chained) == 0; time.Sleep(time.Millisecond) {
				if chained, err = d.store.Read(ctx, last, 1); err != nil {
					return 0, err
				}
			}
			return pgClients * 1000 * time.Since(start).Seconds() / float64(made.Load()), nil
		},
		peer: each(rate(pgClients, txTime, func(ctx context.Context) error {
			return inTx(ctx, d.DB, func(tx *sql.Tx) error { return change(ctx, tx) })
		})),
		rounds: 15, // the database writes in the background during some
		close:  d.close,
	}, nil
}

// each turns what all clients do in a second into how long one of them takes, in ms.
func each(m measurement) measurement {
	return func(ctx context.Context) (float64, error) {
		perSecond, err := m(ctx)
		return pgClients * 1000 / max(perSecond, 1), err
	}
}
