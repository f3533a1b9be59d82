package encryptsql_test

import (
	"context"
	"database/sql"
	"fmt"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/encrypt/encryptsql"
	"github.com/crmguard/crmguard/internal/sqldb"
	"github.com/crmguard/crmguard/internal/sqldb/sqldbtest"
)

type member struct {
	ID          string `encrypt:",record"`
	Phone       string `encrypt:"phone,index=phone:unique"`
	PhoneSealed []byte `encrypt:"phone,sealed"`
}

// newestOnly forgets all entries of a value but the first, which is the newest.
type newestOnly struct{ encrypt.Index }

func (x newestOnly) Put(ctx context.Context, tx encrypt.Execer, entries encrypt.IndexEntries) error {
	entries.Entries = entries.Entries[:1]
	return x.Index.Put(ctx, tx, entries)
}

// race lets 50 processes' worth of tables insert one new number a round, while the key of the
// index is rotated in between, and returns how many inserts succeeded in each round.
func race(t *testing.T, db *sql.DB, rounds int, spoil func(encrypt.Index) encrypt.Index) (won []int) {
	ctx := crmguard.System(t.Context(), "acme", "import")
	inner, err := encryptsql.NewIndex(ctx, db, nil)
	require.NoError(t, err)
	index := spoil(inner)
	wrapped, err := sqldb.New(ctx, db, "")
	require.NoError(t, err)
	kek, err := encrypt.OpenKeyFile(t.TempDir()+"/kek.json", "", true)
	require.NoError(t, err)
	store := encrypt.NewMemory()
	const goroutines = 50
	tables := make([]*encrypt.Table[member], goroutines)
	rings := make([]*encrypt.Keyring, goroutines)
	for i := range tables {
		rings[i], err = encrypt.New(kek, store, &encrypt.Options{Index: index})
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, rings[i].Close()) })
		tables[i], err = encrypt.NewTable[member](rings[i], "members", nil)
		require.NoError(t, err)
		_, err = tables[i].Seal(ctx, "acme", &member{ID: "first", Phone: "1"}) // knows the key of this moment
		require.NoError(t, err)
		if i%10 == 0 {
			_, err = rings[i].Rotate(ctx, encrypt.Scope{Tenant: "acme", Purpose: encrypt.IndexKey, Name: "phone/7:members/phone"})
			require.NoError(t, err)
		}
	}
	for round := range rounds {
		errs := make([]error, goroutines)
		var wg sync.WaitGroup
		for i := range goroutines {
			wg.Go(func() {
				id := fmt.Sprintf("%d-%d", round, i)
				entries, err := tables[i].Seal(ctx, "acme", &member{ID: id, Phone: fmt.Sprintf("+7912000%04d", round)})
				if err == nil {
					err = wrapped.Tx(ctx, func(tx *sql.Tx) error { return index.Put(ctx, tx, entries) })
				}
				errs[i] = err
			})
		}
		wg.Wait()
		won = append(won, 0)
		for _, err := range errs {
			if err == nil {
				won[round]++
				continue
			}
			require.ErrorIs(t, err, encrypt.ErrDuplicate)
			require.NotErrorIs(t, err, context.Canceled)
		}
	}
	return won
}

func TestOneOfFiftyWinsWhileTheKeyRotates(t *testing.T) {
	sqldbtest.Each(t, func(t *testing.T, db *sql.DB) {
		require.Equal(t, []int{1, 1, 1}, race(t, db, 3, func(x encrypt.Index) encrypt.Index { return x }))
	})
}

// TestUniqueUnderOneVersionOnlyIsNoticed plants the fault.
func TestUniqueUnderOneVersionOnlyIsNoticed(t *testing.T) {
	require.NotEqual(t, []int{1}, race(t, sqldbtest.SQLite(t), 1, func(x encrypt.Index) encrypt.Index { return newestOnly{x} }))
}
