package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/prf"
	"github.com/tink-crypto/tink-go/v2/tink"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/encrypt"
)

// encryptClaims compare a keyring with a warm cache to a bare Tink AEAD of the
// same algorithm and with the same associated data, on a value as short as a phone number and
// on one as long as a note.
func encryptClaims() []claim {
	return []claim{
		{name: "encrypt.seal", unit: "ns", direction: atMost, limit: 1.5, open: openSeal(shortText)},
		{name: "encrypt.seal-long", unit: "ns", direction: atMost, limit: 1.5, open: openSeal(longText)},
		{name: "encrypt.open", unit: "ns", direction: atMost, limit: 1.8, open: openOpen(shortText)},
		{name: "encrypt.open-long", unit: "ns", direction: atMost, limit: 1.8, open: openOpen(longText)},
		{name: "encrypt.row", unit: "ns", direction: atMost, limit: 1.3, open: openRow},
		{name: "encrypt.size", unit: "B", direction: atMost, limit: 40, open: openSize},
		{name: "encrypt.index", unit: "ns", direction: atMost, limit: 1.3, open: openIndex},
		{name: "encrypt.cold", unit: "ns", direction: atMost, limit: 0.3, open: openCold},
		{name: "encrypt.cold-page", unit: "ns", direction: atMost, limit: 0.4, open: openColdPage},
	}
}

var (
	phonePlace = crmguard.Place{Tenant: "default", Client: "c-104729", Kind: "contacts", Record: "104729", Field: "phone"}
	shortText  = bytes.Repeat([]byte("+7916123"), 2)
	longText   = bytes.Repeat([]byte("note "), 40)
)

// placeAD is what docs/formats/encrypt.md says a field's associated data is.
func placeAD(at crmguard.Place) []byte { return appendPlaceAD(nil, &at) }

func appendPlaceAD(ad []byte, at *crmguard.Place) []byte {
	ad = append(ad, "crmguard/encrypt field\x00\x01\x01\x00\x00\x00\x01"...) // format, algorithm, version of the key
	for _, s := range []string{at.Tenant, at.Client, at.Kind, at.Field, at.Record} {
		ad = binary.BigEndian.AppendUint32(ad, uint32(len(s))) // #nosec G115 -- the strings above
		ad = append(ad, s...)
	}
	return ad
}

func openSeal(text []byte) func(ctx context.Context, _ *servers) (trial, error) {
	return func(ctx context.Context, _ *servers) (trial, error) {
		p, err := newPair(ctx)
		if err != nil {
			return trial{}, err
		}
		return p.sideBySide(func() error {
			_, err := p.ours.Seal(p.ctx, phonePlace, text)
			return err
		}, func() error {
			_, err := p.peer.Encrypt(text, p.ad)
			return err
		}), nil
	}
}

func openOpen(text []byte) func(ctx context.Context, _ *servers) (trial, error) {
	return func(ctx context.Context, _ *servers) (trial, error) {
		p, err := newPair(ctx)
		if err != nil {
			return trial{}, err
		}
		sealed, sealErr := p.ours.Seal(p.ctx, phonePlace, text)
		encrypted, encryptErr := p.peer.Encrypt(text, p.ad)
		if err := errors.Join(sealErr, encryptErr); err != nil {
			return trial{}, errors.Join(err, p.close())
		}
		return p.sideBySide(func() error {
			_, err := p.ours.Open(p.ctx, phonePlace, sealed)
			return err
		}, func() error {
			_, err := p.peer.Decrypt(encrypted, p.ad)
			return err
		}), nil
	}
}

// fiveFields is a row as small as rows are.
type fiveFields struct {
	ID            string `encrypt:",record"`
	Name          string `encrypt:"name"`
	NameSealed    []byte `encrypt:"name,sealed"`
	Phone         string `encrypt:"phone"`
	PhoneSealed   []byte `encrypt:"phone,sealed"`
	Email         string `encrypt:"email"`
	EmailSealed   []byte `encrypt:"email,sealed"`
	Company       string `encrypt:"company"`
	CompanySealed []byte `encrypt:"company,sealed"`
	City          string `encrypt:"city"`
	CitySealed    []byte `encrypt:"city,sealed"`
}

// openRow seals a row of five fields, and as peer five single values with the same
// keyring: what the tags and the batch cost.
func openRow(ctx context.Context, _ *servers) (trial, error) {
	p, err := newPair(ctx)
	if err != nil {
		return trial{}, err
	}
	table, err := encrypt.NewTable[fiveFields](p.ours, phonePlace.Kind, nil)
	if err != nil {
		return trial{}, errors.Join(err, p.close())
	}
	text := string(shortText)
	row := &fiveFields{ID: phonePlace.Client, Name: text, Phone: text, Email: text, Company: text, City: text}
	return p.sideBySide(func() error {
		_, err := table.Seal(p.ctx, phonePlace.Tenant, row)
		return err
	}, func() error {
		at := phonePlace
		for _, at.Field = range []string{"name", "phone", "email", "company", "city"} {
			if _, err := p.ours.Seal(p.ctx, at, shortText); err != nil {
				return err
			}
		}
		return nil
	}), nil
}

// openSize counts the bytes that a sealed value is longer than the plain one.
func openSize(ctx context.Context, _ *servers) (trial, error) {
	p, err := newPair(ctx)
	if err != nil {
		return trial{}, err
	}
	return trial{
		ours: counted(func(context.Context) (float64, error) {
			sealed, err := p.ours.Seal(p.ctx, phonePlace, shortText)
			return float64(len(sealed) - len(shortText)), err
		}),
		close: p.close,
	}, nil
}

// openIndex makes one index value, as a search does; the peer is Tink's PRF of the same
// hash function over the same length.
func openIndex(ctx context.Context, _ *servers) (trial, error) {
	p, err := newPair(ctx)
	if err != nil {
		return trial{}, err
	}
	handle, err := keyset.NewHandle(prf.HMACSHA256PRFKeyTemplate())
	if err != nil {
		return trial{}, errors.Join(err, p.close())
	}
	set, err := prf.NewPRFSet(handle)
	if err != nil {
		return trial{}, errors.Join(err, p.close())
	}
	at := crmguard.Place{Tenant: phonePlace.Tenant, Kind: phonePlace.Kind, Field: phonePlace.Field}
	message := append(placeAD(at), shortText...)
	return p.sideBySide(func() error {
		_, err := p.ours.Pseudonyms(p.ctx, at, shortText)
		return err
	}, func() error {
		_, err := set.ComputePrimaryPRF(message, 16)
		return err
	}), nil
}

// pair is a keyring and a bare AEAD.
type pair struct {
	ctx  context.Context // of somebody who may open
	ours *encrypt.Keyring
	peer tink.AEAD
	ad   []byte
	kek  encrypt.RotatingKEK
	dir  string // of the key file
}

// newPair keeps the keyring's keys in memory: what a store costs, it costs once
// per client and page, not per value.
func newPair(ctx context.Context) (*pair, error) { return newPairWith(ctx, encrypt.NewMemory()) }

func newPairWith(ctx context.Context, store encrypt.Store) (*pair, error) {
	dir, err := os.MkdirTemp("", "crmguard-claims-")
	if err != nil {
		return nil, err
	}
	p := &pair{ctx: crmguard.System(ctx, phonePlace.Tenant, "claims"), ad: placeAD(phonePlace), dir: dir}
	kek, err := encrypt.OpenKeyFile(filepath.Join(dir, "keys", "kek.json"), filepath.Join(dir, "data"), true)
	if err != nil {
		return nil, errors.Join(err, p.close())
	}
	p.kek = kek
	if p.ours, err = encrypt.New(kek, store, nil); err != nil {
		return nil, errors.Join(err, p.close())
	}
	handle, err := keyset.NewHandle(aead.AES256GCMKeyTemplate())
	if err != nil {
		return nil, errors.Join(err, p.close())
	}
	if p.peer, err = aead.New(handle); err != nil {
		return nil, errors.Join(err, p.close())
	}
	return p, nil
}

// sideBySide ends the pair when it has compared the calls.
func (p *pair) sideBySide(ours, peer func() error) trial {
	t := sideBySide(ours, peer)
	t.close = p.close
	return t
}

func (p *pair) close() error {
	var err error
	if p.ours != nil {
		err = p.ours.Close()
	}
	return errors.Join(err, os.RemoveAll(p.dir))
}
