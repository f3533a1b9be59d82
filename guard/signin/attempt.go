package signin

import (
	"fmt"
	"io"
	"log/slog"
	"net/netip"
)

// Attempt is what somebody hands in at the door.
type Attempt struct {
	Login    string
	Password string
	Code     string     // of an app, or a recovery code; empty: none
	Addr     netip.Addr // as the edge resolved it
	Device   string     // name of the device, if it is known
	Request  string     // id of the request
}

// String keeps login, password and code out of what is printed.
func (a Attempt) String() string { return "attempt from " + a.Addr.String() }

// Format does so whatever the verb.
func (a Attempt) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, a.String()) }

// LogValue keeps login, password and code out of logs.
func (a Attempt) LogValue() slog.Value { return slog.StringValue(a.String()) }

// MarshalText keeps login, password and code out of JSON.
func (a Attempt) MarshalText() ([]byte, error) { return []byte(a.String()), nil }
