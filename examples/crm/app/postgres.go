package app

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
)

// What PostgreSQL writes in another way than schema.sql.
var postgresWords = strings.NewReplacer(
	"INTEGER PRIMARY KEY AUTOINCREMENT", "BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY",
	"BLOB", "BYTEA",
)

// starts counts the processes that have opened the database; it also tells our
// databases from those of other programs.
const starts = "crm_starts"

// lockClass tells our advisory locks from those of other programs. The second
// half of a lock is the id of the schema.
const lockClass = 0x43524d

// handover is how long a start waits for the connections of a process that has
// just ended.
const handover = "3s"

// openPostgres opens the database for this process alone, where a folder is kept
// alone by its lock.
//
// Each connection holds an advisory lock in shared mode, and a start takes it in
// exclusive mode for a moment: it fails while another process has any connection,
// so that nothing is written behind its back. Then it draws the next number of a
// sequence, which each later connection compares. A process that lost all its
// connections, because the server or the network went down, goes on if nobody
// else has started meanwhile; otherwise what it remembers is out of date, and it
// gets no connection any more. Poolers that share connections between clients
// break this.
func openPostgres(ctx context.Context, url PostgresURL) (*store, error) {
	config, err := url.config()
	if err != nil {
		return nil, err
	}
	held, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return nil, whatToDo(config, err)
	}
	s := &store{name: databaseName(config), flag: "-db", release: func() error { return held.Close(context.Background()) }}
	number, err := s.take(ctx, held)
	if err != nil {
		return nil, errors.Join(whatToDo(config, err), s.close())
	}
	s.DB = stdlib.OpenDB(*config, stdlib.OptionAfterConnect(func(ctx context.Context, conn *pgx.Conn) error {
		if err := s.join(ctx, conn, number); err != nil {
			return errors.Join(err, conn.Close(ctx))
		}
		return nil
	}))
	s.SetMaxOpenConns(maxConns)
	s.SetMaxIdleConns(maxConns)
	return s, nil
}

// take makes sure that no other process has the database open, makes the tables
// where there are none, and returns the number of this start.
func (s *store) take(ctx context.Context, conn *pgx.Conn) (number int64, err error) {
	var schemaName, encoding string
	if err := conn.QueryRow(ctx, `SELECT COALESCE(current_schema(), ''), current_setting('server_encoding')`).Scan(&schemaName, &encoding); err != nil {
		return 0, err
	}
	if schemaName == "" {
		return 0, fmt.Errorf("the database %s has no schema for the tables: make the one that search_path names", s.name)
	}
	if encoding != "UTF8" {
		return 0, fmt.Errorf("the database %s keeps text as %s, which cannot hold every name: make one with CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0", s.name, encoding)
	}
	if _, err := conn.Exec(ctx, `SET lock_timeout = '`+handover+`'`); err != nil {
		return 0, err
	}
	if _, err := conn.Exec(ctx, `SELECT pg_advisory_lock($1, `+schemaID+`)`, lockClass); err != nil {
		if code(err) == "55P03" { // lock_not_available
			return 0, fmt.Errorf("the database %s is in use by another process: stop it first, or use another -db", s.name)
		}
		return 0, err
	}
	err = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error { // a start that fails leaves nothing
		if err := s.mayUse(ctx, tx); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, postgresWords.Replace(schema)+`; CREATE SEQUENCE IF NOT EXISTS `+starts); err != nil {
			return err
		}
		return tx.QueryRow(ctx, `SELECT nextval('`+starts+`')`).Scan(&number)
	})
	if err != nil {
		return 0, err
	}
	// Shared before the exclusive one is given up: nobody slips in between.
	_, err = conn.Exec(ctx, `SELECT pg_advisory_lock_shared($1, `+schemaID+`)`, lockClass)
	if err == nil {
		_, err = conn.Exec(ctx, `SELECT pg_advisory_unlock($1, `+schemaID+`)`, lockClass)
	}
	return number, err
}

// schemaID is the schema in which our tables are, as half of a lock.
const schemaID = `(SELECT oid::int4 FROM pg_catalog.pg_namespace WHERE nspname = current_schema())`

// mayUse refuses a schema that holds anything of another program's. What belongs
// to an extension does not count.
func (s *store) mayUse(ctx context.Context, tx pgx.Tx) error {
	var ours bool
	var others int
	var example string
	err := tx.QueryRow(ctx, `SELECT COALESCE(bool_or(c.relname = $1 AND c.relkind = 'S'), FALSE), COUNT(*), COALESCE(MIN(c.relname), '')
		FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
		WHERE n.nspname = current_schema() AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
			AND NOT EXISTS (SELECT 1 FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')`,
		starts).Scan(&ours, &others, &example)
	if err != nil {
		return err
	}
	if !ours && others > 0 {
		return fmt.Errorf("the database %s holds tables of another program, such as %s: nothing was changed; make an empty database for the CRM, and name it with -db", s.name, example)
	}
	return nil
}

// errTakenOver refuses new connections when another process has opened the
// database since.
var errTakenOver = errors.New("another process has opened the database since this one lost it: this one writes nothing any more; stop it")

// join lets a new connection take part.
func (s *store) join(ctx context.Context, conn *pgx.Conn, number int64) error {
	var locked bool
	if err := conn.QueryRow(ctx, `SELECT pg_try_advisory_lock_shared($1, `+schemaID+`)`, lockClass).Scan(&locked); err != nil {
		return err
	}
	var newest int64
	if err := conn.QueryRow(ctx, `SELECT last_value FROM `+starts).Scan(&newest); err != nil {
		return err
	}
	if !locked || newest != number {
		return errTakenOver
	}
	return nil
}

func code(err error) string {
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		return e.Code
	}
	return ""
}

// whatToDo says what to do about an error of connecting or of making the tables.
func whatToDo(config *pgx.ConnConfig, err error) error {
	name := databaseName(config)
	switch code(err) {
	case "28P01", "28000": // invalid_password, invalid_authorization_specification
		return fmt.Errorf("PostgreSQL does not let the user %s into the database %s: check the user and the password in -db or CRM_DB (%w)", config.User, name, err)
	case "3D000": // invalid_catalog_name
		return fmt.Errorf("there is no database %s: make it, with createdb -O %s -E UTF8, or name the right one with -db (%w)", name, config.User, err)
	case "42501": // insufficient_privilege
		return fmt.Errorf("the user %s may not make tables in the database %s: nothing was changed; let its owner GRANT CREATE ON SCHEMA, or name a database of that user's own with -db (%w)", config.User, name, err)
	}
	if _, ok := errors.AsType[*pgconn.ConnectError](err); !ok {
		return err
	}
	if code(err) == "" && !isLocal(config) {
		return fmt.Errorf("cannot connect to the database %s: see that PostgreSQL runs there, that its address is right, and that its certificate is valid or sslrootcert names its authority; other machines are reached by TLS only, unless sslmode in the URL says otherwise (%w)", name, err)
	}
	return fmt.Errorf("cannot connect to the database %s: start PostgreSQL, or name the right one with -db (%w)", name, err)
}

// databaseName is what messages call a database.
func databaseName(config *pgx.ConnConfig) string {
	name := config.Database
	if name == "" {
		name = config.User // so does the server
	}
	if strings.HasPrefix(config.Host, "/") {
		name += " at " + config.Host
	} else {
		name += " at " + net.JoinHostPort(config.Host, strconv.Itoa(int(config.Port)))
	}
	if path := config.RuntimeParams["search_path"]; path != "" {
		name += ", schema " + path
	}
	return name
}

// isLocal reports whether a connection stays on this machine.
func isLocal(config *pgx.ConnConfig) bool {
	hosts := []string{config.Host}
	for _, f := range config.Fallbacks {
		hosts = append(hosts, f.Host)
	}
	for _, host := range hosts {
		ip, err := netip.ParseAddr(host)
		if !strings.HasPrefix(host, "/") && host != "localhost" && (err != nil || !ip.IsLoopback()) {
			return false
		}
	}
	return true
}
