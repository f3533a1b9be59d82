package encryptsql_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/encrypt/encryptsql"
	"github.com/crmguard/crmguard/encrypt/encrypttest"
	"github.com/crmguard/crmguard/internal/sqldb/sqldbtest"
)

func TestPending(t *testing.T) {
	t.Run("sqlite", func(t *testing.T) {
		encrypttest.Pending(t, func(t *testing.T) encrypt.Pending {
			store, err := encryptsql.OpenSQLite(t.Context(), t.TempDir()+"/keys/keys.db", true)
			require.NoError(t, err)
			t.Cleanup(func() { require.NoError(t, store.Close()) })
			return store
		})
	})
	t.Run("postgres", func(t *testing.T) {
		encrypttest.Pending(t, func(t *testing.T) encrypt.Pending {
			store, err := encryptsql.New(t.Context(), sqldbtest.Postgres(t), &encryptsql.Options{TablePrefix: "acme_"})
			require.NoError(t, err)
			return store
		})
	})
}
