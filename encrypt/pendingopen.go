package encrypt

import (
	"bytes"
	"context"
	"reflect"

	"github.com/crmguard/crmguard"
)

// stored returns what lies in the column of plaintext of a row; nil for NULL, which in
// a string is the empty one.
func (f *fieldPlan) stored(row reflect.Value) []byte {
	v := at(row, f.legacy)
	switch {
	case v.Kind() == reflect.String && v.String() != "":
		return []byte(v.String())
	case v.Kind() == reflect.Pointer && !v.IsNil():
		return append([]byte{}, v.Elem().String()...)
	case v.Kind() == reflect.Slice:
		return v.Bytes()
	}
	return nil
}

// legacyOf is the same of a row as jobs see it.
func (m *Model) legacyOf(field *fieldPlan, row *Row) []byte {
	stored := row.Legacy[field.name]
	if len(stored) == 0 && m.typ.FieldByIndex(field.legacy).Type.Kind() == reflect.String {
		return nil
	}
	return stored
}

// openCells opens the cells of rows, which have one for each of the fields; those that are NULL from
// columns of plaintext, where that is still accepted. Whoever can write the CRM's database
// cannot say where: the set of these records lies with the keys. OnOpen is asked about all clients
// at once, before anything is opened; see [Keyring.openCells] for allowed.
func (m *Model) openCells(ctx context.Context, tenant string, fields []fieldPlan, rows []reflect.Value, cells []Cell, allowed bool) error {
	if !m.plan.migrates {
		return m.keys.openCells(ctx, tenant, cells, nil, allowed)
	}
	accepted, err := m.acceptPending(ctx, tenant, fields, rows, cells)
	if err != nil {
		return err
	}
	clients := make([]string, len(accepted))
	scopes := make([]Scope, len(accepted))
	for i, a := range accepted {
		clients[i], scopes[i] = a.Place.Client, Scope{tenant, DataKey, a.Place.Client}
	}
	if err := m.keys.openCells(ctx, tenant, cells, clients, allowed); err != nil || len(accepted) == 0 {
		return err
	}
	keys, err := m.keys.keysOfAll(ctx, tenant, scopes, false)
	if err != nil {
		return err
	}
	for i, a := range accepted {
		if keys[i] != nil && keys[i].broken == nil && keys[i].state != Active {
			a.Err = crmguard.ErrErased
			continue
		}
		a.Plaintext, a.Err = m.decodePending(ctx, a.field, &a.Place, a.stored)
		if passing(ctx, a.Err) {
			return a.Err
		}
	}
	return nil
}

// pendingCell is a cell whose plaintext is accepted.
type pendingCell struct {
	*Cell
	field  *fieldPlan
	stored []byte
}

func (m *Model) acceptPending(ctx context.Context, tenant string, fields []fieldPlan, rows []reflect.Value, cells []Cell) (accepted []pendingCell, err error) {
	for j := range fields {
		field := &fields[j]
		if field.legacy == nil {
			continue
		}
		var found []pendingCell
		var records []string
		for i, row := range rows {
			c := &cells[i*len(fields)+j]
			if !row.IsValid() || c.Err != nil || c.Sealed != nil {
				continue
			}
			if stored := field.stored(row); stored != nil {
				found = append(found, pendingCell{c, field, stored})
				records = append(records, c.Place.Record)
			}
		}
		if len(found) == 0 {
			continue
		}
		set, err := m.keys.pendingProofs(ctx, m.pendingField(tenant, field), records)
		if err != nil {
			return nil, err
		}
		for _, c := range found {
			c.Err = set.check(ctx, &c.Place)
			if passing(ctx, c.Err) {
				return nil, c.Err
			}
			if c.Err == nil {
				accepted = append(accepted, c)
			}
		}
	}
	return accepted, nil
}

// decodePending turns what lies in a column of plaintext into what is sealed.
func (m *Model) decodePending(ctx context.Context, field *fieldPlan, place *crmguard.Place, stored []byte) ([]byte, error) {
	plaintext := stored
	if m.decodeLegacy != nil {
		var err error
		if plaintext, err = m.decodeLegacy(ctx, *place, bytes.Clone(stored)); err != nil {
			return nil, err
		}
		if plaintext == nil {
			plaintext = []byte{}
		}
	}
	if !field.form.isText() && field.form != formBytes {
		if field.decode(reflect.New(m.typ).Elem(), plaintext) != nil {
			return nil, errValue
		}
	}
	return plaintext, nil
}

func (m *Model) pending() Pending {
	pending, _ := m.keys.store.(Pending) // NewModel has looked
	return pending
}

func (m *Model) pendingField(tenant string, field *fieldPlan) PendingField {
	return PendingField{tenant, m.kind, field.name}
}
