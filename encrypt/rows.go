package encrypt

import "context"

// Row is a row of a host's table as the jobs see it that walk all of a table.
type Row struct {
	Record, Client string

	Sealed map[string][]byte // by logical name of the field; nil is NULL
	Legacy map[string][]byte // likewise, of columns tagged ",legacy", that the fields were in before they were sealed
}

// Change is what a job makes of a row.
type Change struct {
	Was    Row
	Sealed map[string][]byte // new values; fields that are missing stay as they are
	Legacy map[string][]byte // likewise
}

// Rows is a host's table, or the part of it that holds one kind, as
// [Table.Reencrypt], [Table.Migrate], [Table.Reindex] and [Table.Scan] see it.
// Package encryptsql has it for tables in SQLite and PostgreSQL, package encrypttest
// checks these duties:
//
//  1. All rows of the tenant are there, those that were deleted softly too, and no row of
//     another tenant is.
//  2. A job that stopped and goes on misses no row that was there all the time.
//  3. A value that somebody else has written since it was read is never overwritten.
//  4. Bytes handed in or out are never shared with the table.
type Rows interface {
	// Page returns the next rows after a record, in an order of records that never
	// changes; the empty record starts. Fewer than limit are the last ones.
	Page(ctx context.Context, tenant, after string, limit int) ([]Row, error)

	// Get returns these rows, in any order. Records without a row are missing.
	Get(ctx context.Context, tenant string, records []string) ([]Row, error)

	// Swap makes changes, each only if the row's client and all values are still as
	// they were, and returns the records of which they were not: those that are locked by somebody
	// may count as such, so that a job waits for nobody. Before it commits, it calls then
	// with the others, which nobody can change until it ends: those without new values,
	// too. An error of then undoes all; when the database asks for it, all is done again. A nil then
	// is not called.
	Swap(ctx context.Context, tenant string, changes []Change, then func(tx Execer, swapped []string) error) (stale []string, err error)
}
