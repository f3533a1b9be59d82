package calltoken

import (
	"fmt"
	"io"
	"log/slog"
)

// secret is a text that redacts itself, and so what it is embedded in. It is held
// by a pointer because fmt calls no method of what is in an unexported field, and
// prints the field as it is; it does not follow pointers to strings.
type secret struct{ text *string }

func newSecret(text string) secret { return secret{&text} }

// reveal returns the text, of the zero value an empty one.
func (s secret) reveal() string {
	if s.text == nil {
		return ""
	}
	return *s.text
}

// Format hides the text, whatever the verb.
func (secret) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, redacted) }

// LogValue hides the text.
func (secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText hides the text from JSON and other encodings.
func (secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

const redacted = "[redacted]"
