package encrypt_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/tink-crypto/tink-go/v2/tink"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/internal/uptime"
)

// home is where most tests seal.
var home = crmguard.Place{Tenant: "acme", Client: "c1", Kind: "contacts", Record: "r1", Field: "phone"}

func client(i int) crmguard.Place {
	at := home
	at.Client = fmt.Sprint("c", i)
	return at
}

func cell(client, record, field, text string) encrypt.Cell {
	return encrypt.Cell{Place: crmguard.Place{Tenant: "acme", Client: client, Kind: "contacts", Record: record, Field: field}, Plaintext: []byte(text)}
}

func dataScope(client string) encrypt.Scope {
	return encrypt.ClientScope("acme", client)
}

func acting(tenant string) context.Context {
	ctx := crmguard.WithSubject(context.Background(), crmguard.Subject{Tenant: tenant, ID: "anna", Kind: crmguard.KindEmployee})
	return crmguard.WithAct(ctx, crmguard.View, crmguard.Resource{Tenant: tenant, Kind: "contacts"})
}

func job(tenant string) context.Context {
	return crmguard.System(context.Background(), tenant, "test")
}

type contact struct {
	ID          string  `encrypt:",record"`
	Phone       string  `encrypt:"phone,index=phone"`
	PhoneSealed []byte  `encrypt:"phone,sealed"`
	Note        *string `encrypt:"note"`
	NoteSealed  []byte  `encrypt:"note,sealed"`
	City        string  // not sealed
}

func page(n int) []*contact {
	rows := make([]*contact, n)
	for i := range rows {
		note := fmt.Sprint("note ", i)
		rows[i] = &contact{ID: fmt.Sprintf("c%02d", i), Phone: "+7 912 345-67-89", Note: &note}
	}
	return rows
}

// flakyKEK counts calls, and fails while down.
type flakyKEK struct {
	tink.AEADWithContext
	calls atomic.Int64
	down  atomic.Bool
}

var errDown = errors.New("kms: connection refused")

func (k *flakyKEK) EncryptWithContext(ctx context.Context, b, ad []byte) ([]byte, error) {
	k.calls.Add(1)
	if k.down.Load() {
		return nil, errDown
	}
	return k.AEADWithContext.EncryptWithContext(ctx, b, ad)
}

func (k *flakyKEK) DecryptWithContext(ctx context.Context, b, ad []byte) ([]byte, error) {
	k.calls.Add(1)
	if k.down.Load() {
		return nil, errDown
	}
	return k.AEADWithContext.DecryptWithContext(ctx, b, ad)
}

func newKEK(tb testing.TB) *flakyKEK {
	kek, err := encrypt.OpenKeyFile(tb.TempDir()+"/kek.json", "", true)
	require.NoError(tb, err)
	return &flakyKEK{AEADWithContext: kek}
}

func openKeyring(tb testing.TB, kek tink.AEADWithContext, store encrypt.Store, o *encrypt.Options) *encrypt.Keyring {
	tb.Helper()
	k, err := encrypt.New(kek, store, o)
	require.NoError(tb, err)
	tb.Cleanup(func() { require.NoError(tb, k.Close()) })
	return k
}

// newKeyring opens a keyring with a KEK file of its own.
func newKeyring(tb testing.TB, store encrypt.Store, o *encrypt.Options) *encrypt.Keyring {
	tb.Helper()
	kek, err := encrypt.OpenKeyFile(tb.TempDir()+"/kek.json", "", true)
	require.NoError(tb, err)
	return openKeyring(tb, kek, store, o)
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
