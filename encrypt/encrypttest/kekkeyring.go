package encrypttest

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/internal/racetest"
	"github.com/crmguard/crmguard/internal/uptime"
)

// The duties of a KEK that only a keyring, or a service, brings to light.

const (
	tenant = "acme"
	number = "+7 916 123-45-67"
)

func acting(tenant string) context.Context { return crmguard.System(ctx, tenant, "test") }

func cells(n int) []encrypt.Cell {
	cells := make([]encrypt.Cell, n)
	for i := range cells {
		id := fmt.Sprint("client-", i)
		cells[i] = encrypt.Cell{
			Place:     crmguard.Place{Tenant: tenant, Client: id, Kind: "contacts", Record: id, Field: "phone"},
			Plaintext: []byte(number),
		}
	}
	return cells
}

// withKeyring opens a keyring for as long as do takes.
func withKeyring(t require.TestingT, kek encrypt.RotatingKEK, store encrypt.Store, do func(*encrypt.Keyring)) {
	keys, err := encrypt.New(kek, store, nil)
	require.NoError(t, err)
	defer func() { require.NoError(t, keys.Close()) }()
	do(keys)
}

func sealPage(t require.TestingT, keys *encrypt.Keyring, page []encrypt.Cell) {
	require.NoError(t, keys.SealAll(acting(tenant), tenant, page))
}

// openPage opens all cells. What is wrong with one of them fails t.
func openPage(t require.TestingT, keys *encrypt.Keyring, page []encrypt.Cell) error {
	for i := range page {
		page[i].Plaintext, page[i].Err = nil, nil
	}
	if err := keys.OpenAll(acting(tenant), tenant, page); err != nil {
		return err
	}
	for _, cell := range page {
		require.NoError(t, cell.Err)
		require.Equal(t, number, string(cell.Plaintext))
	}
	return nil
}

// turns waits for no lease: while Turn does, each look at the clock takes half a second.
func turns(t require.TestingT, k KEKUnderTest) {
	var now atomic.Int64
	var waiting atomic.Bool
	defer uptime.Move(func() time.Duration {
		if waiting.Load() {
			now.Add(int64(time.Second / 2))
		}
		return time.Hour + time.Duration(now.Load())
	})()
	kek, store, page := k.Open(), encrypt.NewMemory(), cells(50)
	asked := func() int {
		if k.KMS == nil {
			return 0
		}
		return k.KMS.Decrypts()
	}
	opens := func(store encrypt.Store) (err error) {
		withKeyring(t, kek, store, func(cold *encrypt.Keyring) { err = openPage(t, cold, page) })
		return err
	}
	withKeyring(t, kek, store, func(keys *encrypt.Keyring) {
		sealPage(t, keys, page)
		records, err := store.List(ctx, encrypt.Record{}, 1000)
		require.NoError(t, err)
		old := encrypt.NewMemory()
		for _, r := range records {
			_, err := old.Insert(ctx, []encrypt.Record{r})
			require.NoError(t, err)
		}
		require.NoError(t, opens(old))

		before := asked()
		done, err := keys.Turn(ctx, func(p encrypt.TurnProgress) { waiting.Store(p.Step == encrypt.TurnWaiting) })
		require.NoError(t, err)
		require.Equal(t, 1, done.Tenants)
		require.GreaterOrEqual(t, done.Keys, len(page))
		require.Less(t, asked()-before, 10, "it asks for tenants, not for clients")
		require.WithinDuration(t, time.Now().Add(k.Delay), done.Gone, time.Minute)
		require.NoError(t, opens(store))
		require.Error(t, opens(old))
	})
}

func asksOnce(t require.TestingT, k KEKUnderTest) {
	kek, store, page := k.Open(), encrypt.NewMemory(), cells(50)
	withKeyring(t, kek, store, func(keys *encrypt.Keyring) { sealPage(t, keys, page) })
	before := k.KMS.Decrypts()
	withKeyring(t, kek, store, func(cold *encrypt.Keyring) { require.NoError(t, openPage(t, cold, page)) })
	require.Equal(t, 1, k.KMS.Decrypts()-before)
}

func heedsContexts(t require.TestingT, k KEKUnderTest) {
	kek := k.Open()
	ciphertext := seal(t, kek)
	canceled, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := k.KMS.Hang(cancel)
	_, err := kek.EncryptWithContext(canceled, []byte("secret"), []byte("ad"))
	require.ErrorIs(t, err, context.Canceled)
	<-ended

	// A deadline may pass before the service hears of the request.
	deadline, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	_, err = kek.DecryptWithContext(deadline, ciphertext, []byte("ad"))
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.NotErrorIs(t, err, encrypt.ErrWrongKEK)

	withKeyring(t, kek, encrypt.NewMemory(), func(keys *encrypt.Keyring) {
		deadline, cancel := context.WithTimeout(acting(tenant), 50*time.Millisecond)
		defer cancel()
		require.ErrorIs(t, keys.SealAll(deadline, tenant, cells(1)), context.DeadlineExceeded)
	})
}

func survivesOutages(t require.TestingT, k KEKUnderTest) {
	smtp := crmguard.Place{Tenant: "other", Kind: "settings", Record: "1", Field: "smtp"}
	page := cells(1)
	withKeyring(t, k.Open(), encrypt.NewMemory(), func(keys *encrypt.Keyring) {
		sealPage(t, keys, page)
		k.KMS.Down(true)
		require.NoError(t, openPage(t, keys, page), "the tenant is in the cache")
		_, err := keys.Seal(acting(smtp.Tenant), smtp, []byte("x"))
		require.ErrorIs(t, err, crmguard.ErrUnavailable)
		require.NotErrorIs(t, err, encrypt.ErrWrongKEK)
		k.KMS.Down(false)
		_, err = keys.Seal(acting(smtp.Tenant), smtp, []byte("x"))
		require.NoError(t, err)
	})
}

func noticesUnbinding(t require.TestingT, k KEKUnderTest) {
	kek := k.Open()
	k.Open = func() encrypt.RotatingKEK { return kek } // which has seen that the service binds
	binds(t, k)
	k.KMS.Unbind()
	require.False(t, racetest.Passes(func(t require.TestingT) { binds(t, k) }))
}
