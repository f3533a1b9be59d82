package mfa

import (
	"crypto/fips140"
	"crypto/hmac"
	"crypto/subtle"
	"encoding/base32"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"strconv"
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

// code is the code of a step, by the library.
func (s scheme) code(secret []byte, step int64) (string, error) {
	return hotp.GenerateCodeCustom(base32NoPadding.EncodeToString(secret), uint64(step), //nolint:gosec // no step is negative
		hotp.ValidateOpts{Digits: s.digits, Algorithm: s.algorithm})
}

// match finds the step whose code it is, the latest if there are several. It
// makes and compares the codes of all steps of the window, whichever fits, with
// one HMAC key for all, which is what a wrong code costs. A code that fits is
// made once more by the library, and is good only if both agree.
func (s scheme) match(secret []byte, code string, now time.Time) (step int64, ok bool, err error) {
	if len(secret) < minSecret {
		return 0, false, errSecret
	}
	if fips140.Enforced() {
		return 0, false, ErrFIPS
	}
	unix := now.Unix()
	if unix < 0 {
		return 0, false, errClock
	}
	typed, err := strconv.ParseUint(code, 10, 31)
	if err != nil || len(code) != s.digits.Length() {
		return 0, false, nil
	}
	mac := hmac.New(s.algorithm.Hash, secret)
	current := unix / s.period
	for candidate := max(0, current-skew); candidate <= current+skew; candidate++ {
		if subtle.ConstantTimeEq(s.truncated(mac, candidate), int32(typed)) == 1 { //nolint:gosec // 31 bits
			step, ok = candidate, true
		}
	}
	if !ok {
		return 0, false, nil
	}
	again, err := s.code(secret, step)
	if err != nil {
		return 0, false, fmt.Errorf("mfa: make a code: %w", err)
	}
	return step, subtle.ConstantTimeCompare([]byte(again), []byte(code)) == 1, nil
}

// truncated is the code of a step as a number: RFC 4226, section 5.3.
func (s scheme) truncated(mac hash.Hash, step int64) int32 {
	var b [64]byte
	binary.BigEndian.PutUint64(b[:8], uint64(step)) //nolint:gosec // no step is negative
	mac.Reset()
	mac.Write(b[:8])
	sum := mac.Sum(b[:0])
	number := binary.BigEndian.Uint32(sum[sum[len(sum)-1]&0xf:]) & 0x7fffffff
	modulus := uint32(1)
	for range s.digits {
		modulus *= 10
	}
	return int32(number % modulus) //nolint:gosec // 31 bits
}

// normalizeCode returns the six digits of a code as somebody types it, with
// spaces or a hyphen between; ok is false for anything else.
func normalizeCode(typed string) (code string, ok bool) {
	if code, ok = compact(typed, app.digits.Length()); !ok {
		return "", false
	}
	for _, c := range []byte(code) {
		if c < '0' || c > '9' {
			return "", false
		}
	}
	return code, true
}

// compact drops white space and hyphens. What is left must be n bytes long, and
// what was typed not much longer.
func compact(typed string, n int) (string, bool) {
	if len(typed) > 4*n {
		return "", false
	}
	if len(typed) > n { // what is as short has nothing to drop
		typed = strings.Map(func(r rune) rune {
			if r == '-' || unicode.IsSpace(r) {
				return -1
			}
			return r
		}, typed)
	}
	return typed, len(typed) == n
}
