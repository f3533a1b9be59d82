package masking_test

import (
	"database/sql"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/masking"
)

func TestRefuseMasked(t *testing.T) {
	type address struct {
		Phone string `mask:"phone,field=office"`
	}
	type row struct {
		contact
		Note    *string `mask:"text"`
		Tags    []string
		More    map[string]any `mask:"text"`
		Address *address
		Open    string `mask:"-"`
		Blob    []byte `mask:"text"`
	}
	note := "• ждёт договор\n• любит цифры"
	clean := func() *row {
		return &row{contact: sample(), Note: &note, Tags: []string{"vip"}, More: map[string]any{"a": 1}, Address: &address{"+7 916 123-45-67"}}
	}
	require.NoError(t, masking.RefuseMasked(clean()))
	require.NoError(t, masking.RefuseMasked(*clean()))
	require.NoError(t, masking.RefuseMasked(nil))
	require.NoError(t, masking.RefuseMasked((*row)(nil)))

	secret := "звонить ••• или 89161234567"
	for field, spoil := range map[string]func(*row){
		"phone":          func(r *row) { r.Phone = "+7 ••• 67" },
		"cell":           func(r *row) { r.Mobile = "••• 23" },
		"name":           func(r *row) { r.Name = "А••• П•••" },
		"company":        func(r *row) { r.Company = "•••" },
		"note":           func(r *row) { r.Note = &secret },
		"tags":           func(r *row) { r.Tags[0] = "•••" },
		"more":           func(r *row) { r.More["a"] = []any{"•••"} },
		"address.office": func(r *row) { r.Address.Phone = "+7 ••• 67" },
		"blob":           func(r *row) { r.Blob = []byte("•••") },
	} {
		r := clean()
		spoil(r)
		err := masking.RefuseMasked(r)
		masked, ok := errors.AsType[*masking.MaskedError](err)
		require.True(t, ok, field)
		require.Equal(t, field, masked.Field)
		require.NotContains(t, err.Error(), "•")
		require.NotContains(t, err.Error(), "916")
	}

	r := clean()
	r.Open = "•••" // never masked, so it is what somebody wrote
	require.NoError(t, masking.RefuseMasked(r))
}

// Whatever View masks in texts, RefuseMasked refuses. What it makes zero cannot be
// told from a zero: see the documentation of RefuseMasked.
func TestRefuseWhatViewMasks(t *testing.T) {
	type row struct {
		contact
		Note   *string        `mask:"text"`
		Pin    string         `mask:"secret"`
		PinPtr *string        `mask:"secret"`
		Blob   []byte         `mask:"phone"`
		Runes  []rune         `mask:"phone"`
		Tags   []string       `mask:"name"`
		Null   sql.NullString `mask:"phone"`
		Any    any            `mask:"name"`
		More   map[string]any
	}
	note, number := "жена: +7 916 123-45-67", "+7 916 123-45-67"
	full := row{
		contact: sample(), Note: &note, Pin: "1", PinPtr: &note, Blob: []byte(number), Runes: []rune(number), Tags: []string{"Анна"},
		Null: sql.NullString{String: number, Valid: true}, Any: "Анна", More: map[string]any{"a": []any{"b"}},
	}

	for _, field := range []string{
		"name", "phone", "cell", "email", "card", "company", "note", "pin", "pinptr", "blob", "runes", "tags", "null", "any", "more",
	} {
		shown, err := masking.View(full, func(asked string) bool { return asked != field && !strings.HasPrefix(asked, field+".") })
		require.NoError(t, err)
		masked, ok := errors.AsType[*masking.MaskedError](masking.RefuseMasked(shown))
		require.True(t, ok, field)
		require.Equal(t, field, masked.Field)
	}

	// What it cannot refuse.
	type silent struct {
		Born  time.Time `mask:"secret"`
		Count int       `mask:"phone"`
		Flag  bool      `mask:"secret"`
		Blob  []byte
		Hash  [4]byte
	}
	shown, err := masking.View(silent{time.Unix(1, 0), 1, true, []byte("a"), [4]byte{1}}, nil)
	require.NoError(t, err)
	require.Zero(t, shown)
	require.NoError(t, masking.RefuseMasked(shown))
}

func TestRefuseMaskedCycle(t *testing.T) {
	ring := &node{Name: "Анна"}
	ring.Next = ring
	require.ErrorContains(t, masking.RefuseMasked(ring), "too deep")
}
