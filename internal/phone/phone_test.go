package phone

import (
	"fmt"
	"strings"
	"testing"
	"unicode"

	"github.com/nyaruka/phonenumbers"
	"github.com/stretchr/testify/require"
	"golang.org/x/text/unicode/norm"
)

func TestParse(t *testing.T) {
	for _, c := range []struct{ text, region, e164, country string }{
		{"8 (916) 123-45-67", "RU", "+79161234567", "RU"},
		{"+7 916 1234567", "", "+79161234567", "RU"},
		{"9161234567", "RU", "+79161234567", "RU"},
		{"79161234567", "RU", "+79161234567", "RU"},
		{"+7 (8) 916 123 45 67", "", "+79161234567", "RU"},
		{"8 800 555-35-35", "RU", "+78005553535", "RU"},
		{"8 812 234-24-04", "RU", "+78122342404", "RU"},
		{"812 234-24-04", "RU", "+78122342404", "RU"},
		{"8 10 49 30 901820", "RU", "+4930901820", "DE"},
		{"8 (701) 123-45-67", "KZ", "+77011234567", "KZ"},
		{"8 (701) 123-45-67", "RU", "+77011234567", "KZ"},
		{"+7 336 22 12345", "", "+73362212345", "KZ"},
		{"067 123 45 67", "UA", "+380671234567", "UA"},
		{"8 067 123 45 67", "UA", "+380671234567", "UA"},
		{"+38 (067) 123-45-67", "", "+380671234567", "UA"},
		{"8 029 123-45-67", "BY", "+375291234567", "BY"},
		{"+375 (29) 123-45-67", "", "+375291234567", "BY"},
		{"0049 30 901820", "", "+4930901820", "DE"},
		{"030/901820", "DE", "+4930901820", "DE"},
		{"011 7 916 123 45 67", "US", "+79161234567", "RU"},
		{"011 7 916 123 45 67", "RU", "+79161234567", "RU"},
		{"+44 (0)20 7946 0958", "", "+442079460958", "GB"},
		{"07700 900123", "GB", "+447700900123", "GB"},
		{"(212) 555-0123", "US", "+12125550123", "US"},
		{"1-416-555-0123", "US", "+14165550123", "CA"},
		{"+1 876 555 0123", "", "+18765550123", "JM"},
		{"tel:+1-212-555-0123", "", "+12125550123", "US"},
		{"тел.: 8 916 123 45 67", "RU", "+79161234567", "RU"},
		{"8 916 123-45-67 доб. 12", "RU", "+79161234567", "RU"},
		{"8 916 123-45-67, доб 12", "RU", "+79161234567", "RU"},
		{"+1 212 555 0123 ext 12", "", "+12125550123", "US"},
		{"+1 212 555 0123x12", "", "+12125550123", "US"},
		{"tel:+12125550123;ext=12", "", "+12125550123", "US"},
		{"＋７（９１６）１２３－４５－６７", "", "+79161234567", "RU"},
		{"+٧ ٩١٦ ١٢٣ ٤٥ ٦٧", "", "+79161234567", "RU"},
		{"+7\u00a0916\u202f123\u201145\u201367", "", "+79161234567", "RU"},
		{"\u202a+7 916 123‒45—67\u202c", "", "+79161234567", "RU"},
		{"+33 (0)1 70 18 99 00", "", "+33170189900", ""},
		{"+39 (0)6 698 12345", "", "+390669812345", ""},
		{"+683 4002", "", "+6834002", ""},
		{"0113 496 0000", "GB", "+441134960000", "GB"}, // not America's 011
	} {
		n, ok := Parse(c.text, c.region)
		require.True(t, ok, c.text)
		require.Equal(t, c.e164, n.E164, c.text)
		require.Equal(t, c.country, n.Country, c.text)
		require.Equal(t, n.E164, n.Code()+n.National, c.text)
	}
}

func TestParseRefuses(t *testing.T) {
	for _, c := range []struct{ text, region string }{
		{"", "RU"}, {"+", "RU"}, {"12", "RU"}, {"anna", "RU"},
		{"8 916 123-45-6", "RU"},
		{"8 916 123-45-678", "RU"},
		{"8 916 123-45-67", ""},
		{"8 916 123-45-67", "ZZ"},
		{"8 916 123-45-6O", "RU"},
		{"8 916 123-45-67, 8 916 123-45-68", "RU"},
		{"8 916 123-45-67 доб. 12345678", "RU"},
		{"+7 916 +123 45 67", "RU"},
		{"++79161234567", "RU"},
		{"+0 916 123 45 67", "RU"},
		{"+7 016 123 45 67", "RU"},
		{"+1 212 155 0123", "US"},
		{"+999 1234567890123", ""},
		{"0113 496 0000", ""},
		{"4111 1111 1111 1111", "US"},
		{"12345678901234567890123", "DE"},
		{"+7 916 •••-••-67", "RU"},
		{"\xff+79161234567", "RU"},
	} {
		_, ok := Parse(c.text, c.region)
		require.False(t, ok, c.text)
	}
}

// Unicode's decimal digits come in tens, from zero to nine.
func TestDigit(t *testing.T) {
	n := 0
	for r := range rune(unicode.MaxRune) {
		d, ok := Digit(r)
		if ok != unicode.Is(unicode.Nd, r) {
			t.Fatalf("%U", r)
		}
		if ok {
			require.Equal(t, byte('0'+n%10), d, "%U", r)
			n++
		}
	}
	require.Greater(t, n, 600)
}

// Whatever Unicode says stands for a digit is read as that digit in a text.
func TestAnyDigit(t *testing.T) {
	n := 0
	for r := range rune(unicode.MaxRune) {
		plain := strings.Trim(norm.NFKC.String(string(r)), "().,")
		if d, ok := AnyDigit(r); ok && !unicode.Is(unicode.Nd, r) {
			n++
			if len(plain) == 1 && plain != string(r) && plain != string(d) {
				t.Fatalf("%U %q is not %q", r, plain, d)
			}
		} else if unicode.Is(unicode.No, r) && len(plain) == 1 && '0' <= plain[0] && plain[0] <= '9' {
			t.Fatalf("%U is %s", r, plain)
		}
	}
	require.Equal(t, 2+1+1+6+10+9*4+1+1+9*3+11+1+1, n)
}

var tabled = []string{"RU", "KZ", "UA", "BY", "DE", "GB", "US", "CA"}

var types = []phonenumbers.PhoneNumberType{
	phonenumbers.FIXED_LINE, phonenumbers.MOBILE, phonenumbers.FIXED_LINE_OR_MOBILE,
	phonenumbers.TOLL_FREE, phonenumbers.PREMIUM_RATE, phonenumbers.SHARED_COST, phonenumbers.VOIP,
	phonenumbers.PERSONAL_NUMBER, phonenumbers.PAGER, phonenumbers.UAN, phonenumbers.VOICEMAIL,
}

// The oracle's example numbers, in every format it knows, read as it reads them.
func TestOracle(t *testing.T) {
	compared := 0
	for _, region := range tabled {
		for _, kind := range types {
			example := phonenumbers.GetExampleNumberForType(region, kind)
			if example == nil {
				continue
			}
			e164 := phonenumbers.Format(example, phonenumbers.E164)
			if len(e164) > 1+maxDigits {
				continue
			}
			for _, format := range []phonenumbers.PhoneNumberFormat{
				phonenumbers.E164, phonenumbers.INTERNATIONAL, phonenumbers.NATIONAL, phonenumbers.RFC3966,
			} {
				text := phonenumbers.Format(example, format)
				what := fmt.Sprint(region, " ", kind, " ", text)
				n, ok := Parse(text, region)
				require.True(t, ok, what)
				require.Equal(t, e164, n.E164, what)
				require.Equal(t, phonenumbers.GetRegionCodeForNumber(example), n.Country, what)
				compared++
			}
		}
	}
	require.Greater(t, compared, 100)
}

// Everywhere else the calling code alone decides.
func TestOracleElsewhere(t *testing.T) {
	for region := range phonenumbers.GetSupportedRegions() {
		for _, kind := range []phonenumbers.PhoneNumberType{phonenumbers.FIXED_LINE, phonenumbers.MOBILE} {
			example := phonenumbers.GetExampleNumberForType(region, kind)
			if example == nil {
				continue
			}
			e164 := phonenumbers.Format(example, phonenumbers.E164)
			n, ok := Parse(phonenumbers.Format(example, phonenumbers.INTERNATIONAL), "")
			require.True(t, ok, "%s %s", region, e164)
			require.Equal(t, e164, n.E164)
			require.Equal(t, fmt.Sprintf("+%d", example.GetCountryCode()), n.Code(), region)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"8 (916) 123-45-67 доб. 12", "+44 (0)20 7946 0958", "tel:+12125550123;ext=12", "＋７", "٧٩", "(0)", "\xff"} {
		f.Add(s, "RU")
		f.Add(s, "")
	}
	f.Fuzz(func(t *testing.T, text, region string) {
		n, ok := Parse(text, region)
		if !ok {
			require.Zero(t, n)
			return
		}
		require.Regexp(t, `^\+[1-9][0-9]{6,14}$`, n.E164)
		require.Equal(t, n.E164, n.Code()+n.National)
		again, ok := Parse(n.E164, "")
		require.True(t, ok, "%q", n.E164)
		require.Equal(t, n, again)
	})
}

func TestParseAllocates(t *testing.T) {
	require.LessOrEqual(t, testing.AllocsPerRun(100, func() { Parse("8 (916) 123-45-67", "RU") }), 1.0)
}

func BenchmarkParse(b *testing.B) {
	for b.Loop() {
		Parse("8 (916) 123-45-67", "RU")
	}
}
