package main

import (
	"context"
	"os"

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

func (s *servers) stop() error {
	if s.postgres == nil {
		return nil
	}
	return s.postgres.Stop()
}
