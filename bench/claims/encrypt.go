package main

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/tink"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/encrypt"
)

// encryptClaims compare a keyring with a warm cache to a bare Tink AEAD of the
// same algorithm, on a phone number and the same associated data.
func encryptClaims() []claim {
	return []claim{
		{name: "encrypt.seal", unit: "ns", direction: atMost, limit: 1.6, open: openSeal},
		{name: "encrypt.open", unit: "ns", direction: atMost, limit: 2, open: openOpen},
	}
}

var (
	phonePlace = crmguard.Place{Tenant: "default", Client: "c-104729", Kind: "contacts", Record: "104729", Field: "phone"}
	phone      = []byte("+79161234567")
)

// placeAD is what docs/formats/encrypt.md says a field's associated data is.
func placeAD(at crmguard.Place) []byte {
	ad := append([]byte("crmguard/encrypt field\x00"), 1, 1, 0, 0, 0, 1) // format, algorithm, version of the key
	for _, s := range []string{at.Tenant, at.Client, at.Kind, at.Field, at.Record} {
		ad = binary.BigEndian.AppendUint32(ad, uint32(len(s))) // #nosec G115 -- the strings above
		ad = append(ad, s...)
	}
	return ad
}

func openSeal(ctx context.Context, _ *servers) (trial, error) {
	p, err := newPair(ctx)
	if err != nil {
		return trial{}, err
	}
	return trial{
		ours: perOp(func() error {
			_, err := p.ours.Seal(p.ctx, phonePlace, phone)
			return err
		}),
		peer: perOp(func() error {
			_, err := p.peer.Encrypt(phone, p.ad)
			return err
		}),
		close: p.ours.Close,
	}, nil
}

func openOpen(ctx context.Context, _ *servers) (trial, error) {
	p, err := newPair(ctx)
	if err != nil {
		return trial{}, err
	}
	sealed, sealErr := p.ours.Seal(p.ctx, phonePlace, phone)
	encrypted, encryptErr := p.peer.Encrypt(phone, p.ad)
	if err := errors.Join(sealErr, encryptErr); err != nil {
		return trial{}, errors.Join(err, p.ours.Close())
	}
	return trial{
		ours: perOp(func() error {
			_, err := p.ours.Open(p.ctx, phonePlace, sealed)
			return err
		}),
		peer: perOp(func() error {
			_, err := p.peer.Decrypt(encrypted, p.ad)
			return err
		}),
		close: p.ours.Close,
	}, nil
}

// pair is a keyring and a bare AEAD.
type pair struct {
	ctx  context.Context // of somebody who may open
	ours *encrypt.Keyring
	peer tink.AEAD
	ad   []byte
}

// newPair keeps the keyring's keys in memory: what a store costs, it costs once
// per client and page, not per value.
func newPair(ctx context.Context) (_ *pair, err error) {
	dir, err := os.MkdirTemp("", "crmguard-claims-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	kek, err := encrypt.OpenKeyFile(filepath.Join(dir, "keys", "kek.json"), filepath.Join(dir, "data"), true)
	if err != nil {
		return nil, err
	}
	ours, err := encrypt.New(kek, encrypt.NewMemory(), nil)
	if err != nil {
		return nil, err
	}
	handle, err := keyset.NewHandle(aead.AES256GCMKeyTemplate())
	if err != nil {
		return nil, err
	}
	peer, err := aead.New(handle)
	if err != nil {
		return nil, err
	}
	return &pair{crmguard.System(ctx, phonePlace.Tenant, "claims"), ours, peer, placeAD(phonePlace)}, nil
}
