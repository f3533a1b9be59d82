package encrypt_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/encrypt"
)

// Base must be exported to be settable.
type Base struct {
	Ref string `encrypt:",record"`
}

type embedded struct {
	Base
	Text       string `encrypt:"text"`
	TextSealed []byte `encrypt:"text,sealed"`
}

func TestTableRoundTrip(t *testing.T) {
	type everything struct {
		Base
		Owner      string            `encrypt:",client"`
		Text       string            `encrypt:"text"`
		TextSealed []byte            `encrypt:"text,sealed"`
		Ptr        *string           `encrypt:"ptr,index=exact"`
		PtrSealed  []byte            `encrypt:"ptr,sealed"`
		Raw        []byte            `encrypt:"raw"`
		RawSealed  []byte            `encrypt:"raw,sealed"`
		Born       time.Time         `encrypt:"born"`
		BornSealed []byte            `encrypt:"born,sealed"`
		Last       *time.Time        `encrypt:"last"`
		LastSealed []byte            `encrypt:"last,sealed"`
		Tags       []string          `encrypt:"tags"`
		TagsSealed []byte            `encrypt:"tags,sealed"`
		Meta       map[string]string `encrypt:"meta"`
		MetaSealed []byte            `encrypt:"meta,sealed"`
		Sum        int64             `encrypt:"sum"`
		SumSealed  []byte            `encrypt:"sum,sealed"`
		City       string
	}
	k := newKeyring(t, encrypt.NewMemory(), &encrypt.Options{Index: encrypt.NewMemoryIndex()})
	table, err := encrypt.NewTable[everything](k, "deals", nil)
	require.NoError(t, err)
	ctx := acting("acme")
	born := time.Date(1980, 2, 29, 0, 0, 0, 0, time.UTC)
	word, empty := "слово", ""
	rows := []*everything{
		{Base: Base{"d1"}, Owner: "c1", Text: "x", Ptr: &word, Raw: []byte{0, 255}, Born: born, Last: &born, Tags: []string{"a"}, Meta: map[string]string{"k": "v"}, Sum: -7, City: "Омск"},
		{Base: Base{"d2"}, Owner: "c1", Ptr: &empty, Raw: []byte{}, Tags: []string{}, Meta: map[string]string{}},
		{Base: Base{"d3"}, Owner: "c2"},
	}
	before := make([]everything, len(rows))
	for i := range rows {
		before[i] = *rows[i]
	}
	entries, err := table.Seal(ctx, "acme", rows...)
	require.NoError(t, err)
	require.Len(t, entries.Entries, 1, "an empty value is sealed, but not indexed")
	require.Equal(t, []any{"acme", "c1", "deals", "d1", "ptr", uint32(1)}, []any{entries.Entries[0].Tenant, entries.Entries[0].Client, entries.Entries[0].Kind, entries.Entries[0].Record, entries.Entries[0].Field, entries.Entries[0].Version})

	require.NotNil(t, rows[1].PtrSealed, "an empty string is sealed")
	require.NotNil(t, rows[1].RawSealed)
	require.NotNil(t, rows[2].TextSealed)
	require.NotNil(t, rows[2].SumSealed, "a zero number is sealed")
	for _, null := range [][]byte{rows[2].PtrSealed, rows[2].RawSealed, rows[2].LastSealed, rows[2].TagsSealed, rows[2].MetaSealed} {
		require.Nil(t, null, "NULL stays NULL")
	}
	stored := make([]*everything, len(rows))
	for i, row := range rows { // as a database would bring them back
		stored[i] = &everything{Base: row.Base, Owner: row.Owner, City: row.City, Text: "stale", Raw: []byte("stale"),
			TextSealed: row.TextSealed, PtrSealed: row.PtrSealed, RawSealed: row.RawSealed, BornSealed: row.BornSealed,
			LastSealed: row.LastSealed, TagsSealed: row.TagsSealed, MetaSealed: row.MetaSealed, SumSealed: row.SumSealed}
	}
	require.NoError(t, table.Open(ctx, "acme", stored...))
	for i := range rows {
		require.Equal(t, rows[i], stored[i])
		require.Equal(t, before[i].Text, rows[i].Text, "sealing leaves the plain fields")
	}
}

func TestSealOverwritesWithNull(t *testing.T) {
	k := newKeyring(t, encrypt.NewMemory(), &encrypt.Options{Index: encrypt.NewMemoryIndex()})
	table, err := encrypt.NewTable[contact](k, "contacts", nil)
	require.NoError(t, err)
	row := page(1)[0]
	_, err = table.Seal(acting("acme"), "acme", row)
	require.NoError(t, err)
	row.Note = nil
	_, err = table.Seal(acting("acme"), "acme", row)
	require.NoError(t, err)
	require.Nil(t, row.NoteSealed, "the old value must not stay")
}

func TestTagsAreCheckedOnce(t *testing.T) {
	k := newKeyring(t, encrypt.NewMemory(), &encrypt.Options{Index: encrypt.NewMemoryIndex()})
	plain := newKeyring(t, encrypt.NewMemory(), nil)
	refused := map[string]func() error{
		"no sealed field": func() error {
			return tags[struct {
				ID string `encrypt:",record"`
				A  string `encrypt:"a"`
			}](k)
		},
		"no plain field": func() error {
			return tags[struct {
				ID string `encrypt:",record"`
				A  string `encrypt:"a"`
				AS []byte `encrypt:"a,sealed"`
				BS []byte `encrypt:"b,sealed"`
			}](k)
		},
		"sealed is a string": func() error {
			return tags[struct {
				ID string `encrypt:",record"`
				A  string `encrypt:"a"`
				AS string `encrypt:"a,sealed"`
			}](k)
		},
		"two plain fields": func() error {
			return tags[struct {
				ID string `encrypt:",record"`
				A  string `encrypt:"a"`
				B  string `encrypt:"a"`
				AS []byte `encrypt:"a,sealed"`
			}](k)
		},
		"two sealed fields": func() error {
			return tags[struct {
				ID string `encrypt:",record"`
				A  string `encrypt:"a"`
				AS []byte `encrypt:"a,sealed"`
				BS []byte `encrypt:"a,sealed"`
			}](k)
		},
		"no record": func() error {
			return tags[struct {
				A  string `encrypt:"a"`
				AS []byte `encrypt:"a,sealed"`
			}](k)
		},
		"two records": func() error {
			return tags[struct {
				ID string `encrypt:",record"`
				I2 string `encrypt:",record"`
				A  string `encrypt:"a"`
				AS []byte `encrypt:"a,sealed"`
			}](k)
		},
		"record is a number": func() error {
			return tags[struct {
				ID int    `encrypt:",record"`
				A  string `encrypt:"a"`
				AS []byte `encrypt:"a,sealed"`
			}](k)
		},
		"unknown index": func() error {
			return tags[struct {
				ID string `encrypt:",record"`
				A  string `encrypt:"a,index=soundex"`
				AS []byte `encrypt:"a,sealed"`
			}](k)
		},
		"unknown option": func() error {
			return tags[struct {
				ID string `encrypt:",record"`
				A  string `encrypt:"a,idnex=exact"`
				AS []byte `encrypt:"a,sealed"`
			}](k)
		},
		"index on a number": func() error {
			return tags[struct {
				ID string `encrypt:",record"`
				A  int    `encrypt:"a,index=exact"`
				AS []byte `encrypt:"a,sealed"`
			}](k)
		},
		"index without Options.Index": func() error { return tags[contact](plain) },
		"not exported": func() error {
			return tags[struct {
				ID string `encrypt:",record"`
				a  string `encrypt:"a"`
				AS []byte `encrypt:"a,sealed"`
			}](k)
		},
		"a function": func() error {
			return tags[struct {
				ID string `encrypt:",record"`
				A  func() `encrypt:"a"`
				AS []byte `encrypt:"a,sealed"`
			}](k)
		},
		"embedded pointer": func() error {
			return tags[struct {
				*Base
				A  string `encrypt:"a"`
				AS []byte `encrypt:"a,sealed"`
			}](k)
		},
		"nothing to seal": func() error {
			return tags[struct {
				ID string `encrypt:",record"`
			}](k)
		},
		"no struct": func() error { return tags[string](k) },
	}
	for name, refuse := range refused {
		t.Run(name, func(t *testing.T) { require.Error(t, refuse()) })
	}
	require.NoError(t, tags[contact](k))
	require.NoError(t, tags[embedded](k))
	_, err := encrypt.NewTable[contact](k, "", nil)
	require.Error(t, err)
	_, err = encrypt.NewTable[contact](nil, "contacts", nil)
	require.Error(t, err)
}

func tags[T any](k *encrypt.Keyring) error {
	_, err := encrypt.NewTable[T](k, "kind", nil)
	return err
}

func TestAPageCostsOneQuery(t *testing.T) {
	kek, store := newKEK(t), &counting{Store: encrypt.NewMemory()}
	n := &norm{}
	options := &encrypt.Options{Index: encrypt.NewMemoryIndex(), OnOpen: n.OnOpen}
	ctx := acting("acme")
	writer, err := encrypt.NewTable[contact](openKeyring(t, kek, store, options), "contacts", nil)
	require.NoError(t, err)
	rows := page(50)
	_, err = writer.Seal(ctx, "acme", rows...)
	require.NoError(t, err)
	require.EqualValues(t, 2, store.inserts.Load()-1, "the check of the KEK, the tenant's keyset, and all client keys in one call")

	reader := openKeyring(t, kek, store, options)
	table, err := encrypt.NewTable[contact](reader, "contacts", nil)
	require.NoError(t, err)
	store.loads.Store(0)
	kek.calls.Store(0)
	require.NoError(t, table.Open(ctx, "acme", rows...))
	require.EqualValues(t, 1, store.loads.Load())
	require.EqualValues(t, 1, kek.calls.Load())
	require.Len(t, n.asked, 1)
	require.Equal(t, "note 49", *rows[49].Note)

	store.leases.Store(0)
	_, err = table.Seal(ctx, "acme", rows...)
	require.NoError(t, err)
	require.EqualValues(t, 1, store.leases.Load(), "messages of a page are reserved in one call")
}

func TestRowsThatDoNotOpen(t *testing.T) {
	k := newKeyring(t, encrypt.NewMemory(), &encrypt.Options{Index: encrypt.NewMemoryIndex()})
	table, err := encrypt.NewTable[contact](k, "contacts", nil)
	require.NoError(t, err)
	ctx := acting("acme")
	rows := page(7)
	_, err = table.Seal(ctx, "acme", rows...)
	require.NoError(t, err)
	_, err = k.Erase(ctx, "acme", "c01")
	require.NoError(t, err)
	rows[2].NoteSealed[20] ^= 1
	rows[3].PhoneSealed, rows[4].PhoneSealed = rows[4].PhoneSealed, rows[3].PhoneSealed
	rows[5].ID = ""
	plantedText := []byte("+79990001122, planted plaintext that is long enough")
	rows[6].PhoneSealed = plantedText
	err = table.Open(ctx, "acme", append(rows, nil)...)

	failed, ok := errors.AsType[encrypt.RowErrors](err)
	require.True(t, ok, "%v", err)
	want := []struct {
		row   int
		field string
		err   error
	}{{1, "phone", crmguard.ErrErased}, {2, "note", encrypt.ErrForeign}, {3, "phone", encrypt.ErrForeign}, {4, "phone", encrypt.ErrForeign}, {5, "", nil}, {6, "phone", encrypt.ErrMalformed}, {7, "", nil}}
	require.Len(t, failed, len(want))
	for i, w := range want {
		require.Equal(t, w.row, failed[i].Row)
		require.Equal(t, w.field, failed[i].Field)
		if w.err != nil {
			require.ErrorIs(t, failed[i], w.err)
			require.ErrorIs(t, err, w.err)
		}
		if w.row < len(rows) {
			require.Empty(t, rows[w.row].Phone, "nothing of a row that failed is shown")
			require.Nil(t, rows[w.row].Note)
		}
	}
	require.Equal(t, "+7 912 345-67-89", rows[0].Phone, "the others are open")
	require.NotContains(t, err.Error(), "planted")
}

// A damaged record in the key store hurts its own client only.
func TestADamagedKeyHurtsItsClientOnly(t *testing.T) {
	kek, memory := newKEK(t), encrypt.NewMemory()
	options := &encrypt.Options{Index: encrypt.NewMemoryIndex()}
	ctx := acting("acme")
	table, err := encrypt.NewTable[contact](openKeyring(t, kek, memory, options), "contacts", nil)
	require.NoError(t, err)
	rows := page(3)
	_, err = table.Seal(ctx, "acme", rows...)
	require.NoError(t, err)
	damaged := &tampering{Store: memory, change: func(r *encrypt.Record) {
		if r.Scope.Name == "c01" {
			r.Wrapped[30] ^= 1
		}
	}}
	table, err = encrypt.NewTable[contact](openKeyring(t, kek, damaged, options), "contacts", nil)
	require.NoError(t, err)
	failed, ok := errors.AsType[encrypt.RowErrors](table.Open(ctx, "acme", rows...))
	require.True(t, ok)
	require.Len(t, failed, 1)
	require.ErrorIs(t, failed[0], encrypt.ErrDamaged)
	require.NotEmpty(t, rows[2].Phone)
}

func TestSealRefusesWholePages(t *testing.T) {
	k := newKeyring(t, encrypt.NewMemory(), &encrypt.Options{Index: encrypt.NewMemoryIndex()})
	table, err := encrypt.NewTable[contact](k, "contacts", nil)
	require.NoError(t, err)
	ctx := acting("acme")
	_, err = k.Erase(ctx, "acme", "c01")
	require.NoError(t, err)
	rows := page(3)
	_, err = table.Seal(ctx, "acme", rows...)
	require.ErrorIs(t, err, crmguard.ErrErased)
	e, ok := errors.AsType[*encrypt.RowError](err)
	require.True(t, ok)
	require.Equal(t, "c01", e.Record)
	for _, row := range rows {
		require.Nil(t, row.PhoneSealed, "no row was changed")
	}
	for name, call := range map[string]func() error{
		"foreign":   func() error { _, err := table.Seal(acting("other"), "acme", page(1)...); return err },
		"no tenant": func() error { _, err := table.Seal(ctx, "", page(1)...); return err },
		"no id":     func() error { _, err := table.Seal(ctx, "acme", &contact{}); return err },
		"nil row":   func() error { _, err := table.Seal(ctx, "acme", nil); return err },
		"open foreign": func() error {
			return table.Open(acting("other"), "acme", page(1)...)
		},
		"open nobody":    func() error { return table.Open(context.Background(), "acme") },
		"open no tenant": func() error { return table.Open(ctx, "") },
		"find foreign":   func() error { _, err := table.Find(acting("other"), "acme", "phone", "phone", "1"); return err },
		"find nobody":    func() error { _, err := table.Find(context.Background(), "acme", "phone", "phone", "1"); return err },
		"find no tenant": func() error { _, err := table.Find(ctx, "", "phone", "phone", "1"); return err },
		"find no index":  func() error { _, err := table.Find(ctx, "acme", "phone", "email", "1"); return err },
		"find no field":  func() error { _, err := table.Find(ctx, "acme", "nothing", "phone", "1"); return err },
	} {
		t.Run(name, func(t *testing.T) { require.Error(t, call()) })
	}
	_, err = table.Seal(ctx, "acme")
	require.NoError(t, err, "no rows are no error")
	require.NoError(t, table.Open(ctx, "acme"))
}
