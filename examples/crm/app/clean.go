package app

import (
	"errors"
	"fmt"
	"net/mail"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/nyaruka/phonenumbers"
	"golang.org/x/text/unicode/norm"
)

// homeRegion is the country of phone numbers that are typed without one.
const homeRegion = "RU"

// fieldError says which field of a form or row is wrong, and how.
type fieldError struct {
	field, reason string
}

func (e *fieldError) Error() string { return e.field + ": " + e.reason }

// limits of the fields, in characters.
var fieldLimits = map[string]int{"name": 200, "phone": 40, "email": 254, "company": 200, "city": 100, "note": 4000}

// foreignMask finds values that somebody hid, here or elsewhere, as a***@gmail.com.
var foreignMask = regexp.MustCompile(`[*•●▪]{3}`)

// cleanText trims, composes (NFC) and checks one value.
func cleanText(field, value string) (string, error) {
	value = norm.NFC.String(strings.TrimSpace(value))
	if !utf8.ValidString(value) || strings.ContainsRune(value, utf8.RuneError) {
		return "", &fieldError{field, "holds characters that are not valid UTF-8"}
	}
	for _, r := range value {
		if unicode.IsControl(r) && (field != "note" || r != '\n' && r != '\r' && r != '\t') {
			return "", &fieldError{field, "holds control characters"}
		}
		// They would show one thing and be another: gpj.exe for exe.jpg.
		if field != "note" && unicode.Is(unicode.Bidi_Control, r) {
			return "", &fieldError{field, "holds characters that turn the direction of writing"}
		}
	}
	if foreignMask.MatchString(value) {
		return "", &fieldError{field, "is hidden behind signs such as ***: the real value is needed"}
	}
	if limit := fieldLimits[field]; utf8.RuneCountInString(value) > limit {
		return "", &fieldError{field, fmt.Sprintf("is longer than %d characters", limit)}
	}
	return value, nil
}

// visible reports whether a name has a sign that people see: what has none leaves a
// link that nobody can read or find.
func visible(name string) bool {
	return strings.ContainsFunc(name, func(r rune) bool {
		return unicode.IsOneOf([]*unicode.RangeTable{unicode.L, unicode.N, unicode.P, unicode.S}, r) &&
			!unicode.Is(unicode.Other_Default_Ignorable_Code_Point, r) && r != '\u2800' // an empty pattern of Braille
	})
}

// People write a word before the number and an extension behind it.
var (
	phoneLabel     = regexp.MustCompile(`(?i)^(тел|моб|раб|tel|phone|mob|cell)[.:\s]+`)
	phoneExtension = regexp.MustCompile(`(?i)[\s,]*(доб|вн|ext|x)\.?\s*(\d{1,6})$`)
)

// cleanPhone returns the number in international form (E.164), so that however
// it was typed, it is found again; an extension follows as " ext. 12".
func cleanPhone(value, country string) (string, error) {
	if value == "" {
		return "", nil
	}
	if country == "" {
		country = homeRegion
	}
	value = phoneLabel.ReplaceAllString(value, "")
	extension := ""
	if m := phoneExtension.FindStringSubmatchIndex(value); m != nil {
		value, extension = value[:m[0]], " ext. "+value[m[4]:m[5]]
	}
	if strings.ContainsFunc(value, unicode.IsLetter) { // the library would read a word as the digits under its letters
		return "", &fieldError{"phone", "has letters in it"}
	}
	number, err := phonenumbers.Parse(value, country)
	if err == nil && country == "UA" && !phonenumbers.IsPossibleNumber(number) { // dialled as until 2009: 8 0XX
		number, err = phonenumbers.Parse(strings.TrimPrefix(strings.TrimSpace(value), "8"), country)
	}
	if err != nil || !phonenumbers.IsPossibleNumber(number) {
		return "", &fieldError{"phone", "is not a phone number of " + country}
	}
	return phonenumbers.Format(number, phonenumbers.E164) + extension, nil
}

// showPhone groups the digits of a stored number for reading.
func showPhone(stored string) string {
	e164, extension, _ := strings.Cut(stored, " ")
	number, err := phonenumbers.Parse(e164, "ZZ")
	if err != nil {
		return stored
	}
	return strings.TrimSpace(phonenumbers.Format(number, phonenumbers.INTERNATIONAL) + " " + extension)
}

func cleanEmail(value string) (string, error) {
	if value == "" {
		return "", nil
	}
	address, err := mail.ParseAddress(value)
	if err != nil || address.Address != value || !strings.Contains(value[strings.LastIndexByte(value, '@'):], ".") {
		return "", &fieldError{"email", "is not an e-mail address"}
	}
	return value, nil
}

func cleanCountry(value string) (string, error) {
	value = strings.ToUpper(value)
	if value == "" {
		return "", nil
	}
	if phonenumbers.GetCountryCodeForRegion(value) == 0 {
		return "", &fieldError{"country", "is not a country code such as RU or DE"}
	}
	return value, nil
}

// clean checks and normalises what was typed or imported, all fields at once.
func (c *Contact) clean() error {
	var errs []error
	for _, f := range c.texts() {
		value, err := cleanText(f.name, *f.value)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		*f.value = value
	}
	country, err := cleanCountry(c.Country)
	if err != nil {
		errs = append(errs, err)
	} else {
		c.Country = country
	}
	if c.Phone, err = cleanPhone(c.Phone, country); err != nil {
		errs = append(errs, err)
	}
	if c.Email, err = cleanEmail(c.Email); err != nil {
		errs = append(errs, err)
	}
	if !visible(c.Name) {
		errs = append(errs, &fieldError{"name", "is needed"})
	}
	return errors.Join(errs...)
}
