package encryptsql

import (
	"context"
	"database/sql"

	"github.com/crmguard/crmguard/internal/sqldb"
)

// NewUnchecked is New without its look at secure_delete, so that tests can show
// what that look prevents.
func NewUnchecked(ctx context.Context, db *sql.DB) (*Store, error) {
	wrapped, err := sqldb.New(ctx, db, "")
	if err != nil {
		return nil, err
	}
	return &Store{db: wrapped}, wrapped.Migrate(ctx, "keys", Migrations)
}
