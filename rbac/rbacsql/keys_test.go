package rbacsql_test

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"database/sql"
	"fmt"
	"sync"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/internal/sqldb"
	"github.com/crmguard/crmguard/rbac/rbacsql"
)

// secretKeys make the same MACs in every process, as those of one installation do.
type secretKeys string

const testKeys secretKeys = "of this installation"

func (k secretKeys) MAC(ctx context.Context, at crmguard.Place, data []byte) ([]byte, error) {
	if _, err := crmguard.CheckSubject(ctx, at.Tenant); err != nil {
		return nil, err
	}
	h := hmac.New(sha256.New, []byte(k))
	_, _ = fmt.Fprintf(h, "%q %x", []string{at.Tenant, at.Client, at.Kind, at.Record, at.Field}, data)
	return h.Sum(nil), nil
}

func (k secretKeys) Verify(ctx context.Context, at crmguard.Place, data, mac []byte) error {
	want, err := k.MAC(ctx, at, data)
	if err == nil && !hmac.Equal(want, mac) {
		err = crmguard.ErrMAC
	}
	return err
}

// memoryMarks outlast what a test calls a restart.
type memoryMarks struct {
	mu      sync.Mutex
	highest map[string]int64
	fail    error
}

func (m *memoryMarks) Raise(_ context.Context, tenant string, version int64) (int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.highest == nil {
		m.highest = map[string]int64{}
	}
	m.highest[tenant] = max(m.highest[tenant], version)
	return m.highest[tenant], m.fail
}

var _ rbacsql.Marks = (*memoryMarks)(nil)

// tableMarks are shared by processes.
type tableMarks struct{ db *sql.DB }

func newTableMarks(ctx context.Context, db *sql.DB) (tableMarks, error) {
	m := tableMarks{db}
	_, err := m.db.ExecContext(ctx, `CREATE TABLE IF NOT EXISTS marks (tenant TEXT PRIMARY KEY, version BIGINT NOT NULL)`)
	return m, err
}

func (m tableMarks) Raise(ctx context.Context, tenant string, version int64) (highest int64, err error) {
	d, err := sqldb.New(ctx, m.db, "")
	if err != nil {
		return 0, err
	}
	return highest, d.Retry(ctx, func() error {
		return m.db.QueryRowContext(ctx, `INSERT INTO marks (tenant, version) VALUES ($1, $2) ON CONFLICT (tenant)
			DO UPDATE SET version = CASE WHEN excluded.version > marks.version THEN excluded.version ELSE marks.version END RETURNING version`, tenant, version).Scan(&highest)
	})
}
