package session

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"strings"
)

// tokenPrefix carries the version and lets scanners find leaked tokens with
// crmguard_s1_[A-Za-z0-9_-]{64}.
const tokenPrefix = "crmguard_s1_" //nolint:gosec // not a credential

const (
	// Both are whole groups of base64: the id's text is the beginning of the
	// token's, and without padding or spare bits a token has one spelling.
	idBytes     = 15
	secretBytes = 33
	tokenLen    = len(tokenPrefix) + (idBytes+secretBytes)*4/3
)

// token is a parsed token. It redacts itself.
type token [idBytes + secretBytes]byte

// Format hides the secret, whatever the verb.
func (token) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, "[redacted]") }

// MarshalText hides the secret from JSON and other encodings.
func (token) MarshalText() ([]byte, error) { return []byte("[redacted]"), nil }

func newToken() *token {
	var t token
	rand.Read(t[:]) //nolint:errcheck // never fails, says its documentation
	return &t
}

// renewed is a token of the same session with another secret.
func (t *token) renewed() *token {
	next := newToken()
	copy(next[:idBytes], t[:idBytes])
	return next
}

// parseToken reports whether text has the form of a token.
func parseToken(text string) (*token, bool) {
	if len(text) != tokenLen || !strings.HasPrefix(text, tokenPrefix) {
		return nil, false
	}
	// The decoder skips line breaks, which would give a token second spellings.
	body := text[len(tokenPrefix):]
	if strings.ContainsAny(body, "\r\n") {
		return nil, false
	}
	var t token
	if n, err := base64.RawURLEncoding.Decode(t[:], []byte(body)); err != nil || n != len(t) {
		return nil, false
	}
	return &t, true
}

// text is the token as its owner keeps it.
func (t *token) text() string { return tokenPrefix + base64.RawURLEncoding.EncodeToString(t[:]) }

// id names the session's row. It is no secret.
func (t *token) id() string { return base64.RawURLEncoding.EncodeToString(t[:idBytes]) }

// digest stands for the secret in what the verifier authenticates.
func (t *token) digest() [32]byte { return sha256.Sum256(t[idBytes:]) }
