package masking_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/masking"
)

type contact struct {
	ID      int64
	Code    string `mask:"-"`
	Name    string `mask:"name"`
	Phone   string `mask:"phone"`
	Mobile  string `mask:"phone,field=cell"`
	Email   string `mask:"email"`
	Card    string `mask:"card"`
	Company string
	Born    time.Time
	VIP     bool
}

func sample() contact {
	return contact{
		ID: 7, Code: "C-7", Name: "Анна Петрова", Phone: "8 (916) 123-45-67", Mobile: "+44 7700 900123",
		Email: "anna@example.org", Card: "4111 1111 1111 1111", Company: "Ромашка",
		Born: time.Date(1990, 5, 17, 0, 0, 0, 0, time.UTC), VIP: true,
	}
}

func TestView(t *testing.T) {
	row := sample()
	got, err := masking.View(row, nil)
	require.NoError(t, err)
	require.Equal(t, contact{
		ID: 7, Code: "C-7", Name: "А••• П•••", Phone: "••• 67", Mobile: "+44 ••• 23",
		Email: "a•••@•••.org", Card: "••• 1111", Company: "•••", Born: row.Born, VIP: true,
	}, got)
	require.Equal(t, sample(), row, "the row itself is untouched")

	got, err = masking.View(row, func(field string) bool { return field == "cell" || field == "company" })
	require.NoError(t, err)
	require.Equal(t, "+44 7700 900123", got.Mobile)
	require.Equal(t, "Ромашка", got.Company)
	require.Equal(t, "••• 67", got.Phone)
}

func BenchmarkView(b *testing.B) {
	row := sample()
	b.ReportAllocs()
	for b.Loop() {
		_, _ = masking.View(row, nil)
	}
}
