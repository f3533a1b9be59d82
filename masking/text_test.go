package masking_test

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/masking"
)

// In want, "|" stands for a mask.
var texts = []struct{ text, want string }{
	// Phones; internal/phone has the full table.
	{"звонить +7 916 123-45-67 после 18:00", "звонить | после 18:00"},
	{"жена: 8 (903) 384-43-42", "жена: |"},
	{"8️⃣9️⃣1️⃣6️⃣1️⃣2️⃣3️⃣4️⃣5️⃣6️⃣7️⃣", "|\ufe0f⃣"},
	// E-mail.
	{"пишите на Anna.Petrova+crm@example.com.", "пишите на |."},
	{"<anna@example.org>, bob@example.net", "<|>, |"},
	{"анна@почта.рф", "|"},
	{"anna＠example.com", "|"},
	{"anna @example.com", "|"},
	{"anna@ example.com", "|"},
	{"mailto:anna@mail.example.co.uk?subject=1", "mailto:|?subject=1"},
	// Cards: published test numbers.
	{"карта 4111 1111 1111 1111, срок 12/27", "карта |, срок 12/27"},
	{"4111111111111111", "|"},
	{"5555-5555-5555-4444", "|"},
	{"3782 822463 10005 и 378282246310005", "| и |"},
	{"3056 930902 5904", "|"},
	{"6304 0000 0000 0000 00", "|"}, // 18 digits, the first 16 look like a card as well
	{"4111.1111.1111.1111", "|"},
	{"4111 1111 1111 1112", "|"}, // mistyped
	{"4111\u00a01111\u00a01111\u00a01111", "|"},
	{"４１１１１１１１１１１１１１１１", "|"},
	{"4222222222222", "|"},
	{"card4111111111111111x", "card|x"},
	// IBAN: examples of the registry.
	{"DE89 3704 0044 0532 0130 00 спасибо", "| спасибо"},
	{"DE89370400440532013000 thanks a lot", "| thanks a lot"},
	{"iban gb82west12345698765432", "iban |"},
	{"FR14 2004 1010 0505 0001 3M02 606 for rent", "| for rent"},
	{"KZ86125KZT5004100100;NO9386011117947", "|;|"},
	{"MT84 MALT 0110 0001 2345 MTLC AST0 01S", "|"},
	// INN, OGRN, SNILS: doctests of python-stdnum and registers of well-known bodies.
	{"ИНН 7707083893", "ИНН |"},
	{"ИНН7707083893, ОГРН 1027700132195", "ИНН|, ОГРН |"},
	{"инн 500100732259", "инн |"},
	{"ОГРНИП 304500116000157", "ОГРНИП |"},
	{"СНИЛС 112-233-445 95", "СНИЛС |"},
	{"11223344595", "|"},
	{"СНИЛС 112-233-44595", "СНИЛС |"},
	{"СНИЛС 112 23344595", "СНИЛС |"},
	// Dates and addresses that are phones.
	{"тел 06.12.34.56.78", "тел |"},
	{"01/12/34/56/78", "|"},
	{"79.16.123.45-67", "|"},
	{"89.161.23.45 67", "|"},
	// Bytes that are no UTF-8.
	{"anna\xd0@example.com", "|"},
	{"anna@exam\xd0ple.com", "|"},
	{"\xd0anna@example.com\xe2\x80", "|"},
	{"\xe2\x8089161234567", "\xe2\x80|"},
	{"\xd08\xd09\xd01\xd06\xd01\xd02\xd03\xd04\xd05\xd06\xd07", "\xd0|"},
	{"\xe24111\xe21111\xe21111\xe21111", "\xe2|"},
	// E-mail in rarer shapes.
	{`"anna petrova"@example.com`, "|"},
	{`пишите "anna\"@x"@example.com!`, "пишите |!"},
	{"anna@my_host.example.com", "|"},
	{"anna@example．com", "|"},
	{"anna@example。com", "|"},
	{"anna@example｡com", "|"},
	{"anna  @   example.com", "|"},
	{"anna\u00a0@\u00a0example.com", "|"},
	{"anna\u200b@\u3164example.com", "|"},
	{"anna@[192.168.0.1]", "|"},
	{"anna@[IPv6:2001:db8::1], спасибо", "|, спасибо"},
	// Blanks and encodings inside numbers.
	{"4111\u31641111\u28001111\u115f1111", "|"},
	{"4111   1111     1111       1111", "|"},
	{"4111 1111\n1111 1111", "|"},
	{"4111&nbsp;1111&nbsp;1111&nbsp;1111", "|"},
	{"4111%201111%201111%201111", "|"},
	{"⁴¹¹¹ ¹¹¹¹ ¹¹¹¹ ¹¹¹¹", "|"},
	{"тел ⑧⑨①⑥①②③④⑤⑥⑦", "тел |"},
	{"¹¹²²³³⁴⁴⁵⁹⁵", "|"},
	{"0004111111111111111", "|"},
	{"000000004111111111111111", "|"},
	{"4111 11111111-1111", "|"},
	{"411111 111111  1111", "|"},
	{"89161234567aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "|aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"},
	{"4111111111111111abcdefabcdefabcd", "|abcdefabcdefabcd"},
}

func TestText(t *testing.T) {
	for _, c := range texts {
		got := masking.Mask(masking.Text, c.text)
		require.Equal(t, strings.ReplaceAll(c.want, "|", "•••"), got, c.text)
		require.Equal(t, got, masking.Mask(masking.Text, got), "masked twice")
	}
}

// Beyond its bound a text is hidden, together with the word or number at the cut.
func TestTextLong(t *testing.T) {
	words := strings.Repeat("перезвонить во вторник. ", 4000)
	got := masking.Mask(masking.Text, words+"8 916 123-45-67")
	require.True(t, strings.HasPrefix(words, strings.TrimSuffix(got, "•••")))
	require.Greater(t, len(got), 60<<10)
	require.Less(t, len(got), 64<<10)

	for shift := range 40 {
		for _, secret := range []string{"8 916 123-45-67", "4111 1111 1111 1111", "anna@example.com", "DE89 3704 0044 0532 0130 00"} {
			text := strings.Repeat("a ", 32<<10)[:64<<10-shift] + "; " + secret
			got := masking.Mask(masking.Text, text)
			require.Less(t, len(text)-len(got)-shift, 64, "what comes before is shown")
			for _, part := range []string{"916", "41", "anna", "3704", "89"} {
				require.NotContains(t, got, part, shift)
			}
		}
	}
	require.Equal(t, "•••", masking.Mask(masking.Text, strings.Repeat("1", 100<<10)))
}

// The work that a text makes grows with its length and no faster, however hard
// it is made to read.
func BenchmarkText(b *testing.B) {
	for name, unit := range map[string]string{
		"words": "перезвонить во вторник ", "1-1": "1-", "digits": "1", "prices": "500 000 ", "phones": "8 916 123-45-67, ",
		"at": "a@", "iban": "AA11 ", "hex": "abcdef0123456789", "quotes": `"@`, "spaces": "1      ", "entities": "1&nbsp;", "dates": "01.02.24.",
	} {
		for _, kb := range []int{1, 32} {
			text := strings.Repeat(unit, kb<<10/len(unit))
			b.Run(fmt.Sprint(name, "/", kb, "KB"), func(b *testing.B) {
				b.SetBytes(int64(len(text)))
				for b.Loop() {
					masking.Mask(masking.Text, text)
				}
			})
		}
	}
}

// The table notices maskers that are not thorough.
func TestTextPlantedFaults(t *testing.T) {
	for name, faulty := range map[string]func(text string) string{
		"nothing": func(text string) string { return text },
		"phones only": func(text string) string {
			return regexp.MustCompile(`\+?\d[\d ()-]{9,}\d`).ReplaceAllString(text, "•••")
		},
	} {
		wrong := 0
		for _, c := range texts {
			if faulty(c.text) != strings.ReplaceAll(c.want, "|", "•••") {
				wrong++
			}
		}
		require.Greater(t, wrong, 10, name)
	}
}

func TestTextShows(t *testing.T) {
	for _, text := range []string{
		"", "перезвонить во вторник", "бюджет 1 500 000 руб.", "$25,000.00", "€ 1.234.567,89", "12 000 000 000 ₸",
		"договор № 2024-00123", "заказ 12345678", "ORD-2024-000123", "order 20240115-7",
		"12.03.2025 в 10:30", "2025-03-12T10:30:00Z", "03/12/2025", "12-03-25", "15.01.2024 123456", "с 9:00 до 18:00",
		"3f2504e0-4f89-11d3-9a0c-0305e82c3301", "d41d8cd98f00b204e9800998ecf8427e",
		"192.168.100.200", "v1.26.0", "ГОСТ 12345-2020", "скидка 15%", "площадь 1200х800", "@anna в телеграме", "C++ @ work",
		"• ждёт договор\n• любит цифры 5 и 7", "ИНН 1234567890", "инн 500100732250", "112-233-445 96", "GB83 WEST 1234 5698 7654 32",
		"1027700132194", "4111111111111112",
		"12.05.2026", "192.168.0.1", "с 01.12.24-15.12.24", "5 м²", "100% хлопок", "R&D 5", "x@y", "\xd0\xd0", "2024-01-15 12:30 4111",
		"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08", `он сказал "да" @ working`, "15 000\n20 000\n35 000",
	} {
		require.Equal(t, text, masking.Mask(masking.Text, text))
	}
}
