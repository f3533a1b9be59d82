// Package masking hides personal data from people who may see a record but not
// everything in it: the list shows "+7 ••• 67" and "a•••@•••.org", and the real
// values stay on the server.
//
//	type Contact struct {
//		ID    string `mask:"-"`            // shown
//		Name  string `mask:"name"`         // A••• P•••
//		Phone string `mask:"phone"`        // +7 ••• 67
//		Email string `mask:"email"`        // a•••@•••.com
//		Note  string `mask:"text"`         // phones, cards, addresses inside are hidden
//		INN   string                       // no tag: hidden
//		Born  time.Time                    // numbers, bools and times are shown
//		Limit int    `mask:"secret"`       // 0: under a tag, numbers and times are zero
//	}
//
//	shown, err := masking.View(contact, func(field string) bool { return mayUnmask[field] })
//	...
//	err := masking.RefuseMasked(edited) // before every write
//
// [View] makes a masked deep copy; hand the copy, and nothing else, to templates,
// JSON, tables and search results. [RefuseMasked] stops a mask that came back
// from a form from being saved over the real value; it cannot stop a zero, so leave
// out of the UPDATE what was not shown in the clear.
//
// # What is shown
//
// What does not look like its kind is hidden as a whole, and so is everything of
// an unknown or misspelt kind. Of what does, at most this much is shown:
//
//	kind    shown                                       of the value at most
//	phone   calling code, last 2 digits                 5 digits and half of them
//	email   first letter, top-level domain              7 letters and half of them
//	name    first letter of each of the first 3 words   3 letters, a third of each word
//	card    last 4 digits                               4 digits (PCI DSS 3.4.1 allows 10)
//	secret  nothing, not even whether there is one
//	text    everything but the shapes below, up to 64 KB
//
// A mask is always three signs wide, so that it does not tell how long the value
// is. Letters are grapheme clusters (Unicode UAX 29): a mark is never cut off its
// letter. An empty value stays empty, except for a secret; [View] says what a
// secret cannot hide.
//
// # What is found in a text
//
//   - Phones with a plus, 00, 011 or 8-10 before the calling code: of all countries.
//   - Phones as dialled inside a country: of Russia, Kazakhstan, Ukraine, Belarus,
//     Germany, Britain, the United States and Canada, with or without their calling
//     code; and whatever begins with one zero and has ten to twelve digits, as in
//     France. Numbers inside a town if they are grouped as 123-45-67 or 12-34-56.
//   - E-mail addresses: in other scripts, quoted, with blanks beside the "@", at an
//     address in brackets.
//   - Cards: 13 to 19 digits with a valid checksum, or any digits in the groups that
//     are printed on cards.
//   - IBANs with a valid checksum.
//   - INN and OGRN in one piece, SNILS in groups too, with a valid checksum.
//
// Between the digits there may be blanks of every kind, one line break, dashes,
// dots, slashes, brackets, invisible characters, bytes that are no UTF-8, &nbsp; and
// %20. Digits may be of any script, full-width, raised or circled. Where a phone
// may as well be an order number of ten or eleven digits it is hidden. Dates, IP
// addresses, GUIDs, hashes and money in thousands are shown.
//
// Everything else is shown: names, postal addresses, passports, numbers in words,
// "anna at example", and phones of other countries without their calling code.
// Of a text over 64 KB the rest is hidden, so that a hostile one costs some tens of
// milliseconds at most.
//
// # The mask sign
//
// A mask is "•••", U+2022 three times. One or two bullets are what people write
// at the head of a list item and are no mask.
//
// # Security notes
//
// Masking hides what is displayed. It does not decide who may see what (package
// rbac does) and does not stop a search that tries values one by one: masked
// fields must not be searched by part, sorted or compared for those who may not
// unmask them. Text is searched for shapes: give a field its own kind wherever it
// has one, and no kind (which hides it) where a leak would be worse than a gap.
package masking

import (
	"html"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Kind is what a value is, and so how it is masked. Unknown kinds are hidden.
type Kind string

// The kinds, as struct tags name them.
const (
	Phone  Kind = "phone"
	Email  Kind = "email"
	Name   Kind = "name"
	Card   Kind = "card"
	Secret Kind = "secret"
	Text   Kind = "text"
)

const (
	sign = "•"
	mask = sign + sign + sign
)

// Mask returns value as it may be shown to somebody who may not see it. A kind that
// is none of the above hides it whole.
func Mask(kind Kind, value string) string {
	var b strings.Builder
	return masked(&b, kind, value)
}

// IsMasked reports whether value holds a mask, that is "•••", also if it has come
// back as HTML entities or JSON escapes, or with zero-width characters or
// variation marks between the bullets.
func IsMasked(value string) bool {
	if strings.Contains(value, mask) {
		return true
	}
	if strings.IndexByte(value, '&') >= 0 {
		value = html.UnescapeString(value)
	}
	if strings.Contains(value, `\u2022`) {
		value = strings.ReplaceAll(value, `\u2022`, sign)
	}
	bullets := 0
	for i := strings.Index(value, sign); i >= 0 && i < len(value); {
		r, size := utf8.DecodeRuneInString(value[i:])
		i += size
		switch {
		case r == '•':
			if bullets++; bullets == len(mask)/len(sign) {
				return true
			}
		case !unicode.In(r, unicode.Cf, unicode.Variation_Selector):
			bullets = 0
		}
	}
	return false
}

// masked appends to b and returns what it appended. Strings taken from a Builder
// stay valid while it grows, so that one buffer serves all values of a row.
func masked(b *strings.Builder, kind Kind, value string) string {
	if value == "" && kind != Secret {
		return ""
	}
	start := b.Len()
	var ok bool
	switch kind {
	case Phone:
		ok = maskPhone(b, value)
	case Email:
		ok = maskEmail(b, value)
	case Name:
		ok = maskName(b, value)
	case Card:
		ok = maskCard(b, value)
	case Text:
		return maskText(b, value)
	case Secret:
	}
	if !ok {
		return mask
	}
	return b.String()[start:]
}
