package encrypt_test

import (
	"bytes"
	"context"
	"database/sql"
	"database/sql/driver"
	"math/big"
	"reflect"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/encrypt"
)

func TestCellsRoundTrip(t *testing.T) {
	store := &counting{Store: encrypt.NewMemory()}
	n := &norm{}
	k := newKeyring(t, store, &encrypt.Options{OnOpen: n.OnOpen})
	ctx := acting("acme")
	cells := []encrypt.Cell{
		cell("c1", "r1", "name", "Anna"), cell("c1", "r1", "note", ""), cell("c2", "r2", "name", "Boris"),
		cell("c1", "r1", "phone", "+79161234567"), cell("", "r3", "secret", "tenant's own"),
	}
	cells = append(cells, encrypt.Cell{Place: cells[0].Place})
	cells[5].Place.Field = "nothing"
	require.NoError(t, k.SealAll(ctx, "acme", cells))
	require.Nil(t, cells[5].Sealed, "NULL stays NULL")
	opened := make([]encrypt.Cell, len(cells))
	for i, c := range cells {
		opened[i] = encrypt.Cell{Place: c.Place, Sealed: c.Sealed, Plaintext: []byte("stale")}
	}
	store.loads.Store(0)
	require.NoError(t, k.OpenAll(ctx, "acme", opened))
	require.Zero(t, store.loads.Load())
	require.Equal(t, [][]string{{"c1", "c2"}}, n.asked, "once, each client once, and not for the tenant's own")
	for i := range cells {
		require.NoError(t, opened[i].Err)
		require.Equal(t, cells[i].Plaintext, opened[i].Plaintext, i)
	}
	require.NotNil(t, opened[1].Plaintext, "empty is not NULL")
	one, err := k.Open(ctx, cells[3].Place, cells[3].Sealed)
	require.NoError(t, err)
	require.Equal(t, "+79161234567", string(one), "one by one it is the same")
	_ = append(opened[0].Plaintext, "overwrites"...)
	require.Equal(t, "Boris", string(opened[2].Plaintext), "cells do not share their memory's ends")
}

func TestCellsAreRefusedWhole(t *testing.T) {
	k := newKeyring(t, encrypt.NewMemory(), nil)
	ctx := acting("acme")
	foreign := cell("c1", "r1", "name", "x")
	foreign.Place.Tenant = "other"
	huge := cell("c1", "r1", "name", "")
	huge.Plaintext = make([]byte, 64<<20+1)
	badPad := cell("c1", "r1", "name", "x")
	badPad.Pad = -1
	_, err := k.Erase(ctx, "acme", "gone")
	require.NoError(t, err)
	for name, bad := range map[string]encrypt.Cell{"foreign": foreign, "huge": huge, "pad": badPad, "erased": cell("gone", "r9", "name", "x")} {
		cells := []encrypt.Cell{cell("c1", "r1", "name", "x"), bad}
		err := k.SealAll(ctx, "acme", cells)
		require.Error(t, err, name)
		e, ok := err.(*encrypt.RowError) //nolint:errorlint // exactly this
		require.True(t, ok, name)
		require.Equal(t, 1, e.Row, name)
		require.Nil(t, cells[0].Sealed, "%s: no cell was changed", name)
	}
	require.Error(t, k.SealAll(ctx, "", nil))
	require.Error(t, k.SealAll(acting("other"), "acme", []encrypt.Cell{cell("c1", "r1", "name", "x")}))
	cells := []encrypt.Cell{cell("c1", "r1", "name", "x"), foreign}
	require.NoError(t, k.SealAll(ctx, "acme", cells[:1]))
	require.Error(t, k.OpenAll(context.Background(), "acme", cells[:1]), "nobody is in the context")
	require.Nil(t, cells[0].Plaintext)
	cells[1].Sealed = cells[0].Sealed
	require.NoError(t, k.OpenAll(ctx, "acme", cells))
	require.NoError(t, cells[0].Err)
	require.Error(t, cells[1].Err, "a cell of another tenant")
}

func TestPaddingHidesLengths(t *testing.T) {
	k := newKeyring(t, encrypt.NewMemory(), nil)
	ctx := acting("acme")
	for _, pad := range []int{1, 16, 64} {
		sizes := map[int]bool{}
		for length := range 3 * pad {
			c := cell("c1", "r1", "note", "")
			c.Pad, c.Plaintext = pad, bytes.Repeat([]byte{0x80}, length)
			if length%2 == 1 {
				clear(c.Plaintext) // what looks like padding is none
			}
			cells := []encrypt.Cell{c}
			require.NoError(t, k.SealAll(ctx, "acme", cells))
			require.Zero(t, (len(cells[0].Sealed)-encrypt.Overhead)%pad)
			sizes[len(cells[0].Sealed)] = true
			plaintext, err := k.Open(ctx, c.Place, cells[0].Sealed)
			require.NoError(t, err)
			require.Equal(t, c.Plaintext, plaintext)

			cells[0].Sealed[3] = 1 // "not padded" is bound, too
			_, err = k.Open(ctx, c.Place, cells[0].Sealed)
			require.ErrorIs(t, err, encrypt.ErrForeign)
		}
		require.Len(t, sizes, 3)
	}
	type row struct {
		ID         string `encrypt:",record"`
		Note       string `encrypt:"note,pad=32"`
		NoteSealed []byte `encrypt:"note,sealed"`
	}
	table, err := encrypt.NewTable[row](k, "notes", nil)
	require.NoError(t, err)
	short, long := &row{ID: "r1", Note: "yes"}, &row{ID: "r2", Note: "no, and do not ask again"}
	_, err = table.Seal(ctx, "acme", short, long)
	require.NoError(t, err)
	require.Len(t, long.NoteSealed, len(short.NoteSealed))
	short.Note = ""
	require.NoError(t, table.Open(ctx, "acme", short, long))
	require.Equal(t, "yes", short.Note)
	for _, bad := range []string{"pad=0", "pad=-1", "pad=x", "pad=", "pad=16,pad=32", "pad=999999999"} {
		field := reflect.StructField{Name: "Note", Type: reflect.TypeFor[string](), Tag: reflect.StructTag(`encrypt:"note,` + bad + `"`)}
		id, _ := reflect.TypeFor[row]().FieldByName("ID")
		sealed, _ := reflect.TypeFor[row]().FieldByName("NoteSealed")
		_, err := encrypt.NewModel(k, "notes", reflect.StructOf([]reflect.StructField{id, field, sealed}), nil)
		require.Error(t, err, bad)
	}
}

func TestCellsWithOtherPaddingAreRefused(t *testing.T) {
	k := newKeyring(t, encrypt.NewMemory(), nil)
	for _, pad := range []int{-1, 1<<16 + 1} {
		c := cell("c1", "r1", "note", "x")
		c.Pad = pad
		require.ErrorContains(t, k.SealAll(acting("acme"), "acme", []encrypt.Cell{c}), "64 KiB")
	}
}

// amount is a type of a host, NULL when it is not known.
type amount struct {
	Cents int64
	Known bool
}

func (a amount) Value() (driver.Value, error) {
	if !a.Known {
		return nil, nil
	}
	return a.Cents, nil
}

// starredText is text of which logs shall not have more than stars.
type starredText string

func (starredText) MarshalText() ([]byte, error) { return []byte("***"), nil }

func TestTextIsSealedAsItIsWhateverItSaysInJSON(t *testing.T) {
	type row struct {
		ID        string                `encrypt:",record"`
		Pass      starredText           `encrypt:"pass,index=exact"`
		PassSeal  []byte                `encrypt:"pass,sealed"`
		Maybe     *starredText          `encrypt:"maybe"`
		MaybeSeal []byte                `encrypt:"maybe,sealed"`
		Null      sql.Null[starredText] `encrypt:"null"`
		NullSeal  []byte                `encrypt:"null,sealed"`
	}
	table, err := encrypt.NewTable[row](newKeyring(t, encrypt.NewMemory(), &encrypt.Options{Index: encrypt.NewMemoryIndex()}), "people", nil)
	require.NoError(t, err)
	text := starredText("4510 123456")
	sealed := &row{ID: "r1", Pass: text, Maybe: &text, Null: sql.Null[starredText]{V: text, Valid: true}}
	_, err = table.Seal(acting("acme"), "acme", sealed)
	require.NoError(t, err)
	opened := &row{ID: "r1", PassSeal: sealed.PassSeal, MaybeSeal: sealed.MaybeSeal, NullSeal: sealed.NullSeal}
	require.NoError(t, table.Open(acting("acme"), "acme", opened))
	require.Equal(t, sealed, opened)
}

func TestNullTypes(t *testing.T) {
	type row struct {
		ID        string            `encrypt:",record"`
		Text      sql.NullString    `encrypt:"text,index=exact"`
		TextSeal  []byte            `encrypt:"text,sealed"`
		Generic   sql.Null[string]  `encrypt:"generic,index=exact"`
		GenSeal   []byte            `encrypt:"generic,sealed"`
		Count     sql.NullInt64     `encrypt:"count"`
		CountSeal []byte            `encrypt:"count,sealed"`
		Born      sql.NullTime      `encrypt:"born"`
		BornSeal  []byte            `encrypt:"born,sealed"`
		Tags      sql.Null[[]tag]   `encrypt:"tags"`
		TagsSeal  []byte            `encrypt:"tags,sealed"`
		Sum       amount            `encrypt:"sum"`
		SumSeal   []byte            `encrypt:"sum,sealed"`
		Own       listOf[tag]       `encrypt:"own"`
		OwnSeal   []byte            `encrypt:"own,sealed"`
		Big       big.Int           `encrypt:"big"` // only pointers have its methods
		BigSeal   []byte            `encrypt:"big,sealed"`
		Maybe     sql.Null[big.Int] `encrypt:"maybe"`
		MaybeSeal []byte            `encrypt:"maybe,sealed"`
	}
	k := newKeyring(t, encrypt.NewMemory(), &encrypt.Options{Index: encrypt.NewMemoryIndex()})
	table, err := encrypt.NewTable[row](k, "people", nil)
	require.NoError(t, err)
	ctx := acting("acme")
	empty, full := &row{ID: "r1"}, &row{ID: "r2",
		Text: sql.NullString{String: "x", Valid: true}, Generic: sql.Null[string]{Valid: true}, Count: sql.NullInt64{Valid: true},
		Born: sql.NullTime{Time: time.Date(1980, 2, 29, 0, 0, 0, 0, time.UTC), Valid: true},
		Tags: sql.Null[[]tag]{V: []tag{{"vip", 1}}, Valid: true}, Sum: amount{Cents: 5, Known: true}, Own: listOf[tag]{Items: []tag{{"a", 2}}},
		Big: *big.NewInt(1 << 40), Maybe: sql.Null[big.Int]{V: *big.NewInt(-7), Valid: true}}
	entries, err := table.Seal(ctx, "acme", empty, full)
	require.NoError(t, err)
	require.Len(t, entries.Entries, 1)
	for _, null := range [][]byte{empty.TextSeal, empty.GenSeal, empty.CountSeal, empty.BornSeal, empty.TagsSeal, empty.SumSeal, empty.MaybeSeal} {
		require.Nil(t, null)
	}
	want := *full
	for _, sealed := range [][]byte{full.TextSeal, full.GenSeal, full.CountSeal, full.BornSeal, full.TagsSeal, full.SumSeal, full.OwnSeal, full.BigSeal, full.MaybeSeal} {
		require.NotNil(t, sealed)
	}
	full.Text, full.Generic, full.Count, full.Born, full.Tags, full.Sum, full.Own = sql.NullString{String: "stale", Valid: true}, sql.Null[string]{}, sql.NullInt64{}, sql.NullTime{}, sql.Null[[]tag]{}, amount{}, listOf[tag]{}
	full.Big, full.Maybe = big.Int{}, sql.Null[big.Int]{}
	empty.Text = sql.NullString{String: "stale", Valid: true}
	require.NoError(t, table.Open(ctx, "acme", empty, full))
	require.Equal(t, want, *full)
	require.False(t, empty.Text.Valid)
}

type tag struct {
	Name string
	Rank int
}

type listOf[T any] struct{ Items []T }

func TestModelSealsSomeFields(t *testing.T) {
	k := newKeyring(t, encrypt.NewMemory(), &encrypt.Options{Index: encrypt.NewMemoryIndex()})
	model, err := encrypt.NewModel(k, "contacts", reflect.TypeFor[contact](), nil)
	require.NoError(t, err)
	require.Equal(t, []encrypt.ModelField{{Name: "phone", Plain: []int{1}, Sealed: []int{2}, Indexed: true}, {Name: "note", Plain: []int{3}, Sealed: []int{4}}}, model.Fields())
	ctx := acting("acme")
	row := page(1)[0]
	entries, err := model.Seal(ctx, "acme", []string{"note"}, row)
	require.NoError(t, err)
	require.Equal(t, encrypt.IndexEntries{Tenant: "acme", Kind: "contacts"}, entries, "nothing is replaced")
	require.Nil(t, row.PhoneSealed)
	require.NotNil(t, row.NoteSealed)
	entries, err = model.Seal(ctx, "acme", nil, row)
	require.NoError(t, err)
	require.Len(t, entries.Entries, 1)
	row.Phone = ""
	require.NoError(t, model.Open(ctx, "acme", row))
	require.Equal(t, "+7 912 345-67-89", row.Phone)
	_, err = model.Seal(ctx, "acme", []string{"notes"}, row)
	require.Error(t, err)
	require.Error(t, model.Open(ctx, "acme", *row))
	require.Error(t, model.Open(ctx, "acme", nil))
	require.Error(t, model.Open(ctx, "acme", (*contact)(nil)))
}

// However many cells there are, the key store is called once for each purpose.
func TestCallsOfABatch(t *testing.T) {
	kek, store := newKEK(t), &counting{Store: encrypt.NewMemory()}
	here, there := openKeyring(t, kek, store, nil), openKeyring(t, kek, store, nil)
	ctx := acting("acme")
	of := func(clients ...string) []encrypt.Cell {
		cells := make([]encrypt.Cell, len(clients))
		for i, client := range clients {
			cells[i] = cell(client, "r", "name", "x")
		}
		return cells
	}
	calls := func() [3]int64 { return [3]int64{store.loads.Swap(0), store.inserts.Swap(0), store.leases.Swap(0)} }
	require.NoError(t, here.SealAll(ctx, "acme", of("c1", "c2")))
	calls()
	require.NoError(t, here.SealAll(ctx, "acme", of("c3", "c4", "c5")))
	require.Equal(t, [3]int64{1, 1, 0}, calls(), "new clients: the first messages come with the key")
	require.NoError(t, there.SealAll(ctx, "acme", of("c1", "c2", "c6", "c7")))
	require.Equal(t, [3]int64{1, 1, 1}, calls(), "some of them new")

	for _, client := range []string{"c1", "c2"} {
		_, err := here.Rotate(ctx, dataScope(client))
		require.NoError(t, err)
	}
	cells := of("c1", "c2", "c3", "c4")
	require.NoError(t, here.SealAll(ctx, "acme", cells))
	calls()
	require.NoError(t, there.OpenAll(ctx, "acme", cells))
	require.Equal(t, [3]int64{2, 0, 0}, calls(), "versions that are new to it, and clients that are")
	require.NoError(t, there.OpenAll(ctx, "acme", cells))
	require.Zero(t, calls())

	clock := newClock(t)
	slow := openKeyring(t, kek, store, &encrypt.Options{OnOpen: func(context.Context, string, []string) error {
		clock.Advance(encrypt.Lease)
		return nil
	}})
	require.NoError(t, slow.OpenAll(ctx, "acme", cells))
	require.NoError(t, cells[3].Err)
	require.Equal(t, [3]int64{2, 0, 0}, calls(), "keys that ran out while OnOpen was asked are read again together")
}
