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

// openPending fills cells that are NULL from columns of plaintext, where that is still
// accepted. Whoever can write the CRM's database cannot say where: the set of
// these records lies with the keys.
func (m *Model) openPending(ctx context.Context, tenant string, rows []reflect.Value, cells []Cell) error {
	accepted, err := m.acceptPending(ctx, tenant, rows, cells)
	if err != nil || len(accepted) == 0 {
		return err
	}
	if err := m.keys.askForPending(ctx, tenant, accepted, cells); err != nil {
		return err
	}
	scopes := make([]Scope, len(accepted))
	for i, a := range accepted {
		scopes[i] = Scope{tenant, DataKey, a.Place.Client}
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

func (m *Model) acceptPending(ctx context.Context, tenant string, rows []reflect.Value, cells []Cell) (accepted []pendingCell, err error) {
	fields := m.plan.fields
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

// askForPending asks OnOpen for clients that were not yet asked for in this batch.
func (k *Keyring) askForPending(ctx context.Context, tenant string, accepted []pendingCell, cells []Cell) error {
	if k.opts.OnOpen == nil {
		return nil
	}
	act := crmguard.ActFrom(ctx)
	asked := make(map[string]bool)
	for i := range cells {
		if cells[i].Plaintext != nil {
			asked[cells[i].Place.Client] = true
		}
	}
	var clients []string
	for _, a := range accepted {
		if client := a.Place.Client; !asked[client] && !act.Opened(client) {
			asked[client] = true
			clients = append(clients, client)
		}
	}
	if len(clients) == 0 {
		return nil
	}
	return k.askOnOpen(ctx, act, tenant, clients)
}

// decodePending turns what lies in a column of plaintext into what is sealed.
func (m *Model) decodePending(ctx context.Context, field *fieldPlan, place *crmguard.Place, stored []byte) ([]byte, error) {
	plaintext := stored
	if m.decodePlain != nil {
		var err error
		if plaintext, err = m.decodePlain(ctx, *place, bytes.Clone(stored)); err != nil {
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
