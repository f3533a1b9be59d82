package vaultkms_test

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/hashicorp/vault/api"
	"github.com/stretchr/testify/require"
)

// server speaks the protocol of Transit, mounted at transit, as far as the package
// uses it. Keys are real AES-256-GCM keys. As in Vault, associated_data is bound,
// and context is ignored, for no key here is derived, save the one named derived.
// testdata/transit holds the same expectations against Vault's own engine.
type server struct {
	mu    sync.Mutex
	keys  map[string]*serverKey
	calls map[string]int

	hang     *hang             // requests wait until their client gives up
	status   int               // every request fails with it
	deny     string            // a path that is forbidden
	oldVault bool              // does not know associated_data, and so ignores it
	strange  bool              // another service answers
	lag      int               // so many requests still see the version before the newest
	before   map[string]func() // runs ahead of a request to this path
	answers  bool              // to a rotation, with the key as it is then, as Vaults of today do
}

type serverKey struct {
	versions                                   []cipher.AEAD // from version 1; nil is trimmed
	minDecryption, minEncryption, minAvailable int
}

// hang is what becomes of a request that waits.
type hang struct {
	come  func()
	ended chan<- struct{}
}

func newServer(t *testing.T) (*server, *api.Client) {
	t.Helper()
	s, client, stop, err := startServer()
	require.NoError(t, err)
	t.Cleanup(stop)
	return s, client
}

func startServer() (s *server, client *api.Client, stop func(), err error) {
	s = &server{keys: map[string]*serverKey{"crm-kek": {}, "other": {}, "derived": {}}, calls: map[string]int{}}
	for _, key := range s.keys {
		key.add()
	}
	listener := httptest.NewServer(s)
	config := api.DefaultConfig()
	config.Address, config.MaxRetries = listener.URL, 0
	client, err = api.NewClient(config)
	if err == nil {
		client.SetToken("token")
	}
	return s, client, listener.Close, err
}

func (k *serverKey) add() {
	secret := make([]byte, 32)
	_, _ = rand.Read(secret)
	block, _ := aes.NewCipher(secret)
	aead, _ := cipher.NewGCMWithRandomNonce(block)
	k.versions = append(k.versions, aead)
	k.minDecryption = max(k.minDecryption, 1)
}

func (s *server) set(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
}

func (s *server) count(operation string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls[operation]
}

type request struct {
	Plaintext      string
	Ciphertext     string
	AssociatedData string `json:"associated_data"`
	MinDecryption  int    `json:"min_decryption_version"`
	MinEncryption  int    `json:"min_encryption_version"`
	MinAvailable   int    `json:"min_available_version"`
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := strings.TrimPrefix(r.URL.Path, "/v1/transit/")
	var in request
	if r.Method == http.MethodPut {
		if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
	}
	s.mu.Lock()
	operation, _, _ := strings.Cut(path, "/")
	s.calls[operation]++
	hang := s.hang
	s.mu.Unlock()
	if hang != nil {
		hang.come()
		<-r.Context().Done()
		hang.ended <- struct{}{}
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var data map[string]any
	status, text := s.status, "Vault is sealed"
	switch {
	case s.status != 0:
	case s.strange:
		data = map[string]any{"hello": "world"}
	case r.Header.Get("X-Vault-Token") != "token", path == s.deny:
		status, text = http.StatusForbidden, "permission denied"
	default:
		if before := s.before[path]; before != nil {
			before()
		}
		status, text, data = s.do(r.Method, path, in)
	}
	w.Header().Set("Content-Type", "application/json")
	switch {
	case status != 0:
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(map[string]any{"errors": []string{text}})
	case data == nil:
		w.WriteHeader(http.StatusNoContent)
	default:
		_ = json.NewEncoder(w).Encode(map[string]any{"data": data})
	}
}

func (s *server) do(method, path string, in request) (status int, text string, data map[string]any) {
	operation, name, _ := strings.Cut(path, "/")
	name, action, _ := strings.Cut(name, "/")
	key := s.keys[name]
	if key == nil {
		return http.StatusBadRequest, "encryption key not found", nil
	}
	latest := len(key.versions)
	switch method + " " + operation + " " + action {
	case "PUT encrypt ":
		if name == "derived" {
			return http.StatusBadRequest, "missing 'context' for key derivation", nil
		}
		plaintext, err := base64.StdEncoding.DecodeString(in.Plaintext)
		if err != nil {
			return http.StatusBadRequest, "failed to base64-decode plaintext", nil
		}
		latest -= s.lagging()
		sealed := key.versions[latest-1].Seal(nil, nil, plaintext, s.ad(in))
		return 0, "", map[string]any{"ciphertext": fmt.Sprintf("vault:v%d:%s", latest, base64.StdEncoding.EncodeToString(sealed)), "key_version": latest}
	case "PUT decrypt ":
		return key.decrypt(in, s.ad(in))
	case "PUT keys rotate":
		key.add()
		if s.answers {
			return 0, "", key.read(0)
		}
		return 0, "", nil
	case "PUT keys config":
		key.minDecryption, key.minEncryption = in.MinDecryption, in.MinEncryption
		return 0, "", nil
	case "PUT keys trim":
		return key.trim(in)
	case "GET keys ":
		return 0, "", key.read(s.lagging())
	}
	return http.StatusNotFound, "no handler for route", nil
}

// lagging is how many versions the node that is asked lags behind.
func (s *server) lagging() int {
	if s.lag == 0 {
		return 0
	}
	s.lag--
	return 1
}

func (k *serverKey) read(lag int) map[string]any {
	return map[string]any{"latest_version": len(k.versions) - lag, "min_available_version": k.minAvailable}
}

func (s *server) ad(in request) []byte {
	ad, _ := base64.StdEncoding.DecodeString(in.AssociatedData)
	if s.oldVault {
		return nil
	}
	return ad
}

func (k *serverKey) decrypt(in request, ad []byte) (status int, text string, data map[string]any) {
	rest, ok := strings.CutPrefix(in.Ciphertext, "vault:v")
	if !ok {
		return http.StatusBadRequest, "invalid ciphertext: no prefix", nil
	}
	var version int
	number, encoded, _ := strings.Cut(rest, ":")
	_, err := fmt.Sscan(number, &version)
	sealed, decodeErr := base64.StdEncoding.DecodeString(encoded)
	switch {
	case err != nil:
		return http.StatusBadRequest, "invalid ciphertext: version number could not be decoded", nil
	case version > len(k.versions):
		return http.StatusBadRequest, "invalid ciphertext: version is too new", nil
	case version < k.minDecryption:
		return http.StatusBadRequest, "ciphertext or signature version is disallowed by policy (too old)", nil
	case decodeErr != nil:
		return http.StatusBadRequest, "invalid ciphertext: could not decode base64", nil
	case len(sealed) < 28:
		return http.StatusBadRequest, "invalid ciphertext length", nil
	}
	plaintext, err := k.versions[version-1].Open(nil, nil, sealed, ad)
	if err != nil {
		return http.StatusBadRequest, err.Error(), nil
	}
	return 0, "", map[string]any{"plaintext": base64.StdEncoding.EncodeToString(plaintext)}
}

func (k *serverKey) trim(in request) (status int, text string, data map[string]any) {
	switch {
	case in.MinAvailable < k.minAvailable:
		return http.StatusBadRequest, "minimum available version cannot be decremented", nil
	case k.minEncryption == 0:
		return http.StatusBadRequest, "minimum available version cannot be set when minimum encryption version is not set", nil
	case in.MinAvailable > k.minEncryption, in.MinAvailable > k.minDecryption:
		return http.StatusBadRequest, "minimum available version cannot be greater than minimum decryption version", nil
	}
	k.minAvailable = in.MinAvailable
	for i := range k.minAvailable - 1 {
		k.versions[i] = nil
	}
	return 0, "", nil
}
