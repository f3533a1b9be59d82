package encrypt

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/crmguard/crmguard"
)

// pendingPlace is what the proof of a record is bound to, beside its field: the key is one for each
// tenant.
func pendingPlace(f PendingField, client, record string) crmguard.Place {
	return crmguard.Place{Tenant: f.Tenant, Client: client, Kind: ownKind, Record: record, Field: "pending"}
}

// text is authenticated. The length in front keeps "a/b" with "c" apart from "a" with "b/c".
func (f *PendingField) text() []byte {
	return []byte(strconv.Itoa(len(f.Kind)) + ":" + f.Kind + "/" + f.Field)
}

// provePending makes the MAC without which nothing is accepted from the set.
func (k *Keyring) provePending(ctx context.Context, f PendingField, client, record string) ([]byte, error) {
	return k.mac(ctx, pendingPlace(f, client, record), f.text())
}

// proofs are what the key store says about some records of a field.
type proofs struct {
	keys    *Keyring
	field   PendingField
	macs    map[string][]byte
	refused error // what is not in the set
}

func (k *Keyring) proofsOf(f PendingField, records []PendingRecord) proofs {
	p := proofs{keys: k, field: f, macs: make(map[string][]byte, len(records)), refused: ErrPlaintext}
	for _, r := range records {
		p.macs[r.Record] = r.MAC
	}
	return p
}

// pendingProofs asks for records. A store that is no [Pending] has none.
func (k *Keyring) pendingProofs(ctx context.Context, f PendingField, records []string) (proofs, error) {
	store, ok := k.store.(Pending)
	if !ok {
		return k.proofsOf(f, nil), nil
	}
	state, found, err := store.HasPending(ctx, f, records)
	if err != nil {
		return proofs{}, unavailable("key store", err)
	}
	if !state.open() {
		found = nil
	}
	p := k.proofsOf(f, found)
	if state == PendingShrinking || state == PendingStrict && k.strict.add(f, k.clock.exact()) < ClosingTime {
		p.refused = ErrReadAgain
	}
	return p, nil
}

// check returns nil where the plaintext of a record is accepted.
func (p *proofs) check(ctx context.Context, at *crmguard.Place) error {
	mac, ok := p.macs[at.Record]
	if !ok {
		return p.refused
	}
	err := p.keys.verify(ctx, pendingPlace(p.field, at.Client, at.Record), p.field.text(), mac)
	if errors.Is(err, crmguard.ErrMAC) {
		return ErrPlaintext
	}
	return err
}

// pendingError leaves apart what the store has refused.
func pendingError(err error) error {
	if err == nil || errors.Is(err, ErrCutOff) {
		return err
	}
	return unavailable("key store", err)
}

// notMigrating is [ErrMigrating] for a tenant whose plaintext is being sealed, and says of which
// field.
func (k *Keyring) notMigrating(ctx context.Context, tenant string) error {
	store, ok := k.store.(Pending)
	if !ok {
		return nil
	}
	fields, err := store.Migrating(ctx, tenant)
	switch {
	case err != nil:
		return unavailable("key store", err)
	case len(fields) > 0:
		return fmt.Errorf("%w: field %q of %q in tenant %q: see Table.Migrate", ErrMigrating, fields[0].Field, fields[0].Kind, tenant)
	}
	return nil
}
