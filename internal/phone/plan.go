package phone

import (
	"slices"
	"strings"
)

// E.164 allows 15 digits; the shortest numbers in use, such as Niue's, have 7.
const (
	minDigits = 7
	maxDigits = 15
)

// plan is how numbers of one calling code are dialled.
type plan struct {
	code    string   // calling code
	abroad  string   // dialled before a foreign calling code
	trunks  []string // dialled before a national number inside the country
	lengths [2]int   // shortest and longest national number
	leading string   // digits that a national number may begin with
	service []string // longer beginnings, where one digit would let a trunk prefix pass
	country string   // empty: several share the code
}

var (
	planRU = plan{
		code: "7", abroad: "810", trunks: []string{"8"},
		lengths: [2]int{10, 10}, leading: "34679", service: []string{"80", "81", "82", "83", "84", "85", "86", "87"},
	}
	planUA = plan{
		code: "380", abroad: "00", trunks: []string{"0", "80"}, // "80": the habit from Soviet times
		lengths: [2]int{9, 10}, leading: "3456789", country: "UA",
	}
	planBY = plan{
		code: "375", abroad: "810", trunks: []string{"80", "8", "0"},
		lengths: [2]int{9, 10}, leading: "1234", service: []string{"800", "801", "803", "810", "820", "902"}, country: "BY",
	}
	planDE = plan{
		code: "49", abroad: "00", trunks: []string{"0"},
		lengths: [2]int{5, 13}, leading: "123456789", country: "DE",
	}
	planGB = plan{
		code: "44", abroad: "00", trunks: []string{"0"},
		lengths: [2]int{7, 10}, leading: "1235789", country: "GB",
	}
	planUS = plan{
		code: "1", abroad: "011", trunks: []string{"1"},
		lengths: [2]int{7, 10}, leading: "23456789",
	}
)

// planOf returns the plan of a region, nil if it is not in the table.
func planOf(region string) *plan {
	switch region {
	case "RU", "KZ":
		return &planRU
	case "UA":
		return &planUA
	case "BY":
		return &planBY
	case "DE":
		return &planDE
	case "GB":
		return &planGB
	case "US", "CA":
		return &planUS
	}
	return nil
}

// planOfCode returns the plan of the calling code that digits begin with.
func planOfCode(digits []byte) *plan {
	if len(digits) == 0 {
		return nil
	}
	switch {
	case digits[0] == '7':
		return &planRU
	case digits[0] == '1':
		return &planUS
	case hasPrefix(digits, planDE.code):
		return &planDE
	case hasPrefix(digits, planGB.code):
		return &planGB
	case hasPrefix(digits, planUA.code):
		return &planUA
	case hasPrefix(digits, planBY.code):
		return &planBY
	}
	return nil
}

// national strips the trunk prefix, if there is one, and reports whether what
// remains may be a national number.
func (p *plan) national(digits []byte) ([]byte, bool) {
	if p.fits(digits) {
		return digits, true
	}
	for _, trunk := range p.trunks {
		if hasPrefix(digits, trunk) && p.fits(digits[len(trunk):]) {
			return digits[len(trunk):], true
		}
	}
	return nil, false
}

func (p *plan) fits(nsn []byte) bool {
	if len(nsn) < p.lengths[0] || len(nsn) > p.lengths[1] {
		return false
	}
	if strings.IndexByte(p.leading, nsn[0]) < 0 {
		return slices.ContainsFunc(p.service, func(prefix string) bool { return hasPrefix(nsn, prefix) })
	}
	if p == &planUS && len(nsn) != p.lengths[1] {
		return len(nsn) == len("3101234") && hasPrefix(nsn, shortCA)
	}
	return p != &planUS || nsn[3] >= '2' // an exchange begins like an area
}

func (p *plan) countryOf(nsn []byte) string {
	switch p {
	case &planRU:
		return countryOf7(nsn)
	case &planUS:
		return countryOf1(nsn)
	}
	return p.country
}

// countryOf7 tells Kazakhstan's numbers from Russia's, which share a code.
func countryOf7(nsn []byte) string {
	if nsn[0] == '6' || nsn[0] == '7' || hasPrefix(nsn, "33622") {
		return "KZ"
	}
	return "RU"
}

// Area codes of the North American plan outside the United States. Codes of no
// country, such as 800, count as the United States'.
const (
	areasCA    = "204 226 236 249 250 257 263 289 306 343 354 365 367 368 382 387 403 416 418 428 431 437 438 450 460 468 474 506 514 519 537 548 568 579 581 584 587 604 613 639 647 672 683 705 709 742 753 778 780 782 807 819 825 867 873 879 902 905 942 600 622 633 644 655 677 688"
	areasOther = "242BS 246BB 264AI 268AG 284VG 340VI 345KY 441BM 473GD 649TC 658JM 664MS 670MP 671GU 684AS 721SX 758LC 767DM 784VC 787PR 809DO 829DO 849DO 868TT 869KN 876JM 939PR"
	shortCA    = "310" // seven-digit numbers that all of Canada dials alike
)

func countryOf1(nsn []byte) string {
	area := string(nsn[:3])
	if area == shortCA && len(nsn) < planUS.lengths[1] {
		return "CA"
	}
	if i := strings.Index(areasOther, area); i >= 0 {
		return areasOther[i+3 : i+5]
	}
	if strings.Contains(areasCA, area) {
		return "CA"
	}
	return "US"
}

// codeLen returns the length of the calling code that digits begin with, after
// ITU-T E.164 (the assigned two-digit codes; all others have three), 0 if none.
func codeLen(digits []byte) int {
	if len(digits) < minDigits || digits[0] == '0' {
		return 0
	}
	if digits[0] == '1' || digits[0] == '7' {
		return 1
	}
	const two = "20 27 30 31 32 33 34 36 39 40 41 43 44 45 46 47 48 49 51 52 53 54 55 56 57 58 60 61 62 63 64 65 66 81 82 84 86 90 91 92 93 94 95 98"
	if strings.Contains(two, string(digits[:2])) {
		return 2
	}
	return 3
}
