package phone

import (
	"strings"
	"testing"

	"github.com/nyaruka/phonenumbers"
	"github.com/stretchr/testify/require"
)

func found(text string) []string {
	var all []string
	for _, f := range Find(text) {
		all = append(all, text[f[0]:f[1]])
	}
	return all
}

func TestFind(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"звонить +7 916 123-45-67 после 18:00", "+7 916 123-45-67"},
		{"8 (916) 123-45-67, 89161234568", "8 (916) 123-45-67|89161234568"},
		{"тел89161234567", "89161234567"},
		{"wa.me/79161234567?text=1", "79161234567"},
		{"(495) 123-45-67", "(495) 123-45-67"},
		{"9161234567", "9161234567"},
		{"916-123-45-67", "916-123-45-67"},
		{"8 (3952) 12-05-24", "8 (3952) 12-05-24"},
		{"вн. 123-45-67 и 45-67-89", "123-45-67|45-67-89"},
		{"0049 30 901820", "0049 30 901820"},
		{"011 7 916 123 45 67", "011 7 916 123 45 67"},
		{"8-10-49-30-901820", "8-10-49-30-901820"},
		{"030/901820 oder 0172 1234567", "030/901820|0172 1234567"},
		{"call 07700 900123 or 0113 496 0000", "07700 900123|0113 496 0000"},
		{"(212) 555-0123, 212.555.0123", "(212) 555-0123|212.555.0123"},
		{"1-212-555-0123", "1-212-555-0123"},
		{"555-0123", "555-0123"},
		{"067 123 45 67", "067 123 45 67"},
		{"67 123-45-67", "67 123-45-67"},
		{"380671234567", "380671234567"},
		{"998 90 123 45 67", "998 90 123 45 67"},
		{"01 70 18 99 00", "01 70 18 99 00"},
		{"8 9 1 6 1 2 3 4 5 6 7", "8 9 1 6 1 2 3 4 5 6 7"},
		{"9.1.6.1.2.3.4.5.6.7", "9.1.6.1.2.3.4.5.6.7"},
		{"８９１６１２３４５６７", "８９１６１２３４５６７"},
		{"8\u200b916\u200b123\u200b45\u200b67", "8\u200b916\u200b123\u200b45\u200b67"},
		{"8️⃣9️⃣1️⃣6️⃣1️⃣2️⃣3️⃣4️⃣5️⃣6️⃣7️⃣", "8️⃣9️⃣1️⃣6️⃣1️⃣2️⃣3️⃣4️⃣5️⃣6️⃣7"},
		{"8\u00a0916\u2009123–45—67", "8\u00a0916\u2009123–45—67"},
		{"15.01.2024 8 916 123-45-67", "8 916 123-45-67"},
		{"15.01.24 8 916 1234567", "8 916 1234567"},
		{"05-01-24 8 916 1234567", "8 916 1234567"},
		{"+7 916 123-45-67 89161234568", "+7 916 123-45-67|89161234568"},
		{"+7 916 123-45-67 2 шт", "+7 916 123-45-67"},
		{"+79161234567+79161234568", "+79161234567|+79161234568"},
		{"+7 (916 123-45-67", "+7 (916 123-45-67"},
		{"+999 123 456 789", "+999 123 456 789"},
		{"заказ 123 8 916 123-45-67", "8 916 123-45-67"},
		{"1 500 000 8 916 123-45-67", "8 916 123-45-67"},
	} {
		require.Equal(t, strings.Split(c.want, "|"), found(c.text), c.text)
	}
}

func TestFindNothing(t *testing.T) {
	for _, text := range []string{
		"", "12345", "заказ 12345", "№ 2024-000123", "ORD-2024-000123", "20240115-7",
		"1 500 000 руб.", "1 500 000 000 ₽", "1'500'000.00", "1,500,000.00", "$25,000.00", "100-2000 руб", "500000",
		"15.01.2024 10:30", "2024-01-15 12:30", "2024-01-15T12:30:00Z", "01/15/2024", "12-05-24", "10-20-30", "12.05.24",
		"192.168.100.200", "10.0.0.1", "212.168.10.15",
		"3f2504e0-4f89-11d3-9a0c-0305e82c3301", "12345678-1234-1234-1234-123456789012", "00000000-0000-0000-0000-000000000000",
		"urn:uuid:89161234-5678-4321-8123-891612345678",
		"d41d8cd98f00b204e9800998ecf8427e", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
		"1700000000", "2020-2024", "v1.2.3", "ISO 27001:2022", "пн-пт 9-18", "55.7558, 37.6173",
	} {
		require.Empty(t, found(text), text)
	}
}

// Every example number of the oracle is found in a text, as people type it.
func TestFindOracle(t *testing.T) {
	for _, region := range tabled {
		for _, kind := range types {
			example := phonenumbers.GetExampleNumberForType(region, kind)
			if example == nil {
				continue
			}
			if e164 := phonenumbers.Format(example, phonenumbers.E164); len(e164) < 11 || len(e164) > 1+maxDigits {
				continue // short service numbers are nobody's
			}
			text := "Anna: " + phonenumbers.Format(example, phonenumbers.INTERNATIONAL) + "!"
			require.Equal(t, [][2]int{{6, len(text) - 1}}, Find(text), text)
			if kind == phonenumbers.MOBILE || kind == phonenumbers.FIXED_LINE || kind == phonenumbers.FIXED_LINE_OR_MOBILE {
				text = "Anna: " + phonenumbers.Format(example, phonenumbers.NATIONAL) + "!"
				require.Equal(t, [][2]int{{6, len(text) - 1}}, Find(text), text)
			}
		}
	}
}

func FuzzFind(f *testing.F) {
	for _, s := range []string{"8 (916) 123-45-67", "+7+7", "15.01.2024", "3f2504e0-4f89-11d3-9a0c-0305e82c3301", "(٧", "\xff8", "8️⃣"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		end := 0
		for _, r := range Find(text) {
			require.LessOrEqual(t, end, r[0])
			require.Less(t, r[0], r[1])
			end = r[1]
		}
		require.LessOrEqual(t, end, len(text))
		// Whatever words stand around it, a number with its plus is found.
		require.NotEmpty(t, Find(text+" тел. +7 916 123-45-67."))
	})
}

func BenchmarkFind(b *testing.B) {
	text := "перезвонить во вторник, второй телефон 8 (916) 123-45-67, бюджет 1 500 000 руб., договор № 2024-00123 от 12.03.2025"
	b.ReportAllocs()
	for b.Loop() {
		Find(text)
	}
}
