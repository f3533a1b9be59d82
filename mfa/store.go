package mfa

import "context"

// Store keeps factors, recovery codes and the failure budget of persons. It
// decides nothing: what is genuine and who has to wait is for [Factors] to find
// out. Suite mfa/mfatest tells whether a store keeps to this.
type Store interface {
	// Load returns the person and all rows of theirs, in the order of their ids,
	// as they were at one moment. A person without a row has Version 0 and no MAC.
	Load(ctx context.Context, tenant, person string) (Person, []Row, error)

	// Attempt replaces the person's budget by next if it still is old; taken says
	// whether. A person without a row has none to replace. Atomic.
	Attempt(ctx context.Context, tenant, person string, old, next Budget) (taken bool, err error)

	// Advance sets the Step of a row if the row is active and its Step is smaller;
	// advanced says whether. Atomic: of any number of calls with the same step, one
	// advances.
	Advance(ctx context.Context, tenant, person, id string, step int64) (advanced bool, err error)

	// Change replaces Version and MAC of person old by those of next if the stored
	// ones still are old's (Version 0: there still is no row), removes the rows with
	// the ids in remove, and adds those in put, or replaces them where the id
	// exists. The budget and the other rows stay as they are. Atomic.
	Change(ctx context.Context, old, next Person, put []Row, remove []string) (changed bool, err error)

	// Clear writes next, whatever is stored, with its budget, and removes all rows
	// of the person, which it counts. Atomic.
	Clear(ctx context.Context, next Person) (removed int, err error)
}
