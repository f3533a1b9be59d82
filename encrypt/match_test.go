package encrypt_test

import (
	"strings"
	"testing"
	"unicode"

	"github.com/stretchr/testify/require"
	unorm "golang.org/x/text/unicode/norm"

	"github.com/crmguard/crmguard/encrypt"
)

func TestMatcher(t *testing.T) {
	anna := []string{"Анна", "Петрова-Водкина", "+7 (495) 123-45-67", "Anna.Petrova@Example.com"}
	for query, want := range map[string]bool{
		"anna pet": true, "ANNA PET": true, "pet anna": true, "анна ПЕТ": true, "анна pet": true, "водкина": true, "nna.pet": true,
		"Петрова, Анна": true, "«Петрова»": true, "петрова–водкина": true, "петрова водкина": true, "anna@": false, "petrova@ex": true,
		"495 12": true, "495-12": true, "(495) 12": true, "+7 495 123 45 67": true, "+74951234567": true, "8 495 123": true, "84951234567": true,
		"495 - 12": true, "анна 495 12": true, "495 анна 45 67": true, "12": true, "99": false, "495 13": false, "анна 99": false, "12345678": false,
		"": false, " ": false, "-": false, "+": false, " ,": false, "\x00": false, "@": true,
		"aña": false, "ánna": true, "ａｎｎａ": true, "анна бориса": false,
	} {
		require.Equal(t, want, encrypt.NewMatcher(query).Match(anna...), "%q", query)
	}
	for _, c := range []struct {
		query, value string
		want         bool
	}{
		{"495 12", "+74951234567", true},
		{"+7 495 12", "8 (495) 123-45-67", true},
		{"8 495", "+7 (495) 123-45-67", false}, // four digits may be anything
		{"495 12", "ул. 495, дом 12", false},   // two numbers
		{"1,500", "1,500 USD", true},
		{"Тверская 12, 5", "Москва, Тверская 12, 5", true},
		{"12; 345", "345; 12", true},
		{"12, 5", "ул. 125", true},
		{"«12» 34", "«12» 34", true},
		{"17.05", "17.05.2024", true},
		{"1705", "17.05.2024", true},
		{"12а", "дом 12А", true},
		{"елка", "Ёлка", true},
		{"ёлка", "елка", true},
		{"ёлка", "е\u0308лка", true}, // decomposed, as macOS writes it
		{"заики", "зайки", false},
		{"зайки", "заи\u0306ки", true},
		{"замок", "за\u0301мок", true},
		{"й", "и", false},
		{"jose", "José", true},
		{"josé", "Jose", true},
		{"josé", "JOSE\u0301", true},
		{"strasse", "STRAẞE", true},
		{"strasse", "Straße", true},
		{"lodz", "Łódź", true},
		{"sorensen", "Sørensen", true},
		{"istanbul", "İSTANBUL", true},
		{"fi", "ﬁ", true},
		{"όσος", "ΌΣΟΣ", true},
		{"οσοσ", "όσος", true},
		{"o'brien", "O’Brien", true},
		{"їжак", "іжак", false}, // letters of Ukrainian, not accents
		{"a b", "a\u00a0b", true},
		{"がき", "かき", false},
		{"가", "가나", true},
		{"кан", "\u00adКа\u00adн", true}, // soft hyphens
	} {
		require.Equal(t, c.want, encrypt.NewMatcher(c.query).Match(c.value), "%q in %q", c.query, c.value)
	}
	require.False(t, encrypt.NewMatcher("ab").Match("a", "b"), "no word goes over two values")
	require.False(t, encrypt.NewMatcher("12 34").Match("12", "34"), "nor a number")
	require.True(t, encrypt.NewMatcher("ab cd").Match("cd", "ab"))
	require.False(t, encrypt.NewMatcher("a").Match())
	require.False(t, encrypt.NewMatcher("-").Match("a"))
	long := strings.Repeat("x", 5000)
	require.True(t, encrypt.NewMatcher("petrov").Match(long, long+"Петров Petrov"))
}

// model is the same by other means, word for word and rune for rune.
func model(query string, values []string) bool {
	var words, numbers []string
	open := false
	for word := range strings.FieldsSeq(slowFold(query)) {
		const marks = `,;:"«»“”„`
		open = open && !strings.ContainsRune(marks, []rune(word)[0])
		ends := strings.ContainsRune(marks, []rune(word)[len([]rune(word))-1])
		word = strings.Trim(word, marks)
		digits := strings.Map(onlyDigits, word)
		switch {
		case strings.Trim(word, " -()+./0123456789") != "":
			words, open = append(words, word), false
		case digits == "":
		case open:
			numbers[len(numbers)-1] += digits
		default:
			numbers, open = append(numbers, digits), true
		}
		open = open && !ends
	}
	within := func(parts []string, wanted ...string) bool {
		for _, part := range parts {
			for _, w := range wanted {
				if strings.Contains(part, w) {
					return true
				}
			}
		}
		return false
	}
	var texts, runs []string
	for _, value := range values {
		text := slowFold(value)
		texts = append(texts, text)
		for _, run := range strings.FieldsFunc(text, func(r rune) bool { return !strings.ContainsRune(" -()+./0123456789", r) }) {
			runs = append(runs, strings.Map(onlyDigits, run))
		}
	}
	for _, word := range words {
		if !within(texts, word) {
			return false
		}
	}
	for _, number := range numbers {
		other := number
		if rest, ok := strings.CutPrefix(number, "8"); ok && len(number) >= 5 {
			other = "7" + rest
		} else if rest, ok := strings.CutPrefix(number, "7"); ok && len(number) >= 5 {
			other = "8" + rest
		}
		if !within(runs, number, other) {
			return false
		}
	}
	return len(words)+len(numbers) > 0
}

func onlyDigits(r rune) rune {
	if r >= '0' && r <= '9' {
		return r
	}
	return -1
}

var slowLetters = strings.NewReplacer("ß", "ss", "æ", "ae", "œ", "oe", "ø", "o", "đ", "d", "ł", "l", "ı", "i", "ς", "σ",
	"ё", "е", "ѐ", "е", "ѝ", "и", "’", "'", "‘", "'", "ʼ", "'", "`", "'",
	"‐", "-", "‑", "-", "‒", "-", "–", "-", "—", "-", "−", "-")

func slowFold(s string) string {
	var b strings.Builder
	for _, r := range unorm.NFKC.String(s) {
		switch part := string(r); {
		case unicode.IsSpace(r) || unicode.IsControl(r):
			b.WriteByte(' ')
		case unicode.In(r, unicode.Latin, unicode.Greek):
			b.WriteString(slowLetters.Replace(lower(dropAccents(unorm.NFD.String(part)))))
		default:
			b.WriteString(slowLetters.Replace(lower(dropAccents(part))))
		}
	}
	return b.String()
}

func lower(s string) string { return strings.Map(unicode.ToLower, s) }

func dropAccents(s string) string {
	return strings.Map(func(r rune) rune {
		hebrew := r >= 0x591 && r <= 0x5C7 && unicode.Is(unicode.Mn, r)
		arabic := r >= 0x64B && r <= 0x652 || r == 0x670
		if r >= 0x300 && r <= 0x36F || hebrew || arabic || r == 0xAD || r == 0x200B || r == 0xFEFF {
			return -1
		}
		return r
	}, s)
}

func FuzzMatcher(f *testing.F) {
	for _, seed := range [][3]string{
		{"anna pet", "Anna", "Петрова"}, {"495 12", "+7 (495) 123-45-67", "x"}, {"8 (495) 12", "+74951234567", ""},
		{"ёлка é", "Е\u0308лка", "E\u0301"}, {"İß", "i\u0307ss", "\xff\xd0"}, {"\xd0", "\xd0\x98\u0306", "\xc3"}, {"a\u0300\u0323", "¨´a", "¼ŉ"}, {", ; -", ",", "-"}, {"12, 5", "Тверская 12, 5", "125"},
		{"đ’–", "Đ'-", "\u200b\u00ad\ufeff"}, {"ӣӯ", "Ӣ", "Ӯ"}, {"\u0345", "ᾳ", "ΐ"},
	} {
		f.Add(seed[0], seed[1], seed[2])
	}
	f.Fuzz(func(t *testing.T, query, a, b string) {
		m := encrypt.NewMatcher(query)
		require.Equal(t, model(query, []string{a, b}), m.Match(a, b), "%q in %q, %q", query, a, b)
		for _, value := range []string{a, b} { // a word always finds where it was taken from
			if words := strings.Fields(value); len(words) > 0 && strings.ContainsFunc(words[0], unicode.IsLetter) {
				require.Equal(t, model(words[0], []string{value}), encrypt.NewMatcher(words[0]).Match(value))
			}
			if strings.Trim(slowFold(value), ` -()+./,;:"«»“”„`) != "" {
				require.True(t, encrypt.NewMatcher(value).Match(value), "%q, pasted", value)
			}
		}
	})
}

func TestMatchAllocatesNothing(t *testing.T) {
	m := encrypt.NewMatcher("анна 495 12")
	values := []string{"Анна Сергеевна", "Ёлкина", "+7 (495) 123-45-67", "José@example.com"}
	require.True(t, m.Match(values...))
	require.Zero(t, testing.AllocsPerRun(100, func() { m.Match(values...) }))
}

func BenchmarkMatch(b *testing.B) {
	for name, values := range map[string][]string{
		"ascii":    {"Anna", "Petrova-Vodkina", "+7 (495) 123-45-67", "anna.petrova@example.com"},
		"cyrillic": {"Анна", "Петрова-Водкина", "+7 (495) 123-45-67", "anna.petrova@example.com"},
		"slow":     {"Анна", "Петрова—Водкина", "+7 (495) 123-45-67", "anna.petrova@example.com"},
	} {
		for _, query := range []string{"нова", "495 99"} {
			b.Run(name+"/"+query, func(b *testing.B) {
				m := encrypt.NewMatcher(query)
				b.ReportAllocs()
				for b.Loop() {
					m.Match(values...)
				}
			})
		}
	}
}
