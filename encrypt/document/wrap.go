package document

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"filippo.io/age"

	"github.com/crmguard/crmguard"
)

const (
	// workFactor is age's own default: 256 MiB of memory, and about a second.
	// More is not opened, so that nobody who can write the database makes the
	// server spend it.
	workFactor = 18

	maxIdentity = 4 << 10
)

// WrapPassphrase encrypts an identity so that only the passphrase opens it, which
// takes 256 MiB of memory and about a second. The result is an age file; the
// standard tool accepts it where it accepts an identity file, and asks for the
// passphrase. How good a passphrase must be is for the host to demand.
func (i *Identity) WrapPassphrase(passphrase []byte) ([]byte, error) {
	return i.wrapPassphrase(passphrase, workFactor)
}

func (i *Identity) wrapPassphrase(passphrase []byte, work int) ([]byte, error) {
	recipient, err := age.NewScryptRecipient(string(passphrase))
	if err != nil {
		return nil, fmt.Errorf("document: %w", err)
	}
	recipient.SetWorkFactor(work)
	return i.wrap(recipient)
}

// OpenPassphrase opens what [Identity.WrapPassphrase] returned for this person. It
// costs 256 MiB of memory, so the host bounds how many run at once.
func OpenPassphrase(wrapped, passphrase []byte, tenant, person string) (*Identity, error) {
	if err := usable(); err != nil {
		return nil, err
	}
	key, err := age.NewScryptIdentity(string(passphrase))
	if err != nil {
		return nil, fmt.Errorf("document: %w", err)
	}
	key.SetMaxWorkFactor(workFactor)
	i, err := unwrap(wrapped, key, tenant, person)
	if errors.Is(err, ErrNotRecipient) {
		return nil, ErrPassphrase
	}
	return i, err
}

// WrapServerOpenable encrypts an identity under the CRM's own keys. It is safe from who
// takes the database, and open to whoever runs the server: [ServerOpenable]
// tells the two kinds apart.
func (i *Identity) WrapServerOpenable(ctx context.Context, sealer crmguard.Sealer) ([]byte, error) {
	if sealer == nil {
		return nil, errSealer
	}
	return i.wrap(&placeKey{ctx, sealer, identityPlace(i.tenant, i.id)})
}

// OpenServerOpenable opens what [Identity.WrapServerOpenable] returned for this
// person. It needs no subject, so it is the host that makes sure that the person
// asks, and records it.
func OpenServerOpenable(ctx context.Context, sealer crmguard.Sealer, wrapped []byte, tenant, person string) (*Identity, error) {
	if err := usable(); err != nil {
		return nil, err
	}
	if sealer == nil {
		return nil, errSealer
	}
	return unwrap(wrapped, &placeKey{ctx, sealer, identityPlace(tenant, person)}, tenant, person)
}

// ServerOpenable reports whether a wrapped identity is one that the server can
// open without its person.
func ServerOpenable(wrapped []byte) bool {
	return bytes.HasPrefix(wrapped, []byte(intro+"-> "+stanzaType+" "))
}

func identityPlace(tenant, person string) crmguard.Place {
	return crmguard.Place{Tenant: tenant, Kind: "document-identity", Record: person, Field: "identity"}
}

func (i *Identity) wrap(recipient age.Recipient) ([]byte, error) {
	if i.key == nil {
		return nil, errIdentity
	}
	var wrapped bytes.Buffer
	w, err := encrypt(&wrapped, recipient)
	if err != nil {
		return nil, err
	}
	if err := finish(w, bytes.NewReader(i.Export())); err != nil {
		return nil, err
	}
	return wrapped.Bytes(), nil
}

func unwrap(wrapped []byte, key age.Identity, tenant, person string) (*Identity, error) {
	r, err := decrypt(bytes.NewReader(wrapped), key)
	if err != nil {
		return nil, err
	}
	text, err := readShort(r, maxIdentity)
	if err != nil {
		return nil, err
	}
	return parseIdentity(text, tenant, person)
}
