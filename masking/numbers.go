package masking

import (
	"bytes"
	"strings"

	"github.com/crmguard/crmguard/internal/phone"
)

// The digits of numbers with a checksum.
const (
	minNumber        = 10
	minCard, maxCard = 13, 19
)

// numbers appends the cards and the numbers with a checksum of one run. A number
// begins and ends where a group of digits does, so each such pair is looked at;
// zeros before a card do not hide it.
func numbers(spans []span, run *phone.Run) []span {
	for i := range run.Groups {
		first := run.Digits(i, i+1)
		zeros := len(first) - len(bytes.TrimLeft(first, "0"))
		var sum luhn
		for j := i + 1; j <= len(run.Groups); j++ {
			digits := run.Digits(i, j)
			if len(digits)-zeros > maxCard {
				break
			}
			sum.add(run.Digits(j-1, j))
			if len(digits) < minNumber {
				continue
			}
			if isCard(run, i, j, digits[zeros:], sum) || isRussian(run, i, j, digits) {
				spans = append(spans, span{run.Groups[i].Start, run.Groups[j-1].End})
			}
		}
	}
	return spans
}

// isCard goes by the checksum, and by the sizes of groups printed on cards: then a
// mistyped digit does not show the rest.
func isCard(run *phone.Run, i, j int, digits []byte, sum luhn) bool {
	if len(digits) < minCard {
		return false
	}
	if sum.valid() && (sameGaps(run, i, j) || len(digits) > minCard && '2' <= digits[0] && digits[0] <= '6' && softGaps(run, i, j)) {
		return true
	}
	return run.Sizes(i, j, "4444") || run.Sizes(i, j, "44443") || run.Sizes(i, j, "465") || run.Sizes(i, j, "464")
}

// isRussian is for INN and OGRN, which are written in one piece, and for SNILS,
// which is written in groups too, though not like money in thousands.
func isRussian(run *phone.Run, i, j int, digits []byte) bool {
	switch len(digits) {
	case 10, 12:
		return j-i == 1 && isINN(digits)
	case 11:
		return isSNILS(digits) && !isThousands(run, i, j)
	case 13, 15:
		return j-i == 1 && isOGRN(digits)
	}
	return false
}

// sameGaps reports whether the groups from i to j are separated alike. A date and
// a time beside each other are not.
func sameGaps(run *phone.Run, i, j int) bool {
	for k := i + 2; k < j; k++ {
		if run.Gap(k) != run.Gap(i+1) {
			return false
		}
	}
	return true
}

// softGaps reports whether the groups from i to j are separated by blanks and
// dashes alone.
func softGaps(run *phone.Run, i, j int) bool {
	for k := i + 1; k < j; k++ {
		if strings.ContainsAny(run.Gap(k), "./_~()[]\n\r") {
			return false
		}
	}
	return true
}

func isThousands(run *phone.Run, i, j int) bool {
	for k := i + 1; k < j; k++ {
		if run.Size(k) != 3 {
			return false
		}
	}
	return j-i > 1 && run.Size(i) <= 3
}
