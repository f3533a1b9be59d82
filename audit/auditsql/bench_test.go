package auditsql_test

import (
	"context"
	"crypto/rand"
	"database/sql"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/internal/journaltest"
	"github.com/crmguard/crmguard/internal/sqldb/sqldbtest"
)

const clients = 32

// share lets clients do b.N operations.
func share(b *testing.B, do func() error) {
	b.Helper()
	var left atomic.Int64
	left.Store(int64(b.N))
	var wg sync.WaitGroup
	b.ResetTimer()
	for range clients {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				if err := do(); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "entries/s")
}

func pool(b *testing.B) *sql.DB {
	b.Helper()
	db := sqldbtest.Postgres(b)
	db.SetMaxOpenConns(clients)
	db.SetMaxIdleConns(clients)
	return db
}

func benchLog(b *testing.B, db *sql.DB) *audit.Log {
	b.Helper()
	signer, verifier := journaltest.Signer(b)
	log, err := audit.New(b.Context(), newStore(b, db), journaltest.NewSealer(), signer, verifier, nil)
	require.NoError(b, err)
	return log
}

func benchEvent() crmguard.Event {
	e := journaltest.Event(1)
	e.ID, e.Private = "", nil
	return e
}

func BenchmarkPostgresRecord(b *testing.B) {
	log := benchLog(b, pool(b))
	e := benchEvent()
	share(b, func() error { return log.Record(b.Context(), e) })
	require.NoError(b, log.Close())
}

// The peer of the benchmark above: a row a transaction, without any protection.
func BenchmarkPostgresPlainInsert(b *testing.B) {
	db := pool(b)
	_, err := db.Exec(`CREATE TABLE plain (id TEXT PRIMARY KEY, tenant TEXT NOT NULL, subject TEXT NOT NULL, occurred BIGINT NOT NULL, data BYTEA NOT NULL);
		CREATE INDEX plain_by_subject ON plain (tenant, subject, occurred)`)
	require.NoError(b, err)
	data := make([]byte, 300)
	share(b, func() error {
		_, err := db.ExecContext(b.Context(), `INSERT INTO plain (id, tenant, subject, occurred, data) VALUES ($1, $2, $3, $4, $5)`, rand.Text(), "acme", "anna", 1, data)
		return err
	})
}

func BenchmarkPostgresBusinessTransaction(b *testing.B) {
	for _, with := range []bool{false, true} {
		name := "without entry"
		if with {
			name = "with entry"
		}
		b.Run(name, func(b *testing.B) {
			db := pool(b)
			_, err := db.Exec(`CREATE TABLE contacts (id TEXT PRIMARY KEY, data BYTEA NOT NULL)`)
			require.NoError(b, err)
			log := benchLog(b, db)
			e := benchEvent()
			data := make([]byte, 300)
			insert := func(tx *sql.Tx) error {
				_, err := tx.ExecContext(b.Context(), `INSERT INTO contacts (id, data) VALUES ($1, $2)`, rand.Text(), data)
				return err
			}
			share(b, func() error {
				if with {
					return log.InTx(b.Context(), db, func(ctx context.Context, tx *sql.Tx, record func(crmguard.Event) error) error {
						if err := insert(tx); err != nil {
							return err
						}
						return record(e)
					})
				}
				tx, err := db.BeginTx(b.Context(), nil)
				if err != nil {
					return err
				}
				if err := insert(tx); err != nil {
					return err
				}
				return tx.Commit()
			})
			require.NoError(b, log.Close())
		})
	}
}
