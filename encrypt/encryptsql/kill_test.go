package encryptsql_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/encrypt/encryptsql"
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

// TestMain is the process that gets killed when the variable is set.
func TestMain(m *testing.M) {
	dir := os.Getenv("ENCRYPTSQL_TEST_DIE_IN")
	if dir == "" {
		os.Exit(m.Run())
	}
	k, _, err := openIn(dir, func(s encrypt.Store) encrypt.Store { return dying{s} })
	if err == nil {
		_, err = k.Seal(context.Background(), place(1), []byte("x"))
	}
	fmt.Fprintln(os.Stderr, "not killed:", err)
	os.Exit(3)
}

func openIn(dir string, wrap func(encrypt.Store) encrypt.Store) (*encrypt.Keyring, *encryptsql.Store, error) {
	kek, err := encrypt.OpenKeyFile(filepath.Join(dir, "kek.json"), "", true)
	if err != nil {
		return nil, nil, err
	}
	store, err := encryptsql.OpenSQLite(context.Background(), filepath.Join(dir, "keys.db"))
	if err != nil {
		return nil, nil, err
	}
	k, err := encrypt.New(kek, wrap(store), nil)
	return k, store, err
}

func TestAProcessKilledBetweenStoringAndUsingAKey(t *testing.T) {
	dir := t.TempDir()
	command := exec.CommandContext(t.Context(), os.Args[0])
	command.Env = append(os.Environ(), "ENCRYPTSQL_TEST_DIE_IN="+dir)
	output, err := command.CombinedOutput()
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
