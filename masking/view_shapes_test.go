package masking_test

import (
	"database/sql"
	"encoding/json"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf16"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/masking"
)

type (
	base struct {
		Name string
		note string // what marshallers of base could show
	}
	deepBase struct{ base }
	Base     struct{ Name string }
	stamp    = time.Time

	rowOfBase   struct{ base }
	rowOfDeep   struct{ deepBase }
	rowOfTagged struct {
		base `mask:"phone"`
	}
	rowOfPointer struct{ *base }
	rowOfStamp   struct {
		stamp `mask:"secret"`
	}
	rowOfStamps struct {
		*stamp `mask:"secret"`
	}
)

// Structs embedded by a private name can be read through reflection and not set.
func TestViewEmbeddedPrivate(t *testing.T) {
	b := base{leak, leak}
	for _, row := range []any{
		rowOfBase{b}, &rowOfBase{b}, rowOfDeep{deepBase{b}}, []rowOfDeep{{deepBase{b}}}, rowOfTagged{b}, rowOfPointer{&b}, &rowOfPointer{&b},
		map[string]rowOfBase{"a": {b}}, struct {
			Row rowOfBase `mask:"name"`
		}{rowOfBase{b}},
	} {
		require.True(t, leaks(row), "%T", row)
		got, err := masking.View(row, nil)
		require.NoError(t, err)
		require.False(t, leaks(got), "%T %+v", row, got)
		require.True(t, leaks(row), "the row is untouched")
		require.NoError(t, masking.RefuseMasked(row))
	}
	got, err := masking.View(rowOfBase{b}, nil)
	require.NoError(t, err)
	require.Equal(t, rowOfBase{base{Name: "•••"}}, got)

	// Shown in the clear, what is private stays.
	clear, err := masking.View(struct {
		Row rowOfBase `mask:"-"`
	}{rowOfBase{b}}, nil)
	require.NoError(t, err)
	require.Equal(t, rowOfBase{b}, clear.Row)

	now := time.Unix(1, 0)
	stamped, err := masking.View(rowOfStamp{now}, nil)
	require.NoError(t, err)
	require.Zero(t, stamped)
	stamps, err := masking.View(rowOfStamps{&now}, nil)
	require.NoError(t, err)
	require.Zero(t, stamps)
	stamped, err = masking.View(rowOfStamp{now}, func(field string) bool { return field == "stamp" })
	require.NoError(t, err)
	require.Equal(t, now, stamped.stamp)
}

// Clear is asked for the whole path of a field.
func TestViewPaths(t *testing.T) {
	type person struct {
		Name  string `mask:"name"`
		Phone string `mask:"phone,field=cell"`
	}
	type row struct {
		Name    string `mask:"name"`
		Manager person
		Boss    *person `mask:"text,field=head"`
		Team    []person
		By      map[string]*person `mask:"-"`
		Any     any
		Base
		*person
	}
	anna := person{"Анна", "+7 916 123-45-67"}
	full := row{
		Name: "Мария", Manager: anna, Boss: &anna, Team: []person{anna}, By: map[string]*person{"x": &anna}, Any: anna,
		Base: Base{"Ольга"},
	}
	var asked []string
	got, err := masking.View(full, func(field string) bool {
		asked = append(asked, field)
		return field == "name"
	})
	require.NoError(t, err)
	require.Equal(t, []string{
		"name", "manager", "manager.name", "manager.cell", "head", "head.name", "head.cell", "team", "team.name", "team.cell",
		"by.name", "by.cell", "any", "any.name", "any.cell", "name",
	}, asked)
	require.Equal(t, "Мария", got.Name)
	require.Equal(t, "Ольга", got.Base.Name, "an embedded struct's fields are the row's")
	require.Equal(t, "А•••", got.Manager.Name)
	require.Equal(t, "А•••", got.Boss.Name)

	got, err = masking.View(full, func(field string) bool { return field == "manager.name" || field == "by.cell" })
	require.NoError(t, err)
	require.Equal(t, "М•••", got.Name)
	require.Equal(t, "Анна", got.Manager.Name)
	require.Equal(t, "А•••", got.Boss.Name)
	require.Equal(t, anna.Phone, got.By["x"].Phone)

	for field, spoil := range map[string]func(*row){
		"name": func(r *row) { r.Base.Name = "•••" }, "manager.name": func(r *row) { r.Manager.Name = "А•••" },
		"head.cell": func(r *row) { r.Boss = &person{Phone: "•••"} }, "team.name": func(r *row) { r.Team = []person{{Name: "•••"}} },
		"by.name": func(r *row) { r.By = map[string]*person{"x": {Name: "•••"}} }, "any.cell": func(r *row) { r.Any = person{Phone: "•••"} },
	} {
		r := full
		spoil(&r)
		masked, ok := errors.AsType[*masking.MaskedError](masking.RefuseMasked(r))
		require.True(t, ok, field)
		require.Equal(t, field, masked.Field)
	}
}

// Nobody can tell whether there is a secret.
func TestViewSecret(t *testing.T) {
	type row struct {
		Text    string           `mask:"secret"`
		Pointer *string          `mask:"secret"`
		Bytes   []byte           `mask:"secret"`
		Runes   []rune           `mask:"secret"`
		Units   []uint16         `mask:"secret"`
		List    []string         `mask:"secret"`
		Flag    bool             `mask:"secret"`
		FlagPtr *bool            `mask:"secret"`
		Count   *int             `mask:"secret"`
		Born    *time.Time       `mask:"secret"`
		Any     any              `mask:"secret"`
		Err     error            `mask:"secret"`
		Map     map[string]int   `mask:"secret"`
		Numbers map[int]string   `mask:"secret"`
		Structs []Base           `mask:"secret"`
		Struct  *Base            `mask:"secret"`
		Nested  Base             `mask:"secret"`
		Null    sql.NullString   `mask:"secret"`
		NullInt sql.NullInt64    `mask:"secret"`
		NullAny sql.Null[[]byte] `mask:"secret"`
	}
	s, yes, n, born := leak, true, 1, time.Unix(1, 0)
	some := row{
		s, &s, []byte(s), []rune(s), utf16.Encode([]rune(s)), []string{s, s}, true, &yes, &n, &born, s, errors.New(s), map[string]int{s: 1},
		map[int]string{1: s}, []Base{{s}, {s}}, &Base{s}, Base{s}, sql.NullString{String: s, Valid: true}, sql.NullInt64{Int64: 1, Valid: true},
		sql.Null[[]byte]{V: []byte(s), Valid: true},
	}
	none, err := masking.View(row{}, nil)
	require.NoError(t, err)
	got, err := masking.View(some, nil)
	require.NoError(t, err)
	require.Equal(t, none, got)
	require.False(t, leaks(got))
	require.Equal(t, "•••", *got.Pointer)
	require.Equal(t, "•••", string(got.Bytes))
	require.Equal(t, []string{"•••"}, got.List)
	require.False(t, got.Null.Valid)

	// The check notices each field that tells.
	for i := range reflect.TypeFor[row]().NumField() {
		told := got
		reflect.ValueOf(&told).Elem().Field(i).Set(reflect.ValueOf(some).Field(i))
		require.NotEqual(t, none, told)
	}
	j, err := json.Marshal(none)
	require.NoError(t, err)
	require.NotContains(t, string(j), "null,\"Bytes")

	// Without a tag or under another one, what is empty stays empty.
	other, err := masking.View(struct {
		Null sql.NullString `mask:"phone"`
		Ptr  *string        `mask:"phone"`
		Flag bool           `mask:"phone"`
	}{Flag: true}, nil)
	require.NoError(t, err)
	require.Equal(t, sql.NullString{}, other.Null)
	require.Nil(t, other.Ptr)
	require.True(t, other.Flag)
}

// Runes and UTF-16 are text, as bytes are.
func TestViewRunes(t *testing.T) {
	type named []rune
	type row struct {
		Runes   []rune
		Units   []uint16
		Array   [20]rune
		Units2  [20]uint16
		Tagged  []rune   `mask:"phone"`
		Tagged2 []uint16 `mask:"phone"`
		Tagged3 [20]rune `mask:"phone"`
		Named   named    `mask:"name"`
		Open    []rune   `mask:"-"`
		Lists   [][]rune
	}
	r := row{
		Runes: []rune(leak), Units: utf16.Encode([]rune(leak)), Tagged: []rune("+7 916 123-45-67"), Tagged2: utf16.Encode([]rune("+7 916 123-45-67")),
		Named: named("Анна"), Lists: [][]rune{[]rune(leak)},
	}
	copy(r.Array[:], []rune(leak))
	copy(r.Units2[:], r.Units)
	copy(r.Tagged3[:], []rune(leak))
	for _, v := range []any{r.Runes, r.Units, r.Array, r.Units2, r.Tagged3, r.Lists} {
		require.True(t, leaks(v), "%T", v)
	}
	r.Open = []rune("open")
	got, err := masking.View(r, nil)
	require.NoError(t, err)
	require.False(t, leaks(got))
	require.Nil(t, got.Runes)
	require.Nil(t, got.Units)
	require.Zero(t, got.Array)
	require.Equal(t, "+7 ••• 67", string(got.Tagged))
	require.Equal(t, "+7 ••• 67", string(utf16.Decode(got.Tagged2)))
	require.Equal(t, "А•••", string(got.Named))
	require.Equal(t, "open", string(got.Open))
	require.Equal(t, "TOPSECRET", string(r.Runes[:9]))

	for _, spoiled := range []row{{Tagged: got.Tagged}, {Tagged2: got.Tagged2}, {Named: got.Named}} {
		_, ok := errors.AsType[*masking.MaskedError](masking.RefuseMasked(spoiled))
		require.True(t, ok)
	}
}

// What many references share is not copied for each of them without end.
func TestViewShared(t *testing.T) {
	blob, numbers := make([]byte, 1<<20), make([]int, 1<<17)
	words := slices.Repeat([]string{"anna"}, 1<<16)
	text := strings.Repeat("hostile ", 1<<13)
	object := map[string]int{}
	for i := range 1 << 14 {
		object[time.Unix(int64(i), 0).String()] = i
	}
	for name, row := range map[string]any{
		"bytes": struct {
			A [][]byte `mask:"-"`
		}{slices.Repeat([][]byte{blob}, 1000)},
		"numbers": slices.Repeat([][]int{numbers}, 1000),
		"words":   slices.Repeat([][]string{words}, 1000),
		"arrays":  slices.Repeat([]*[1 << 17]int{new([1 << 17]int)}, 1000),
		"boxed":   slices.Repeat([]any{[1 << 17]int{}}, 1000),
		"maps":    slices.Repeat([]map[string]int{object}, 1000),
		"nothing": make([]struct{}, 1<<50),
		"texts": struct {
			A []string `mask:"text"`
		}{slices.Repeat([]string{text}, 10000)},
	} {
		_, err := masking.View(row, nil)
		require.ErrorContains(t, err, "too large", name)
	}
	_, err := masking.View([1 << 50]struct{}{}, nil)
	require.NoError(t, err)
	require.ErrorContains(t, masking.RefuseMasked(slices.Repeat([][]string{words}, 10000)), "too large")
	_, err = masking.View(slices.Repeat([][]int{numbers}, 10), nil)
	require.NoError(t, err)
}
