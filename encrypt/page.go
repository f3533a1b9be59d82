package encrypt

import (
	"context"
	"errors"
	"reflect"

	"github.com/crmguard/crmguard"
)

// cell is one field of one row on its way through a batch.
type cell struct {
	row           int
	place         crmguard.Place
	plain, column reflect.Value // the plain field and the sealed one
	plaintext     []byte
	normal        string // what is indexed, empty for nothing
	sealed        []byte
}

func (c *cell) scope() Scope { return Scope{c.place.Tenant, DataKey, c.place.Client} }

func (c *cell) error(err error) error {
	return RowError{Row: c.row, Record: c.place.Record, Field: c.place.Field, Err: err}
}

// batch is what Seal has to do.
type batch struct {
	cells  []cell          // values that are not NULL
	nulls  []reflect.Value // sealed fields of values that are
	scopes []Scope         // may repeat
}

// store writes the results into the rows.
func (b *batch) store() {
	for _, null := range b.nulls {
		null.SetBytes(nil)
	}
	for i := range b.cells {
		b.cells[i].column.SetBytes(b.cells[i].sealed)
	}
}

var errIDs = errors.New("encrypt: a row needs the ids of its record and client")

// ids returns where a row lives, without a field.
func (t *Table[T]) ids(tenant string, row reflect.Value) (crmguard.Place, error) {
	place := crmguard.Place{
		Tenant: tenant, Kind: t.kind,
		Record: row.FieldByIndex(t.plan.record).String(),
		Client: row.FieldByIndex(t.plan.client).String(),
	}
	if place.Record == "" || place.Client == "" {
		return place, errIDs
	}
	return place, checkName(place.Record, place.Client)
}

// encode takes the rows apart and changes none.
func (t *Table[T]) encode(ctx context.Context, tenant string, rows []*T) (*batch, error) {
	b := &batch{cells: make([]cell, 0, len(rows)*len(t.plan.fields))}
	for i, row := range rows {
		if row == nil {
			return nil, RowError{Row: i, Err: errors.New("encrypt: nil row")}
		}
		v := reflect.ValueOf(row).Elem()
		place, err := t.ids(tenant, v)
		if err == nil {
			err = checkSealing(ctx, &place)
		}
		if err != nil {
			return nil, RowError{Row: i, Record: place.Record, Err: err}
		}
		for _, field := range t.plan.fields {
			c := cell{row: i, place: place, plain: v.FieldByIndex(field.plain), column: v.FieldByIndex(field.sealed)}
			c.place.Field = field.name
			plaintext, ok, err := encode(c.plain)
			if err != nil {
				return nil, c.error(errValue)
			}
			if !ok {
				b.nulls = append(b.nulls, c.column)
				continue
			}
			c.plaintext = plaintext
			b.scopes = append(b.scopes, c.scope())
			if field.normalize != nil {
				if c.normal = field.normalize(string(plaintext), t.region); c.normal != "" {
					b.scopes = append(b.scopes, fieldScope(IndexKey, &c.place))
				}
			}
			b.cells = append(b.cells, c)
		}
	}
	return b, nil
}

// errValue stands for errors of encoding/json, which quote values.
var errValue = errors.New("encrypt: the value cannot be converted to or from JSON")

// Open fills the plain fields of rows from the sealed ones: with at most one query
// to the key store, and after asking Options.OnOpen once. Rows that do not open
// have empty plain fields and are named by the [RowErrors] that is returned; all
// others are open. After any other error the plain fields of all rows are empty.
func (t *Table[T]) Open(ctx context.Context, tenant string, rows ...*T) error {
	for _, row := range rows {
		if row != nil {
			t.zero(reflect.ValueOf(row).Elem()) // nothing that was there before may pass for what was opened
		}
	}
	if tenant == "" {
		return errTenant
	}
	if err := checkSubject(ctx, tenant); err != nil {
		return err
	}
	failed := make(map[int]error)
	cells := make([]cell, 0, len(rows)*len(t.plan.fields))
	scopes := make([]Scope, 0, len(rows))
	for i, row := range rows {
		if row == nil {
			failed[i] = RowError{Row: i, Err: errors.New("encrypt: nil row")}
			continue
		}
		v := reflect.ValueOf(row).Elem()
		place, err := t.ids(tenant, v)
		if err != nil {
			failed[i] = RowError{Row: i, Record: place.Record, Err: err}
			continue
		}
		for _, field := range t.plan.fields {
			c := cell{row: i, place: place, plain: v.FieldByIndex(field.plain), sealed: v.FieldByIndex(field.sealed).Bytes()}
			if c.sealed == nil {
				continue
			}
			c.place.Field = field.name
			cells = append(cells, c)
			if len(scopes) == 0 || scopes[len(scopes)-1] != c.scope() {
				scopes = append(scopes, c.scope())
			}
		}
	}
	if len(cells) > 0 {
		keys, err := t.keys.keysOfAll(ctx, tenant, scopes, false)
		if err != nil {
			return err
		}
		if err := t.newerVersions(ctx, tenant, cells, keys); err != nil {
			return err
		}
		asked, err := t.askOnOpen(ctx, tenant, cells, keys)
		if err == nil && asked {
			keys, err = t.keys.keysOfAll(ctx, tenant, scopes, false) // from the cache unless that took long
		}
		if err != nil {
			return err
		}
		for i := range cells {
			c := &cells[i]
			if failed[c.row] != nil {
				continue
			}
			if err := t.openCell(ctx, c, keys[c.scope()]); err != nil {
				failed[c.row] = c.error(err)
				t.zero(reflect.ValueOf(rows[c.row]).Elem())
			}
		}
	}
	return rowErrors(failed, len(rows))
}

// newerVersions reads anew, in one query, the keys of all cells that another node may
// have sealed with a version made since.
func (t *Table[T]) newerVersions(ctx context.Context, tenant string, cells []cell, keys map[Scope]*scopeKeys) error {
	var wanted []Scope
	seen := make(map[Scope]bool)
	for i := range cells {
		version, _, err := parse(cells[i].sealed, algorithmGCM, nonceSize+tagSize)
		scope := cells[i].scope()
		if known := keys[scope]; err == nil && known.usable(&scope) == nil && t.keys.maySeek(known, version) && !seen[scope] {
			seen[scope] = true
			wanted = append(wanted, scope)
		}
	}
	if len(wanted) == 0 {
		return nil
	}
	found, err := t.keys.load(ctx, tenant, wanted, false)
	if err != nil {
		return err
	}
	for _, scope := range wanted {
		if keys[scope] = found[scope]; found[scope] != nil {
			found[scope].sought.Store(t.keys.now())
		}
	}
	return nil
}

// askOnOpen asks once for all clients that can be opened and were not yet.
func (t *Table[T]) askOnOpen(ctx context.Context, tenant string, cells []cell, keys map[Scope]*scopeKeys) (asked bool, err error) {
	if t.keys.opts.OnOpen == nil {
		return false, nil
	}
	act := crmguard.ActFrom(ctx)
	var clients []string
	seen := make(map[string]bool)
	for i := range cells {
		client, scope := cells[i].place.Client, cells[i].scope()
		if seen[client] || keys[scope].usable(&scope) != nil || act.Opened(client) {
			continue
		}
		seen[client] = true
		clients = append(clients, client)
	}
	if len(clients) == 0 {
		return false, nil
	}
	return true, t.keys.askOnOpen(ctx, act, tenant, clients)
}

func (t *Table[T]) openCell(ctx context.Context, c *cell, keys *scopeKeys) error {
	scope := c.scope()
	if err := keys.usable(&scope); err != nil {
		return err
	}
	version, _, err := parse(c.sealed, algorithmGCM, nonceSize+tagSize)
	if err != nil {
		return err
	}
	key, err := t.keys.opening(ctx, &scope, keys, version)
	if err != nil {
		return err
	}
	plaintext, err := key.open(&c.place, c.sealed)
	if err != nil {
		return err
	}
	if err := decode(plaintext, c.plain); err != nil {
		return errValue
	}
	return nil
}

// zero empties the plain fields of a row.
func (t *Table[T]) zero(row reflect.Value) {
	for _, field := range t.plan.fields {
		row.FieldByIndex(field.plain).SetZero()
	}
}

// rowErrors puts errors into the order of the rows.
func rowErrors(failed map[int]error, rows int) error {
	if len(failed) == 0 {
		return nil
	}
	errs := make(RowErrors, 0, len(failed))
	for i := range rows {
		if e, ok := errors.AsType[RowError](failed[i]); ok {
			errs = append(errs, e)
		}
	}
	return errs
}
