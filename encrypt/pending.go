package encrypt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/crmguard/crmguard"
)

// PendingField names a field of one kind whose plaintext is being sealed.
type PendingField struct{ Tenant, Kind, Field string }

// PendingState is how far the field has come. Stores keep the numbers; none goes back.
type PendingState uint8

// open says whether any plaintext is accepted.
func (s PendingState) open() bool { return s == Collecting || s == Shrinking }

// The states of a field, in their order.
const (
	NeverPending PendingState = iota // no plaintext was ever accepted
	Collecting                       // [Table.Begin] adds records
	Shrinking                        // [Table.Migrate] has begun: records are removed only
	Strict                           // none is left: no plaintext is accepted, for ever
)

// PendingRecord is a record whose plaintext is still accepted, and the proof of it.
type PendingRecord struct {
	Record string
	MAC    []byte // of the field, the record and its client: who has no KEK adds no record
}

// Pending is the set of records whose plaintext is still accepted. It belongs into the
// key store: whoever can write the CRM's database only adds nothing to it. [Memory] and
// encryptsql's Store implement it, package encrypttest checks it.
//
// Who can write the key store too, and has copied it while the set was large, brings
// the set back, as does whoever restores an old copy. Only a [Keyring.Turn] after the migration ends that.
type Pending interface {
	// AddPending adds records; those that are in the set already get the MAC. An empty list
	// begins. In a field that is Shrinking or Strict it is [ErrCutOff] and adds nothing.
	AddPending(ctx context.Context, f PendingField, records []PendingRecord) error

	// HasPending returns the state of the field, and those of the records that are in the set, in any
	// order. When the field is Strict none is, whatever the store holds.
	HasPending(ctx context.Context, f PendingField, records []string) (PendingState, []PendingRecord, error)

	// NextPending returns at most limit records of the set after one, in the store's own order;
	// the empty record starts.
	NextPending(ctx context.Context, f PendingField, after string, limit int) ([]PendingRecord, error)

	// RemovePending makes the field Shrinking, or at last Strict, removes records and returns how
	// many are left. An empty list removes none. When none is left the field is Strict
	// in the same transaction. Of a field that is Strict none is left, whatever the store holds.
	RemovePending(ctx context.Context, f PendingField, records []string) (left int, err error)

	// CountPending returns the state of the field and the size of its set.
	CountPending(ctx context.Context, f PendingField) (PendingState, int, error)

	// Migrating returns the fields of a tenant that are Collecting or Shrinking, in any order.
	Migrating(ctx context.Context, tenant string) ([]PendingField, error)
}

var (
	// ErrCutOff says that no further record with plaintext is accepted.
	ErrCutOff = errors.New("encrypt: the migration of this field has begun: further plaintext is not accepted")

	// ErrReadAgain comes with [ErrPlaintext] as long as the row may have been read just
	// before [Table.Migrate] has sealed it. Read it again: what is refused twice is nobody's.
	ErrReadAgain = errors.New("if the row was just sealed, read it again")

	// ErrMigrating says that erased clients of a tenant keep their keys until [Table.Migrate]
	// has sealed or emptied the columns of plaintext.
	ErrMigrating = errors.New("encrypt: no key is destroyed while plaintext is being sealed")

	errReadAgain = fmt.Errorf("%w: %w", ErrPlaintext, ErrReadAgain)

	errPending = errors.New("encrypt: a field tagged \",plain\" needs a key store that is a Pending")
)

var _ Pending = (*Memory)(nil)

// pendingSet of one field.
type pendingSet struct {
	state   PendingState
	records map[string][]byte // and their MACs
}

func (m *Memory) pendingOf(f PendingField) *pendingSet {
	set := m.pending[f]
	if set == nil {
		set = &pendingSet{records: make(map[string][]byte)}
	}
	return set
}

// AddPending implements [Pending].
func (m *Memory) AddPending(_ context.Context, f PendingField, records []PendingRecord) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	set := m.pendingOf(f)
	if set.state > Collecting {
		return ErrCutOff
	}
	set.state = Collecting
	for _, r := range records {
		set.records[r.Record] = bytes.Clone(r.MAC)
	}
	m.keepPending(f, set)
	return nil
}

func (m *Memory) keepPending(f PendingField, set *pendingSet) {
	if m.pending == nil {
		m.pending = make(map[PendingField]*pendingSet)
	}
	m.pending[f] = set
}

// HasPending implements [Pending].
func (m *Memory) HasPending(_ context.Context, f PendingField, records []string) (state PendingState, found []PendingRecord, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	set := m.pendingOf(f)
	for _, record := range records {
		if mac, ok := set.records[record]; ok {
			found = append(found, PendingRecord{record, bytes.Clone(mac)})
		}
	}
	return set.state, found, nil
}

// NextPending implements [Pending].
func (m *Memory) NextPending(_ context.Context, f PendingField, after string, limit int) (next []PendingRecord, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for record, mac := range m.pendingOf(f).records {
		if record > after {
			next = append(next, PendingRecord{record, bytes.Clone(mac)})
		}
	}
	slices.SortFunc(next, func(a, b PendingRecord) int { return strings.Compare(a.Record, b.Record) })
	return next[:min(limit, len(next))], nil
}

// RemovePending implements [Pending].
func (m *Memory) RemovePending(_ context.Context, f PendingField, records []string) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	set := m.pendingOf(f)
	set.state = max(set.state, Shrinking)
	for _, record := range records {
		delete(set.records, record)
	}
	if len(set.records) == 0 || set.state == Strict {
		set.state, set.records = Strict, nil
	}
	m.keepPending(f, set)
	return len(set.records), nil
}

// CountPending implements [Pending].
func (m *Memory) CountPending(_ context.Context, f PendingField) (PendingState, int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	set := m.pendingOf(f)
	return set.state, len(set.records), nil
}

// Migrating implements [Pending].
func (m *Memory) Migrating(_ context.Context, tenant string) (fields []PendingField, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for f, set := range m.pending {
		if f.Tenant == tenant && set.state.open() {
			fields = append(fields, f)
		}
	}
	return fields, nil
}

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

func setOf(list []string) map[string]bool {
	set := make(map[string]bool, len(list))
	for _, s := range list {
		set[s] = true
	}
	return set
}
