package phone

import (
	"crypto/sha256"
	"encoding/hex"
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
		// What begins like a date or an address.
		{"06.12.34.56.78", "06.12.34.56.78"},
		{"01/12/34/56/78", "01/12/34/56/78"},
		{"06-12-34-56-78", "06-12-34-56-78"},
		{"79.16.123.45-67", "79.16.123.45-67"},
		{"89.161.23.45 67", "89.161.23.45 67"},
		{"8.9.1912.34567", "8.9.1912.34567"},
		{"12.05.2026 8 916 123-45-67", "8 916 123-45-67"},
		{"192.168.0.1 8 916 123-45-67", "8 916 123-45-67"},
		// Broken and blank characters between the digits.
		{"\xd08\xd09\xd01\xd06\xd01\xd02\xd03\xd04\xd05\xd06\xd07", "8\xd09\xd01\xd06\xd01\xd02\xd03\xd04\xd05\xd06\xd07"},
		{"\xd089161234567", "89161234567"},
		{"8\ufffd9161234567", "8\ufffd9161234567"},
		{"8\u3164916\u2800123\u115f45\u116067", "8\u3164916\u2800123\u115f45\u116067"},
		{"8\uffa0916 123 45 67", "8\uffa0916 123 45 67"},
		{"8 916         123 45 67", "8 916         123 45 67"},
		{"8 916\n123-45-67", "8 916\n123-45-67"},
		{"8 916 \r\n 123-45-67", "8 916 \r\n 123-45-67"},
		{"8&nbsp;916&nbsp;123&#160;45&#xA0;67", "8&nbsp;916&nbsp;123&#160;45&#xA0;67"},
		{"8%20916%20123%2D45%C2%A067", "8%20916%20123%2D45%C2%A067"},
		{"⁸⁹¹⁶¹²³⁴⁵⁶⁷", "⁸⁹¹⁶¹²³⁴⁵⁶⁷"},
		{"₈₉₁₆₁₂₃₄₅₆₇", "₈₉₁₆₁₂₃₄₅₆₇"},
		{"⑧⑨①⑥①②③④⑤⑥⑦", "⑧⑨①⑥①②③④⑤⑥⑦"},
		{"❽❾❶❻❶❷❸❹❺❻❼", "❽❾❶❻❶❷❸❹❺❻❼"},
		{"⓿➏➀⑴⒈🄀⓪⓵⑨⑨", "⓿➏➀⑴⒈🄀⓪⓵⑨⑨"},
		// What ends like a hash.
		{"89161234567aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "89161234567"},
		{"89161234567abcdefabcdefabcdefabc", "89161234567"},
		{"abcdefabcdefabcdefabc89161234567", "89161234567"},
		{"aaaaaaaaaa89161234567aaaaaaaaaaa", "89161234567"},
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
		"12.05.2026", "192.168.0.1", "12.05.26", "отпуск 01.12.24-15.12.24", "01.12.24 15.12.24", "192.168.0.1-192.168.0.5",
		"a94a8fe5ccb19ba61c4c0873d391e987982fbbd3", "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
		"12.03.2025\n14.03.2025", "5 м² и 10 м³", "1 500 000\n2 500 000",
		"1700000000", "2020-2024", "v1.2.3", "ISO 27001:2022", "пн-пт 9-18", "55.7558, 37.6173",
	} {
		require.Empty(t, found(text), text)
	}
}

// Hashes stay readable, but for the one in a hundred that begins or ends with what
// might as well be a phone.
func TestFindHashes(t *testing.T) {
	hidden := 0
	for i := range 2000 {
		sum := sha256.Sum256([]byte{byte(i), byte(i >> 8)})
		hidden += min(1, len(found(hex.EncodeToString(sum[:]))))
	}
	require.Less(t, hidden, 20)
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
	for _, s := range []string{"8 (916) 123-45-67", "+7+7", "15.01.2024", "3f2504e0-4f89-11d3-9a0c-0305e82c3301", "(٧", "\xff8", "8️⃣", "\xd08\xd09", "06.12.34.56.78", "8\n9%20&nbsp;1", "⁸①", "\xe2\x80"} {
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
		// Broken bytes do not take it apart.
		require.NotEmpty(t, Find(strings.ToValidUTF8(text, "")+" тел. \xd0+7\xd1916\xff123\xe2\x8045-67\xf0."))
	})
}

func BenchmarkFind(b *testing.B) {
	text := "перезвонить во вторник, второй телефон 8 (916) 123-45-67, бюджет 1 500 000 руб., договор № 2024-00123 от 12.03.2025"
	b.ReportAllocs()
	for b.Loop() {
		Find(text)
	}
}
