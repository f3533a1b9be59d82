package crmguard

import (
	"context"
	"errors"
)

// Place says where a sealed value lives. Tenant and Client choose the key; all
// five are bound to the value, so that it opens nowhere else. The names are
// logical: renaming a table does not change them. An empty Client is the tenant
// itself: credentials, sessions, settings.
type Place struct {
	Tenant string // never empty
	Client string // whose data it is
	Kind   string // such as "contacts"
	Record string // id of the record
	Field  string
}

// Sealer encrypts values at rest. Sealed bytes opened at another place, changed
// or truncated are an error; data of an erased client is [ErrErased], and keys that
// cannot be had now are [ErrUnavailable]. Opening at a place with a client needs a
// [Subject] in the context.
type Sealer interface {
	Seal(ctx context.Context, at Place, plaintext []byte) ([]byte, error)
	Open(ctx context.Context, at Place, sealed []byte) ([]byte, error)
}

// ErrUnavailable is what a [Sealer] returns, possibly wrapped, when it cannot have the
// keys now. It says nothing about what was to be opened: nobody may have changed that.
var ErrUnavailable = errors.New("crmguard: keys are not available now")

// Pseudonymizer turns values into keyed pseudonyms that can be searched for
// equality. Keys rotate, so there may be several: the current one comes first,
// and is the one to store. Client and Record of the place are not used.
type Pseudonymizer interface {
	Pseudonyms(ctx context.Context, at Place, value []byte) ([][]byte, error)
}

// ErrMAC is what [Authenticator] returns for a MAC that it did not make of this
// data at this place: somebody wrote the row who has no keys.
var ErrMAC = errors.New("crmguard: the MAC does not fit")

// Authenticator makes and verifies MACs of rows that give access, so that
// whoever can write the database cannot forge one. Verify returns nil only for
// data and mac that MAC made at the same place, and [ErrMAC], possibly wrapped,
// for any others. Every other error means that it could not be decided.
type Authenticator interface {
	MAC(ctx context.Context, at Place, data []byte) ([]byte, error)
	Verify(ctx context.Context, at Place, data, mac []byte) error
}

// Revoked says what one part of the system took away from a person.
type Revoked struct {
	What  string // such as "sessions"
	Count int
}

// Revoker ends what it holds of a person. It is idempotent: a second call
// revokes nothing and is no error.
type Revoker interface {
	Revoke(ctx context.Context, tenant, subject string) (Revoked, error)
}
