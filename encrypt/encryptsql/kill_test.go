package encryptsql_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/encrypt/encryptsql"
	"github.com/crmguard/crmguard/internal/processtest"
)

// dying is a store whose process is killed once a key is stored, before anybody
// has used it.
type dying struct{ encrypt.Store }

func (s dying) Insert(ctx context.Context, records []encrypt.Record) ([]encrypt.Record, error) {
	stored, err := s.Store.Insert(ctx, records)
	if len(records) > 0 && records[0].Scope.Purpose == encrypt.DataKey {
		self, err := os.FindProcess(os.Getpid())
		if err == nil {
			_ = self.Kill()
		}
		select {}
	}
	return stored, err
}

// dieWithAKey makes a key and gets killed.
func dieWithAKey(ctx context.Context, p *processtest.Process) error {
	k, _, err := openIn(p.Args[0], func(s encrypt.Store) encrypt.Store { return dying{s} })
	if err == nil {
		_, err = k.Seal(ctx, place(1), []byte("x"))
	}
	return fmt.Errorf("not killed: %w", err)
}

func openIn(dir string, wrap func(encrypt.Store) encrypt.Store) (*encrypt.Keyring, *encryptsql.Store, error) {
	kek, err := encrypt.OpenKeyFile(filepath.Join(dir, "kek.json"), "", true)
	if err != nil {
		return nil, nil, err
	}
	store, err := encryptsql.OpenSQLite(context.Background(), filepath.Join(dir, "keys.db"), true)
	if err != nil {
		return nil, nil, err
	}
	k, err := encrypt.New(kek, wrap(store), nil)
	return k, store, err
}

func TestAProcessKilledBetweenStoringAndUsingAKey(t *testing.T) {
	dir := t.TempDir()
	output, err := processtest.Command(t, "die", dir).CombinedOutput()
	require.Error(t, err)
	require.NotContains(t, string(output), "not killed")

	k, store, err := openIn(dir, func(s encrypt.Store) encrypt.Store { return s })
	require.NoError(t, err)
	ctx := crmguard.System(t.Context(), "acme", "test")
	require.NoError(t, k.Check(ctx))
	records, err := store.Load(ctx, []encrypt.Scope{{Tenant: "acme", Purpose: encrypt.DataKey, Name: "c1"}})
	require.NoError(t, err)
	require.Len(t, records, 1, "the key was stored")
	sealed, err := k.Seal(ctx, place(1), []byte("x"))
	require.NoError(t, err)
	_, err = k.Open(ctx, place(1), sealed)
	require.NoError(t, err)
	require.NoError(t, k.Close())
	require.NoError(t, store.Close())
}
