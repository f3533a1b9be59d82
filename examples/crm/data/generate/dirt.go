package main

import (
	"slices"
	"strings"
)

// A spoiler makes a row of the kind that an import must refuse.
type spoiler func(g *generator, p person) []string

var dirt = slices.Concat(
	slices.Repeat([]spoiler{withoutName}, 8),
	slices.Repeat([]spoiler{brokenEmail}, 10),
	slices.Repeat([]spoiler{lettersInPhone}, 8),
	slices.Repeat([]spoiler{missingColumn}, 5),
	slices.Repeat([]spoiler{extraColumn}, 5),
	slices.Repeat([]spoiler{notUTF8}, 8),
	slices.Repeat([]spoiler{longNote}, 6),
	slices.Repeat([]spoiler{unknownDepartment}, 10),
)

func withoutName(g *generator, p person) []string {
	p.name = g.pick([]string{"", "  "})
	return p.row()
}

func brokenEmail(g *generator, p person) []string {
	p.email = g.pick([]string{
		"anna.example.com", "anna@", "@example.org", "anna@@example.com", "anna @example.net", "anna@example..com",
	})
	return p.row()
}

func lettersInPhone(g *generator, p person) []string {
	digits := []byte(p.phone)
	digits[len(digits)-1] = 'O'
	p.phone = string(digits)
	if g.percent(50) {
		p.phone = g.pick([]string{"нет телефона", "спросить у Анны", "+7 9I6 123-45-67", "call the office"})
	}
	return p.row()
}

func missingColumn(g *generator, p person) []string {
	row := p.row()
	return row[:len(row)-1-g.n(3)]
}

func extraColumn(_ *generator, p person) []string { return append(p.row(), "VIP") }

// notUTF8 has a name in Windows-1251, as old exports do.
func notUTF8(_ *generator, p person) []string {
	p.name = "\xc0\xed\xed\xe0 \xcf\xe5\xf2\xf0\xee\xe2\xe0"
	return p.row()
}

func longNote(_ *generator, p person) []string {
	p.note = strings.Repeat("ha ", tooLongNote/3+1)
	return p.row()
}

func unknownDepartment(g *generator, p person) []string {
	p.owner, p.department = "", g.pick([]string{"Marketing", "sales-north", "Отдел продаж", "?"})
	return p.row()
}
