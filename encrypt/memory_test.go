package encrypt_test

import (
	"fmt"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/encrypt"
)

// heap is what is in use after a collection.
func heap() uint64 {
	var stats runtime.MemStats
	for range 2 { // pools give up what they hold in the second
		runtime.GC()
	}
	runtime.ReadMemStats(&stats)
	return stats.HeapAlloc
}

// The keys of a hundred thousand clients that were opened lie in memory.
func TestManyClientsFitIntoMemory(t *testing.T) {
	const page = 1_000
	clients := 100_000
	if raceEnabled {
		clients = 10_000 // what is seen here is no race
	}
	limit := 256 << 20 / 100_000 * clients
	kek, store := newKEK(t), encrypt.NewMemory()
	cells := make([]encrypt.Cell, clients)
	for i := range cells {
		client := fmt.Sprintf("01890a5d-ac96-774b-bcce-%012d", i)
		cells[i] = encrypt.Cell{Plaintext: []byte("x"), Place: crmguard.Place{Tenant: "acme", Client: client, Kind: "contacts", Record: client, Field: "phone"}}
	}
	ctx := job("acme")
	writer, err := encrypt.New(kek, store, nil)
	require.NoError(t, err)
	for i := 0; i < clients; i += page {
		require.NoError(t, writer.SealAll(ctx, "acme", cells[i:i+page]))
	}
	require.NoError(t, writer.Close())

	before := heap() // with the key store, which would be a database
	k := openKeyring(t, kek, store, &encrypt.Options{CacheEntries: 2 * clients})
	for i := 0; i < clients; i += page {
		require.NoError(t, k.OpenAll(ctx, "acme", cells[i:i+page]))
	}
	taken := heap() - before
	// Of a set of eight, which has four on average, 0.84 % give way to others (Poisson).
	require.GreaterOrEqual(t, k.Cached(), clients*98/100)
	t.Logf("%d clients take %d MiB", k.Cached(), taken>>20)
	require.Less(t, taken, uint64(limit)) //nolint:gosec // positive
	runtime.KeepAlive(cells)
}
