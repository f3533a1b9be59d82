package gcpkms

import (
	"context"
	"errors"
	"fmt"
	"time"

	"cloud.google.com/go/kms/apiv1/kmspb"
	"google.golang.org/api/iterator"

	"github.com/crmguard/crmguard/encrypt"
)

var probe = []byte("gcpkms probe")

var (
	errGenerating = errors.New("gcpkms: KMS still makes the new version")
	errAnswersOld = errors.New("gcpkms: the key does not answer with the new version yet")
)

// Rotate implements encrypt.RotatingKEK. It returns once the key answers with the new
// version, which takes seconds, sometimes minutes. A failure leaves a version in use
// that is there to stay; one that was made in vain goes with the next DestroyOld.
func (k *KEK) Rotate(ctx context.Context) error {
	k.rotating.Lock()
	defer k.rotating.Unlock()
	created, err := k.client.CreateCryptoKeyVersion(ctx, &kmspb.CreateCryptoKeyVersionRequest{
		Parent: k.key, CryptoKeyVersion: &kmspb.CryptoKeyVersion{},
	})
	if err != nil {
		return failed(ctx, "create version", err)
	}
	version, err := k.number(created.GetName())
	if err != nil {
		return err
	}
	if err := k.awaitGeneration(ctx, created); err != nil {
		return err
	}
	_, err = k.client.UpdateCryptoKeyPrimaryVersion(ctx, &kmspb.UpdateCryptoKeyPrimaryVersionRequest{
		Name: k.key, CryptoKeyVersionId: fmt.Sprint(version),
	})
	if err != nil {
		return failed(ctx, "update primary version", err)
	}
	err = eventually(ctx, k.settle, func() (done bool, err error) {
		_, answered, err := k.encrypt(ctx, k.key, 0, probe, probe)
		if err == nil && answered < version {
			return false, errAnswersOld
		}
		return true, err
	})
	if err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.opened, k.floor = version, max(k.floor, version)
	return nil
}

// awaitGeneration waits until a new version can encrypt: keys in hardware take time.
func (k *KEK) awaitGeneration(ctx context.Context, created *kmspb.CryptoKeyVersion) error {
	return eventually(ctx, k.settle, func() (done bool, err error) {
		switch created.GetState() {
		case kmspb.CryptoKeyVersion_ENABLED:
			return true, nil
		case kmspb.CryptoKeyVersion_PENDING_GENERATION:
			created, err = k.client.GetCryptoKeyVersion(ctx, &kmspb.GetCryptoKeyVersionRequest{Name: created.GetName()})
			if err != nil {
				return true, failed(ctx, "get version", err)
			}
			return false, errGenerating
		default:
			return true, fmt.Errorf("gcpkms: the new version is %s", created.GetState())
		}
	})
}

// DestroyOld implements encrypt.RotatingKEK: it schedules the destruction of all
// versions but the newest. Calling it again returns the same time.
func (k *KEK) DestroyOld(ctx context.Context) (gone time.Time, err error) {
	k.rotating.Lock()
	defer k.rotating.Unlock()
	old, err := k.old(ctx)
	if err != nil {
		return time.Time{}, err
	}
	gone = time.Now()
	for _, version := range old {
		destroyed, err := k.destroy(ctx, version)
		if err != nil {
			return time.Time{}, err
		}
		if destroyed.After(gone) {
			gone = destroyed
		}
	}
	return gone, nil
}

// old lists all versions but the newest, if that is the one which this process has
// encrypted with since it was opened or has rotated.
func (k *KEK) old(ctx context.Context) (versions []*kmspb.CryptoKeyVersion, err error) {
	k.mu.Lock()
	opened := k.opened
	k.mu.Unlock()
	if opened == 0 {
		return nil, fmt.Errorf("gcpkms: nothing was encrypted or rotated here yet, so this cannot be ruled out: %w", encrypt.ErrKEKRotated)
	}
	key, err := k.client.GetCryptoKey(ctx, &kmspb.GetCryptoKeyRequest{Name: k.key})
	if err != nil {
		return nil, failed(ctx, "get key", err)
	}
	primary, err := k.number(key.GetPrimary().GetName())
	if err != nil {
		return nil, err
	}
	if primary != opened {
		return nil, fmt.Errorf("gcpkms: %w", encrypt.ErrKEKRotated)
	}
	pages := k.client.ListCryptoKeyVersions(ctx, &kmspb.ListCryptoKeyVersionsRequest{Parent: k.key})
	for {
		version, err := pages.Next()
		if errors.Is(err, iterator.Done) {
			return versions, nil
		}
		if err != nil {
			return nil, failed(ctx, "list versions", err)
		}
		n, err := k.number(version.GetName())
		switch {
		case err != nil:
			return nil, err
		case n > opened:
			return nil, fmt.Errorf("gcpkms: %w", encrypt.ErrKEKRotated)
		case n < opened:
			versions = append(versions, version)
		}
	}
}

// destroy schedules the destruction of a version, unless that was done, and returns
// when it will be gone; the zero time when it is.
func (k *KEK) destroy(ctx context.Context, version *kmspb.CryptoKeyVersion) (time.Time, error) {
	switch version.GetState() {
	case kmspb.CryptoKeyVersion_ENABLED, kmspb.CryptoKeyVersion_DISABLED:
		answer, err := k.client.DestroyCryptoKeyVersion(ctx, &kmspb.DestroyCryptoKeyVersionRequest{Name: version.GetName()})
		if err != nil {
			return time.Time{}, failed(ctx, "destroy version", err)
		}
		return told(answer)
	case kmspb.CryptoKeyVersion_DESTROY_SCHEDULED:
		return told(version)
	case kmspb.CryptoKeyVersion_DESTROYED, kmspb.CryptoKeyVersion_GENERATION_FAILED, kmspb.CryptoKeyVersion_IMPORT_FAILED:
		return time.Time{}, nil // nothing is there
	default:
		return time.Time{}, fmt.Errorf("gcpkms: %s is %s and cannot be destroyed now", version.GetName(), version.GetState())
	}
}

// told refuses a destruction without a date: to receipts it would be over.
func told(version *kmspb.CryptoKeyVersion) (time.Time, error) {
	if version.GetDestroyTime() == nil {
		return time.Time{}, fmt.Errorf("gcpkms: KMS does not say when %s is destroyed", version.GetName())
	}
	return version.GetDestroyTime().AsTime(), nil
}
