package vaultkms

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/crmguard/crmguard/encrypt"
)

var errAnswersOld = errors.New("vaultkms: this node of Vault does not know the newest version yet")

// Rotate implements encrypt.RotatingKEK. It returns once the key encrypts with the new
// version: nodes that stand by learn of it some time after the active one.
func (k *KEK) Rotate(ctx context.Context) error {
	k.rotating.Lock()
	defer k.rotating.Unlock()
	if err := k.prove(ctx); err != nil {
		return err
	}
	before, err := k.newest(ctx)
	if err != nil {
		return err
	}
	k.mu.Lock()
	made := max(before, k.floor) + 1
	k.mu.Unlock()
	answer, err := k.write(ctx, "keys/"+k.key+"/rotate", nil)
	if err != nil {
		return failed("rotate", err)
	}
	if latest, err := latestVersion(answer); err == nil { // not every Vault answers which it is
		made = latest
	}
	version := 0
	err = eventually(ctx, k.settle, func() (done bool, err error) {
		_, version, err = k.encrypt(ctx, probe, nil)
		if err == nil && version < made {
			return false, errAnswersOld
		}
		return true, err
	})
	if err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.opened, k.floor = version, max(k.floor, version) // a newer one does as well
	return nil
}

// DestroyOld implements encrypt.RotatingKEK: it trims all versions but the newest.
func (k *KEK) DestroyOld(ctx context.Context) (gone time.Time, err error) {
	k.rotating.Lock()
	defer k.rotating.Unlock()
	k.mu.Lock()
	opened := k.opened
	k.mu.Unlock()
	if opened == 0 {
		return time.Time{}, fmt.Errorf("vaultkms: nothing was encrypted or rotated here yet, so this cannot be ruled out: %w", encrypt.ErrKEKRotated)
	}
	var newest int
	err = eventually(ctx, k.settle, func() (done bool, err error) {
		newest, err = k.newest(ctx)
		if err == nil && newest < opened {
			return false, errAnswersOld
		}
		return true, err
	})
	if err != nil {
		return time.Time{}, err
	}
	if newest > opened {
		return time.Time{}, fmt.Errorf("vaultkms: %w", encrypt.ErrKEKRotated)
	}
	// Vault wants the versions out of use before it deletes them.
	use := map[string]any{"min_decryption_version": opened, "min_encryption_version": opened}
	if _, err := k.write(ctx, "keys/"+k.key+"/config", use); err != nil {
		return time.Time{}, failed("configure key", err)
	}
	if _, err := k.write(ctx, "keys/"+k.key+"/trim", map[string]any{"min_available_version": opened}); err != nil {
		return time.Time{}, failed("trim key", err)
	}
	return time.Now().Add(k.retention), nil
}

func (k *KEK) newest(ctx context.Context) (int, error) {
	secret, err := k.logical.ReadWithContext(ctx, k.mount+"/keys/"+k.key)
	if err != nil {
		return 0, failed("read key", err)
	}
	if secret == nil {
		return 0, fmt.Errorf("vaultkms: no key %q in %q", k.key, k.mount)
	}
	return latestVersion(secret.Data)
}

func latestVersion(key map[string]any) (int, error) {
	number, _ := key["latest_version"].(json.Number)
	latest, err := number.Int64()
	if err != nil {
		return 0, errors.New("vaultkms: read key: the answer is not Transit's")
	}
	return int(latest), nil
}
