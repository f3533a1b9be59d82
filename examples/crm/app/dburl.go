package app

import (
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// PostgresURL names a PostgreSQL database, as postgres://user:password@host/name.
// It may hold a password, so that it shows itself to nobody.
//
// Where the host is another machine, connections are encrypted and its certificate
// is checked, unless sslmode in the URL or PGSSLMODE says otherwise. A password may
// also come from PGPASSWORD or from a .pgpass file.
type PostgresURL string

// connectTimeout ends an attempt to reach a machine that does not answer.
const connectTimeout = 10 * time.Second

const hiddenURL = "postgres://…"

// String hides the URL.
func (PostgresURL) String() string { return hiddenURL }

// GoString hides the URL.
func (PostgresURL) GoString() string { return hiddenURL }

// LogValue hides the URL.
func (PostgresURL) LogValue() slog.Value { return slog.StringValue(hiddenURL) }

// errURL repeats nothing of what was typed: what looks like a host or a database
// may be a piece of the password.
var errURL = errors.New("the database is not given as postgres://user:password@host/name: in a password write %40 for @, %2F for /, %3A for :, %3F for ?, %23 for # and %25 for %")

// config reads the URL.
func (u PostgresURL) config() (*pgx.ConnConfig, error) {
	parsed, err := url.Parse(string(u))
	if err != nil || parsed.Scheme != "postgres" && parsed.Scheme != "postgresql" || parsed.Opaque != "" ||
		parsed.Fragment != "" || strings.Contains(parsed.Path+parsed.RawQuery, "@") { // a password was cut there
		return nil, errURL
	}
	// As parsed and written again, so that the driver finds the same password.
	config, err := pgx.ParseConfig(parsed.String())
	if err != nil {
		return nil, badOptions(err)
	}
	query := parsed.Query()
	said := query.Get("sslmode") != "" || query.Get("ssl") == "true" || os.Getenv("PGSSLMODE") != ""
	if !isLocal(config) && !said {
		if parsed.RawQuery != "" {
			parsed.RawQuery += "&"
		}
		parsed.RawQuery += "sslmode=verify-full"
		if config, err = pgx.ParseConfig(parsed.String()); err != nil {
			return nil, badOptions(err)
		}
	}
	if config.ConnectTimeout == 0 {
		config.ConnectTimeout = connectTimeout
	}
	// The locks of a machine that is gone are not kept for hours.
	for name, seconds := range map[string]string{"tcp_keepalives_idle": "30", "tcp_keepalives_interval": "10", "tcp_keepalives_count": "3"} {
		if _, said := config.RuntimeParams[name]; !said {
			config.RuntimeParams[name] = seconds
		}
	}
	return config, nil
}

// badOptions says why the driver refuses a URL, without the URL.
func badOptions(err error) error {
	if refused, ok := errors.AsType[*pgconn.ParseConfigError](err); ok {
		err = refused.Unwrap()
	}
	if err == nil {
		return errURL
	}
	return fmt.Errorf("the URL of the database cannot be used: %w", err)
}
