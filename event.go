package crmguard

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"time"
)

// Outcome is how far an act came. The zero value is refused.
type Outcome uint8

// The outcomes.
const (
	Attempted Outcome = iota + 1 // about to be done; a later event with the same ID tells how it ended
	Done
	Denied
	Failed
	Undecided // whether it may be done could not be decided, so it was not done
)

var outcomeNames = [...]string{"", "attempted", "done", "denied", "failed", "undecided"}

// String returns a lower-case word.
func (o Outcome) String() string {
	if o >= Attempted && o <= Undecided {
		return outcomeNames[o]
	}
	return fmt.Sprintf("Outcome(%d)", uint8(o))
}

// MarshalText returns the word that String returns.
func (o Outcome) MarshalText() ([]byte, error) { return []byte(o.String()), nil }

// Event is one thing that happened. Its fields hold no personal data of clients;
// what must be kept of it goes into Private, which the journal seals.
type Event struct {
	ID       string // Attempted and Done of one act share it; recording is idempotent on (ID, Outcome); empty: the recorder makes one
	Time     time.Time
	Subject  Subject
	Action   Action
	Resource Resource
	Outcome  Outcome
	Reason   string   // a code; free text is Private
	Fields   []string // names of the fields viewed or changed
	Count    int      // records concerned, when not one
	Request  string   // id of the request
	Policy   string   // version of the policy that decided
	Private  []Private
}

// Private is a value that only the journal may keep, sealed under the client's
// key, so that it dies with the client. It redacts itself wherever it is printed.
type Private struct {
	Client string // whose data it is; empty: nobody's, sealed under the tenant's key
	Name   string
	Value  []byte
}

// String hides the value.
func (p Private) String() string { return p.Name + "=[redacted]" }

// Format hides the value, whatever the verb.
func (p Private) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, p.String()) }

// LogValue hides the value.
func (p Private) LogValue() slog.Value { return slog.StringValue(p.String()) }

// MarshalJSON hides the value.
func (p Private) MarshalJSON() ([]byte, error) { return json.Marshal(p.String()) }

// Recorder keeps events. When Record returns nil, the event is durable, or the
// recorder's documentation says for which actions it is not.
type Recorder interface {
	Record(ctx context.Context, e Event) error
}

// RecorderFunc makes a function a [Recorder].
type RecorderFunc func(ctx context.Context, e Event) error

// Record calls f.
func (f RecorderFunc) Record(ctx context.Context, e Event) error { return f(ctx, e) }
