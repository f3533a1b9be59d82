package mfa

import (
	"crypto/hmac"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/pquerna/otp"
	"github.com/stretchr/testify/require"
)

// RFC 4226, appendix D. The step is found, not only the code.
func TestRFC4226(t *testing.T) {
	secret := []byte("12345678901234567890")
	for step, code := range []string{
		"755224", "287082", "359152", "969429", "338314", "254676", "287922", "162583", "399871", "520489",
	} {
		for offset := -skew; offset <= skew; offset++ {
			if step+offset < 0 {
				continue
			}
			got, ok, err := app.match(secret, code, time.Unix(int64(step+offset)*30+29, 0))
			require.NoError(t, err)
			require.True(t, ok, "step %d, seen from %+d", step, offset)
			require.EqualValues(t, step, got)
		}
		for _, offset := range []int{-2, 2} {
			if step+offset < 0 {
				continue
			}
			_, ok, err := app.match(secret, code, time.Unix(int64(step+offset)*30, 0))
			require.NoError(t, err)
			require.False(t, ok, "step %d, seen from %+d", step, offset)
		}
	}
}

// RFC 6238, appendix B, with the seeds of its errata: as long as the hash.
func TestRFC6238(t *testing.T) {
	const digits = "1234567890"
	seeds := map[otp.Algorithm][]byte{
		otp.AlgorithmSHA1:   []byte(strings.Repeat(digits, 2)),
		otp.AlgorithmSHA256: []byte(strings.Repeat(digits, 4)[:32]),
		otp.AlgorithmSHA512: []byte(strings.Repeat(digits, 7)[:64]),
	}
	for _, v := range []struct {
		unix                 int64
		sha1, sha256, sha512 string
	}{
		{59, "94287082", "46119246", "90693936"},
		{1111111109, "07081804", "68084774", "25091201"},
		{1111111111, "14050471", "67062674", "99943326"},
		{1234567890, "89005924", "91819424", "93441116"},
		{2000000000, "69279037", "90698825", "38618901"},
		{20000000000, "65353130", "77737706", "47863826"},
	} {
		for algorithm, code := range map[otp.Algorithm]string{
			otp.AlgorithmSHA1: v.sha1, otp.AlgorithmSHA256: v.sha256, otp.AlgorithmSHA512: v.sha512,
		} {
			step, ok, err := scheme{algorithm, otp.DigitsEight, 30}.match(seeds[algorithm], code, time.Unix(v.unix, 0))
			require.NoError(t, err)
			require.True(t, ok, "%s at %d", algorithm, v.unix)
			require.Equal(t, v.unix/30, step)
		}
		// What an app shows with six digits is the end of that.
		_, ok, err := app.match(seeds[otp.AlgorithmSHA1], v.sha1[2:], time.Unix(v.unix, 0))
		require.NoError(t, err)
		require.True(t, ok)
	}
}

// pquerna/otp lets anybody in who knows the codes of an empty secret, and takes
// one of a single byte.
func TestShortSecretsAreRefused(t *testing.T) {
	now := time.Unix(1111111111, 0)
	for n := range minSecret {
		secret := make([]byte, n)
		code, err := app.code(secret, now.Unix()/30)
		require.NoError(t, err, "the library makes one")
		_, ok, err := app.match(secret, code, now)
		require.ErrorIs(t, err, errSecret)
		require.False(t, ok)
	}
	_, ok, err := app.match(nil, "", now)
	require.ErrorIs(t, err, errSecret)
	require.False(t, ok)
}

func TestMatchAtTheEdgesOfTime(t *testing.T) {
	secret := []byte("12345678901234567890")
	_, _, err := app.match(secret, "755224", time.Unix(-1, 0))
	require.ErrorIs(t, err, errClock)
	step, ok, err := app.match(secret, "755224", time.Unix(0, 0))
	require.NoError(t, err)
	require.True(t, ok)
	require.Zero(t, step)
	_, ok, err = app.match(secret, "", time.Unix(59, 0))
	require.NoError(t, err)
	require.False(t, ok)
}

func TestNormalizeCode(t *testing.T) {
	for typed, want := range map[string]string{
		"123456":                           "123456",
		"123 456":                          "123456",
		" 123\u00a0456\n":                  "123456",
		"12-34-56":                         "123456",
		"1 2 3 4 5 6":                      "123456",
		"000000":                           "000000",
		"":                                 "",
		"12345":                            "",
		"1234567":                          "",
		"12345a":                           "",
		"１２３４５６":                           "", // full-width digits are three bytes each
		"١٢٣":                              "", // six bytes, no ASCII digit
		"-12345":                           "",
		"+12345":                           "",
		"1234.5":                           "",
		"12345\x00":                        "",
		"12345\xff":                        "",
		strings.Repeat(" ", 20):            "",
		"123456" + strings.Repeat(" ", 18): "123456",
		"123456" + strings.Repeat(" ", 19): "",
	} {
		got, ok := normalizeCode(typed)
		require.Equal(t, want, got, "%q", typed)
		require.Equal(t, want != "", ok, "%q", typed)
	}
}

func TestNormalizeRecovery(t *testing.T) {
	const code = "ABCDEFGHIJKLMNOPQRSTUVWX"
	for typed, want := range map[string]string{
		code:                            code,
		"ABCD-EFGH-IJKL-MNOP-QRST-UVWX": code,
		"abcd efgh ijkl mnop qrst uvwx": code,
		strings.ToLower(code):           code,
		code[1:]:                        "",
		code + "A":                      "",
		code[1:] + "1":                  "",
		code[1:] + "0":                  "",
		code[2:] + "ı":                  "", // two bytes, whose capital is one
		code[2:] + "ſ":                  "",
		"":                              "",
	} {
		got, ok := normalizeRecovery(typed)
		require.Equal(t, want, got, "%q", typed)
		require.Equal(t, want != "", ok, "%q", typed)
	}
}

// Whatever is typed, what comes out is a code, comes out as itself, and is made
// of what was typed.
func FuzzNormalize(f *testing.F) {
	for _, seed := range []string{"123456", "123 456", "ABCD-EFGH-IJKL-MNOP-QRST-UVWX", "١٢٣", "12345\xff", "ı", ""} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, typed string) {
		if code, ok := normalizeCode(typed); ok {
			again, ok := normalizeCode(code)
			if !ok || again != code || len(code) != 6 || strings.Trim(code, "0123456789") != "" {
				t.Fatalf("%q gives %q, and that %q", typed, code, again)
			}
			if _, ok := normalizeRecovery(typed); ok {
				t.Fatalf("%q is both", typed)
			}
		} else if code != "" {
			t.Fatalf("%q is refused and gives %q", typed, code)
		}
		if code, ok := normalizeRecovery(typed); ok {
			again, ok := normalizeRecovery(strings.ToLower(code))
			if !ok || again != code || len(code) != recoveryLength || strings.Trim(code, "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567") != "" {
				t.Fatalf("%q gives %q, and that %q", typed, code, again)
			}
		}
	})
}

// The window is made of whole steps, whatever the day: TOTP counts UTC seconds.
func TestDaylightSavingDoesNotMatter(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	require.NoError(t, err)
	secret := []byte("12345678901234567890")
	for _, day := range []time.Time{
		time.Date(2026, 3, 29, 1, 59, 50, 0, berlin),  // the day has 23 hours
		time.Date(2026, 10, 25, 2, 59, 50, 0, berlin), // the day has 25
	} {
		for minute := range 3 * 60 {
			now := day.Add(time.Duration(minute) * time.Minute)
			code, err := app.code(secret, now.Unix()/30)
			require.NoError(t, err)
			step, ok, err := app.match(secret, code, now)
			require.NoError(t, err)
			require.True(t, ok, fmt.Sprint(now))
			require.Equal(t, now.UTC().Unix()/30, step)
		}
	}
}

// What a wrong code is compared with is what the library makes, for all of its
// settings that fit.
func FuzzTruncated(f *testing.F) {
	f.Add([]byte("12345678901234567890"), int64(1), uint8(0), uint8(6))
	f.Add([]byte("x"), int64(1<<62), uint8(2), uint8(8))
	f.Fuzz(func(t *testing.T, secret []byte, step int64, algorithm, digits uint8) {
		s := scheme{otp.Algorithm(algorithm % 3), otp.Digits(digits%8 + 1), 30}
		step &= 1<<62 - 1
		want, err := s.code(secret, step)
		if err != nil {
			t.Fatal(err)
		}
		got := s.digits.Format(s.truncated(hmac.New(s.algorithm.Hash, secret), step))
		if got != want {
			t.Fatalf("%v, step %d: %s, the library makes %s", s, step, got, want)
		}
	})
}
