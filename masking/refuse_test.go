package masking_test

import (
	"errors"
	"testing"

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
		"phone":   func(r *row) { r.Phone = "+7 ••• 67" },
		"cell":    func(r *row) { r.Mobile = "••• 23" },
		"name":    func(r *row) { r.Name = "А••• П•••" },
		"company": func(r *row) { r.Company = "•••" },
		"note":    func(r *row) { r.Note = &secret },
		"tags":    func(r *row) { r.Tags[0] = "•••" },
		"more":    func(r *row) { r.More["a"] = []any{"•••"} },
		"office":  func(r *row) { r.Address.Phone = "+7 ••• 67" },
		"blob":    func(r *row) { r.Blob = []byte("•••") },
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

// Whatever View masks, RefuseMasked refuses.
func TestRefuseWhatViewMasks(t *testing.T) {
	for _, clear := range []string{"name", "phone", "cell", "email", "card", "company"} {
		all := []string{"name", "phone", "cell", "email", "card", "company"}
		shown, err := masking.View(sample(), func(field string) bool { return field != clear })
		require.NoError(t, err)
		masked, ok := errors.AsType[*masking.MaskedError](masking.RefuseMasked(shown))
		require.True(t, ok, "%s of %v", clear, all)
		require.Equal(t, clear, masked.Field)
	}
}

func TestRefuseMaskedCycle(t *testing.T) {
	ring := &node{Name: "Анна"}
	ring.Next = ring
	require.ErrorContains(t, masking.RefuseMasked(ring), "too deep")
}
