package encrypt_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/internal/racetest"
)

var homeKey = encrypt.Scope{Tenant: home.Tenant, Purpose: encrypt.DataKey, Name: home.Client}

func TestRotateAndRetire(t *testing.T) {
	kek, store, clock := newKEK(t), encrypt.NewMemory(), newClock(t)
	here, there := openKeyring(t, kek, store, nil), openKeyring(t, kek, store, nil)
	ctx := acting("acme")
	_, err := here.Rotate(ctx, homeKey)
	require.ErrorIs(t, err, encrypt.ErrNoKey, "there is nothing to rotate")
	old, err := here.Seal(ctx, home, []byte("old"))
	require.NoError(t, err)
	_, err = there.Open(ctx, home, old)
	require.NoError(t, err)

	version, err := here.Rotate(ctx, homeKey)
	require.NoError(t, err)
	require.EqualValues(t, 2, version)
	fresh, err := here.Seal(ctx, home, []byte("new"))
	require.NoError(t, err)
	require.Equal(t, byte(2), fresh[7], "at once")
	clock.Advance(encrypt.Lease)
	_, err = there.Open(ctx, home, fresh)
	require.NoError(t, err)
	elsewhere, err := there.Seal(ctx, home, []byte("new"))
	require.NoError(t, err)
	require.Equal(t, byte(2), elsewhere[7], "within a lease")
	for _, k := range []*encrypt.Keyring{here, there} {
		plaintext, err := k.Open(ctx, home, old)
		require.NoError(t, err, "until it is retired")
		require.Equal(t, "old", string(plaintext))
	}

	_, err = here.Retire(ctx, homeKey, 3)
	require.Error(t, err, "the newest version stays")
	removed, err := here.Retire(ctx, homeKey, 2)
	require.NoError(t, err)
	require.Equal(t, 1, removed)
	removed, err = here.Retire(ctx, homeKey, 2)
	require.NoError(t, err)
	require.Zero(t, removed)
	_, err = here.Open(ctx, home, old)
	require.ErrorIs(t, err, encrypt.ErrRetired)
	clock.Advance(encrypt.Lease)
	_, err = there.Open(ctx, home, old)
	require.ErrorIs(t, err, encrypt.ErrRetired)
	for _, k := range []*encrypt.Keyring{here, there} {
		_, err = k.Open(ctx, home, fresh)
		require.NoError(t, err)
	}
	version, err = there.Rotate(ctx, homeKey)
	require.NoError(t, err)
	require.EqualValues(t, 3, version, "versions never come back")
	_, err = there.Erase(ctx, "acme", "c1")
	require.NoError(t, err)
	_, err = there.Rotate(ctx, homeKey)
	require.ErrorIs(t, err, crmguard.ErrErased)
	_, err = there.Retire(ctx, homeKey, 3)
	require.ErrorIs(t, err, crmguard.ErrErased)
}

func TestKeysOfMACsAndIndexesRotate(t *testing.T) {
	k := newKeyring(t, encrypt.NewMemory(), nil)
	ctx := acting("acme")
	macKey := encrypt.Scope{Tenant: home.Tenant, Purpose: encrypt.MACKey, Name: "8:contacts/phone"}
	indexKey := encrypt.Scope{Tenant: home.Tenant, Purpose: encrypt.IndexKey, Name: "8:contacts/phone"}
	mac, err := k.MAC(ctx, home, []byte("x"))
	require.NoError(t, err)
	before, err := k.Pseudonyms(ctx, home, []byte("x"))
	require.NoError(t, err)
	for _, scope := range []encrypt.Scope{macKey, indexKey} {
		_, err = k.Rotate(ctx, scope)
		require.NoError(t, err)
	}
	require.NoError(t, k.Verify(ctx, home, []byte("x"), mac))
	both, err := k.Pseudonyms(ctx, home, []byte("x"))
	require.NoError(t, err)
	require.Len(t, both, 2)
	require.Equal(t, before[0], both[1])
	for _, scope := range []encrypt.Scope{macKey, indexKey} {
		_, err = k.Retire(ctx, scope, 2)
		require.NoError(t, err)
	}
	err = k.Verify(ctx, home, []byte("x"), mac)
	require.ErrorIs(t, err, crmguard.ErrMAC)
	require.ErrorIs(t, err, encrypt.ErrRetired)
	after, err := k.Pseudonyms(ctx, home, []byte("x"))
	require.NoError(t, err)
	require.Equal(t, both[:1], after)
}

func TestRotateRefuses(t *testing.T) {
	k := newKeyring(t, encrypt.NewMemory(), nil)
	_, err := k.Seal(acting("acme"), home, nil)
	require.NoError(t, err)
	receipts := encrypt.Scope{Tenant: "acme", Purpose: encrypt.MACKey, Name: "8:crmguard/receipt"}
	for name, call := range map[string]struct {
		ctx   context.Context
		scope encrypt.Scope
	}{
		"tenant's keyset":    {acting("acme"), encrypt.Scope{Tenant: "acme", Purpose: encrypt.TenantKeyset}},
		"check of the KEK":   {acting("acme"), encrypt.Scope{Purpose: encrypt.KEKCheck}},
		"no purpose":         {acting("acme"), encrypt.Scope{Tenant: "acme", Name: "c1"}},
		"key of receipts":    {acting("acme"), receipts},
		"no tenant":          {acting("acme"), encrypt.Scope{Purpose: encrypt.DataKey, Name: "c1"}},
		"foreign tenant":     {acting("other"), homeKey},
		"zero byte":          {acting("acme"), dataScope("c\x00")},
		"nobody":             {t.Context(), homeKey},
		"key that never was": {acting("acme"), dataScope("c2")},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := k.Rotate(call.ctx, call.scope)
			require.Error(t, err)
			_, err = k.Retire(call.ctx, call.scope, 1)
			require.Error(t, err)
		})
	}
	plain := newKeyring(t, &counting{Store: encrypt.NewMemory()}, nil)
	_, err = plain.Seal(acting("acme"), home, nil)
	require.NoError(t, err)
	_, err = plain.Retire(acting("acme"), homeKey, 1)
	require.ErrorContains(t, err, "Inventory")
}

func TestRotateClients(t *testing.T) {
	const clients = 1203
	store, clock := encrypt.NewMemory(), newClock(t)
	k := newKeyring(t, store, &encrypt.Options{Clock: clock.Now})
	ctx := job("acme")
	for i := range clients {
		_, err := k.Seal(ctx, client(i), []byte("x"))
		require.NoError(t, err)
	}
	_, err := k.Seal(ctx, crmguard.Place{Tenant: "acme", Kind: "settings", Record: "1", Field: "f"}, nil)
	require.NoError(t, err)
	_, err = k.Seal(job("other"), crmguard.Place{Tenant: "other", Client: "c1", Kind: "contacts", Record: "c1", Field: "f"}, nil)
	require.NoError(t, err)
	_, err = k.Erase(ctx, "acme", client(7).Client)
	require.NoError(t, err)
	clock.Advance(time.Minute)
	before := clock.Now()

	cut := errors.New("cut off")
	first, err := k.RotateClients(ctx, "acme", before, func(_ context.Context, n int) error {
		require.Greater(t, n, 490, "of the first 500 keys the tenant's, an erased client's and the last are not rotated")
		return cut
	})
	require.ErrorIs(t, err, cut)
	require.Less(t, first, 500)
	var told []int
	tell := func(_ context.Context, n int) error { told = append(told, n); return nil }
	rotated, err := k.RotateClients(ctx, "acme", before, tell)
	require.NoError(t, err)
	require.Equal(t, clients-1-first, rotated, "it goes on")
	require.GreaterOrEqual(t, len(told), 2)
	told = nil
	rotated, err = k.RotateClients(ctx, "acme", before, tell)
	require.NoError(t, err)
	require.Zero(t, rotated)
	require.Equal(t, []int{0, 0, 0, 0}, told, "a call with nothing to rotate can be cut off as well")

	versions := make(map[uint32]int)
	list, err := store.List(t.Context(), encrypt.Record{}, 10_000)
	require.NoError(t, err)
	for _, r := range list {
		if r.Scope.Purpose == encrypt.DataKey {
			versions[r.Version]++
			if r.Version > 1 {
				require.Equal(t, "acme", r.Scope.Tenant)
				require.NotEmpty(t, r.Scope.Name, "the tenant's own key is no client's")
				require.NotEqual(t, client(7).Client, r.Scope.Name)
			}
		}
	}
	require.Equal(t, map[uint32]int{1: clients + 2, 2: clients - 1}, versions)
	_, err = newKeyring(t, &counting{Store: store}, nil).RotateClients(ctx, "acme", before, nil)
	require.ErrorContains(t, err, "Inventory")
	_, err = k.RotateClients(ctx, "", before, nil)
	require.Error(t, err)
}

// damage changes a byte of what is stored of the first version of a scope's key.
func damage(t *testing.T, store *encrypt.Memory, s encrypt.Scope, at int) {
	t.Helper()
	records, err := store.Load(t.Context(), []encrypt.Scope{s})
	require.NoError(t, err)
	damaged := records[0]
	damaged.Wrapped = bytes.Clone(damaged.Wrapped)
	damaged.Wrapped[at] ^= 1
	n, err := store.Replace(t.Context(), records[:1], []encrypt.Record{damaged})
	require.NoError(t, err)
	require.Equal(t, 1, n)
}

// A damaged key gets no further version, however often somebody tries, and says that it is damaged.
func TestADamagedKeyIsNotRotated(t *testing.T) {
	store := encrypt.NewMemory()
	k := newKeyring(t, store, nil)
	_, err := k.Seal(acting("acme"), home, nil)
	require.NoError(t, err)
	damage(t, store, homeKey, 20)
	for range 2 {
		_, err = k.Rotate(acting("acme"), homeKey)
		require.ErrorIs(t, err, encrypt.ErrDamaged)
	}
	records, err := store.Load(t.Context(), []encrypt.Scope{homeKey})
	require.NoError(t, err)
	require.Len(t, records, 1)
}

// Clients whose key is damaged keep no other from getting a new one, and are named at the end,
// with each call.
func TestRotateClientsGoesOn(t *testing.T) {
	kek, store, clock := newKEK(t), encrypt.NewMemory(), newClock(t)
	options := &encrypt.Options{Clock: clock.Now}
	k := openKeyring(t, kek, store, options)
	ctx := job("acme")
	for i := range 6 {
		_, err := k.Seal(ctx, client(i), nil)
		require.NoError(t, err)
	}
	for _, i := range []int{0, 3, 5} {
		damage(t, store, dataScope(client(i).Client), 4*i)
	}
	clock.Advance(time.Minute)
	before := clock.Now()
	for _, want := range []int{3, 0} {
		rotated, err := k.RotateClients(ctx, "acme", before, nil)
		require.ErrorIs(t, err, encrypt.ErrDamaged)
		require.Equal(t, want, rotated)
		for i := range 6 {
			named := strings.Contains(err.Error(), fmt.Sprintf("%q", client(i).Client))
			require.Equal(t, i == 0 || i == 3 || i == 5, named, "client %d: %v", i, err)
		}
	}
	for i := range 6 {
		records, err := store.Load(t.Context(), []encrypt.Scope{dataScope(client(i).Client)})
		require.NoError(t, err)
		require.Equal(t, i == 1 || i == 2 || i == 4, len(records) == 2, "client %d", i)
	}

	// What no client can be rotated without ends it at once.
	damage(t, store, encrypt.Scope{Tenant: "acme", Purpose: encrypt.TenantKeyset}, 0)
	rotated, err := openKeyring(t, kek, store, options).RotateClients(ctx, "acme", clock.Now().Add(time.Hour), nil)
	require.ErrorIs(t, err, encrypt.ErrDamaged)
	require.Zero(t, rotated)
	require.NotContains(t, err.Error(), "client")

	// A tenant without any key may be a mistyped one.
	_, err = k.RotateClients(job("acmee"), "acmee", before, nil)
	require.ErrorIs(t, err, encrypt.ErrNoKey)
}

// What acts on a tenant's keys is for that tenant, and what acts on those of all tenants for none
// of their people.
func TestKeysAreTheTenantsOwn(t *testing.T) {
	k := newKeyring(t, encrypt.NewMemory(), nil)
	sealed, err := k.Seal(acting("acme"), home, nil)
	require.NoError(t, err)
	receipt, err := k.Erase(job("acme"), "acme", "gone")
	require.NoError(t, err)
	ofTenant := map[string]func(ctx context.Context) error{
		"Rotate":        func(ctx context.Context) error { _, err := k.Rotate(ctx, homeKey); return err },
		"Retire":        func(ctx context.Context) error { _, err := k.Retire(ctx, homeKey, 1); return err },
		"Erase":         func(ctx context.Context) error { _, err := k.Erase(ctx, "acme", "c9"); return err },
		"Receipt":       func(ctx context.Context) error { _, err := k.Receipt(ctx, "acme", "gone"); return err },
		"CheckReceipt":  func(ctx context.Context) error { _, err := k.CheckReceipt(ctx, document(t, receipt)); return err },
		"Open":          func(ctx context.Context) error { _, err := k.Open(ctx, home, sealed); return err },
		"RotateClients": func(ctx context.Context) error { _, err := k.RotateClients(ctx, "acme", time.Now(), nil); return err },
		"Sweep": func(ctx context.Context) error {
			_, err := k.Sweep(ctx, "acme", func(_ context.Context, clients []string) ([]string, error) { return clients, nil })
			return err
		},
	}
	for name, call := range ofTenant {
		t.Run(name, func(t *testing.T) {
			for _, ctx := range []context.Context{t.Context(), acting("other"), job("other"), crmguard.WithSubject(t.Context(), crmguard.Subject{Tenant: "acme"})} {
				require.ErrorIs(t, call(ctx), encrypt.ErrSubject)
			}
			for _, ctx := range []context.Context{acting("acme"), job("acme")} {
				require.NoError(t, call(ctx))
			}
		})
	}
	ofAll := map[string]func(ctx context.Context) error{
		"FinishErasures": func(ctx context.Context) error { _, err := k.FinishErasures(ctx); return err },
		"Replay":         func(ctx context.Context) error { _, err := k.Replay(ctx, document(t, receipt)); return err },
		"Turn": func(ctx context.Context) error {
			if _, err := k.Turn(ctx, nil); !errors.Is(err, context.Canceled) {
				return err
			}
			return nil
		},
	}
	for name, call := range ofAll {
		t.Run(name, func(t *testing.T) {
			integration := crmguard.WithSubject(t.Context(), crmguard.Subject{Tenant: "acme", ID: "key1", Kind: crmguard.KindIntegration})
			for _, ctx := range []context.Context{acting("acme"), acting("other"), integration, crmguard.WithSubject(t.Context(), crmguard.Subject{})} {
				require.ErrorIs(t, call(ctx), encrypt.ErrSubject)
			}
			for _, ctx := range []context.Context{context.Background(), job("acme"), job("other")} {
				ctx, cancel := context.WithCancel(ctx)
				if name == "Turn" { // which would take a Lease
					cancel()
				}
				require.NoError(t, call(ctx))
				cancel()
			}
		})
	}
}

func TestManyThatRotateAtOnceMakeOneVersion(t *testing.T) {
	kek, store := newKEK(t), encrypt.NewMemory()
	nodes := []*encrypt.Keyring{openKeyring(t, kek, store, nil), openKeyring(t, kek, store, nil)}
	sealed, err := nodes[0].Seal(acting("acme"), home, nil)
	require.NoError(t, err)
	seen := make(map[uint32]bool)
	for _, version := range racetest.Run(t, func(i int) (uint32, error) { return nodes[i%2].Rotate(acting("acme"), homeKey) }) {
		seen[version] = true
	}
	records, err := store.Load(t.Context(), []encrypt.Scope{homeKey})
	require.NoError(t, err)
	require.Len(t, records, len(seen)+1, "each version once")
	for _, k := range nodes {
		_, err = k.Open(acting("acme"), home, sealed)
		require.NoError(t, err)
	}
}

// invalidating is a KEK in whose first decryption something happens.
type invalidating struct {
	*flakyKEK
	once atomic.Bool
	hook func()
}

func (k *invalidating) DecryptWithContext(ctx context.Context, b, ad []byte) ([]byte, error) {
	plaintext, err := k.flakyKEK.DecryptWithContext(ctx, b, ad)
	if !k.once.Swap(true) {
		k.hook()
	}
	return plaintext, err
}

func TestInvalidate(t *testing.T) {
	kek, store := newKEK(t), &counting{Store: encrypt.NewMemory()}
	k := openKeyring(t, kek, store, nil)
	sealed, err := k.Seal(acting("acme"), home, nil)
	require.NoError(t, err)
	kek.calls.Store(0)
	_, err = k.Open(acting("acme"), home, sealed)
	require.NoError(t, err)
	require.Zero(t, kek.calls.Load())
	require.NotZero(t, k.Cached())
	k.Invalidate()
	require.Zero(t, k.Cached())
	store.loads.Store(0)
	_, err = k.Open(acting("acme"), home, sealed)
	require.NoError(t, err)
	require.EqualValues(t, 1, kek.calls.Load())
	require.EqualValues(t, 1, store.loads.Load())

	// A keyset that is being unwrapped just then is not used.
	slow := &invalidating{flakyKEK: kek}
	other := openKeyring(t, slow, store, nil)
	slow.hook = other.Invalidate
	kek.calls.Store(0)
	_, err = other.Open(acting("acme"), home, sealed)
	require.NoError(t, err)
	require.EqualValues(t, 2, kek.calls.Load())
}

// While the KEK is down, tenants in the cache go on until CacheAge, clients that are
// new to the cache too, and others are told that keys are not available.
func TestAnOutageOfTheKEK(t *testing.T) {
	kek, store, clock := newKEK(t), encrypt.NewMemory(), newClock(t)
	k := openKeyring(t, kek, store, nil)
	_, err := k.Seal(acting("acme"), home, nil)
	require.NoError(t, err)
	_, err = openKeyring(t, kek, store, nil).Seal(acting("other"), crmguard.Place{Tenant: "other", Client: "c1"}, nil)
	require.NoError(t, err)
	kek.down.Store(true)
	for minute := range 15 {
		_, err = k.Seal(acting("acme"), client(minute), nil)
		require.NoError(t, err, "minute %d", minute)
		_, err = k.Seal(acting("other"), crmguard.Place{Tenant: "other", Client: "c1"}, nil)
		require.ErrorIs(t, err, crmguard.ErrUnavailable)
		_, err = k.Seal(acting("third"), crmguard.Place{Tenant: "third", Client: "c1"}, nil)
		require.ErrorIs(t, err, crmguard.ErrUnavailable)
		clock.Advance(time.Minute)
	}
	_, err = k.Seal(acting("acme"), home, nil)
	require.ErrorIs(t, err, crmguard.ErrUnavailable)
	kek.down.Store(false)
	_, err = k.Seal(acting("acme"), home, nil)
	require.NoError(t, err)
}

// A process learns of versions that others make one right after the other.
func TestRotationsInQuickSuccession(t *testing.T) {
	kek, store := newKEK(t), encrypt.NewMemory()
	options := &encrypt.Options{Index: encrypt.NewMemoryIndex()}
	writer, reader := openKeyring(t, kek, store, options), openKeyring(t, kek, store, options)
	writing, err := encrypt.NewTable[contact](writer, "contacts", nil)
	require.NoError(t, err)
	reading, err := encrypt.NewTable[contact](reader, "contacts", nil)
	require.NoError(t, err)
	for i := range 4 {
		row := page(1)[0]
		_, err := writing.Seal(job("acme"), "acme", row)
		require.NoError(t, err)
		require.EqualValues(t, i+1, version(row.PhoneSealed))
		require.NoError(t, reading.Open(job("acme"), "acme", row), "version %d", i+1)
		_, err = writer.Rotate(job("acme"), dataScope("c00"))
		require.NoError(t, err)
	}
}

// A store of which no key opens does not make an error of as many lines.
func TestManyDamagedClients(t *testing.T) {
	store, clock := encrypt.NewMemory(), newClock(t)
	k := openKeyring(t, newKEK(t), store, &encrypt.Options{Clock: clock.Now})
	ctx := job("acme")
	for i := range 105 {
		_, err := k.Seal(ctx, client(i), nil)
		require.NoError(t, err)
		damage(t, store, dataScope(client(i).Client), 20)
	}
	_, err := k.RotateClients(ctx, "acme", clock.Now().Add(time.Minute), nil)
	require.ErrorIs(t, err, encrypt.ErrDamaged)
	require.Len(t, strings.Split(err.Error(), "\n"), 101)
	require.ErrorContains(t, err, "and 5 more")
}
