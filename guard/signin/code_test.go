package signin

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestCodesAreToldApartByTheirShape(t *testing.T) {
	for typed, ofApp := range map[string]bool{
		"123456": true, "123 456": true, " 123-456\n": true, "1 2 3 4 5 6": true, "123\u00a0456": true,
		"": false, "12345": false, "1234567": false, "123456a": false, "ABCD-EFGH": false, "١٢٣٤٥٦": false, "-": false,
	} {
		require.Equal(t, ofApp, isOfApp(typed), "%q", typed)
	}
}

func TestWords(t *testing.T) {
	for text, word := range map[string]bool{
		"wrong-code": true, "paused": true,
		"": false, "wrong code": false, "123456": false, "ABCD": false, "wrong:code": false, "código": false,
	} {
		require.Equal(t, word, isWord(text), "%q", text)
	}
}

func FuzzIsOfApp(f *testing.F) {
	f.Add("123 456")
	f.Add("ABCD-EFGH-2345")
	f.Fuzz(func(t *testing.T, typed string) {
		digits := 0
		for _, c := range typed {
			if c >= '0' && c <= '9' {
				digits++
			}
		}
		if isOfApp(typed) && (digits != appDigits || isWord(typed)) {
			t.Fatalf("%q", typed)
		}
	})
}
