package signin

import (
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"strings"
	"unicode/utf8"
)

// Attempt is what somebody hands in at the door.
type Attempt struct {
	Login    string
	Password string
	Code     string     // of an app, or a recovery code; empty: none
	Addr     netip.Addr // as the edge resolved it
	Device   string     // name of the device, if it is known; cut to 256 bytes
	Request  string     // id of the request; cut likewise
}

// trimmed returns the attempt with nothing that a session or a journal might
// refuse: that would come to light with the right password only, and without an
// entry.
func (a Attempt) trimmed() Attempt {
	a.Addr = a.Addr.WithZone("")
	a.Device, a.Request = trim(a.Device), trim(a.Request)
	return a
}

const maxText = 256 // bytes, which sessions take

// trim puts U+FFFD where databases refuse text, rather than nothing: what is left
// out could make another device's name of it.
func trim(text string) string {
	const instead = string(utf8.RuneError)
	text = strings.ReplaceAll(strings.ToValidUTF8(text, instead), "\x00", instead)
	if len(text) > maxText {
		text = strings.ToValidUTF8(text[:maxText], "") // no half a character at its end
	}
	return text
}

// String keeps login, password and code out of what is printed.
func (a Attempt) String() string { return "attempt from " + a.Addr.String() }

// Format does so whatever the verb.
func (a Attempt) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, a.String()) }

// LogValue keeps login, password and code out of logs.
func (a Attempt) LogValue() slog.Value { return slog.StringValue(a.String()) }

// MarshalText keeps login, password and code out of JSON.
func (a Attempt) MarshalText() ([]byte, error) { return []byte(a.String()), nil }
