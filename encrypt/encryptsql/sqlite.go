package encryptsql

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/crmguard/crmguard/internal/sqldb"
)

// OpenSQLite keeps keys in a file of their own. With create it makes the file, with mode
// 0600, and its folder, with 0700, where they do not exist: at installation only, or a
// keys folder that is not mounted becomes a new, empty key store beside the data of the
// old one. Without, a file that is missing or holds no keys table is refused; the first is
// fs.ErrNotExist. So is a file that others can read. The host imports a driver for
// SQLite, such as modernc.org/sqlite.
func OpenSQLite(ctx context.Context, path string, create bool) (*Store, error) {
	if strings.ContainsAny(path, "?#") || strings.Contains(path, ":") {
		return nil, fmt.Errorf("encryptsql: %s: drivers read more than a path from names with ?, # or a colon", path)
	}
	flags := os.O_RDWR
	if create {
		flags |= os.O_CREATE
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return nil, fmt.Errorf("encryptsql: %w", err)
		}
	}
	file, err := os.OpenFile(path, flags, 0o600) //nolint:gosec // the host chooses the path
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("encryptsql: no key store: put the keys folder back, or mount it: %w", err)
	}
	if err != nil {
		return nil, fmt.Errorf("encryptsql: %w", err)
	}
	info, err := file.Stat()
	if err := errors.Join(err, file.Close()); err != nil {
		return nil, fmt.Errorf("encryptsql: %w", err)
	}
	if runtime.GOOS != "windows" && info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("encryptsql: %s has mode %04o, so others can read it: chmod 600", path, info.Mode().Perm())
	}
	db, err := sqldb.OpenSQLite(ctx, path)
	if err != nil {
		return nil, fmt.Errorf("encryptsql: %w", err)
	}
	if !create {
		err = hasKeys(ctx, db, path)
	}
	var store *Store
	if err == nil {
		store, err = New(ctx, db, nil)
	}
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	store.opened = db
	return store, nil
}

// hasKeys refuses a file in which there never was a key store.
func hasKeys(ctx context.Context, db *sql.DB, path string) error {
	var one int
	err := db.QueryRowContext(ctx, `SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'crmguard_keys'`).Scan(&one)
	if errors.Is(err, sql.ErrNoRows) {
		return fmt.Errorf("encryptsql: %s is no key store: put the right file back", path)
	}
	if err != nil {
		return fmt.Errorf("encryptsql: %w", err)
	}
	return nil
}

// ErrNotGoneYet says that a reader kept the write-ahead log from being truncated, so
// a destroyed key could still be read from it. The next try may succeed.
var ErrNotGoneYet = errors.New("encryptsql: the write-ahead log is in use, so the key is not gone yet")

// setting is what a pragma must be.
type setting struct {
	pragma string
	good   func(value string) bool
	why    string
}

var (
	secureDelete = setting{"secure_delete", func(v string) bool { return v == "1" }, // 2 is "fast", which leaves free pages as they are
		"what is deleted would stay in the file"}
	synchronous = setting{"synchronous", func(v string) bool { return v == "2" || v == "3" },
		"a power cut could lose a key that has sealed data already"}
	writeAhead = setting{"journal_mode", func(v string) bool { return v == "wal" },
		"old pages would stay in deleted journal files"}
)

// checkSettings looks at connections held at the same time, so that one on which
// somebody has set a pragma by hand does not vouch for the others.
func checkSettings(ctx context.Context, db *sql.DB, settings ...setting) error {
	probes := 4
	if limit := db.Stats().MaxOpenConnections; limit > 0 {
		probes = min(probes, limit)
	}
	for range probes {
		conn, err := db.Conn(ctx)
		if err != nil {
			return fmt.Errorf("encryptsql: %w", err)
		}
		defer conn.Close() //nolint:errcheck // goes back to the pool
		for _, s := range settings {
			var value string
			if err := conn.QueryRowContext(ctx, `PRAGMA `+s.pragma).Scan(&value); err != nil {
				return fmt.Errorf("encryptsql: %w", err)
			}
			if !s.good(value) {
				return fmt.Errorf("encryptsql: %s is %s in a connection of this SQLite pool, so %s: set it for all connections, as OpenSQLite does", s.pragma, value, s.why)
			}
		}
	}
	return nil
}

// checkpointPatience is how long a checkpoint waits for readers, in milliseconds. All
// writers wait with it, so it is short.
const checkpointPatience = 250

// truncateWAL moves all pages from the write-ahead log into the file and empties
// the log.
func truncateWAL(ctx context.Context, db *sql.DB) (err error) {
	conn, err := db.Conn(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	var patience, busy, log, moved int
	if err := conn.QueryRowContext(ctx, `PRAGMA busy_timeout`).Scan(&patience); err != nil {
		return err
	}
	if _, err := conn.ExecContext(ctx, fmt.Sprintf(`PRAGMA busy_timeout = %d`, checkpointPatience)); err != nil {
		return err
	}
	checkpoint := conn.QueryRowContext(ctx, `PRAGMA wal_checkpoint(TRUNCATE)`).Scan(&busy, &log, &moved)
	if _, err := conn.ExecContext(context.WithoutCancel(ctx), fmt.Sprintf(`PRAGMA busy_timeout = %d`, patience)); err != nil {
		return err
	}
	switch {
	case checkpoint != nil:
		return fmt.Errorf("%w: %w", ErrNotGoneYet, checkpoint)
	case busy != 0:
		return ErrNotGoneYet
	}
	return nil
}
