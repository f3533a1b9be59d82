package encrypt

import (
	"context"
	"database/sql"
	"errors"
	"slices"
	"strings"
	"sync"

	"golang.org/x/text/unicode/norm"

	"github.com/crmguard/crmguard/internal/phone"
)

// IndexEntry is one searchable value: not the value, but its pseudonym.
type IndexEntry struct {
	Tenant, Client, Kind, Record, Field string

	Version uint32 // of the index key
	Value   []byte
}

// Execer is a transaction, or a database for callers without one.
type Execer interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
}

// Index finds records by the pseudonyms of their values. It lives in the host's
// database, in a table that dumps leave out. Package encrypttest checks it.
type Index interface {
	// Put replaces all entries of these records by entries, inside the host's
	// transaction. Records without entries lose theirs.
	Put(ctx context.Context, tx Execer, tenant, kind string, records []string, entries []IndexEntry) error

	// Find returns the records, sorted and each once, that have one of the values in
	// a field.
	Find(ctx context.Context, tenant, kind, field string, values [][]byte) (records []string, err error)

	// DropClient deletes all entries of a client and returns how many there were.
	DropClient(ctx context.Context, tenant, client string) (rows int, err error)
}

// normalizers turn what people type into what is compared. An empty result is not
// indexed, and finds nothing.
var normalizers = map[string]func(value, region string) string{
	"phone": normalizePhone,
	"email": normalizeEmail,
	"exact": normalizeExact,
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

// normalizeEmail ignores case everywhere: no provider that people use tells
// addresses apart by it.
func normalizeEmail(value, _ string) string {
	return norm.NFC.String(strings.ToLower(strings.TrimSpace(norm.NFC.String(value))))
}

func normalizeExact(value, _ string) string { return strings.TrimSpace(norm.NFC.String(value)) }

// MemoryIndex is an [Index] that forgets everything with the process. It does not
// take part in transactions.
type MemoryIndex struct {
	mu      sync.Mutex
	entries []IndexEntry
}

// NewMemoryIndex returns an empty MemoryIndex.
func NewMemoryIndex() *MemoryIndex { return &MemoryIndex{} }

// Put implements [Index]; tx may be nil.
func (m *MemoryIndex) Put(_ context.Context, _ Execer, tenant, kind string, records []string, entries []IndexEntry) error {
	if err := CheckEntries(tenant, kind, records, entries); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.entries = slices.DeleteFunc(m.entries, func(e IndexEntry) bool {
		return e.Tenant == tenant && e.Kind == kind && slices.Contains(records, e.Record)
	})
	for _, e := range entries {
		e.Value = slices.Clone(e.Value)
		m.entries = append(m.entries, e)
	}
	return nil
}

// Find implements [Index].
func (m *MemoryIndex) Find(_ context.Context, tenant, kind, field string, values [][]byte) ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var records []string
	for _, e := range m.entries {
		if e.Tenant == tenant && e.Kind == kind && e.Field == field &&
			slices.ContainsFunc(values, func(v []byte) bool { return string(v) == string(e.Value) }) {
			records = append(records, e.Record)
		}
	}
	slices.Sort(records)
	return slices.Compact(records), nil
}

// DropClient implements [Index].
func (m *MemoryIndex) DropClient(_ context.Context, tenant, client string) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	before := len(m.entries)
	m.entries = slices.DeleteFunc(m.entries, func(e IndexEntry) bool { return e.Tenant == tenant && e.Client == client })
	return before - len(m.entries), nil
}

var errEntry = errors.New("encrypt: index entry of another tenant, kind or record, or without client or value")

// CheckEntries refuses entries that are not of this tenant and kind and of one of
// these records, or lack a client or value. Implementations of [Index] call it in Put.
func CheckEntries(tenant, kind string, records []string, entries []IndexEntry) error {
	if tenant == "" {
		return errTenant
	}
	known := make(map[string]bool, len(records))
	for _, record := range records {
		known[record] = true
	}
	for _, e := range entries {
		if e.Tenant != tenant || e.Kind != kind || e.Client == "" || len(e.Value) == 0 || !known[e.Record] {
			return errEntry
		}
	}
	return nil
}
