package vaultkms_test

import (
	"context"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/contrib/vaultkms"
	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/encrypt/encrypttest"
)

func open(t *testing.T, client *api.Client, key string) *vaultkms.KEK {
	t.Helper()
	kek, err := vaultkms.New(client, key, nil)
	require.NoError(t, err)
	return kek
}

func TestKEK(t *testing.T) {
	encrypttest.KEK(t, func(t *testing.T) encrypttest.KEKUnderTest {
		s, client := newServer(t)
		return encrypttest.KEKUnderTest{
			Open:  func() encrypt.RotatingKEK { return open(t, client, "crm-kek") },
			Other: func() encrypt.RotatingKEK { return open(t, client, "other") },
			KMS: &encrypttest.KMS{
				Decrypts: func() int { return s.count("decrypt") },
				Down: func(down bool) {
					s.set(func() { s.status = map[bool]int{true: http.StatusServiceUnavailable}[down] })
				},
				Hang: func(come func()) <-chan struct{} {
					ended := make(chan struct{}, 10)
					s.set(func() { s.hang = &hang{come, ended} })
					return ended
				},
				Unbind: func() { s.set(func() { s.oldVault = true }) },
			},
		}
	})
}

func TestUnboundKeysAreRefused(t *testing.T) {
	s, client := newServer(t)
	s.set(func() { s.oldVault = true })
	kek := open(t, client, "crm-kek")
	ciphertext, err := kek.EncryptWithContext(t.Context(), []byte("secret"), []byte("ad"))
	require.ErrorIs(t, err, vaultkms.ErrUnbound)
	require.Nil(t, ciphertext)
	_, err = kek.DecryptWithContext(t.Context(), []byte("vault:v1:AAAA"), []byte("ad"))
	require.ErrorIs(t, err, vaultkms.ErrUnbound)
	require.ErrorIs(t, kek.Rotate(t.Context()), vaultkms.ErrUnbound)
	keys, err := encrypt.New(kek, encrypt.NewMemory(), nil)
	require.NoError(t, err)
	defer func() { require.NoError(t, keys.Close()) }()
	at := crmguard.Place{Tenant: "acme", Kind: "settings", Record: "1", Field: "smtp"}
	_, err = keys.Seal(crmguard.System(t.Context(), at.Tenant, "test"), at, []byte("x"))
	require.ErrorIs(t, err, vaultkms.ErrUnbound)

	s.set(func() { s.oldVault = false }) // Vault was updated
	_, err = kek.EncryptWithContext(t.Context(), []byte("secret"), []byte("ad"))
	require.NoError(t, err)

	_, err = open(t, client, "derived").EncryptWithContext(t.Context(), []byte("secret"), []byte("ad"))
	require.ErrorContains(t, err, "derivation")
}

func TestRotate(t *testing.T) {
	_, client := newServer(t)
	kek, other := open(t, client, "crm-kek"), open(t, client, "crm-kek")
	var sealed [][]byte
	seal := func(k *vaultkms.KEK) {
		ciphertext, err := k.EncryptWithContext(t.Context(), []byte("secret"), []byte("ad"))
		require.NoError(t, err)
		sealed = append(sealed, ciphertext)
	}
	seal(kek)
	require.NoError(t, kek.Rotate(t.Context()))
	seal(other)
	seal(kek)
	for i, version := range []string{"vault:v1:", "vault:v2:", "vault:v2:"} {
		require.Contains(t, string(sealed[i]), version)
		for _, k := range []*vaultkms.KEK{kek, other} {
			_, err := k.DecryptWithContext(t.Context(), sealed[i], []byte("ad"))
			require.NoError(t, err)
		}
	}
	for range 2 { // the second call changes nothing
		gone, err := kek.DestroyOld(t.Context())
		require.NoError(t, err)
		require.WithinDuration(t, time.Now(), gone, time.Minute)
	}
	_, err := kek.DecryptWithContext(t.Context(), sealed[0], []byte("ad"))
	require.ErrorIs(t, err, encrypt.ErrWrongKEK, "destroyed, and not out of reach")
	_, err = kek.DecryptWithContext(t.Context(), sealed[1], []byte("ad"))
	require.NoError(t, err)

	require.NoError(t, other.Rotate(t.Context()))
	_, err = kek.DestroyOld(t.Context())
	require.ErrorIs(t, err, encrypt.ErrKEKRotated)
	_, err = open(t, client, "crm-kek").DestroyOld(t.Context())
	require.ErrorIs(t, err, encrypt.ErrKEKRotated)
	require.ErrorContains(t, err, "nothing was encrypted or rotated here yet")

	snapshots, err := vaultkms.New(client, "crm-kek", &vaultkms.Options{Mount: "/transit/", SnapshotRetention: 24 * time.Hour})
	require.NoError(t, err)
	require.NoError(t, snapshots.Rotate(t.Context()))
	gone, err := snapshots.DestroyOld(t.Context())
	require.NoError(t, err)
	require.WithinDuration(t, time.Now().Add(24*time.Hour), gone, time.Minute)
}

func TestFailures(t *testing.T) {
	s, client := newServer(t)
	kek := open(t, client, "crm-kek")
	require.NoError(t, kek.Rotate(t.Context()))
	for _, path := range []string{"keys/crm-kek/config", "keys/crm-kek/trim", "keys/crm-kek"} {
		s.set(func() { s.deny = path })
		_, err := kek.DestroyOld(t.Context())
		require.ErrorContains(t, err, "permission denied", path)
	}
	s.set(func() { s.deny = "keys/crm-kek/rotate" })
	require.Error(t, kek.Rotate(t.Context()))
	s.set(func() { s.deny = "decrypt/other" })
	_, err := open(t, client, "other").EncryptWithContext(t.Context(), []byte("secret"), nil)
	require.ErrorContains(t, err, "permission denied", "nothing proved that associated data is bound")
	require.NotErrorIs(t, err, vaultkms.ErrUnbound)

	s.set(func() { s.deny = "" })
	_, err = kek.DestroyOld(t.Context())
	require.NoError(t, err)
	_, err = open(t, client, "absent").EncryptWithContext(t.Context(), []byte("secret"), nil)
	require.ErrorContains(t, err, "not found")

	s.set(func() { s.strange = true })
	_, err = kek.EncryptWithContext(t.Context(), []byte("secret"), nil)
	require.ErrorContains(t, err, "not Transit's")
	_, err = kek.DecryptWithContext(t.Context(), []byte("vault:v1:AAAA"), nil)
	require.ErrorContains(t, err, "not Transit's")
	_, err = kek.DestroyOld(t.Context())
	require.ErrorContains(t, err, "not Transit's")
}

func TestNames(t *testing.T) {
	_, client := newServer(t)
	for _, key := range []string{"", "a/b", "../sys", "a b", "-a", ".", "a\n"} {
		_, err := vaultkms.New(client, key, nil)
		require.Error(t, err, key)
	}
	for _, mount := range []string{"/", "..", "a/../sys", "a//b", "a?b"} {
		_, err := vaultkms.New(client, "key", &vaultkms.Options{Mount: mount})
		require.Error(t, err, mount)
	}
	_, err := vaultkms.New(client, "key", &vaultkms.Options{Mount: "teams/crm/transit"})
	require.NoError(t, err)
	_, err = vaultkms.New(client, "key", &vaultkms.Options{SnapshotRetention: -1})
	require.Error(t, err)
	_, err = vaultkms.New(nil, "key", nil)
	require.Error(t, err)
}

// A standby node that lags behind is not believed.
func TestSlowNodes(t *testing.T) {
	s, client := newServer(t)
	kek, other := open(t, client, "crm-kek"), open(t, client, "crm-kek")
	_, err := other.EncryptWithContext(t.Context(), []byte("secret"), []byte("ad"))
	require.NoError(t, err)
	require.NoError(t, kek.Rotate(t.Context()))
	ciphertext, err := kek.EncryptWithContext(t.Context(), []byte("secret"), []byte("ad"))
	require.NoError(t, err)
	_, err = other.DecryptWithContext(t.Context(), ciphertext, []byte("ad"))
	require.NoError(t, err)
	for _, k := range []*vaultkms.KEK{kek, other} {
		s.set(func() { s.lag = 1 })
		_, err = k.EncryptWithContext(t.Context(), []byte("secret"), []byte("ad"))
		require.ErrorContains(t, err, "does not know version 2 yet")
		_, err = k.EncryptWithContext(t.Context(), []byte("secret"), []byte("ad"))
		require.NoError(t, err)
	}

	// Rotate and DestroyOld wait for it.
	for i, answers := range []bool{false, true} {
		s.set(func() {
			s.answers = answers
			s.before = map[string]func(){"keys/crm-kek/rotate": func() { s.lag = 3 }}
		})
		require.NoError(t, kek.Rotate(t.Context()))
		s.set(func() { require.Zero(t, s.lag) })
		ciphertext, err := kek.EncryptWithContext(t.Context(), []byte("secret"), []byte("ad"))
		require.NoError(t, err)
		require.Contains(t, string(ciphertext), fmt.Sprintf("vault:v%d:", 3+i))
		s.set(func() { s.lag = 2 })
		_, err = kek.DestroyOld(t.Context())
		require.NoError(t, err)
	}

	// Somebody else has rotated, and the node that is asked before does not know it yet.
	require.NoError(t, other.Rotate(t.Context()))
	s.set(func() { s.lag, s.before = 1, nil })
	require.NoError(t, kek.Rotate(t.Context()))
	_, err = kek.DestroyOld(t.Context())
	require.NoError(t, err, "the answer to the rotation says which version it has made")

	s.set(func() { s.lag = 1 << 30 })
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, kek.Rotate(ctx), context.DeadlineExceeded)
}

// docs/formats/kms.md
func TestFormat(t *testing.T) {
	_, client := newServer(t)
	ciphertext, err := open(t, client, "crm-kek").EncryptWithContext(t.Context(), []byte("secret"), []byte("ad"))
	require.NoError(t, err)
	secret, err := client.Logical().WriteWithContext(t.Context(), "transit/decrypt/crm-kek",
		map[string]any{"ciphertext": string(ciphertext), "associated_data": "YWQ="})
	require.NoError(t, err)
	require.Equal(t, "c2VjcmV0", secret.Data["plaintext"])
}

func TestSettleTime(t *testing.T) {
	s, client := newServer(t)
	kek, err := vaultkms.New(client, "crm-kek", &vaultkms.Options{SettleTime: time.Second})
	require.NoError(t, err)
	s.set(func() { s.before = map[string]func(){"keys/crm-kek/rotate": func() { s.lag = 1 << 30 }} })
	err = kek.Rotate(t.Context())
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.ErrorContains(t, err, "vaultkms: this node of Vault does not know the newest version yet")
	_, err = vaultkms.New(client, "crm-kek", &vaultkms.Options{SettleTime: -1})
	require.ErrorContains(t, err, "negative SettleTime")
}
