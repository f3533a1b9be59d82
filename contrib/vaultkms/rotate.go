package vaultkms

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/crmguard/crmguard/encrypt"
)

// Rotate implements encrypt.RotatingKEK.
func (k *KEK) Rotate(ctx context.Context) error {
	if err := k.prove(ctx); err != nil {
		return err
	}
	if _, err := k.write(ctx, "keys/"+k.key+"/rotate", nil); err != nil {
		return failed("rotate", err)
	}
	// Not every Vault answers which version it is; and a newer one would do as well.
	_, version, err := k.encrypt(ctx, probe, nil)
	if err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.opened, k.floor = version, max(k.floor, version)
	return nil
}

// DestroyOld implements encrypt.RotatingKEK: it trims all versions but the newest.
func (k *KEK) DestroyOld(ctx context.Context) (gone time.Time, err error) {
	k.mu.Lock()
	opened := k.opened
	k.mu.Unlock()
	newest, err := k.newest(ctx)
	if err != nil {
		return time.Time{}, err
	}
	if newest != opened {
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
	number, _ := secret.Data["latest_version"].(json.Number)
	newest, err := number.Int64()
	if err != nil {
		return 0, errors.New("vaultkms: read key: the answer is not Transit's")
	}
	return int(newest), nil
}
