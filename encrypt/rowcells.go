package encrypt

import (
	"context"
	"errors"
	"reflect"
	"sync"

	"github.com/crmguard/crmguard"
)

var (
	errIDs = errors.New("encrypt: a row needs the ids of its record and client")
	errNil = errors.New("encrypt: nil row")

	// errValue stands for errors of encoding/json, which quote values.
	errValue = errors.New("encrypt: the value cannot be converted to or from JSON")
)

// scratch is the memory in which rows are taken apart.
type scratch struct {
	cells []Cell
	texts []byte
}

var scratches = sync.Pool{New: func() any { return new(scratch) }}

// take returns n empty cells.
func (b *scratch) take(n int) []Cell {
	if cap(b.cells) < n {
		b.cells = make([]Cell, n)
	}
	b.cells = b.cells[:n]
	return b.cells
}

// maxScratch keeps what one large batch took from being kept for small ones.
const maxScratch = 1024

// release leaves nothing of what people wrote in memory that waits for the next batch.
func (b *scratch) release() {
	clear(b.cells)
	clear(b.texts)
	if cap(b.cells) <= maxScratch && cap(b.texts) <= maxScratch*maxScratch {
		scratches.Put(b)
	}
}

// at is reflect's FieldByIndex, faster for fields that are not in an embedded struct.
func at(row reflect.Value, index []int) reflect.Value {
	if len(index) == 1 {
		return row.Field(index[0])
	}
	return row.FieldByIndex(index)
}

// ids fills in where a row lives, but for the field.
func (m *Model) ids(place *crmguard.Place, tenant string, row reflect.Value) error {
	place.Tenant, place.Kind = tenant, m.kind
	place.Record = at(row, m.plan.record).String()
	place.Client = at(row, m.plan.client).String()
	if place.Record == "" || place.Client == "" {
		return errIDs
	}
	if err := checkName(place.Record); err != nil || place.Client == place.Record {
		return err
	}
	return checkName(place.Client)
}

// seal fills the sealed fields, of these fields, and makes their index entries.
func (m *Model) seal(ctx context.Context, tenant string, fields []fieldPlan, rows []reflect.Value) (entries IndexEntries, err error) {
	if tenant == "" {
		return entries, errTenant
	}
	b := scratches.Get().(*scratch)
	defer b.release()
	cells, err := m.encode(b, tenant, fields, rows)
	if err != nil {
		return entries, err
	}
	indexed, scopes := m.indexed(tenant, fields, cells)
	keys, err := m.keys.sealAll(ctx, tenant, cells, scopes)
	if err != nil {
		return entries, rowOf(err, len(fields))
	}
	made, err := m.entries(cells, indexed, scopes, keys)
	if err != nil {
		return entries, err
	}
	entries.Tenant, entries.Kind, entries.Entries = tenant, m.kind, made
	m.replaced(&entries, fields, cells)
	for i, row := range rows {
		for j := range fields {
			at(row, fields[j].sealed).SetBytes(cells[i*len(fields)+j].Sealed)
			if fields[j].legacy != nil {
				at(row, fields[j].legacy).SetZero()
			}
		}
	}
	return entries, nil
}

// replaced fills in which entries change with these fields of rows: those of fields too that had an
// index once, but none of fields that are not sealed here.
func (m *Model) replaced(x *IndexEntries, fields []fieldPlan, cells []Cell) {
	indexed := false
	for j := range fields {
		indexed = indexed || len(fields[j].indexes) > 0
	}
	if !indexed {
		return
	}
	x.Fields = namesOf(fields)
	x.Records = make([]string, 0, len(cells)/len(fields))
	for i := 0; i < len(cells); i += len(fields) {
		x.Records = append(x.Records, cells[i].Place.Record)
	}
}

func namesOf(fields []fieldPlan) []string {
	names := make([]string, len(fields))
	for i := range fields {
		names[i] = fields[i].name
	}
	return names
}

// rowOf turns the index of a cell into that of its row.
func rowOf(err error, fields int) error {
	if e, ok := errors.AsType[*RowError](err); ok {
		return &RowError{Row: e.Row / fields, Record: e.Record, Field: e.Field, Err: e.Err}
	}
	return err
}

// encode takes the rows apart, a cell for each of the fields, and changes none.
func (m *Model) encode(b *scratch, tenant string, fields []fieldPlan, rows []reflect.Value) ([]Cell, error) {
	cells := b.take(len(rows) * len(fields))
	b.texts = b.texts[:0]
	for i, row := range rows {
		if !row.IsValid() {
			return nil, &RowError{Row: i, Err: errNil}
		}
		var place crmguard.Place
		err := m.ids(&place, tenant, row)
		if err != nil {
			return nil, &RowError{Row: i, Record: place.Record, Err: err}
		}
		for j := range fields {
			cell := &cells[i*len(fields)+j]
			cell.Place = place
			cell.Place.Field = fields[j].name
			cell.Pad = fields[j].pad
			if text, ok := fields[j].text(row); ok {
				// Where the buffer grows, what points to the old one stays as it is.
				start := len(b.texts)
				b.texts = append(b.texts, text...)
				cell.Plaintext = b.texts[start:len(b.texts):len(b.texts)]
				if cell.Plaintext == nil {
					cell.Plaintext = []byte{}
				}
				continue
			}
			if cell.Plaintext, err = fields[j].encode(row); err != nil {
				return nil, cell.error(i, errValue)
			}
		}
	}
	return cells, nil
}

// open fills the plain fields.
func (m *Model) open(ctx context.Context, tenant string, rows []reflect.Value) error {
	for _, row := range rows {
		if row.IsValid() {
			m.zero(row) // nothing that was there before may pass for what was opened
		}
	}
	if err := checkSubject(ctx, tenant); err != nil {
		return err
	}
	return m.openRows(ctx, tenant, rows, false)
}

// openRows fills plain fields that are empty. See [Keyring.openCells] for allowed.
func (m *Model) openRows(ctx context.Context, tenant string, rows []reflect.Value, allowed bool) error {
	var failed RowErrors
	fields := m.plan.fields
	b := scratches.Get().(*scratch)
	defer b.release()
	cells := b.take(len(rows) * len(fields))
	for i, row := range rows {
		if !row.IsValid() {
			m.fail(cells[i*len(fields):], errNil)
			continue
		}
		var place crmguard.Place
		err := m.ids(&place, tenant, row)
		for j := range fields {
			cell := &cells[i*len(fields)+j]
			cell.Place, cell.Err = place, err
			cell.Place.Field = fields[j].name
			cell.Sealed = at(row, fields[j].sealed).Bytes()
		}
	}
	if err := m.openCells(ctx, tenant, fields, rows, cells, allowed); err != nil {
		return err
	}
	for i, row := range rows {
		if err := m.decode(i, row, cells[i*len(fields):(i+1)*len(fields)]); err != nil {
			failed = append(failed, err)
		}
	}
	if len(failed) > 0 {
		return failed
	}
	return nil
}

// fail marks the cells of one row.
func (m *Model) fail(cells []Cell, err error) {
	for j := range m.plan.fields {
		cells[j].Err = err
	}
}

// decode fills a row, or leaves it empty and says why.
func (m *Model) decode(i int, row reflect.Value, cells []Cell) *RowError {
	fields := m.plan.fields
	for j := range cells {
		c := &cells[j]
		err := c.Err
		if err == nil && c.Plaintext != nil && fields[j].decode(row, c.Plaintext) != nil {
			err = errValue
		}
		if err == nil {
			continue
		}
		e := &RowError{Row: i, Record: c.Place.Record, Field: c.Place.Field, Err: err}
		if !row.IsValid() || c.Place.Record == "" || c.Place.Client == "" {
			e.Field = "" // nothing is wrong with the field
		}
		if row.IsValid() {
			m.zero(row)
		}
		return e
	}
	return nil
}

// zero empties the plain fields of a row.
func (m *Model) zero(row reflect.Value) {
	for i := range m.plan.fields {
		at(row, m.plan.fields[i].plain).SetZero()
	}
}
