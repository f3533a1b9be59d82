package crmguard

import "fmt"

// Assurance is how surely a session belongs to its person. Larger is surer; the
// gaps leave room for what lies between.
type Assurance uint8

// The levels.
const (
	AssuranceNone              Assurance = 0
	AssuranceRecovered         Assurance = 10 // signed in with a recovery code
	AssurancePassword          Assurance = 20
	AssuranceOutOfBand         Assurance = 25 // a code sent by phone or mail
	AssuranceSecondFactor      Assurance = 30 // a code from an app
	AssurancePhishingResistant Assurance = 40 // WebAuthn
)

var assuranceNames = map[Assurance]string{
	AssuranceNone:              "none",
	AssuranceRecovered:         "recovered",
	AssurancePassword:          "password",
	AssuranceOutOfBand:         "out-of-band",
	AssuranceSecondFactor:      "second-factor",
	AssurancePhishingResistant: "phishing-resistant",
}

// String returns the name that JSON shows too.
func (a Assurance) String() string {
	if name, ok := assuranceNames[a]; ok {
		return name
	}
	return fmt.Sprintf("Assurance(%d)", uint8(a))
}

// MarshalText returns the name; a level without a name is an error.
func (a Assurance) MarshalText() ([]byte, error) {
	if _, ok := assuranceNames[a]; !ok {
		return nil, fmt.Errorf("crmguard: no such assurance: %d", uint8(a))
	}
	return []byte(a.String()), nil
}

// UnmarshalText accepts the names that MarshalText returns.
func (a *Assurance) UnmarshalText(text []byte) error {
	for level, name := range assuranceNames {
		if name == string(text) {
			*a = level
			return nil
		}
	}
	return fmt.Errorf("crmguard: no such assurance: %q", text)
}
