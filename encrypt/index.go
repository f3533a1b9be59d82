package encrypt

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/text/unicode/norm"

	"github.com/crmguard/crmguard/internal/phone"
)

// IndexEntry is one searchable value: not the value, but its pseudonym under one
// version of the index's key. A value has an entry for each version in use, so that
// processes that know different versions find, and refuse, the same records.
type IndexEntry struct {
	Tenant, Client, Kind, Record, Field string

	Index   string // phone, email, exact, last4 or domain
	Version uint32 // of the key of this tenant, kind, field and index
	Value   []byte
	Unique  bool // no other record may have the value
}

// IndexEntries are what an [Index] holds of some records from a Put on: what they had before
// is replaced. [Table.Seal] returns those of the rows that it has sealed.
type IndexEntries struct {
	Tenant, Kind string
	Records      []string // those without an entry lose what they had
	Fields       []string // of which entries are replaced; none: all
	Entries      []IndexEntry
}

// Execer is a transaction, or a database for callers without one.
type Execer interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
}

// Index finds records by the pseudonyms of their values. It lives in the host's
// database, in a table that dumps leave out. Package encrypttest checks it.
type Index interface {
	// Put replaces the entries of some records, inside the host's transaction, which has
	// written the rows before. Fields that [IndexEntries] leave out keep theirs. Where another
	// record has the value of a unique entry the error is a *[DuplicateError], or [ErrDuplicate]
	// where nobody can tell whose it is, and the host rolls back; of several that put the same
	// value at once, one succeeds. Puts without a transaction change all or nothing.
	Put(ctx context.Context, tx Execer, entries IndexEntries) error

	// Find returns the records, sorted and each once, that have one of the values in
	// an index of a field.
	Find(ctx context.Context, tenant, kind, field, index string, values [][]byte) (records []string, err error)

	// Duplicates returns the ids of other clients' records, sorted and each once, that share a
	// value of a phone, email or exact index with a record of the client.
	Duplicates(ctx context.Context, tenant, client string) (records []string, err error)

	// Stale returns the records, at most limit and in the index's own order, behind the
	// record after, that have entries in an index of a field, but none of this version of
	// its key. The empty record is before all others.
	Stale(ctx context.Context, tenant, kind, field, index string, version uint32, after string, limit int) (records []string, err error)

	// DropClient deletes all entries of a client and returns how many there were.
	DropClient(ctx context.Context, tenant, client string) (rows int, err error)
}

// ErrDuplicate is what a *[DuplicateError] wraps: the error of [Index.Put] where another record
// has the value of a field tagged index=…:unique.
var ErrDuplicate = errors.New("encrypt: another record has this value")

// DuplicateError says which record could not have a unique value. Whoever may not see
// the other record should not be told of it: "exists already" is an answer, too.
type DuplicateError struct {
	Field, Index  string
	Record, Other string // the one refused and, if it is known, the one that has the value
}

// Error names the field and the records.
func (e *DuplicateError) Error() string {
	return fmt.Sprintf("%v: field %q, record %q, other %q", ErrDuplicate, e.Field, e.Record, e.Other)
}

// Unwrap returns [ErrDuplicate].
func (e *DuplicateError) Unwrap() error { return ErrDuplicate }

var errEntry = errors.New("encrypt: index entry of another tenant, kind, record or field, repeated, or without client, index, version or value")

// Check refuses entries that are not of this tenant and kind and of one of these records
// and fields, stand there twice, or lack a client, index, version or value.
// Implementations of [Index] call it in Put.
func (x *IndexEntries) Check() error {
	if x.Tenant == "" {
		return errTenant
	}
	known := setOf(x.Records)
	type entryKey struct {
		record, field, index string
		version              uint32
	}
	seen := make(map[entryKey]bool, len(x.Entries))
	for i := range x.Entries {
		e := &x.Entries[i]
		key := entryKey{e.Record, e.Field, e.Index, e.Version}
		if e.Tenant != x.Tenant || e.Kind != x.Kind || e.Client == "" || e.Index == "" || e.Version == 0 || len(e.Value) == 0 ||
			!known[e.Record] || seen[key] || len(x.Fields) > 0 && !slices.Contains(x.Fields, e.Field) {
			return errEntry
		}
		seen[key] = true
	}
	return nil
}

func setOf(list []string) map[string]bool {
	set := make(map[string]bool, len(list))
	for _, s := range list {
		set[s] = true
	}
	return set
}

// indexKind is one way to find values. Those that are not exact find part of a value.
type indexKind struct {
	exact     bool
	normalize func(value, region string) string // what people type into what is compared
}

// indexes by the names that tags and stores know. What normalises to nothing is not indexed,
// and finds nothing.
var indexes = map[string]indexKind{
	"phone":  {true, normalizePhone},
	"email":  {true, normalizeEmail},
	"exact":  {true, normalizeExact},
	"last4":  {false, normalizeLast4},
	"domain": {false, normalizeDomain},
}

// normalizePhone returns E.164, or the digits of what is no phone number.
func normalizePhone(value, region string) string {
	if number, ok := phone.Parse(value, region); ok {
		return number.E164
	}
	return strings.Map(func(r rune) rune {
		if r >= '0' && r <= '9' {
			return r
		}
		return -1
	}, norm.NFKC.String(value))
}

// normalizeLast4 returns the last digits of what normalizePhone returns: those that people
// read from a display or remember. Fewer than four find nothing.
func normalizeLast4(value, region string) string {
	digits := normalizePhone(value, region)
	if len(digits) < 4 {
		return ""
	}
	return digits[len(digits)-4:]
}

// normalizeEmail ignores case everywhere: no provider that people use tells
// addresses apart by it.
func normalizeEmail(value, _ string) string {
	return norm.NFC.String(strings.ToLower(strings.TrimSpace(norm.NFC.String(value))))
}

// normalizeDomain returns what stands behind the last @, or all of a value without one,
// so that people search for "example.com", "@example.com" or a whole address. Domains
// written as xn-- are compared as they are.
func normalizeDomain(value, _ string) string {
	value = norm.NFKC.String(value)
	value = norm.NFC.String(strings.ToLower(value[strings.LastIndexByte(value, '@')+1:]))
	return strings.Trim(strings.TrimSpace(strings.ReplaceAll(value, "。", ".")), ".")
}

func normalizeExact(value, _ string) string { return strings.TrimSpace(norm.NFC.String(value)) }
