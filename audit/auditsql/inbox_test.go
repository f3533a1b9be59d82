package auditsql_test

import (
	"context"
	"database/sql"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/internal/journaltest"
	"github.com/crmguard/crmguard/internal/sqldb/sqldbtest"
)

// Whatever somebody plants in the inbox, the entries of others are chained.
func TestHostileInbox(t *testing.T) {
	const insert = `INSERT INTO crmguard_audit_inbox (log, since, tenant, event, outcome, body) VALUES ('main', `
	many := func(db *sql.DB) error {
		tx, err := db.Begin()
		if err != nil {
			return err
		}
		defer tx.Rollback() //nolint:errcheck // after Commit it does nothing
		for i := range 600 {
			if _, err := tx.Exec(insert+`1, 'acme', $1, 2, $2)`, fmt.Sprint("bad-", i), []byte("nonsense")); err != nil {
				return err
			}
		}
		return tx.Commit()
	}
	one := func(values string, args ...any) func(*sql.DB) error {
		return func(db *sql.DB) error {
			_, err := db.Exec(insert+values+`)`, args...)
			return err
		}
	}
	body := bodies(t, 1)[0].Body
	plants := map[string]func(*sql.DB) error{
		"an outcome beyond a byte":              one(`1, 'acme', 'event-0', 258, $1`, body),
		"a negative outcome":                    one(`1, 'acme', 'event-0', -254, $1`, body),
		"more than a page that does not decode": many,
		"a huge body":                           one(`1, 'acme', 'huge', 2, $1`, make([]byte, 10<<20)),
		"no body":                               one(`1, 'acme', 'none', 2, $1`, []byte{}),
		"a body that decodes and is too long":   one(`1, 'acme', 'long', 2, $1`, longBody(t)),
	}
	onlySQLite := map[string]func(*sql.DB) error{
		"a since that is no number":    one(`'abc', 'acme', 'event-0', 2, $1`, body),
		"a since that is a fraction":   one(`1.5, 'acme', 'event-0', 2, $1`, body),
		"an outcome that is no number": one(`1, 'acme', 'event-0', 'abc', $1`, body),
		"an event of bytes":            one(`1, 'acme', x'6576656e742d30', 2, $1`, body),
		"a tenant of bytes":            one(`1, x'61636d65', 'event-0', 2, $1`, body),
		"a body that is a number":      one(`1, 'acme', 'event-0', 2, 5`),
	}
	test := func(t *testing.T, db *sql.DB, plant func(*sql.DB) error) {
		signer, verifier := journaltest.Signer(t)
		log := openLog(t, db, signer, verifier)
		require.NoError(t, plant(db))
		require.NoError(t, log.InTx(t.Context(), db, inTx(7)))
		store := newStore(t, db)
		require.Eventually(t, func() bool { return events(t, store)["event-7"] == 1 }, time.Minute, 5*time.Millisecond)
		require.Error(t, log.Close(), "what cannot be chained is told")
		require.Positive(t, count(t, db, "crmguard_audit_inbox"), "and stays")
		r := verify(t, store, verifier)
		require.True(t, r.OK(), r.Detail)
		require.EqualValues(t, 1, r.Entries)
	}
	for name, plant := range plants {
		t.Run(name, func(t *testing.T) {
			sqldbtest.Each(t, func(t *testing.T, db *sql.DB) { test(t, db, plant) })
		})
	}
	for name, plant := range onlySQLite {
		t.Run(name, func(t *testing.T) { test(t, sqldbtest.SQLite(t), plant) })
	}
}

// longBody decodes, and would make a record that no reader accepts.
func longBody(t *testing.T) []byte {
	t.Helper()
	c := &capture{Memory: audit.NewMemory()}
	signer, verifier := journaltest.Signer(t)
	log, err := audit.New(t.Context(), c, journaltest.NewSealer(), signer, verifier, nil)
	require.NoError(t, err)
	e := journaltest.Event(0)
	e.Private = nil
	_, err = log.RecordTx(t.Context(), nil, e)
	require.NoError(t, err)
	require.NoError(t, log.Close())
	body := c.put[0].Body
	body = append(body[:len(body)-2], 0, 2) // two private values
	for range 2 {
		body = append(body, 0, 0, 0, 0, 1, 0x9c, 0x40)
		body = append(body, make([]byte, 40000)...)
	}
	return body
}

func inTx(i int) func(context.Context, *sql.Tx, func(crmguard.Event) error) error {
	return func(_ context.Context, _ *sql.Tx, record func(crmguard.Event) error) error {
		return record(journaltest.Event(i))
	}
}
