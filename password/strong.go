package password

import (
	_ "embed"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// MinCharacters is the length that [Strong] asks for.
const MinCharacters = 12

// Codes of a [WeakError].
const (
	WeakShort    = "short"
	WeakLong     = "long"
	WeakCommon   = "common"
	WeakPersonal = "personal"
)

// WeakError says what to do about a password that is refused. It does not hold
// the password.
type WeakError struct {
	Code   string // one of the Weak constants, for translations
	Advice string // a sentence in English
}

// Error is the advice.
func (e *WeakError) Error() string { return "password: " + e.Advice }

func weakShort() *WeakError {
	return &WeakError{WeakShort, "use at least 12 characters, such as four or more words that do not belong together"}
}

func weakLong() *WeakError { return &WeakError{WeakLong, "use at most 1024 bytes"} }

// Strong returns nil for a password that people may choose. Otherwise it is a
// *[WeakError]: shorter than [MinCharacters], longer than [MaxBytes], made of the
// words and runs of which the most common passwords are made, or containing one
// of about, which are the login, name and company of whom it is for. Letter case,
// the usual digits for letters, and spaces or signs between the letters of a word
// make no difference. It asks for no digits or signs and knows no age, as NIST
// SP 800-63B recommends.
func Strong(password string, about ...string) error {
	if len(password) > MaxBytes {
		return weakLong()
	}
	plain := norm.NFKC.String(password)
	if utf8.RuneCountInString(plain) < MinCharacters {
		return weakShort()
	}
	forms := []string{fold(plain), unleet.Replace(fold(plain))}
	for _, form := range forms {
		squeezed, separators := squeeze(form)
		if min(unknown(form), unknown(squeezed)+max(separators-1, 0)) < minUnknown {
			return &WeakError{WeakCommon, "use words that others do not use, and no rows of keys, letters or digits"}
		}
	}
	for _, word := range words(about) {
		for _, form := range forms {
			if holds(form, word) {
				return &WeakError{WeakPersonal, "leave out the login, the name and the company"}
			}
		}
	}
	return nil
}

// minUnknown is how many characters must remain when all that is common is taken
// away.
const minUnknown = 6

//go:embed common.txt
var commonText string

// unleet undoes the digits and signs that are written for letters.
var unleet = strings.NewReplacer("0", "o", "1", "i", "3", "e", "4", "a", "5", "s", "7", "t", "@", "a", "$", "s", "!", "i")

func fold(s string) string { return strings.ToLower(s) }

// minWord is how long a part of a name must be to count: shorter ones are in too
// many words.
const minWord = 4

// words returns the parts of about that a password must not contain, and each of
// about as a whole, which may be short.
func words(about []string) []string {
	var out []string
	for _, text := range about {
		parts := strings.FieldsFunc(fold(norm.NFKC.String(text)), separates)
		if whole := strings.Join(parts, ""); utf8.RuneCountInString(whole) >= minWord-1 {
			out = append(out, whole)
		}
		for _, part := range parts {
			if utf8.RuneCountInString(part) >= minWord {
				out = append(out, part)
			}
		}
	}
	return out
}

func separates(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) && !unicode.IsMark(r) }

// holds reports whether a word is within one word of s, or is what several words
// of s make together. Where other words merely meet, as in "lamb estates", there
// is none.
func holds(s, word string) bool {
	parts := strings.FieldsFunc(s, separates)
	for i, part := range parts {
		if strings.Contains(part, word) {
			return true
		}
		rest, ok := word, true
		for _, next := range parts[i:] {
			if rest, ok = strings.CutPrefix(rest, next); !ok || rest == "" {
				break
			}
		}
		if ok && rest == "" {
			return true
		}
	}
	return false
}

// squeeze takes out what separates characters that stand alone, as in
// "p.a.s.s word", and leaves the rest. It also returns how many different
// separators that were: who uses many adds something that is not known.
func squeeze(s string) (string, int) {
	var out strings.Builder
	taken := map[string]bool{}
	alone := false // whether the word before stands alone
	for s != "" {
		start := strings.IndexFunc(s, func(r rune) bool { return !separates(r) })
		if start < 0 {
			break
		}
		gap, rest := s[:start], s[start:]
		end := strings.IndexFunc(rest, separates)
		if end < 0 {
			end = len(rest)
		}
		single := utf8.RuneCountInString(rest[:end]) == 1
		if alone && single {
			taken[gap] = true
		} else {
			out.WriteString(gap)
		}
		out.WriteString(rest[:end])
		alone, s = single, rest[end:]
	}
	out.WriteString(s)
	return out.String(), len(taken)
}
