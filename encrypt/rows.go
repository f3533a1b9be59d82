package encrypt

import "context"

// Row is a row of a host's table as jobs that walk a whole table see it.
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
	// they were, and returns the records of which they were not. Rows that somebody has locked
	// may count as such, so that a job waits for nobody. Before it commits it calls then, unless that is
	// nil, with all other records, also those whose change has no new values: nobody can change
	// them until Swap ends. An error of then undoes everything. Where the database asks for
	// another attempt, everything is done again, and then is called again.
	Swap(ctx context.Context, tenant string, changes []Change, then func(tx Execer, swapped []string) error) (stale []string, err error)
}
