package password

import (
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/crypto/argon2"
)

// HashError says why a stored hash cannot be used. It does not show the hash.
type HashError struct{ Reason string }

// Error names the reason.
func (e *HashError) Error() string { return "password: stored hash: " + e.Reason }

// Bounds of hashes that are verified. Work is memory times passes, in KiB: the
// largest takes 5.6 times that of a hash made here. It admits what other libraries
// make by default, such as 64 MiB in four passes, and RFC 9106's second choice.
const (
	maxPHC    = 512
	minMemory = 8 // KiB per lane, RFC 9106 section 3.1
	maxMemory = 256 * 1024
	maxWork   = 256 * 1024
	maxPasses = 64
	maxLanes  = 16
	minSalt   = 8
	maxSalt   = 64
	minKey    = 16
	maxKey    = 64
)

// params are the costs of argon2id.
type params struct {
	memory uint32 // KiB
	passes uint32
	lanes  uint8
}

type hash struct {
	params
	salt, key []byte
}

// encode is the PHC string, base64 without padding.
func (h hash) encode() string {
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, h.memory, h.passes, h.lanes,
		base64.RawStdEncoding.EncodeToString(h.salt), base64.RawStdEncoding.EncodeToString(h.key))
}

// weak reports whether new hashes cost an attacker more.
func (h hash) weak() bool {
	return h.memory < current.memory || len(h.salt) < saltBytes || len(h.key) < keyBytes
}

// parse reads a PHC string and refuses all that [hash.encode] would not write
// for some parameters within the bounds.
func parse(phc string) (hash, error) {
	if len(phc) > maxPHC {
		return hash{}, &HashError{"too long"}
	}
	parts := strings.Split(phc, "$")
	if len(parts) != 6 || parts[0] != "" {
		return hash{}, &HashError{"not a PHC string"}
	}
	if parts[1] != "argon2id" {
		return hash{}, &HashError{"not argon2id"}
	}
	if parts[2] != "v="+strconv.Itoa(argon2.Version) {
		return hash{}, &HashError{"not version 19"}
	}
	costs := strings.Split(parts[3], ",")
	if len(costs) != 3 {
		return hash{}, &HashError{"want m=, t= and p="}
	}
	m, okM := parseCost(costs[0], "m=", maxMemory)
	t, okT := parseCost(costs[1], "t=", maxPasses)
	p, okP := parseCost(costs[2], "p=", maxLanes)
	if !okM || !okT || !okP || m < minMemory*p || m*t > maxWork {
		return hash{}, &HashError{"costs out of bounds"}
	}
	salt, okSalt := parseBase64(parts[4], minSalt, maxSalt)
	key, okKey := parseBase64(parts[5], minKey, maxKey)
	if !okSalt || !okKey {
		return hash{}, &HashError{"salt or key out of bounds"}
	}
	return hash{params{m, t, uint8(p)}, salt, key}, nil //nolint:gosec // at most maxLanes
}

// parseCost reads a decimal from 1 to limit, without sign or leading zeros.
func parseCost(text, name string, limit uint32) (uint32, bool) {
	digits, ok := strings.CutPrefix(text, name)
	if !ok || digits == "" || digits[0] < '1' || digits[0] > '9' {
		return 0, false
	}
	n, err := strconv.ParseUint(digits, 10, 32)
	if err != nil || n > uint64(limit) {
		return 0, false
	}
	return uint32(n), true
}

// parseBase64 refuses padding, line breaks and spare bits, so that bytes have
// one spelling.
func parseBase64(text string, shortest, longest int) ([]byte, bool) {
	if strings.ContainsAny(text, "\r\n") {
		return nil, false
	}
	b, err := base64.RawStdEncoding.Strict().DecodeString(text)
	return b, err == nil && len(b) >= shortest && len(b) <= longest
}
