package encrypt_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/encrypt/encrypttest"
)

// asRow is a contact as it is stored.
func asRow(c *contact) encrypt.Row {
	return encrypt.Row{Record: c.ID, Client: c.ID, Sealed: map[string][]byte{"phone": c.PhoneSealed, "note": c.NoteSealed}}
}

func asContact(r encrypt.Row) *contact {
	return &contact{ID: r.Record, PhoneSealed: r.Sealed["phone"], NoteSealed: r.Sealed["note"]}
}

// fullTable has n contacts, sealed under the first versions of their keys.
type fullTable struct {
	*encrypttest.MemoryRows
	store    *encrypt.Memory
	keys     *encrypt.Keyring
	index    *encrypt.MemoryIndex
	contacts *encrypt.Table[contact]
}

func newFullTable(tb testing.TB, n int, o encrypt.Options) *fullTable {
	tb.Helper()
	index := encrypt.NewMemoryIndex()
	o.Index = index
	store := encrypt.NewMemory()
	f := &fullTable{encrypttest.NewMemoryRows(), store, newKeyring(tb, store, &o), index, nil}
	var err error
	f.contacts, err = encrypt.NewTable[contact](f.keys, "contacts", nil)
	require.NoError(tb, err)
	f.save(tb, page(n)...)
	return f
}

func (f *fullTable) save(tb testing.TB, rows ...*contact) {
	tb.Helper()
	_, err := f.contacts.Seal(job("acme"), "acme", rows...)
	require.NoError(tb, err)
	for _, c := range rows {
		f.Put("acme", asRow(c))
	}
}

func (f *fullTable) rotate(tb testing.TB, clients ...string) {
	tb.Helper()
	for _, client := range clients {
		_, err := f.keys.Rotate(job("acme"), dataScope(client))
		require.NoError(tb, err)
	}
}

func (f *fullTable) row(tb testing.TB, record string) encrypt.Row {
	tb.Helper()
	rows, err := f.Get(tb.Context(), "acme", []string{record})
	require.NoError(tb, err)
	require.Len(tb, rows, 1)
	return rows[0]
}

// version is that of the key that a value was sealed with.
func version(sealed []byte) byte { return sealed[7] }

func contactIDs(n int) (list []string) {
	for _, c := range page(n) {
		list = append(list, c.ID)
	}
	return list
}

// Erased clients and damage stop nobody, and are named.
func TestJobsGoOn(t *testing.T) {
	f := newFullTable(t, 12, encrypt.Options{})
	f.rotate(t, contactIDs(12)...)
	_, err := f.keys.Erase(job("acme"), "acme", "c01")
	require.NoError(t, err)
	damage := func(record, field string, change func(sealed []byte) []byte) {
		r := f.row(t, record)
		r.Sealed[field] = change(r.Sealed[field])
		f.Put("acme", r)
	}
	damage("c02", "phone", func(b []byte) []byte { b[20] ^= 1; return b })
	damage("c03", "note", func([]byte) []byte { return []byte("+7 999 000-11-22, planted, long enough to be sealed") })
	damage("c04", "phone", func([]byte) []byte { return f.row(t, "c05").Sealed["phone"] })
	damage("c06", "phone", func([]byte) []byte { return nil })
	damage("c07", "note", func([]byte) []byte { return []byte{} })
	f.Put("acme", encrypt.Row{Record: "c99", Sealed: map[string][]byte{"phone": []byte("of no client")}})
	f.Put("acme", encrypt.Row{Record: "c98", Client: "nobody", Sealed: map[string][]byte{"phone": f.row(t, "c05").Sealed["phone"]}})
	for name, run := range map[string]func() (encrypt.Report, error){
		"scan":      func() (encrypt.Report, error) { return f.contacts.Scan(job("acme"), "acme", f, nil) },
		"reencrypt": func() (encrypt.Report, error) { return f.contacts.Reencrypt(job("acme"), "acme", f, nil) },
	} {
		report, err := run()
		require.NoError(t, err, name)
		require.False(t, report.OK())
		require.Equal(t, 14, report.Rows)
		require.Equal(t, 2, report.Erased, name)
		require.Equal(t, 2, report.Foreign, name)
		require.Equal(t, 2, report.Malformed, name)
		require.Equal(t, 2, report.Unreadable, name)
		found := make(map[string]error)
		for _, e := range report.Findings {
			found[e.Record+" "+e.Field] = e.Err
		}
		require.Len(t, found, 6)
		require.ErrorIs(t, found["c02 phone"], encrypt.ErrForeign)
		require.ErrorIs(t, found["c03 note"], encrypt.ErrMalformed)
		require.ErrorIs(t, found["c04 phone"], encrypt.ErrForeign)
		require.ErrorIs(t, found["c07 note"], encrypt.ErrMalformed)
		require.Error(t, found["c99 "])
		require.ErrorIs(t, found["c98 phone"], encrypt.ErrNoKey)
		require.NotContains(t, fmt.Sprint(report), "planted", "no values")
	}
	require.EqualValues(t, 2, version(f.row(t, "c02").Sealed["note"]), "the other field of a damaged row is done")
	require.EqualValues(t, 2, version(f.row(t, "c11").Sealed["note"]))
	require.EqualValues(t, 1, version(f.row(t, "c01").Sealed["note"]))
}

func TestFindingsAreBounded(t *testing.T) {
	f := newFullTable(t, 1, encrypt.Options{})
	for i := range 300 {
		f.Put("acme", encrypt.Row{Record: fmt.Sprintf("x%03d", i), Client: "x", Sealed: map[string][]byte{"phone": []byte("plain")}})
	}
	report, err := f.contacts.Scan(job("acme"), "acme", f, nil)
	require.NoError(t, err)
	require.Equal(t, 300, report.Malformed)
	require.Len(t, report.Findings, 100)
}

func TestJobsAreTheSystems(t *testing.T) {
	f := newFullTable(t, 1, encrypt.Options{})
	for name, run := range map[string]func(ctx context.Context, tenant string, rows encrypt.Rows, o *encrypt.JobOptions) (encrypt.Report, error){
		"reencrypt": f.contacts.Reencrypt, "scan": f.contacts.Scan, "reindex": f.contacts.Reindex, "maintain": f.contacts.MaintainIndex,
		"collect": f.contacts.Collect, "migrate": f.contacts.Migrate,
	} {
		t.Run(name, func(t *testing.T) {
			for what, ctx := range map[string]context.Context{"nobody": context.Background(), "a person": acting("acme"), "foreign": job("other")} {
				_, err := run(ctx, "acme", f, nil)
				require.ErrorIs(t, err, encrypt.ErrSubject, what)
			}
			_, err := run(job(""), "", f, nil)
			require.ErrorContains(t, err, "empty tenant")
			_, err = run(job("acme"), "acme", nil, nil)
			require.ErrorContains(t, err, "needs rows")
			for _, batch := range []int{-1, 10_001} {
				_, err = run(job("acme"), "acme", f, &encrypt.JobOptions{Batch: batch})
				require.ErrorContains(t, err, "a batch is", batch)
			}
		})
	}
	for name, run := range map[string]func(ctx context.Context, tenant string, rows encrypt.Rows, o *encrypt.JobOptions) (encrypt.Report, error){
		"migrate": f.contacts.Migrate, "maintain": f.contacts.MaintainIndex,
	} {
		_, err := run(job("acme"), "acme", f, &encrypt.JobOptions{After: "c01"})
		require.ErrorContains(t, err, "JobOptions.After", name)
	}
	_, err := f.keys.Scan(job("acme"), "acme", "", []string{"phone"}, f, nil)
	require.Error(t, err)
	_, err = f.keys.Scan(job("acme"), "acme", "contacts", nil, f, nil)
	require.Error(t, err)
}

// hooked rows let a test act between reading and writing, and plant faults.
type hooked struct {
	encrypt.Rows
	page   func(after string, rows []encrypt.Row) []encrypt.Row
	before func()
	swap   func(changes []encrypt.Change)
	gone   string // a record that is overlooked where it is asked for
}

func (h *hooked) Get(ctx context.Context, tenant string, records []string) ([]encrypt.Row, error) {
	return h.Rows.Get(ctx, tenant, slices.DeleteFunc(slices.Clone(records), func(r string) bool { return r == h.gone }))
}

func (h *hooked) Page(ctx context.Context, tenant, after string, limit int) ([]encrypt.Row, error) {
	rows, err := h.Rows.Page(ctx, tenant, after, limit)
	if h.page != nil {
		rows = h.page(after, rows)
	}
	return rows, err
}

func (h *hooked) Swap(ctx context.Context, tenant string, changes []encrypt.Change, then func(tx encrypt.Execer, swapped []string) error) ([]string, error) {
	if h.before != nil {
		h.before()
	}
	if h.swap != nil {
		h.swap(changes)
	}
	return h.Rows.Swap(ctx, tenant, changes, then)
}

func TestAnOutageEndsAJob(t *testing.T) {
	kek, store := newKEK(t), encrypt.NewMemory()
	down := &outage{Store: store}
	f := &fullTable{MemoryRows: encrypttest.NewMemoryRows(), index: encrypt.NewMemoryIndex()}
	f.keys = openKeyring(t, kek, down, &encrypt.Options{Index: f.index})
	var err error
	f.contacts, err = encrypt.NewTable[contact](f.keys, "contacts", nil)
	require.NoError(t, err)
	f.save(t, page(5)...)
	f.keys.Invalidate()
	down.down = true
	for _, run := range []func(ctx context.Context, tenant string, rows encrypt.Rows, o *encrypt.JobOptions) (encrypt.Report, error){f.contacts.Scan, f.contacts.Reencrypt, f.contacts.Reindex} {
		report, err := run(job("acme"), "acme", f, &encrypt.JobOptions{After: "c01"})
		require.ErrorIs(t, err, crmguard.ErrUnavailable)
		require.Zero(t, report.Rows, "an outage is no finding")
		require.Equal(t, "c01", report.Cursor, "where the next call goes on")
	}
	p := newPlainTable(t, 3, pendingOutage{encrypt.NewMemory()}, nil, nil)
	report, err := p.contacts.Collect(job("acme"), "acme", p, &encrypt.JobOptions{After: "c01"})
	require.ErrorIs(t, err, crmguard.ErrUnavailable)
	require.Equal(t, "c01", report.Cursor)
}

type pendingOutage struct{ *encrypt.Memory }

func (pendingOutage) AddPending(context.Context, encrypt.PendingField, []encrypt.PendingRecord) error {
	return errDown
}

// outage is a store that does not answer while down, or after some queries.
type outage struct {
	encrypt.Store
	down  bool
	after int // queries; 0: never
	n     int
}

func (s *outage) Load(ctx context.Context, scopes []encrypt.Scope) ([]encrypt.Record, error) {
	if s.n++; s.down || s.after > 0 && s.n > s.after {
		return nil, errors.New("down")
	}
	return s.Store.Load(ctx, scopes)
}
