package masking_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"unicode"

	"github.com/rivo/uniseg"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/masking"
)

func TestMask(t *testing.T) {
	for _, c := range []struct {
		kind        masking.Kind
		value, want string
	}{
		{masking.Phone, "+7 916 123-45-67", "+7 ••• 67"},
		{masking.Phone, "+79161234567", "+7 ••• 67"},
		{masking.Phone, "tel:+7(916)1234567", "+7 ••• 67"},
		{masking.Phone, "8 (916) 123-45-67 доб. 12", "••• 67"},
		{masking.Phone, "9161234567", "••• 67"},
		{masking.Phone, "+380 (67) 123-45-67", "+380 ••• 67"},
		{masking.Phone, "0049 30 901820", "+49 ••• 20"},
		{masking.Phone, "＋７９１６１２３４５６７", "+7 ••• 67"},
		{masking.Phone, "+33 1 70 18 99 00", "+33 ••• 00"},
		{masking.Phone, "0113 496 0000", "••• 00"},
		{masking.Phone, "+683 4002", "•••"}, // half of it would be shown
		{masking.Phone, "12-34-56", "•••"},
		{masking.Phone, "+7 916 123-45-6O", "•••"},
		{masking.Phone, "+7 916 123-45-67, 8 916 123-45-68", "•••"},
		{masking.Phone, "4111 1111 1111 1111", "•••"},
		{masking.Phone, "anna", "•••"},
		{masking.Phone, " ", "•••"},
		{masking.Phone, "", ""},

		{masking.Email, "anna@example.org", "a•••@•••.org"},
		{masking.Email, "Anna.Petrova+crm@mail.example.co.uk", "A•••@•••.uk"},
		{masking.Email, "bob@example.org", "•••@•••.org"}, // a third of the name is too much
		{masking.Email, "ab@c.museum", "•••@•••"},
		{masking.Email, "анна@почта.рф", "а•••@•••.рф"},
		{masking.Email, "7916123@example.org", "•••@•••.org"}, // a digit is no first letter
		{masking.Email, "anna@example", "•••"},
		{masking.Email, "anna", "•••"},
		{masking.Email, "anna@@example.org", "•••"},
		{masking.Email, "anna @example.org", "•••"},
		{masking.Email, "anna@example..org", "•••"},
		{masking.Email, "anna@192.168.0.1", "•••"},
		{masking.Email, "Anna <anna@example.org>", "•••"},
		{masking.Email, "anna@example.org, bob@example.org", "•••"},
		{masking.Email, "anna@example.correcthorsebattery", "a•••@•••"},
		{masking.Email, strings.Repeat("a", 65) + "@example.org", "•••"},

		{masking.Name, "Анна Петрова", "А••• П•••"},
		{masking.Name, "  Анна   Петрова ", "А••• П•••"},
		{masking.Name, "Анна", "А•••"},
		{masking.Name, "Li Wu", "••• •••"},
		{masking.Name, "Анна Мария Петрова-Водкина Третья", "А••• М••• П•••"},
		{masking.Name, "O'Connor Siobhan", "O••• S•••"},
		{masking.Name, "Анна 89161234567", "•••"},
		{masking.Name, "anna@example.org", "•••"},
		{masking.Name, "김철수", "김•••"},
		{masking.Name, "김", "•••"},
		{masking.Name, "각가나", "각•••"},               // conjoining jamo: one cluster
		{masking.Name, "e\u0301mile", "e\u0301•••"}, // a combining mark stays with its letter
		{masking.Name, "и\u0306\u0301горь", "и\u0306\u0301•••"},
		{masking.Name, "क्षितिज", "क्•••"},
		{masking.Name, "👨‍👩‍👧 Anna", "•••"},
		{masking.Name, "a" + strings.Repeat("\u0301", 100) + "nna", "•••"}, // a cluster may carry data
		{masking.Name, "\u0301nna", "•••"},
		{masking.Name, "An\xffna", "•••"},

		{masking.Card, "4111111111111111", "••• 1111"},
		{masking.Card, "4111 1111 1111 1234", "••• 1234"},
		{masking.Card, "3782-822463-10005", "••• 0005"},
		{masking.Card, "４１１１１１１１１１１１１２３４", "••• 1234"},
		{masking.Card, "411111111111", "•••"},
		{masking.Card, "41111111111111111111", "•••"},
		{masking.Card, "4111 1111 1111 1111 12/27", "•••"},
		{masking.Card, "card", "•••"},

		{masking.Secret, "hunter2", "•••"},
		{masking.Secret, "", "•••"},
		{"", "anna", "•••"},
		{"tel", "+7 916 123-45-67", "•••"},
		{"-", "anna", "•••"},
		{"PHONE", "+7 916 123-45-67", "•••"},
	} {
		require.Equal(t, c.want, masking.Mask(c.kind, c.value), "%s %q", c.kind, c.value)
		require.NoError(t, withinCaps(c.kind, c.value, masking.Mask(c.kind, c.value)))
	}
}

// Values of different length have the same mask.
func TestWidth(t *testing.T) {
	for _, c := range []struct {
		kind masking.Kind
		a, b string
	}{
		{masking.Phone, "+49 30 901867", "+49 30 90186767"},
		{masking.Email, "anna@example.org", "annapetrova@mail.example.org"},
		{masking.Name, "Анна", "Анастасия"},
		{masking.Card, "4222222221234", "6304000000000001234"},
		{masking.Secret, "a", strings.Repeat("a", 100)},
	} {
		require.Equal(t, masking.Mask(c.kind, c.a), masking.Mask(c.kind, c.b))
	}
}

func TestIsMasked(t *testing.T) {
	for _, text := range []string{"•••", "+7 ••• 67", "a•••@•••.org", "звонить ••• завтра", "••••••",
		// With what copying, HTML and JSON put between and in place of the bullets.
		"•\u200b•\u200b•", "•\u200d•\ufeff•", "•\ufe0f•\ufe0f•\ufe0f", "•\u2060\u00ad••", "•\U000e0100••",
		"&bull;&bull;&bull;", "+7 &#8226;&#8226;&#8226; 67", "&#x2022;&#X2022;&#x02022;", "&bullet;•&bull;",
		`\u2022\u2022\u2022`, `{"phone":"+7 \u2022\u2022\u2022 67"}`, `•\u2022&bull;`,
	} {
		require.True(t, masking.IsMasked(text), text)
	}
	for _, text := range []string{"", "• список", "•• дальше", "• раз\n• два\n• три", "***", "...", "• • •", "&bull; &bull; &bull;", "&bull;&bull;", `\u2022\u2022`, `\u2022a\u2022\u2022`, "R&D • •",
		"&amp;bull;", `\u20221`} {
		require.False(t, masking.IsMasked(text), text)
	}
}

// capOf is what the package documentation promises.
var capOf = map[masking.Kind]struct {
	count int
	share float64 // of the letters and digits of the value
}{
	masking.Phone: {5, 1. / 2}, masking.Email: {7, 1. / 2}, masking.Name: {3, 1. / 3}, masking.Card: {4, 1. / 3}, masking.Secret: {0, 0},
}

// withinCaps reports what a mask shows beyond its cap.
func withinCaps(kind masking.Kind, value, masked string) error {
	if kind == masking.Text || value == "" {
		return nil
	}
	limit := capOf[kind]
	if n := letters(masked); n > limit.count || float64(n) > limit.share*float64(letters(value)) {
		return fmt.Errorf("%s shows %d of %d letters and digits", kind, n, letters(value))
	}
	if run := longestRun(masked); run > max(limit.count, 0) {
		return fmt.Errorf("%s shows %d digits in a row", kind, run)
	}
	whole := map[string]bool{}
	for g := uniseg.NewGraphemes(value); g.Next(); {
		whole[g.Str()] = true
	}
	for g := uniseg.NewGraphemes(masked); g.Next(); {
		if !whole[g.Str()] && !strings.Contains("•+ @.", g.Str()) && !isDigits(g.Str()) {
			return errors.New("a grapheme was cut")
		}
	}
	return nil
}

// letters counts the graphemes of a text that hold a letter or a digit.
func letters(text string) (n int) {
	for g := uniseg.NewGraphemes(text); g.Next(); {
		if strings.IndexFunc(g.Str(), func(r rune) bool { return unicode.IsLetter(r) || unicode.IsDigit(r) }) >= 0 {
			n++
		}
	}
	return n
}

func longestRun(text string) (longest int) {
	run := 0
	for _, r := range text {
		if run++; !unicode.IsDigit(r) {
			run = 0
		}
		longest = max(longest, run)
	}
	return longest
}

func isDigits(s string) bool { return strings.Trim(s, "0123456789") == "" }

// The check of the caps notices the ways in which other libraries leak.
func TestCapsNotice(t *testing.T) {
	for name, c := range map[string]struct {
		kind          masking.Kind
		value, masked string
	}{
		"raw for unknown input": {masking.Phone, "+79161234567", "+79161234567"},
		"8 of 11 digits":        {masking.Phone, "89161234567", "8916•••4567"},
		"10 of 16 with spaces":  {masking.Card, "4111 1111 1111 1111", "4111 11•••1111"},
		"half of a name":        {masking.Name, "Анна", "Ан•••"},
		"a short name":          {masking.Name, "Li", "L•••"},
		"mark cut off":          {masking.Name, "e\u0301mil", "e•••"},
		"whole local part":      {masking.Email, "annapetrova@example.org", "annapetrova@•••"},
		"secret by its head":    {masking.Secret, "hunter2", "h•••"},
	} {
		require.Error(t, withinCaps(c.kind, c.value, c.masked), name)
	}
}

func FuzzMask(f *testing.F) {
	for _, s := range []string{
		"+7 916 123-45-67", "8 (916) 123-45-67 доб. 12", "anna@example.org", "Анна Петрова", "4111 1111 1111 1111", "김철수",
		"e\u0301", "👨‍👩‍👧", "\xff", "DE89 3704 0044 0532 0130 00", "•••", "＋７٩", "ИНН 7707083893", "a@b.c",
		"anna\xd0@example.com", "\xd08\xd09\xd01", "\xe2\x80", `"a"@b.c`, "a@[1]", "06.12.34.56.78", "4111&nbsp;1111%20", "⁸①", "0004111",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, value string) {
		for kind := range capOf {
			masked := masking.Mask(kind, value)
			require.NoError(t, withinCaps(kind, value, masked), "%q -> %q", value, masked)
			if value != "" {
				require.True(t, masking.IsMasked(masked))
			}
		}
		if masked := masking.Mask(masking.Text, value); masked != value {
			require.True(t, masking.IsMasked(masked))
		}
		// Whatever stands around it, a number in its full form is hidden.
		const number, address = "+7 916 123-45-67", "anna@example.org"
		around := masking.Mask(masking.Text, value+"\n"+number+", "+address+"\n"+value)
		require.True(t, strings.Contains(value, number) || !strings.Contains(around, number))
		require.True(t, strings.Contains(value, address) || !strings.Contains(around, address))
		// Bytes that are no UTF-8 switch nothing off.
		broken := masking.Mask(masking.Text, strings.ToValidUTF8(value, "")+"\n\xd0+7 916\xe2\x80 123-45-67, anna\xd0@example.org")
		require.True(t, strings.Contains(value, "123-45-67") || !strings.Contains(broken, "123-45-67"), "%q", broken)
		require.True(t, strings.Contains(value, "@example.org") || !strings.Contains(broken, "@example.org"), "%q", broken)
	})
}
