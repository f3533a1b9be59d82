// Package transit tests vaultkms against Vault's own Transit engine, in this process
// and behind a local HTTP server that does what Vault's does for it: paths, statuses,
// error texts, without tokens and policies. It is a module of its own in testdata,
// because Vault's packages take minutes to build and have a licence of their own (BUSL); nothing
// builds it by itself:
//
//	GOWORK=off go test -C contrib/vaultkms/testdata/transit .
package transit_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/hashicorp/vault/api"
	"github.com/hashicorp/vault/builtin/logical/transit"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/contrib/vaultkms"
	"github.com/crmguard/crmguard/encrypt"
)

func newVault(t *testing.T) *api.Client {
	t.Helper()
	storage := &logical.InmemStorage{}
	config := logical.TestBackendConfig()
	config.StorageView = storage
	backend, err := transit.Factory(t.Context(), config)
	require.NoError(t, err)
	require.NoError(t, backend.Initialize(t.Context(), &logical.InitializationRequest{Storage: storage}))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		path, ok := strings.CutPrefix(r.URL.Path, "/v1/transit/")
		if !ok {
			http.NotFound(w, r)
			return
		}
		request := &logical.Request{Operation: logical.ReadOperation, Path: path, Storage: storage, Data: map[string]any{}}
		if r.Method == http.MethodPut {
			request.Operation = logical.UpdateOperation
			if err := json.NewDecoder(r.Body).Decode(&request.Data); err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
		}
		response, err := backend.HandleRequest(context.WithoutCancel(r.Context()), request)
		status, failure := logical.RespondErrorCommon(request, response, err)
		w.Header().Set("Content-Type", "application/json")
		switch {
		case status != 0 || failure != nil:
			if status == 0 {
				status = http.StatusInternalServerError
			}
			logical.AdjustErrorStatusCode(&status, failure)
			w.WriteHeader(status)
			_ = json.NewEncoder(w).Encode(map[string]any{"errors": []string{failure.Error()}})
		case response == nil:
			w.WriteHeader(http.StatusNoContent)
		default:
			_ = json.NewEncoder(w).Encode(map[string]any{"data": response.Data})
		}
	}))
	t.Cleanup(server.Close)
	clientConfig := api.DefaultConfig()
	clientConfig.Address, clientConfig.MaxRetries = server.URL, 0
	client, err := api.NewClient(clientConfig)
	require.NoError(t, err)
	return client
}

func create(t *testing.T, client *api.Client, name string, options map[string]any) *vaultkms.KEK {
	t.Helper()
	_, err := client.Logical().WriteWithContext(t.Context(), "transit/keys/"+name, options)
	require.NoError(t, err)
	kek, err := vaultkms.New(client, name, nil)
	require.NoError(t, err)
	return kek
}

func seal(t *testing.T, kek *vaultkms.KEK) []byte {
	t.Helper()
	ciphertext, err := kek.EncryptWithContext(t.Context(), []byte("secret"), []byte("ad"))
	require.NoError(t, err)
	return ciphertext
}

// The trap: on a key that is not derived, Transit ignores what is sent as context.
func TestContextIsIgnored(t *testing.T) {
	client := newVault(t)
	create(t, client, "crm-kek", nil)
	b64 := base64.StdEncoding.EncodeToString
	secret, err := client.Logical().WriteWithContext(t.Context(), "transit/encrypt/crm-kek",
		map[string]any{"plaintext": b64([]byte("secret")), "context": b64([]byte("one"))})
	require.NoError(t, err)
	secret, err = client.Logical().WriteWithContext(t.Context(), "transit/decrypt/crm-kek",
		map[string]any{"ciphertext": secret.Data["ciphertext"], "context": b64([]byte("other"))})
	require.NoError(t, err)
	require.Equal(t, b64([]byte("secret")), secret.Data["plaintext"])
}

func TestAssociatedDataIsBound(t *testing.T) {
	client := newVault(t)
	for _, kind := range []string{"aes128-gcm96", "aes256-gcm96", "chacha20-poly1305"} {
		t.Run(kind, func(t *testing.T) {
			kek := create(t, client, kind, map[string]any{"type": kind})
			for _, pair := range [][2]string{{"a", "b"}, {"a", ""}, {"", "a"}, {"a", "aa"}} {
				ciphertext, err := kek.EncryptWithContext(t.Context(), []byte("secret"), []byte(pair[0]))
				require.NoError(t, err)
				plaintext, err := kek.DecryptWithContext(t.Context(), ciphertext, []byte(pair[0]))
				require.NoError(t, err)
				require.Equal(t, "secret", string(plaintext))
				_, err = kek.DecryptWithContext(t.Context(), ciphertext, []byte(pair[1]))
				require.ErrorIs(t, err, encrypt.ErrWrongKEK)
			}
		})
	}
}

func TestUnfitKeysAreRefused(t *testing.T) {
	client := newVault(t)
	for name, options := range map[string]map[string]any{
		"derived": {"derived": true}, "rsa": {"type": "rsa-2048"}, "signing": {"type": "ed25519"}, "hmac": {"type": "hmac", "key_size": 32},
	} {
		_, err := create(t, client, name, options).EncryptWithContext(t.Context(), []byte("secret"), []byte("ad"))
		require.Error(t, err, name)
		t.Log(err)
	}
}

func TestRefusedCiphertexts(t *testing.T) {
	client := newVault(t)
	kek, other := create(t, client, "crm-kek", nil), create(t, client, "other", nil)
	good := string(seal(t, kek))
	changed := []byte(good)
	changed[len(changed)-6] ^= 1
	for _, ciphertext := range []string{
		"", "x", "vault:v1", "vault:v1:", "vault:v1:AAAA", "vault:v1:?", "vault:vx:AAAA", "vault:v0:AAAA", "vault:v9:" + good[9:], good[:20], string(seal(t, other)), string(changed),
	} {
		_, err := kek.DecryptWithContext(t.Context(), []byte(ciphertext), []byte("ad"))
		require.ErrorIs(t, err, encrypt.ErrWrongKEK, ciphertext)
	}
}

func TestRotate(t *testing.T) {
	client := newVault(t)
	kek := create(t, client, "crm-kek", nil)
	one := seal(t, kek)
	require.NoError(t, kek.Rotate(t.Context()))
	two := seal(t, kek)
	require.NoError(t, kek.Rotate(t.Context()))
	three := seal(t, kek)
	for _, ciphertext := range [][]byte{one, two, three} {
		_, err := kek.DecryptWithContext(t.Context(), ciphertext, []byte("ad"))
		require.NoError(t, err)
	}
	for range 2 {
		_, err := kek.DestroyOld(t.Context())
		require.NoError(t, err)
	}
	for _, ciphertext := range [][]byte{one, two} {
		_, err := kek.DecryptWithContext(t.Context(), ciphertext, []byte("ad"))
		require.ErrorIs(t, err, encrypt.ErrWrongKEK)
	}
	_, err := kek.DecryptWithContext(t.Context(), three, []byte("ad"))
	require.NoError(t, err)
	// No administrator brings them back.
	_, err = client.Logical().WriteWithContext(t.Context(), "transit/keys/crm-kek/config", map[string]any{"min_decryption_version": 1})
	require.Error(t, err)

	require.NoError(t, create(t, client, "other", nil).Rotate(t.Context()))
	other, err := vaultkms.New(client, "crm-kek", nil)
	require.NoError(t, err)
	require.NoError(t, other.Rotate(t.Context()))
	_, err = kek.DestroyOld(t.Context())
	require.ErrorIs(t, err, encrypt.ErrKEKRotated)
	require.NoError(t, kek.Rotate(t.Context()))
	_, err = kek.DestroyOld(t.Context())
	require.NoError(t, err)
	_, err = kek.DecryptWithContext(t.Context(), seal(t, other), []byte("ad"))
	require.NoError(t, err)
}
