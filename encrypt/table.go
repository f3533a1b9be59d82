package encrypt

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"

	"github.com/crmguard/crmguard"
)

// Table seals and opens rows of one kind. It is safe for concurrent use.
type Table[T any] struct {
	keys   *Keyring
	kind   string
	region string
	plan   *plan
}

// TableOptions of a [Table]. Nil means the defaults.
type TableOptions struct {
	Region string // ISO country of phones typed without a country code, such as "RU"
}

// RowError says why one row did not open.
type RowError struct {
	Row    int    // index among the rows
	Record string // its id
	Field  string // empty: the whole row
	Err    error
}

// Error names record and field.
func (e RowError) Error() string {
	return fmt.Sprintf("row %d (record %q, field %q): %v", e.Row, e.Record, e.Field, e.Err)
}

// Unwrap returns the cause.
func (e RowError) Unwrap() error { return e.Err }

// RowErrors is the error of an Open that opened all rows but these.
type RowErrors []RowError

// Error counts the rows and shows the first.
func (e RowErrors) Error() string {
	if len(e) == 0 {
		return "encrypt: no errors"
	}
	if len(e) == 1 {
		return fmt.Sprintf("encrypt: one row did not open: %v", e[0])
	}
	return fmt.Sprintf("encrypt: %d rows did not open, first: %v", len(e), e[0])
}

// Unwrap returns the errors of all rows.
func (e RowErrors) Unwrap() []error {
	errs := make([]error, len(e))
	for i, row := range e {
		errs[i] = row
	}
	return errs
}

// NewTable reads the tags of struct type T:
//
//	ID          string `encrypt:",record"`           // id of the record, and of the client unless another field is tagged ",client"
//	Phone       string `encrypt:"phone,index=phone"` // logical name; index= phone, email or exact makes it searchable
//	PhoneSealed []byte `encrypt:"phone,sealed"`      // what is stored of it; nil is NULL
//
// A string, *string or []byte is sealed as it is, any other type as JSON. A nil
// pointer, slice, map or interface stays NULL; an empty string is sealed.
func NewTable[T any](k *Keyring, kind string, o *TableOptions) (*Table[T], error) {
	if k == nil || kind == "" {
		return nil, errors.New("encrypt: a table needs a keyring and a kind")
	}
	if err := checkName(kind); err != nil {
		return nil, err
	}
	plan, err := newPlan(reflect.TypeFor[T]())
	if err != nil {
		return nil, fmt.Errorf("encrypt: table %s: %w", kind, err)
	}
	t := &Table[T]{keys: k, kind: kind, plan: plan}
	if o != nil {
		t.region = strings.ToUpper(o.Region)
	}
	for _, field := range plan.fields {
		if field.normalize != nil && k.opts.Index == nil {
			return nil, fmt.Errorf("encrypt: table %s: %q has an index, but Options.Index is nil", kind, field.name)
		}
	}
	return t, nil
}

// Seal fills the sealed fields of rows from the plain ones, which stay, and returns
// the index entries to put in the transaction that stores the rows. It may write to
// the key store, so call it before that transaction begins. On an error no row was
// changed.
func (t *Table[T]) Seal(ctx context.Context, tenant string, rows ...*T) ([]IndexEntry, error) {
	batch, err := t.encode(ctx, tenant, rows)
	if err != nil {
		return nil, err
	}
	if len(batch.cells) == 0 {
		batch.store()
		return nil, nil // all values are NULL
	}
	for range attempts {
		keys, err := t.keys.keysOfAll(ctx, tenant, batch.scopes, true)
		if err != nil {
			return nil, err
		}
		if err := t.reserve(ctx, batch, keys); err != nil {
			return nil, err
		}
		entries, err := t.sealAll(ctx, batch, keys)
		if !errors.Is(err, errStalled) {
			return entries, err
		}
	}
	return nil, errStalled
}

// sealAll stores nothing and returns errStalled when keys have run out meanwhile.
func (t *Table[T]) sealAll(ctx context.Context, batch *batch, keys map[Scope]*scopeKeys) (entries []IndexEntry, err error) {
	for i := range batch.cells {
		cell := &batch.cells[i]
		scope := cell.scope()
		key, err := t.keys.take(ctx, scope, keys[scope].newest())
		if err != nil {
			return nil, err
		}
		if !t.keys.current(keys[scope], t.keys.now()) { // reserving may have taken long
			return nil, errStalled
		}
		if cell.sealed, err = key.seal(&cell.place, cell.plaintext); err != nil {
			return nil, cell.error(err)
		}
		if cell.normal == "" {
			continue
		}
		index := keys[fieldScope(IndexKey, &cell.place)].newest()
		entries = append(entries, IndexEntry{
			Tenant: cell.place.Tenant, Client: cell.place.Client, Kind: t.kind, Record: cell.place.Record, Field: cell.place.Field,
			Version: index.version, Value: index.pseudonym(&cell.place, []byte(cell.normal)),
		})
	}
	batch.store()
	return entries, nil
}

// reserve refuses closed clients and leases messages for all keys that have too few
// left, in one call; worn keys are replaced one by one.
func (t *Table[T]) reserve(ctx context.Context, batch *batch, keys map[Scope]*scopeKeys) error {
	counts := make(map[Scope]int64)
	for i := range batch.cells {
		cell := &batch.cells[i]
		scope := cell.scope()
		if err := keys[scope].usable(&scope); err != nil {
			return cell.error(err)
		}
		counts[scope]++
		if cell.normal != "" {
			index := fieldScope(IndexKey, &cell.place)
			if err := keys[index].usable(&index); err != nil {
				return cell.error(err)
			}
		}
	}
	var wanted []reservation
	for scope, count := range counts {
		if key := keys[scope].newest(); key.left.Load() < count {
			wanted = append(wanted, reservation{scope, key, 0})
		}
	}
	worn, err := t.keys.reserve(ctx, wanted)
	if err != nil {
		return err
	}
	for _, scope := range worn {
		if _, err := t.keys.rotate(ctx, scope, keys[scope].newest()); err != nil {
			return err
		}
		if next := t.keys.cached(&scope); next.usable(&scope) == nil {
			keys[scope] = next
		}
	}
	return nil
}

// Find returns the records whose field equals value, both normalised alike. It
// opens nothing.
func (t *Table[T]) Find(ctx context.Context, tenant, field, value string) (records []string, err error) {
	place := crmguard.Place{Tenant: tenant, Kind: t.kind, Field: field}
	if err := checkPlace(&place); err != nil {
		return nil, err
	}
	if err := checkSubject(ctx, tenant); err != nil {
		return nil, err
	}
	for _, f := range t.plan.fields {
		if f.name != field || f.normalize == nil {
			continue
		}
		normal := f.normalize(value, t.region)
		if normal == "" {
			return nil, nil
		}
		values, err := t.keys.Pseudonyms(ctx, place, []byte(normal))
		if err != nil {
			return nil, err
		}
		return t.keys.opts.Index.Find(ctx, tenant, t.kind, field, values)
	}
	return nil, fmt.Errorf("encrypt: table %s has no index on %q", t.kind, field)
}
