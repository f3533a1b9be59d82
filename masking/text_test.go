package masking_test

import (
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
}

func TestText(t *testing.T) {
	for _, c := range texts {
		got := masking.Mask(masking.Text, c.text)
		require.Equal(t, strings.ReplaceAll(c.want, "|", "•••"), got, c.text)
		require.Equal(t, got, masking.Mask(masking.Text, got), "masked twice")
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
	} {
		require.Equal(t, text, masking.Mask(masking.Text, text))
	}
}
