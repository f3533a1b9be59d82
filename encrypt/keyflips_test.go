package encrypt_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/tink-crypto/tink-go/v2/tink"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/encrypt"
)

// keyUses are what needs a key of a purpose. None may succeed with a damaged key: a
// wrong one would seal what nobody opens, index what nobody finds, and refuse sessions
// that are genuine.
func keyUses(sealed, mac []byte) map[encrypt.Purpose][]func(k *encrypt.Keyring) error {
	open := func(k *encrypt.Keyring) error { _, err := k.Open(acting("acme"), home, sealed); return err }
	seal := func(k *encrypt.Keyring) error { _, err := k.Seal(acting("acme"), home, nil); return err }
	newClient := func(k *encrypt.Keyring) error { _, err := k.Seal(acting("acme"), client(99), nil); return err }
	newTenant := func(k *encrypt.Keyring) error {
		_, err := k.Seal(acting("new"), crmguard.Place{Tenant: "new", Client: "1"}, nil)
		return err
	}
	verify := func(k *encrypt.Keyring) error { return k.Verify(acting("acme"), home, []byte("x"), mac) }
	makeMAC := func(k *encrypt.Keyring) error { _, err := k.MAC(acting("acme"), home, nil); return err }
	index := func(k *encrypt.Keyring) error { _, err := k.Pseudonyms(acting("acme"), home, nil); return err }
	check := func(k *encrypt.Keyring) error { return k.Check(acting("acme")) }
	return map[encrypt.Purpose][]func(*encrypt.Keyring) error{
		encrypt.TenantKeyset: {open, newClient, verify, index},
		encrypt.DataKey:      {open, seal},
		encrypt.IndexKey:     {index},
		encrypt.MACKey:       {verify, makeMAC},
		encrypt.KEKCheck:     {check, newTenant},
	}
}

// acceptFlips counts the flipped bits of stored keys, and of their versions, with which
// something succeeded all the same.
func acceptFlips(t *testing.T, kek tink.AEADWithContext, purpose encrypt.Purpose) (accepted int) {
	t.Helper()
	memory := encrypt.NewMemory()
	writer := openKeyring(t, kek, memory, nil)
	sealed, err := writer.Seal(acting("acme"), home, []byte("x"))
	require.NoError(t, err)
	mac, err := writer.MAC(acting("acme"), home, []byte("x"))
	require.NoError(t, err)
	_, err = writer.Pseudonyms(acting("acme"), home, nil)
	require.NoError(t, err)

	length := 0
	for bit := -1; bit < length+32; bit++ {
		flipped := &tampering{Store: discarding{memory}, change: func(r *encrypt.Record) {
			switch {
			case r.Scope.Purpose != purpose || r.Scope.Tenant == "new":
			case bit < 0:
				length = len(r.Wrapped) * 8
			case bit < length:
				r.Wrapped[bit/8] ^= 1 << (bit % 8)
			default:
				r.Version ^= 1 << (bit - length)
			}
		}}
		for i, use := range keyUses(sealed, mac)[purpose] {
			k := openKeyring(t, kek, flipped, &encrypt.Options{CacheEntries: 8})
			err := use(k)
			switch {
			case bit < 0:
				require.NoError(t, err, "use %d", i)
			case err == nil:
				accepted++
			default:
				require.True(t, errors.Is(err, encrypt.ErrDamaged) || errors.Is(err, encrypt.ErrWrongKEK), "bit %d, use %d: %v", bit, i, err)
				require.NotErrorIs(t, err, crmguard.ErrMAC)
			}
		}
	}
	require.Greater(t, length, 46*8)
	return accepted
}

// discarding says that it has kept new keys, and does not.
type discarding struct{ *encrypt.Memory }

func (d discarding) Insert(_ context.Context, records []encrypt.Record) ([]encrypt.Record, error) {
	return records, nil
}

func TestEveryFlippedBitOfAStoredKeyIsRefused(t *testing.T) {
	for _, purpose := range []encrypt.Purpose{
		encrypt.TenantKeyset, encrypt.DataKey, encrypt.IndexKey, encrypt.MACKey, encrypt.KEKCheck,
	} {
		t.Run(fmt.Sprint("purpose ", purpose), func(t *testing.T) {
			require.Zero(t, acceptFlips(t, newKEK(t), purpose))
		})
	}
}

// FuzzStoredKey puts other bytes, and another note, in the place of a stored key.
func FuzzStoredKey(f *testing.F) {
	kek, memory := newKEK(f), encrypt.NewMemory()
	writer := openKeyring(f, kek, memory, nil)
	sealed, err := writer.Seal(acting("acme"), home, []byte("x"))
	require.NoError(f, err)
	mac, err := writer.MAC(acting("acme"), home, []byte("x"))
	require.NoError(f, err)
	_, err = writer.Pseudonyms(acting("acme"), home, nil)
	require.NoError(f, err)
	_, err = writer.Erase(acting("acme"), "acme", "gone")
	require.NoError(f, err)
	genuine := make(map[string]bool)
	for _, r := range listRecords(f, memory) {
		genuine[string(r.Wrapped)] = true
		f.Add(byte(r.Scope.Purpose), r.Wrapped, r.Note)
		f.Add(byte(r.Scope.Purpose), r.Wrapped[:len(r.Wrapped)/2], []byte(`{"index_rows":-1,"duplicates":[""]}`))
		f.Add(byte(r.Scope.Purpose), append([]byte{}, "cg\x01\x03\x00\x00\x00\x01x"...), []byte(`[{"generation":1,"gone":"x"}]`))
	}
	f.Fuzz(func(t *testing.T, purpose byte, wrapped, note []byte) {
		k, err := encrypt.New(kek, &tampering{Store: discarding{memory}, change: func(r *encrypt.Record) {
			if r.Scope.Purpose == encrypt.Purpose(purpose) && r.State == encrypt.Active {
				r.Wrapped = wrapped
			}
			r.Note = note
		}}, &encrypt.Options{CacheEntries: 8})
		require.NoError(t, err)
		defer func() { require.NoError(t, k.Close()) }()
		receipt := func(k *encrypt.Keyring) error { _, err := k.Receipt(acting("acme"), "acme", "gone"); return err }
		for i, use := range append(keyUses(sealed, mac)[encrypt.Purpose(purpose)], receipt) {
			err := use(k)
			switch {
			case err != nil:
				require.True(t, errors.Is(err, encrypt.ErrDamaged) || errors.Is(err, encrypt.ErrWrongKEK), "use %d: %v", i, err)
			case i < len(keyUses(sealed, mac)[encrypt.Purpose(purpose)]):
				require.True(t, genuine[string(wrapped)], "use %d", i)
			}
		}
	})
}

// Planted fault: a KEK that authenticates nothing gives wrong keysets, and the check
// sees them in use.
func TestFlippedBitsUnderAMalleableKEKAreNoticed(t *testing.T) {
	require.NotZero(t, acceptFlips(t, malleableKEK{}, encrypt.TenantKeyset))
}

type malleableKEK struct{}

func (malleableKEK) EncryptWithContext(_ context.Context, b, _ []byte) ([]byte, error) {
	out := make([]byte, len(b))
	for i := range b {
		out[i] = b[i] ^ 0x5a
	}
	return out, nil
}

func (m malleableKEK) DecryptWithContext(ctx context.Context, b, ad []byte) ([]byte, error) {
	return m.EncryptWithContext(ctx, b, ad)
}

// A flipped bit of a key file leaves the same key, or the file is refused, or the KEK is
// another one, of which nothing comes but ErrWrongKEK. A process that has read the file
// before is never led to another key.
func TestEveryFlippedBitOfAKeyFileIsNoticed(t *testing.T) {
	dir := t.TempDir()
	path := dir + "/kek.json"
	kek, err := encrypt.OpenKeyFile(path, "", true)
	require.NoError(t, err)
	memory := encrypt.NewMemory()
	sealed, err := openKeyring(t, kek, memory, nil).Seal(acting("acme"), home, []byte("x"))
	require.NoError(t, err)
	good := read(t, path)
	running, err := encrypt.OpenKeyFile(path, "", true)
	require.NoError(t, err)
	known := wrapped(t, running)
	outcomes := map[string]int{}
	for bit := range 8 * len(good) {
		text := append([]byte{}, good...)
		text[bit/8] ^= 1 << (bit % 8)
		require.NoError(t, os.WriteFile(path, text, 0o600))

		requireOpens(t, running, known)
		ciphertext, err := running.EncryptWithContext(t.Context(), []byte("secret"), []byte("ad"))
		if err == nil {
			requireOpens(t, kek, ciphertext)
		} else {
			_, ok := errors.AsType[*encrypt.KeyFileError](err)
			require.True(t, ok, "%v", err)
			if bit%50 == 0 { // it waits for the disk
				require.Error(t, running.Rotate(t.Context()), "a damaged file is not written anew")
			}
		}

		started, openErr := encrypt.OpenKeyFile(path, "", true)
		if openErr != nil {
			require.ErrorIs(t, openErr, encrypt.ErrKeyFileMalformed)
			require.Error(t, err)
			outcomes["refused"]++
			continue
		}
		k := openKeyring(t, started, discarding{memory}, nil)
		if checkErr := k.Check(t.Context()); checkErr == nil {
			require.NoError(t, err)
			opened, err := k.Open(acting("acme"), home, sealed)
			require.NoError(t, err)
			require.Equal(t, "x", string(opened))
			requireOpens(t, kek, wrapped(t, started))
			outcomes["same"]++
			continue
		} else {
			require.ErrorIs(t, checkErr, encrypt.ErrWrongKEK)
		}
		require.Error(t, err)
		_, err = k.Open(acting("acme"), home, sealed)
		require.ErrorIs(t, err, encrypt.ErrWrongKEK)
		_, err = k.Seal(acting("new"), crmguard.Place{Tenant: "new"}, nil)
		require.ErrorIs(t, err, encrypt.ErrWrongKEK)
		outcomes["other key"]++
	}
	require.Greater(t, outcomes["refused"], outcomes["other key"])
	require.NotZero(t, outcomes["other key"], "the bits of the key itself")
	t.Log(outcomes)
}
