package awskms_test

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/tink-crypto/tink-go/v2/tink"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/encrypt"
)

// service is a local KMS and what a test may do to it.
type service struct {
	kek      tink.AEADWithContext
	wrong    tink.AEADWithContext // another key of the same KMS
	ignoreAD func()
	down     func(bool)
	hang     func() (ended <-chan struct{}) // requests wait; ended tells that one was given up by the client
	decrypts func() int
	delay    time.Duration // between the destruction of a key and its end
}

const tenant = "acme"

func job(t *testing.T, tenant string) context.Context {
	t.Helper()
	return crmguard.System(t.Context(), tenant, "test")
}

func cells(n int) []encrypt.Cell {
	cells := make([]encrypt.Cell, n)
	for i := range cells {
		id := fmt.Sprint("client-", i)
		cells[i] = encrypt.Cell{
			Place:     crmguard.Place{Tenant: tenant, Client: id, Kind: "contacts", Record: id, Field: "phone"},
			Plaintext: []byte("+7 916 123-45-67"),
		}
	}
	return cells
}

func newKeyring(t *testing.T, kek tink.AEADWithContext, store encrypt.Store) *encrypt.Keyring {
	t.Helper()
	keys, err := encrypt.New(kek, store, nil)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, keys.Close()) })
	return keys
}

func TestColdPageIsOneCall(t *testing.T) {
	s, store, page := newService(t), encrypt.NewMemory(), cells(50)
	require.NoError(t, newKeyring(t, s.kek, store).SealAll(job(t, tenant), tenant, page))
	for i := range page {
		page[i].Plaintext = nil
	}
	cold := newKeyring(t, s.kek, store)
	before := s.decrypts()
	require.NoError(t, cold.OpenAll(job(t, tenant), tenant, page))
	require.Equal(t, 1, s.decrypts()-before)
	for _, cell := range page {
		require.NoError(t, cell.Err)
		require.Equal(t, "+7 916 123-45-67", string(cell.Plaintext))
	}
}

// bound tells whether what was encrypted with one associated data opens with no other.
func bound(t *testing.T, kek tink.AEADWithContext) bool {
	t.Helper()
	for _, pair := range [][2]string{{"a", "b"}, {"a", ""}, {"", "a"}, {"a", "aa"}} {
		ciphertext, err := kek.EncryptWithContext(t.Context(), []byte("secret"), []byte(pair[0]))
		require.NoError(t, err)
		plaintext, err := kek.DecryptWithContext(t.Context(), ciphertext, []byte(pair[0]))
		require.NoError(t, err)
		require.Equal(t, "secret", string(plaintext))
		plaintext, err = kek.DecryptWithContext(t.Context(), ciphertext, []byte(pair[1]))
		if err == nil {
			return false
		}
		require.Nil(t, plaintext)
		require.ErrorIs(t, err, encrypt.ErrWrongKEK)
	}
	return true
}

func TestAssociatedDataIsBound(t *testing.T) {
	require.True(t, bound(t, newService(t).kek))
}

func TestChangedCiphertextIsRefused(t *testing.T) {
	s := newService(t)
	ciphertext, err := s.kek.EncryptWithContext(t.Context(), []byte("secret"), []byte("ad"))
	require.NoError(t, err)
	for _, changed := range [][]byte{nil, ciphertext[:1], ciphertext[:len(ciphertext)-4], flip(ciphertext), bytes.Repeat([]byte("x"), 100)} {
		_, err := s.kek.DecryptWithContext(t.Context(), changed, []byte("ad"))
		require.Error(t, err)
		require.NotContains(t, err.Error(), "secret")
	}
}

// flip changes a bit in the middle, where all services have their payload.
func flip(b []byte) []byte {
	b = bytes.Clone(b)
	b[len(b)-10] ^= 1
	return b
}

func TestContextReachesTheWire(t *testing.T) {
	s := newService(t)
	ciphertext, err := s.kek.EncryptWithContext(t.Context(), []byte("secret"), []byte("ad"))
	require.NoError(t, err)
	ended := s.hang()

	deadline, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err = s.kek.DecryptWithContext(deadline, ciphertext, []byte("ad"))
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.NotErrorIs(t, err, encrypt.ErrWrongKEK)
	<-ended

	canceled, cancel := context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel)
	_, err = s.kek.EncryptWithContext(canceled, []byte("secret"), []byte("ad"))
	require.ErrorIs(t, err, context.Canceled)
	<-ended

	keys := newKeyring(t, s.kek, encrypt.NewMemory())
	deadline, cancel = context.WithTimeout(job(t, tenant), 50*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, keys.SealAll(deadline, tenant, cells(1)), context.DeadlineExceeded)
}

func TestOutage(t *testing.T) {
	s, page := newService(t), cells(1)
	keys := newKeyring(t, s.kek, encrypt.NewMemory())
	require.NoError(t, keys.SealAll(job(t, tenant), tenant, page))
	s.down(true)
	page[0].Plaintext = nil
	require.NoError(t, keys.OpenAll(job(t, tenant), tenant, page), "the tenant is in the cache")
	require.NoError(t, page[0].Err)

	_, err := keys.Seal(job(t, "other"), crmguard.Place{Tenant: "other", Kind: "settings", Record: "1", Field: "smtp"}, []byte("x"))
	require.ErrorIs(t, err, encrypt.ErrUnavailable)
	require.NotErrorIs(t, err, encrypt.ErrWrongKEK)
	s.down(false)
	_, err = keys.Seal(job(t, "other"), crmguard.Place{Tenant: "other", Kind: "settings", Record: "1", Field: "smtp"}, []byte("x"))
	require.NoError(t, err)
}

func TestWrongKeyIsNoOutage(t *testing.T) {
	s, store, page := newService(t), encrypt.NewMemory(), cells(1)
	require.NoError(t, newKeyring(t, s.kek, store).SealAll(job(t, tenant), tenant, page))
	wrong := newKeyring(t, s.wrong, store)
	for _, err := range []error{wrong.Check(t.Context()), wrong.OpenAll(job(t, tenant), tenant, page)} {
		require.ErrorIs(t, err, encrypt.ErrWrongKEK)
		require.NotErrorIs(t, err, encrypt.ErrUnavailable)
	}
}

func TestConcurrentUse(t *testing.T) {
	s := newService(t)
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			ciphertext, err := s.kek.EncryptWithContext(t.Context(), []byte("secret"), []byte("ad"))
			if err == nil {
				_, err = s.kek.DecryptWithContext(t.Context(), ciphertext, []byte("ad"))
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

// An old copy of the key store opens nothing after a Turn, the current one everything.
func TestTurn(t *testing.T) {
	t.Parallel() // it waits for a Lease
	s, store, page := newService(t), encrypt.NewMemory(), cells(50)
	keys := newKeyring(t, s.kek, store)
	require.NoError(t, keys.SealAll(job(t, tenant), tenant, page))
	records, err := store.List(t.Context(), encrypt.Record{}, 1000)
	require.NoError(t, err)
	old := encrypt.NewMemory()
	for _, r := range records {
		_, err := old.Insert(t.Context(), []encrypt.Record{r})
		require.NoError(t, err)
	}
	opens := func(store encrypt.Store) error {
		for i := range page {
			page[i].Plaintext, page[i].Err = nil, nil
		}
		if err := newKeyring(t, s.kek, store).OpenAll(job(t, tenant), tenant, page); err != nil {
			return err
		}
		for _, cell := range page {
			require.NoError(t, cell.Err)
			require.Equal(t, "+7 916 123-45-67", string(cell.Plaintext))
		}
		return nil
	}
	require.NoError(t, opens(old))

	before := s.decrypts()
	done, err := keys.Turn(t.Context(), nil)
	require.NoError(t, err)
	require.Equal(t, 1, done.Tenants)
	require.GreaterOrEqual(t, done.Keys, 50)
	require.Less(t, s.decrypts()-before, 10, "calls for tenants, not for clients")
	require.WithinDuration(t, time.Now().Add(s.delay), done.Gone, time.Minute)
	require.NoError(t, opens(store))
	require.Error(t, opens(old))
}
