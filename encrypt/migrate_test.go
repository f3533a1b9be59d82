package encrypt_test

import (
	"bytes"
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

// grown is a contact of a CRM that did not seal before.
type grown struct {
	ID          string  `encrypt:",record"`
	Phone       string  `encrypt:"phone,index=phone"`
	PhoneLegacy *string `encrypt:"phone,legacy"`
	PhoneSealed []byte  `encrypt:"phone,sealed"`
	Note        *string `encrypt:"note"`
	NoteLegacy  string  `encrypt:"note,legacy"`
	NoteSealed  []byte  `encrypt:"note,sealed"`
	Born        *int    `encrypt:"born"`
	BornLegacy  []byte  `encrypt:"born,legacy"`
	BornSealed  []byte  `encrypt:"born,sealed"`
}

func asGrown(r encrypt.Row) *grown {
	g := &grown{ID: r.Record, PhoneSealed: r.Sealed["phone"], NoteSealed: r.Sealed["note"], BornSealed: r.Sealed["born"],
		NoteLegacy: string(r.Legacy["note"]), BornLegacy: r.Legacy["born"]}
	if phone := r.Legacy["phone"]; phone != nil {
		text := string(phone)
		g.PhoneLegacy = &text
	}
	return g
}

func plainRow(i int) encrypt.Row {
	id := fmt.Sprintf("c%02d", i)
	return encrypt.Row{Record: id, Client: id, Sealed: map[string][]byte{}, Legacy: map[string][]byte{
		"phone": fmt.Appendf(nil, "+7 912 345-67-%02d", i), "note": fmt.Append(nil, "note ", i), "born": fmt.Append(nil, 1950+i)}}
}

// plainTable is full of plaintext.
type plainTable struct {
	*encrypttest.MemoryRows
	store    encrypt.Store
	keys     *encrypt.Keyring
	index    *encrypt.MemoryIndex
	contacts *encrypt.Table[grown]
}

func newPlainTable(tb testing.TB, n int, store encrypt.Store, o *encrypt.TableOptions, onOpen func(ctx context.Context, tenant string, clients []string) error) *plainTable {
	tb.Helper()
	p := &plainTable{MemoryRows: encrypttest.NewMemoryRows(), store: store, index: encrypt.NewMemoryIndex()}
	p.keys = newKeyring(tb, store, &encrypt.Options{Index: p.index, OnOpen: onOpen})
	var err error
	p.contacts, err = encrypt.NewTable[grown](p.keys, "contacts", o)
	require.NoError(tb, err)
	for i := range n {
		p.Put("acme", plainRow(i))
	}
	return p
}

func (p *plainTable) row(tb testing.TB, record string) encrypt.Row {
	tb.Helper()
	rows, err := p.Get(tb.Context(), "acme", []string{record})
	require.NoError(tb, err)
	require.Len(tb, rows, 1)
	return rows[0]
}

func (p *plainTable) open(tb testing.TB, record string) (*grown, error) {
	g := asGrown(p.row(tb, record))
	err := p.contacts.Open(acting("acme"), "acme", g)
	return g, err
}

func (p *plainTable) begin(tb testing.TB) {
	tb.Helper()
	_, err := p.contacts.Collect(job("acme"), "acme", p, &encrypt.JobOptions{Batch: 7})
	require.NoError(tb, err)
}

func (p *plainTable) left(tb testing.TB) int {
	tb.Helper()
	left, err := p.contacts.Pending(job("acme"), "acme")
	require.NoError(tb, err)
	return left
}

func TestMigrate(t *testing.T) {
	p := newPlainTable(t, 20, encrypt.NewMemory(), nil, nil)
	_, err := p.open(t, "c03")
	require.ErrorIs(t, err, encrypt.ErrPlaintext, "before the beginning")

	report, err := p.contacts.Collect(job("acme"), "acme", p, nil)
	require.NoError(t, err)
	require.Equal(t, 20, report.Changed)
	require.Equal(t, 60, p.left(t))
	p.Put("acme", plainRow(20)) // by a program that does not seal yet
	_, err = p.open(t, "c20")
	require.ErrorIs(t, err, encrypt.ErrPlaintext)
	p.begin(t)
	require.Equal(t, 63, p.left(t))

	opened := func() {
		t.Helper()
		for i := range 21 {
			g, err := p.open(t, fmt.Sprintf("c%02d", i))
			require.NoError(t, err)
			require.Equal(t, fmt.Sprintf("+7 912 345-67-%02d", i), g.Phone)
			require.Equal(t, fmt.Sprint("note ", i), *g.Note)
			require.Equal(t, 1950+i, *g.Born)
		}
	}
	opened()
	scanned, err := p.contacts.Scan(job("acme"), "acme", p, nil)
	require.NoError(t, err)
	require.True(t, scanned.OK(), "what is accepted is no finding: %+v", scanned)

	stop := errors.New("enough")
	_, err = p.contacts.Migrate(job("acme"), "acme", p, &encrypt.JobOptions{Batch: 5, Progress: func(context.Context, encrypt.Report) error { return stop }})
	require.ErrorIs(t, err, stop)
	require.Equal(t, 58, p.left(t))
	opened()

	report, err = p.contacts.Migrate(job("acme"), "acme", p, &encrypt.JobOptions{Batch: 5})
	require.NoError(t, err)
	require.True(t, report.OK())
	require.Equal(t, 58, report.Changed)
	require.Zero(t, p.left(t))
	opened()
	for i := range 21 {
		r := p.row(t, fmt.Sprintf("c%02d", i))
		for _, field := range []string{"phone", "note", "born"} {
			require.Nil(t, r.Legacy[field])
			require.NotNil(t, r.Sealed[field])
		}
	}
	found, err := p.contacts.Find(job("acme"), "acme", "phone", "phone", "8 912 345 67 03")
	require.NoError(t, err)
	require.Empty(t, found, "no region was given")
	found, err = p.contacts.Find(job("acme"), "acme", "phone", "phone", "+7 912 345 67 03")
	require.NoError(t, err)
	require.Equal(t, []string{"c03"}, found)

	_, err = p.contacts.Collect(job("acme"), "acme", p, nil)
	require.ErrorIs(t, err, encrypt.ErrCutOff)
	report, err = p.contacts.Migrate(job("acme"), "acme", p, nil)
	require.NoError(t, err)
	require.Equal(t, encrypt.Report{}, report)
}

func (trusting) HasPending(_ context.Context, _ encrypt.PendingField, records []string) (encrypt.PendingState, []encrypt.PendingRecord, error) {
	found := make([]encrypt.PendingRecord, len(records))
	for i, record := range records {
		found[i] = encrypt.PendingRecord{Record: record, MAC: make([]byte, 38)}
	}
	return encrypt.PendingCollecting, found, nil
}

func TestSealingEmptiesTheColumnOfPlaintext(t *testing.T) {
	p := newPlainTable(t, 3, encrypt.NewMemory(), nil, nil)
	p.begin(t)
	g, err := p.open(t, "c01")
	require.NoError(t, err)
	g.Phone = "+49 30 123456"
	entries, err := p.contacts.Seal(acting("acme"), "acme", g)
	require.NoError(t, err)
	require.Nil(t, g.PhoneLegacy)
	require.Empty(t, g.NoteLegacy)
	require.Nil(t, g.BornLegacy)
	require.NoError(t, p.index.Put(t.Context(), nil, entries))
	p.Put("acme", encrypt.Row{Record: "c01", Client: "c01", Sealed: map[string][]byte{"phone": g.PhoneSealed, "note": g.NoteSealed, "born": g.BornSealed}})

	report, err := p.contacts.Migrate(job("acme"), "acme", p, nil)
	require.NoError(t, err)
	require.Equal(t, 6, report.Changed, "the edited row is done already")
	require.Zero(t, p.left(t))
	g, err = p.open(t, "c01")
	require.NoError(t, err)
	require.Equal(t, "+49 30 123456", g.Phone)
	found, err := p.contacts.Find(job("acme"), "acme", "phone", "phone", "+49 30 123456")
	require.NoError(t, err)
	require.Equal(t, []string{"c01"}, found)
}

// The old program edits a row between reading and writing.
func TestMigrateLosesNoEdit(t *testing.T) {
	check := func(plant func(p *plainTable, h *hooked)) string {
		p := newPlainTable(t, 3, encrypt.NewMemory(), nil, nil)
		p.begin(t)
		h := &hooked{Rows: p}
		edited := false
		h.before = func() {
			if !edited {
				edited = true
				r := p.row(t, "c01")
				r.Legacy["phone"] = []byte("edited")
				p.Put("acme", r)
			}
		}
		plant(p, h)
		_, err := p.contacts.Migrate(job("acme"), "acme", h, nil)
		require.NoError(t, err)
		require.Zero(t, p.left(t))
		g, err := p.open(t, "c01")
		require.NoError(t, err)
		return g.Phone
	}
	require.Equal(t, "edited", check(func(*plainTable, *hooked) {}))
	t.Run("planted fault: a swap that does not compare plaintext", func(t *testing.T) {
		require.NotEqual(t, "edited", check(func(p *plainTable, h *hooked) {
			h.swap = func(changes []encrypt.Change) {
				for i := range changes {
					changes[i].Was = p.row(t, changes[i].Was.Record)
				}
			}
		}))
	})
}

func TestMigrateWhatIsOdd(t *testing.T) {
	p := newPlainTable(t, 8, encrypt.NewMemory(), nil, nil)
	odd := plainRow(1)
	odd.Legacy["born"] = []byte("long ago") // no number
	gone := plainRow(90)
	empty := plainRow(2)
	empty.Legacy = map[string][]byte{"phone": {}, "note": nil}
	p.Put("acme", odd, gone, empty)
	p.begin(t)
	both := func(record, sealed string) {
		g := &grown{ID: record, Phone: sealed}
		_, err := p.contacts.Seal(job("acme"), "acme", g)
		require.NoError(t, err)
		r := p.row(t, record)
		r.Sealed["phone"] = g.PhoneSealed
		p.Put("acme", r)
	}
	both("c03", "+7 912 345-67-03") // the same
	both("c04", "another")
	_, err := p.keys.Erase(job("acme"), "acme", "c05")
	require.NoError(t, err)
	g, err := p.open(t, "c05")
	require.ErrorIs(t, err, crmguard.ErrErased, "plaintext of erased clients is not shown")
	require.Empty(t, g.Phone)
	rows := &without{Rows: p, record: "c90"} // deleted meanwhile

	report, err := p.contacts.Migrate(job("acme"), "acme", rows, nil)
	require.NoError(t, err)
	require.Equal(t, 3, report.Erased)
	require.Equal(t, 1, report.Plaintext)
	require.Equal(t, 1, report.Unreadable)
	require.Equal(t, 1, p.left(t), "what could not be sealed stays readable by the old program")
	require.Nil(t, p.row(t, "c03").Legacy["phone"])
	require.NotNil(t, p.row(t, "c04").Legacy["phone"], "nobody but a person knows which is right")
	require.Equal(t, map[string][]byte{"phone": nil, "note": nil, "born": nil}, p.row(t, "c05").Legacy)
	require.NotNil(t, p.row(t, "c02").Sealed["phone"], "empty is sealed")
	require.Nil(t, p.row(t, "c02").Sealed["note"], "NULL stays NULL")

	fixed := p.row(t, "c01")
	fixed.Legacy["born"] = []byte("1901")
	p.Put("acme", fixed)
	_, err = p.contacts.Migrate(job("acme"), "acme", rows, nil)
	require.NoError(t, err)
	require.Zero(t, p.left(t))
	g, err = p.open(t, "c01")
	require.NoError(t, err)
	require.Equal(t, 1901, *g.Born)
}

// without is a table from which a row is gone.
type without struct {
	encrypt.Rows
	record string
}

func (w *without) Get(ctx context.Context, tenant string, records []string) ([]encrypt.Row, error) {
	return w.Rows.Get(ctx, tenant, slices.DeleteFunc(slices.Clone(records), func(r string) bool { return r == w.record }))
}

// A unique value that two rows have holds up one of them only.
func TestMigrateDuplicates(t *testing.T) {
	type unique struct {
		ID          string  `encrypt:",record"`
		Phone       string  `encrypt:"phone,index=phone:unique"`
		PhoneLegacy *string `encrypt:"phone,legacy"`
		PhoneSealed []byte  `encrypt:"phone,sealed"`
	}
	rows, index := encrypttest.NewMemoryRows(), encrypt.NewMemoryIndex()
	k := newKeyring(t, encrypt.NewMemory(), &encrypt.Options{Index: index})
	table, err := encrypt.NewTable[unique](k, "contacts", nil)
	require.NoError(t, err)
	for i := range 6 {
		r := plainRow(i)
		r.Legacy = map[string][]byte{"phone": r.Legacy["phone"]}
		if i == 4 {
			r.Legacy = plainRow(2).Legacy
		}
		rows.Put("acme", r)
	}
	_, err = table.Collect(job("acme"), "acme", rows, nil)
	require.NoError(t, err)
	report, err := table.Migrate(job("acme"), "acme", rows, nil)
	require.NoError(t, err)
	require.Equal(t, 5, report.Changed)
	require.Len(t, report.Findings, 1)
	require.ErrorIs(t, report.Findings[0], encrypt.ErrDuplicate)
	left, err := table.Pending(job("acme"), "acme")
	require.NoError(t, err)
	require.Equal(t, 1, left)
}

// Coming from another scheme: what is stored is decoded before it is sealed or shown.
func TestMigrateDecodes(t *testing.T) {
	down := true
	decode := func(_ context.Context, at crmguard.Place, stored []byte) ([]byte, error) {
		switch {
		case at.Tenant != "acme" || at.Record == "" || at.Client != at.Record || at.Kind != "contacts":
			return nil, errors.New("where is that?")
		case at.Field == "phone" && at.Record == "c02" && down:
			return nil, fmt.Errorf("%w: the old KMS", crmguard.ErrUnavailable)
		case bytes.HasPrefix(stored, []byte("bad")):
			return nil, errors.New("does not decrypt")
		}
		slices.Reverse(stored)
		return stored, nil
	}
	p := newPlainTable(t, 5, encrypt.NewMemory(), &encrypt.TableOptions{DecodeLegacy: decode}, nil)
	for i := range 5 {
		r := plainRow(i)
		for _, v := range r.Legacy {
			slices.Reverse(v)
		}
		if i == 3 {
			r.Legacy["phone"] = []byte("bad")
		}
		p.Put("acme", r)
	}
	p.begin(t)
	g, err := p.open(t, "c01")
	require.NoError(t, err)
	require.Equal(t, "+7 912 345-67-01", g.Phone)
	require.Equal(t, 1951, *g.Born)
	_, err = p.open(t, "c03")
	require.ErrorContains(t, err, "does not decrypt")

	_, err = p.contacts.Migrate(job("acme"), "acme", p, nil)
	require.ErrorIs(t, err, crmguard.ErrUnavailable, "an outage ends it")
	require.Equal(t, 15, p.left(t))
	down = false
	report, err := p.contacts.Migrate(job("acme"), "acme", p, nil)
	require.NoError(t, err)
	require.Equal(t, 14, report.Changed)
	require.Equal(t, 1, report.Unreadable)
	g, err = p.open(t, "c04")
	require.NoError(t, err)
	require.Equal(t, "note 4", *g.Note)
}

// Plaintext counts toward the norm as sealed values do.
func TestPendingPlaintextIsCounted(t *testing.T) {
	n := &norm{}
	p := newPlainTable(t, 3, encrypt.NewMemory(), nil, n.OnOpen)
	p.begin(t)
	var page []*grown
	for _, record := range []string{"c00", "c01", "c02"} {
		page = append(page, asGrown(p.row(t, record)))
	}
	half := &grown{ID: "c01", Phone: "x"}
	_, err := p.contacts.Seal(job("acme"), "acme", half)
	require.NoError(t, err)
	page[1].PhoneSealed, page[1].PhoneLegacy = half.PhoneSealed, nil
	ctx := crmguard.WithSubject(t.Context(), crmguard.Subject{Tenant: "acme", ID: "anna", Kind: crmguard.KindEmployee})
	require.NoError(t, p.contacts.Open(ctx, "acme", page...))
	require.Equal(t, [][]string{{"c01", "c00", "c02"}}, n.asked, "once, before anything is opened")

	n.full = true
	require.Error(t, p.contacts.Open(ctx, "acme", page...))
	for _, row := range page {
		require.Empty(t, row.Phone)
		require.Nil(t, row.Note)
	}
	require.Len(t, n.asked, 2)
}

func TestPlainTags(t *testing.T) {
	k := newKeyring(t, encrypt.NewMemory(), nil)
	type fine struct {
		ID string `encrypt:",record"`
		A  string `encrypt:"a"`
		AP string `encrypt:"a,legacy"`
		AS []byte `encrypt:"a,sealed"`
	}
	require.NoError(t, tags[fine](k))
	require.ErrorContains(t, tags[fine](newKeyring(t, &counting{Store: encrypt.NewMemory()}, nil)), "Pending")
	require.Error(t, tags[struct {
		ID string `encrypt:",record"`
		A  string `encrypt:"a"`
		AP int    `encrypt:"a,legacy"`
		AS []byte `encrypt:"a,sealed"`
	}](k))
	require.Error(t, tags[struct {
		ID string `encrypt:",record"`
		A  string `encrypt:"a"`
		AP string `encrypt:"a,legacy"`
		AQ string `encrypt:"a,legacy"`
		AS []byte `encrypt:"a,sealed"`
	}](k))
	require.Error(t, tags[struct {
		ID string `encrypt:",record"`
		A  string `encrypt:"a"`
		BP string `encrypt:"b,legacy"`
		AS []byte `encrypt:"a,sealed"`
	}](k))
}
