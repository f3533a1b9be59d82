package encrypt

import (
	"context"
	"fmt"
	"time"
)

// State is how far a scope has come on its one-way road. Stores keep the numbers.
type State uint8

// The states of a scope, in their order.
const (
	Active    State = iota + 1
	Closing         // refused everywhere within [Lease]; the key still exists
	Destroyed       // the key is gone; the record stays, so that the id is never used again
)

// String returns a lower-case word, the one in a [Receipt].
func (s State) String() string {
	switch s {
	case Active:
		return "active"
	case Closing:
		return "closing"
	case Destroyed:
		return "destroyed"
	}
	return fmt.Sprintf("State(%d)", uint8(s))
}

// Record is one version of a scope's key as a store keeps it.
type Record struct {
	Scope    Scope
	Version  uint32 // from 1, without gaps; the oldest ones may have been removed
	State    State  // the same in all versions of a scope
	Wrapped  []byte // see docs/formats/encrypt.md; empty once destroyed
	Note     []byte // for receipts, and for the history of the KEK
	Messages uint64 // how many messages nodes have reserved with Lease

	CreatedAt, ClosedAt, DestroyedAt time.Time // microseconds, UTC

	// Under is for Insert alone, and never stored: the Wrapped of what this key is
	// wrapped by. See [Store].
	Under []byte `json:"-"`
}

// Store keeps wrapped keys. It must not be the database whose data the keys
// protect, nor be part of that database's backups. Package encrypttest checks
// these duties:
//
//  1. All methods are safe for concurrent use, by several processes where the
//     store is shared. All scopes of one call have the same tenant. An empty list
//     is no error.
//  2. What a method changed is durable when it returns nil.
//  3. State never goes back, and a scope that was Closing or Destroyed never
//     gets another key.
//  4. A new key appears only if what wrapped it is the newest: see Insert.
//  5. Bytes handed in or out are never shared with the store.
type Store interface {
	// Load returns every version of these scopes, oldest first within a scope, in
	// one query. A scope without records is missing from the answer.
	Load(ctx context.Context, scopes []Scope) ([]Record, error)

	// Insert adds those records whose scope and version do not exist yet and whose
	// scope is not Closing or Destroyed, each atomically, and returns what the
	// store then holds of all their scopes, like Load. So of two nodes that make
	// the same key at once, both get the one that won.
	//
	// A record with Under is added only if, at the moment when its transaction takes
	// effect, Under is the Wrapped of the newest version of Scope.Wrapping. So once an Insert or a
	// Replace has changed that one, nothing appears any more that was wrapped before,
	// however long a machine stood still or a COMMIT was under way.
	Insert(ctx context.Context, records []Record) ([]Record, error)

	// Advance moves all versions of a scope to Closing or Destroyed and returns the
	// newest version as it is then, with at noted as ClosedAt or DestroyedAt.
	//
	//   - To Closing: a scope without records gets version 1 without a key. A scope
	//     that is Closing or Destroyed already stays as it is: no error.
	//   - To Destroyed: only from Closing. The wrapped keys are overwritten and
	//     removed wherever the store can reach; when it cannot yet, it returns an
	//     error and the scope stays Closing. Destroyed already: no error.
	//
	// A change makes the revision larger, in the same transaction.
	Advance(ctx context.Context, scope Scope, to State, at time.Time) (Record, error)

	// Lease adds n to Messages of these keys, named by Scope and Version, and
	// returns them as they are then; keys that are not Active are left out. Of
	// concurrent calls each gets a total of its own.
	Lease(ctx context.Context, keys []Record, n uint64) ([]Record, error)

	// Closing returns the revision, which grows with every Advance and Replace that
	// changed something and every Insert that added a version after the first, and
	// the newest version of each scope that is Closing.
	Closing(ctx context.Context) (revision int64, closing []Record, err error)
}

// Inventory is what a [Store] needs in addition for [Keyring.RotateClients], [Keyring.Retire],
// [Keyring.Turn], [Keyring.Sweep], indexes that the tags no longer name, and complete receipts.
// Package encrypttest checks it, together with the duties of a Store.
type Inventory interface {
	// List returns at most limit records of all scopes and versions that come after
	// a record, named by Scope and Version, which need not exist. All records of a
	// tenant follow each other, and within it all of a purpose; Record{} comes before
	// everything, and a Scope without purpose or name before all others of its tenant
	// or purpose. What changes meanwhile may be missing or seen twice, nothing else.
	List(ctx context.Context, after Record, limit int) ([]Record, error)

	// Replace compares and swaps: a record, named by Scope and Version, whose Wrapped, Note,
	// ClosedAt and DestroyedAt are still those of was[i] gets those of now[i]. It returns how many
	// were changed. They may be of several tenants. Where the Wrapped of now[i]
	// is empty and that of was[i] is not, the version is removed instead and never comes
	// back, unless it is the newest of its scope: that one stays as it is. Removed keys
	// are overwritten as by Advance. When the store cannot do so yet it returns an
	// error; the next call, even an empty one, tries again first. A change makes the
	// revision larger.
	Replace(ctx context.Context, was, now []Record) (n int, err error)
}
