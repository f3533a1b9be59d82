package mfa

import (
	"crypto/fips140"
	"crypto/subtle"
	"encoding/base32"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"

	"github.com/pquerna/otp"
	"github.com/pquerna/otp/hotp"
)

// ErrFIPS says that the program runs with GODEBUG=fips140=only, where HMAC-SHA1
// is forbidden, and authenticator apps know nothing else.
var ErrFIPS = errors.New("mfa: codes of authenticator apps need HMAC-SHA1, which fips140=only forbids")

var (
	errSecret = errors.New("mfa: a secret of less than 160 bits")
	errClock  = errors.New("mfa: the clock shows a time before 1970")
)

// minSecret is what RFC 4226 recommends, section 4, R6. Shorter ones are refused
// wherever they come from: with an empty one everybody could compute the codes.
const minSecret = 20 // bytes

var base32NoPadding = base32.StdEncoding.WithPadding(base32.NoPadding)

// scheme is how codes are made.
type scheme struct {
	algorithm otp.Algorithm
	digits    otp.Digits
	period    int64 // seconds
}

// app is the scheme of RFC 6238 that all apps know. Some ignore what a URI says
// about other ones, and then show codes that are wrong.
var app = scheme{otp.AlgorithmSHA1, otp.DigitsSix, 30}

// skew is how many steps before and after the current one are accepted.
const skew = 1

// code is the code of a step.
func (s scheme) code(secret string, step int64) (string, error) {
	return hotp.GenerateCodeCustom(secret, uint64(step), hotp.ValidateOpts{Digits: s.digits, Algorithm: s.algorithm}) //nolint:gosec // callers pass no negative step
}

// match finds the step whose code it is, the latest if there are several. It
// makes and compares the codes of all steps of the window, whichever fits.
func (s scheme) match(secret []byte, code string, now time.Time) (step int64, ok bool, err error) {
	if len(secret) < minSecret {
		return 0, false, errSecret
	}
	if fips140.Enforced() {
		return 0, false, ErrFIPS
	}
	if now.Unix() < 0 {
		return 0, false, errClock
	}
	text := base32NoPadding.EncodeToString(secret)
	current := now.Unix() / s.period
	for candidate := max(0, current-skew); candidate <= current+skew; candidate++ {
		want, err := s.code(text, candidate)
		if err != nil {
			return 0, false, fmt.Errorf("mfa: make a code: %w", err)
		}
		if subtle.ConstantTimeCompare([]byte(want), []byte(code)) == 1 {
			step, ok = candidate, true
		}
	}
	return step, ok, nil
}

// normalizeCode returns the six digits of a code as somebody types it, with
// spaces or a hyphen between; ok is false for anything else.
func normalizeCode(typed string) (code string, ok bool) {
	digits, ok := compact(typed, app.digits.Length())
	if !ok {
		return "", false
	}
	for _, c := range []byte(digits) {
		if c < '0' || c > '9' {
			return "", false
		}
	}
	return digits, true
}

// compact drops white space and hyphens. What is left must be n bytes long, and
// what was typed not much longer.
func compact(typed string, n int) (string, bool) {
	if len(typed) > 4*n {
		return "", false
	}
	typed = strings.Map(func(r rune) rune {
		if r == '-' || unicode.IsSpace(r) {
			return -1
		}
		return r
	}, typed)
	return typed, len(typed) == n
}
