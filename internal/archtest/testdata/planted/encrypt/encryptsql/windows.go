//go:build windows

package encryptsql

import (
	_ "database/sql"
	_ "github.com/crmguard/crmguard/audit"
	_ "github.com/crmguard/crmguard/encrypt"
	_ "github.com/crmguard/crmguard/internal/sqldb"
	_ "github.com/jackc/pgx/v5/stdlib"
)
