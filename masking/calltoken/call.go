package calltoken

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/crmguard/crmguard/internal/phone"
)

// State is how far a call came.
type State uint8

// The states of a call. The last two are final.
const (
	Ringing State = iota + 1 // given, or about to be given, to the exchange
	Ended                    // the exchange says that it is over
	Failed                   // not made, or the exchange did not say whether it was
)

var stateNames = [...]string{Ringing: "ringing", Ended: "ended", Failed: "failed"}

// String returns a lower-case word.
func (s State) String() string {
	if s < Ringing || s > Failed {
		return fmt.Sprintf("State(%d)", uint8(s))
	}
	return stateNames[s]
}

// MarshalText returns the word that String returns.
func (s State) MarshalText() ([]byte, error) {
	if s < Ringing || s > Failed {
		return nil, fmt.Errorf("calltoken: state %d has no name", uint8(s))
	}
	return []byte(stateNames[s]), nil
}

// UnmarshalText accepts the words that MarshalText returns.
func (s *State) UnmarshalText(text []byte) error {
	for i := Ringing; i <= Failed; i++ {
		if string(text) == stateNames[i] {
			*s = i
			return nil
		}
	}
	return errors.New("calltoken: not the state of a call")
}

// Number is a telephone number in a place where one has to be. It redacts itself;
// [Number.Show] is for who dials.
type Number struct{ secret }

// NewNumber reads a number as people write it, E.164 or in the habits of region,
// an ISO 3166 code such as "RU"; with an empty region only numbers with their
// calling code. Extensions are dropped. The error does not repeat text.
func NewNumber(text, region string) (Number, error) {
	n, ok := phone.Parse(text, region)
	if !ok {
		return Number{}, errors.New("calltoken: the field holds no telephone number, or one without calling code")
	}
	return Number{newSecret(n.E164)}, nil
}

// Show returns the number in E.164, such as +442079460018.
func (n Number) Show() string { return n.reveal() }

// Order tells an exchange to make a call: ring Leg, show it CallID and nothing of
// Number, and when it has answered, ring Number. The leg never learns Number, and
// reports name the call by CallID.
type Order struct {
	Tenant  string
	CallID  string
	Leg     string
	Number  Number
	Expires time.Time // not to be begun later
}

// Dialer gives an order to the telephone network. It returns nil once the order
// was taken, without waiting for an answer. [Resolver] and [Receiver] ask it once
// for each CallID.
type Dialer interface {
	Dial(ctx context.Context, o Order) error
}

// DialerFunc makes a function a Dialer.
type DialerFunc func(ctx context.Context, o Order) error

// Dial calls f.
func (f DialerFunc) Dial(ctx context.Context, o Order) error { return f(ctx, o) }

var errWithheld = errors.New("calltoken: dialling failed; the error is withheld, because it names the number")

// withhold returns err unless its text holds the end of number, however it is
// grouped.
func withhold(err error, number Number) error {
	if err == nil {
		return nil
	}
	digits := strings.Map(func(r rune) rune {
		if d, ok := phone.Digit(r); ok {
			return rune(d)
		}
		return -1
	}, err.Error())
	e164 := number.Show()
	if end := e164[max(0, len(e164)-7):]; strings.Contains(digits, end) {
		return errWithheld
	}
	return err
}
