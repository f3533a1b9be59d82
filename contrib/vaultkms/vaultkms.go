// Package vaultkms lets the Transit engine of HashiCorp Vault, or of OpenBao, hold
// the key-encryption key of package encrypt.
//
//	client, err := api.NewClient(api.DefaultConfig()) // VAULT_ADDR, VAULT_TOKEN, …
//	kek, err := vaultkms.New(client, "crm-kek", nil)
//	keys, err := encrypt.New(kek, store, nil)
//
// The host renews the client's token.
//
// # Rotation
//
// Rotate makes a new version of the key. DestroyOld trims all versions before it: Vault
// deletes them at once and for good. Snapshots of Vault's storage still hold them,
// see [Options.SnapshotRetention].
//
// # Security notes
//
//   - Associated data is sent as associated_data, which Transit binds since Vault 1.13;
//     what is sent as context it ignores, unless the key is derived. Whether it
//     really binds is tried out before the first use of a key: one that does not, as on an older
//     Vault, is refused with [ErrUnbound]. Derived keys, and keys without
//     authenticated encryption, are refused by Vault.
//   - A node of Vault that does not know a version yet which this process has seen does
//     not encrypt: that is an error. Rotate waits for it, [Options.SettleTime] at most.
//   - Contexts reach the wire. The client's retries end with them.
//   - What Vault refuses because another key or other associated data made it, or a
//     version that was destroyed, is encrypt.ErrWrongKEK; all else, such as a sealed
//     Vault, is not. Vault tells by words, not by a code of its own: should they change, a
//     wrong key is seen as an outage.
//   - Vault makes a key that is not there when a token with the capability create asks it to
//     encrypt. Give the capability update only.
//   - A key that is exportable or allows plaintext backups may have copies that no trimming
//     reaches.
//
// # Compatibility
//
// Ciphertexts are Transit's own, such as vault:v1:…. Tink's client for Vault opens them
// when it was made by NewAEAD without its legacy option.
//
// The tests run against a local server that speaks Transit's protocol, with real AES-GCM
// behind it, and on demand against Vault's own Transit engine behind a local server
// (testdata/transit). They have not run against a Vault in production.
package vaultkms

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/crmguard/crmguard/encrypt"
)

// ErrUnbound says that Vault decrypts with other associated data than it encrypted
// with: keysets could be exchanged between tenants.
var ErrUnbound = errors.New("vaultkms: this Vault does not bind associated data: it is too old")

// Options of a [KEK]. Nil means the defaults.
type Options struct {
	Mount string // path of the Transit engine; empty: transit

	// SnapshotRetention is the age at which the last snapshot of Vault's storage is
	// destroyed: so long after they were trimmed DestroyOld says that keys are gone. 0:
	// at once, for a Vault without snapshots.
	SnapshotRetention time.Duration

	SettleTime time.Duration // how long Rotate waits until all nodes know what it has made; 0: 5 minutes
}

// KEK is a key of Transit with all its versions. It is safe for concurrent use.
type KEK struct {
	logical    *api.Logical
	mount, key string
	retention  time.Duration
	settle     time.Duration

	rotating sync.Mutex // held while Vault's versions are changed

	bound atomic.Bool // associated data was seen to be bound

	mu     sync.Mutex
	floor  int // this process encrypts with no older version
	opened int // the newest version when this was opened or last rotated; 0: not known yet
}

var _ encrypt.RotatingKEK = (*KEK)(nil)

var (
	keyName   = regexp.MustCompile(`^\w([\w.-]*\w)?$`) // as Vault has it
	mountName = regexp.MustCompile(`^[\w-][\w.-]*(/[\w-][\w.-]*)*$`)
)

// New returns the key with this name. It asks nobody. The key is made by whoever
// administers Vault.
func New(client *api.Client, key string, o *Options) (*KEK, error) {
	if client == nil {
		return nil, errors.New("vaultkms: a client is needed")
	}
	if o == nil {
		o = &Options{}
	}
	k := &KEK{logical: client.Logical(), mount: "transit", key: key, retention: o.SnapshotRetention}
	if o.Mount != "" {
		k.mount = strings.Trim(o.Mount, "/")
	}
	settle, err := settleTime(o.SettleTime)
	switch {
	case err != nil:
		return nil, err
	case !keyName.MatchString(key) || !mountName.MatchString(k.mount):
		return nil, fmt.Errorf("vaultkms: %q in %q is no name of a key", key, k.mount)
	case k.retention < 0:
		return nil, errors.New("vaultkms: negative SnapshotRetention")
	}
	k.settle = settle
	return k, nil
}

// EncryptWithContext implements tink.AEADWithContext.
func (k *KEK) EncryptWithContext(ctx context.Context, plaintext, associatedData []byte) ([]byte, error) {
	if err := k.prove(ctx); err != nil {
		return nil, err
	}
	k.mu.Lock()
	floor := k.floor // what this process learns while it waits for the answer is no node's fault
	k.mu.Unlock()
	ciphertext, version, err := k.encrypt(ctx, plaintext, associatedData)
	if err != nil {
		return nil, err
	}
	if version < floor {
		return nil, fmt.Errorf("vaultkms: encrypt: this node of Vault does not know version %d yet", floor)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.floor = max(k.floor, version)
	if k.opened == 0 {
		k.opened = version
	}
	return ciphertext, nil
}

// DecryptWithContext implements tink.AEADWithContext.
func (k *KEK) DecryptWithContext(ctx context.Context, ciphertext, associatedData []byte) ([]byte, error) {
	if err := k.prove(ctx); err != nil {
		return nil, err
	}
	plaintext, err := k.decrypt(ctx, ciphertext, associatedData)
	if err != nil {
		return nil, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.floor = max(k.floor, versionOf(string(ciphertext))) // somebody may have rotated
	return plaintext, nil
}

var probe = []byte("vaultkms probe")

// prove sees, once, that associated data is bound.
func (k *KEK) prove(ctx context.Context) error {
	if k.bound.Load() {
		return nil
	}
	ciphertext, _, err := k.encrypt(ctx, probe, []byte("one"))
	if err != nil {
		return err
	}
	_, err = k.decrypt(ctx, ciphertext, []byte("other"))
	switch {
	case err == nil:
		return ErrUnbound
	case !errors.Is(err, encrypt.ErrWrongKEK):
		return err
	}
	k.bound.Store(true)
	return nil
}

func (k *KEK) encrypt(ctx context.Context, plaintext, associatedData []byte) (ciphertext []byte, version int, err error) {
	data, err := k.write(ctx, "encrypt/"+k.key, request("plaintext", encode(plaintext), associatedData))
	if err != nil {
		return nil, 0, failed("encrypt", err)
	}
	text, _ := data["ciphertext"].(string)
	if version = versionOf(text); version < 1 {
		return nil, 0, errors.New("vaultkms: encrypt: the answer is not Transit's")
	}
	return []byte(text), version, nil
}

func (k *KEK) decrypt(ctx context.Context, ciphertext, associatedData []byte) ([]byte, error) {
	if len(ciphertext) == 0 {
		return nil, fmt.Errorf("vaultkms: decrypt: %w: nothing to decrypt", encrypt.ErrWrongKEK)
	}
	data, err := k.write(ctx, "decrypt/"+k.key, request("ciphertext", string(ciphertext), associatedData))
	if err != nil {
		return nil, failed("decrypt", err)
	}
	text, ok := data["plaintext"].(string)
	plaintext, err := base64.StdEncoding.DecodeString(text)
	if !ok || err != nil {
		return nil, errors.New("vaultkms: decrypt: the answer is not Transit's")
	}
	return plaintext, nil
}

// versionOf reads vault:v3:…; all else is 0.
func versionOf(ciphertext string) int {
	parts := strings.SplitN(ciphertext, ":", 3)
	if len(parts) < 3 {
		return 0
	}
	version, err := strconv.Atoi(strings.TrimPrefix(parts[1], "v"))
	if err != nil {
		return 0
	}
	return version
}

func encode(b []byte) string { return base64.StdEncoding.EncodeToString(b) }

func request(name, value string, associatedData []byte) map[string]any {
	data := map[string]any{name: value}
	if len(associatedData) > 0 {
		data["associated_data"] = encode(associatedData)
	}
	return data
}

// write sends one request to the engine. Some have no answer.
func (k *KEK) write(ctx context.Context, path string, data map[string]any) (map[string]any, error) {
	secret, err := k.logical.WriteWithContext(ctx, k.mount+"/"+path, data)
	if err != nil || secret == nil {
		return nil, err
	}
	return secret.Data, nil
}

// refusals are how the texts begin with which Transit refuses a ciphertext for good.
var refusals = []string{
	"cipher: message authentication failed",
	"chacha20poly1305: message authentication failed",
	"invalid ciphertext",
	"ciphertext or signature version is disallowed by policy (too old)",
}

// failed tells a wrong key from an outage, where Vault does.
func failed(what string, err error) error {
	answer, ok := errors.AsType[*api.ResponseError](err)
	if ok && answer.StatusCode == http.StatusBadRequest {
		for _, text := range answer.Errors {
			for _, refusal := range refusals {
				if strings.HasPrefix(text, refusal) {
					return fmt.Errorf("vaultkms: %s: %w: %w", what, encrypt.ErrWrongKEK, err)
				}
			}
		}
	}
	return fmt.Errorf("vaultkms: %s: %w", what, err)
}
