package main

import (
	"fmt"
	"strings"
)

// person is one contact before it is typed into the file.
type person struct {
	name, phone, email, company, city, note, owner, department string
	country                                                    *country
	national                                                   string // digits of the phone
}

func (p person) row() []string {
	return []string{p.name, p.phone, p.email, p.company, p.city, p.note, p.owner, p.department, p.country.code}
}

var (
	departments = []string{"Sales", "Sales / North", "Support"}
	sellers     = []struct{ login, department string }{
		{"seller1", "Sales"}, {"seller2", "Sales"},
		{"seller3", "Sales / North"}, {"seller4", "Sales / North"},
		{"seller5", "Support"},
	}
	mailDomains = []string{"example.com", "example.org", "example.net"}
)

func (g *generator) person() person {
	c := g.country()
	first, last := c.first, c.last
	woman := len(c.women) > 0 && g.percent(50)
	if woman {
		first, last = c.women, c.lastWomen
	}
	given, family := g.pick(first), g.pick(last)
	p := person{country: c, name: given + " " + family, city: g.pick(c.cities), company: g.company(c)}
	switch {
	case c.fathers != nil && g.percent(25):
		p.name = family + " " + given + " " + patronymic(g.pick(c.fathers), woman)
	case g.percent(15):
		p.name = family + " " + given
	}
	p.national = g.freeNumber(c)
	p.phone = fill(g.pick(c.shapes), p.national)
	if !g.percent(withoutEmail) {
		p.email = g.freeEmail(given, family)
	}
	p.department = g.pick(departments)
	if !g.percent(unassigned) {
		s := sellers[g.n(len(sellers))]
		p.owner, p.department = s.login, s.department
	}
	p.note = g.note(c)
	return p
}

// again is the same person as somebody else has typed them.
func (g *generator) again(p person) person {
	for before := p.phone; p.phone == before; {
		p.phone = fill(g.pick(p.country.shapes), p.national)
	}
	p.email = strings.ToUpper(p.email)
	if g.percent(50) {
		p.name = " " + strings.ReplaceAll(p.name, " ", "  ")
	}
	p.note = g.note(p.country)
	return p
}

func (g *generator) company(c *country) string {
	if g.percent(20) {
		return ""
	}
	return fmt.Sprintf(g.pick(c.forms), g.pick(c.firms))
}

// freeNumber returns a national number that nobody has yet.
func (g *generator) freeNumber(c *country) string {
	for {
		start := g.pick(c.prefixes)
		number := start + g.digits(c.digits-len(start))
		if key := c.code + number; !g.phones[key] {
			g.phones[key] = true
			return number
		}
	}
}

func (g *generator) freeEmail(given, family string) string {
	local := latin(given) + "." + latin(family)
	if g.percent(30) {
		local = latin(given)[:1] + latin(family)
	}
	for try, domain := local, g.pick(mailDomains); ; try = fmt.Sprint(local, g.n(1000)) {
		email := try + "@" + domain
		if !g.emails[email] {
			g.emails[email] = true
			if g.percent(5) {
				return strings.ToUpper(email[:1]) + email[1:]
			}
			return email
		}
	}
}

// note returns what a seller has jotted down, often nothing.
func (g *generator) note(c *country) string {
	if g.percent(45) {
		return ""
	}
	words := c.notes[g.n(len(c.notes))]
	switch {
	case strings.Contains(words, "{phone}"):
		// A number typed in a note is another one than the contact's.
		other := fill(g.pick(c.shapes), g.freeNumber(c))
		return strings.ReplaceAll(words, "{phone}", other)
	case strings.Contains(words, "{card}"):
		return strings.ReplaceAll(words, "{card}", g.card())
	case strings.Contains(words, "{n}"):
		return strings.ReplaceAll(words, "{n}", fmt.Sprint(1+g.n(99)))
	}
	return words
}

// testBINs begin the card numbers that payment systems publish for tests.
var testBINs = []string{"411111", "424242", "401288", "555555", "510510", "222300", "220000"}

// card returns a 16-digit test card whose Luhn digit is right.
func (g *generator) card() string {
	number := g.pick(testBINs) + g.digits(9)
	number += string(luhn(number))
	switch g.n(3) {
	case 0:
		return number
	case 1:
		return fill("#### #### #### ####", number)
	}
	return fill("####-####-####-####", number)
}

// luhn returns the check digit to append (ISO/IEC 7812-1, annex B).
func luhn(number string) byte {
	sum := 0
	for i := range len(number) {
		d := int(number[len(number)-1-i] - '0')
		if i%2 == 0 {
			if d *= 2; d > 9 {
				d -= 9
			}
		}
		sum += d
	}
	return "0123456789"[(10-sum%10)%10]
}

// fill puts digits in the place of the signs "#" of a shape.
func fill(shape, digits string) string {
	var b strings.Builder
	for _, r := range shape {
		if r == '#' && digits != "" {
			b.WriteByte(digits[0])
			digits = digits[1:]
			continue
		}
		b.WriteRune(r)
	}
	return b.String()
}
