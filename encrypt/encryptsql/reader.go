package encryptsql

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/internal/sqldb"
)

// NewReader reads keys from a database that is there already, for tools beside the host: it makes no
// tables and looks at no settings, so a role or connection that may only read is enough.
// What would write fails.
func NewReader(ctx context.Context, db *sql.DB, o *Options) (*Store, error) {
	if o == nil {
		o = &Options{}
	}
	wrapped, err := sqldb.New(ctx, db, o.TablePrefix)
	if err != nil {
		return nil, fmt.Errorf("encryptsql: %w", err)
	}
	store := &Store{db: wrapped}
	if _, _, err := store.CountPending(ctx, encrypt.PendingField{}); err != nil { // the newest table
		return nil, err
	}
	return store, nil
}
