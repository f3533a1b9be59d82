package encrypt

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// PendingField names a field of one kind whose plaintext is being sealed.
type PendingField struct{ Tenant, Kind, Field string }

func (f PendingField) clone() PendingField {
	return PendingField{strings.Clone(f.Tenant), strings.Clone(f.Kind), strings.Clone(f.Field)}
}

// PendingState is how far the field has come. Stores keep the numbers; none goes back.
type PendingState uint8

// open says whether any plaintext is accepted.
func (s PendingState) open() bool { return s == PendingCollecting || s == PendingShrinking }

// The states of a field, in their order.
const (
	PendingNever      PendingState = iota // no plaintext was ever accepted
	PendingCollecting                     // [Table.Collect] adds records
	PendingShrinking                      // [Table.Migrate] has begun: records are removed only
	PendingStrict                         // none is left: no plaintext is accepted, for ever
)

// PendingRecord is a record whose plaintext is still accepted, and the proof of it.
type PendingRecord struct {
	Record string
	MAC    []byte // of the field, the record and its client: who has no KEK adds no record
}

// Pending is the set of records whose plaintext is still accepted. It belongs in the
// key store: whoever can write only the CRM's database adds nothing to it. [Memory] and
// encryptsql's Store implement it, package encrypttest checks it.
//
// Who can write the key store too, and has copied it while the set was large, brings
// the set back, as does whoever restores an old copy. Only a [Keyring.Turn] after the migration ends that.
type Pending interface {
	// AddPending adds records; those that are in the set already get the MAC. An empty list
	// begins. In a field that is PendingShrinking or PendingStrict it is [ErrCutOff] and adds nothing.
	AddPending(ctx context.Context, f PendingField, records []PendingRecord) error

	// HasPending returns the state of the field, and those of the records that are in the set, in any
	// order. When the field is PendingStrict none is, whatever the store holds.
	HasPending(ctx context.Context, f PendingField, records []string) (PendingState, []PendingRecord, error)

	// NextPending returns at most limit records of the set after one, in the store's own order;
	// the empty record starts.
	NextPending(ctx context.Context, f PendingField, after string, limit int) ([]PendingRecord, error)

	// RemovePending makes the field PendingShrinking, or at last PendingStrict, removes records and returns how
	// many are left. An empty list removes none. When none is left the field is PendingStrict
	// in the same transaction. Of a field that is PendingStrict none is left, whatever the store holds.
	RemovePending(ctx context.Context, f PendingField, records []string) (left int, err error)

	// CountPending returns the state of the field and the size of its set.
	CountPending(ctx context.Context, f PendingField) (PendingState, int, error)

	// Migrating returns the fields of a tenant that are PendingCollecting or PendingShrinking, in any order.
	Migrating(ctx context.Context, tenant string) ([]PendingField, error)
}

var (
	// ErrCutOff says that no further record with plaintext is accepted.
	ErrCutOff = errors.New("encrypt: the migration of this field has begun: further plaintext is not accepted")

	// ErrReadAgain is [ErrPlaintext] as long as the row may have been read just
	// before [Table.Migrate] has sealed it. Read it again: if it is refused again, it was never accepted.
	ErrReadAgain = fmt.Errorf("%w: if the row was just sealed, read it again", ErrPlaintext)

	// ErrMigrating says that erased clients of a tenant keep their keys until [Table.Migrate]
	// has sealed or emptied the columns of plaintext.
	ErrMigrating = errors.New("encrypt: no key is destroyed while plaintext is being sealed")

	errPending = errors.New("encrypt: a field tagged \",legacy\" needs a key store that is a Pending")
)
