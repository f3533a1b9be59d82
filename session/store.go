package session

import (
	"context"
	"errors"
)

// ErrNotFound is what [Store.Session] returns for an id without a row.
var ErrNotFound = errors.New("session: no such session")

// SweepRows is how many rows of ended sessions [Store.Start] removes at most.
const SweepRows = 100

// Store keeps sessions and the state of persons. It decides nothing: whether a
// row is genuine is the [Manager]'s to find out. Two persons are equal when all
// their fields are. The person with the empty id, of whom there are no sessions,
// stands for the tenant. Suite session/sessiontest tells whether a store keeps to
// this.
type Store interface {
	// Session returns a session and its person, both as they were at one moment,
	// or [ErrNotFound]. A person without a row has Epoch 0.
	Session(ctx context.Context, id string) (Row, Person, error)

	// Person returns the person and all rows of their sessions, oldest first, as
	// they were at one moment. A person without a row has Epoch 0.
	Person(ctx context.Context, tenant, person string) (Person, []Row, error)

	// Start adds r if the stored person still is p and p is not closed; started
	// says whether. Then it removes the oldest of the person's sessions beyond
	// keep, and at most [SweepRows] sessions of anybody that ended before
	// r.Started. Atomic: of Start and Change for one person, one sees the other.
	Start(ctx context.Context, p Person, r Row, keep int) (started bool, err error)

	// Swap replaces Used, Assurance, AuthenticatedAt and Verifier of the session
	// with this id by those of next if its verifier still is verifier; swapped says
	// whether. Without next it removes the session, whatever its row holds. Atomic.
	Swap(ctx context.Context, id string, verifier MAC, next *Row) (swapped bool, err error)

	// Change replaces person old by next if Person would still return old, and
	// removes all sessions of the person; ended counts them. It compares what it
	// reads, not what is stored, so that a row with values that no Person can hold
	// is replaced like any other. Atomic.
	Change(ctx context.Context, old, next Person) (ended int, changed bool, err error)
}
