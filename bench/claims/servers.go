package main

import (
	"context"
	"database/sql"
	"errors"
	"net/url"
	"os"
	"strconv"
	"time"

	"github.com/crmguard/crmguard/internal/testservers"
)

// servers starts a server when the first claim asks for it.
type servers struct{ postgres *testservers.Postgres }

// Postgres returns the URL of a server that claims may fill as they like.
func (s *servers) Postgres(ctx context.Context) (string, error) {
	if url := os.Getenv(testservers.PostgresVariable); url != "" {
		return url, nil
	}
	if s.postgres == nil {
		started, err := testservers.StartDurablePostgres(ctx)
		if err != nil {
			return "", err
		}
		s.postgres = started
	}
	return s.postgres.URL(), nil
}

// schema opens an empty schema of its own on the server; drop removes it and closes db.
func (s *servers) schema(ctx context.Context, connections int) (db *sql.DB, drop func() error, err error) {
	name := "claims_" + strconv.FormatInt(time.Now().UnixNano(), 36)
	if db, err = s.pool(ctx, name, connections); err != nil {
		return nil, nil, err
	}
	drop = func() error {
		_, err := db.ExecContext(context.WithoutCancel(ctx), `DROP SCHEMA IF EXISTS `+name+` CASCADE`)
		return errors.Join(err, db.Close())
	}
	if _, err := db.ExecContext(ctx, `CREATE SCHEMA `+name); err != nil {
		return nil, nil, errors.Join(err, drop())
	}
	return db, drop, nil
}

// beside opens more connections to the schema of db.
func (s *servers) beside(ctx context.Context, db *sql.DB, connections int) (*sql.DB, error) {
	var name string
	if err := db.QueryRowContext(ctx, `SELECT current_schema()`).Scan(&name); err != nil {
		return nil, err
	}
	return s.pool(ctx, name, connections)
}

func (s *servers) pool(ctx context.Context, schema string, connections int) (*sql.DB, error) {
	server, err := s.Postgres(ctx)
	if err != nil {
		return nil, err
	}
	u, err := url.Parse(server)
	if err != nil {
		return nil, err
	}
	query := u.Query()
	query.Set("search_path", schema)
	query.Set("synchronous_commit", "on") // tests' own servers have it off
	u.RawQuery = query.Encode()
	db, err := sql.Open("pgx", u.String())
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(connections)
	db.SetMaxIdleConns(connections)
	return db, nil
}

func (s *servers) stop() error {
	if s.postgres == nil {
		return nil
	}
	return s.postgres.Stop()
}
