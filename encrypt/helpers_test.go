package encrypt_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/internal/uptime"
)

type contact struct {
	ID          string  `encrypt:",record"`
	Phone       string  `encrypt:"phone,index=phone"`
	PhoneSealed []byte  `encrypt:"phone,sealed"`
	Note        *string `encrypt:"note"`
	NoteSealed  []byte  `encrypt:"note,sealed"`
	City        string  // not sealed
}

// newKeyring opens a keyring with a KEK file of its own.
func newKeyring(tb testing.TB, store encrypt.Store, o *encrypt.Options) *encrypt.Keyring {
	tb.Helper()
	kek, err := encrypt.OpenKeyFile(tb.TempDir()+"/kek.json", "", true)
	require.NoError(tb, err)
	k, err := encrypt.New(kek, store, o)
	require.NoError(tb, err)
	tb.Cleanup(func() { require.NoError(tb, k.Close()) })
	return k
}

// counting counts the queries of a store.
type counting struct {
	encrypt.Store
	loads, inserts, leases, polls atomic.Int64
}

func (c *counting) Load(ctx context.Context, s []encrypt.Scope) ([]encrypt.Record, error) {
	c.loads.Add(1)
	return c.Store.Load(ctx, s)
}

func (c *counting) Insert(ctx context.Context, r []encrypt.Record) ([]encrypt.Record, error) {
	c.inserts.Add(1)
	return c.Store.Insert(ctx, r)
}

func (c *counting) Lease(ctx context.Context, r []encrypt.Record, n uint64) ([]encrypt.Record, error) {
	c.leases.Add(1)
	return c.Store.Lease(ctx, r, n)
}

func (c *counting) Closing(ctx context.Context) (int64, []encrypt.Record, error) {
	c.polls.Add(1)
	return c.Store.Closing(ctx)
}

// clock is the time of day and the time of leases, which tests move.
type clock struct{ nanos atomic.Int64 }

// newClock puts all keyrings under a clock until the test ends.
func newClock(tb testing.TB) *clock {
	c := &clock{}
	c.nanos.Store(time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC).UnixNano())
	start := c.Now()
	tb.Cleanup(uptime.Move(func() time.Duration { return time.Hour + c.Now().Sub(start) }))
	return c
}

func (c *clock) Now() time.Time          { return time.Unix(0, c.nanos.Load()).UTC() }
func (c *clock) Advance(d time.Duration) { c.nanos.Add(int64(d)) }
