package password

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

const reference = "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4"

var hostile = map[string]string{
	"empty":                "",
	"NUL":                  "\x00",
	"too long":             reference + strings.Repeat("A", 512),
	"no passes":            strings.Replace(reference, "t=2", "t=0", 1), // panics in argon2
	"no lanes":             strings.Replace(reference, "p=1", "p=0", 1), // panics in argon2
	"256 lanes":            strings.Replace(reference, "p=1", "p=256", 1),
	"lanes over the bound": strings.Replace(reference, "p=1", "p=17", 1),
	"memory below lanes":   strings.Replace(reference, "m=256", "m=7", 1),
	"4 TiB":                strings.Replace(reference, "m=256", "m=4294967295", 1),
	"over the bound":       strings.Replace(reference, "m=256,t=2", "m=262145,t=1", 1),
	"work over the bound":  strings.Replace(reference, "m=256,t=2", "m=65536,t=5", 1),
	"work by passes":       strings.Replace(reference, "m=256,t=2", "m=4097,t=64", 1),
	"passes":               strings.Replace(reference, "t=2", "t=4294967295", 1),
	"overflow":             strings.Replace(reference, "m=256", "m=18446744073709551872", 1),
	"negative":             strings.Replace(reference, "t=2", "t=-2", 1),
	"plus":                 strings.Replace(reference, "t=2", "t=+2", 1),
	"leading zero":         strings.Replace(reference, "t=2", "t=02", 1),
	"underscore":           strings.Replace(reference, "m=256", "m=2_56", 1),
	"other digits":         strings.Replace(reference, "t=2", "t=２", 1),
	"order":                strings.Replace(reference, "m=256,t=2,p=1", "t=2,m=256,p=1", 1),
	"key id":               strings.Replace(reference, "p=1", "p=1,keyid=AA", 1),
	"argon2i":              strings.Replace(reference, "argon2id", "argon2i", 1),
	"argon2d":              strings.Replace(reference, "argon2id", "argon2d", 1),
	"upper case":           strings.Replace(reference, "argon2id", "ARGON2ID", 1),
	"version 16":           strings.Replace(reference, "v=19", "v=16", 1),
	"no version":           strings.Replace(reference, "$v=19", "", 1),
	"bcrypt":               "$2b$12$EXRkfkdmXn2gzds2SSitu.MW9.gAVqa9eLS1//RYtYCmB1eLHg.9q",
	"short salt":           strings.Replace(reference, "c29tZXNhbHQ", "c29tZQ", 1),
	"no salt":              strings.Replace(reference, "c29tZXNhbHQ", "", 1),
	"long salt":            strings.Replace(reference, "c29tZXNhbHQ", strings.Repeat("AAAA", 22), 1),
	"padding":              strings.Replace(reference, "c29tZXNhbHQ", "c29tZXNhbHQ=", 1),
	"spare bits":           strings.Replace(reference, "c29tZXNhbHQ", "c29tZXNhbHR", 1),
	"line break":           strings.Replace(reference, "c29tZXNhbHQ", "c29tZX\nNhbHQ", 1),
	"url alphabet":         strings.Replace(reference, "/", "_", 1),
	"no key":               reference[:strings.LastIndex(reference, "$")+1],
	"short key":            "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQM",
	"long key":             reference + strings.Repeat("A", 60),
	"trailing part":        reference + "$",
	"leading space":        " " + reference,
	"trailing line break":  reference + "\n",
}

func TestParseRefusesHostileHashes(t *testing.T) {
	_, err := parse(reference)
	require.NoError(t, err)
	h, err := New(nil)
	require.NoError(t, err)
	for name, phc := range hostile {
		t.Run(name, func(t *testing.T) {
			require.NotEqual(t, reference, phc)
			ok, rehash, err := h.Verify(t.Context(), "password", phc)
			_, typed := errors.AsType[*HashError](err)
			require.True(t, typed, "%v", err)
			require.False(t, ok)
			require.False(t, rehash)
			require.NotContains(t, err.Error(), "c29tZXNhbHQ")
		})
	}
}

func TestWeak(t *testing.T) {
	salt, key := make([]byte, saltBytes), make([]byte, keyBytes)
	for _, tc := range []struct {
		name string
		hash hash
		want bool
	}{
		{"current", hash{current, salt, key}, false},
		{"more memory", hash{params{64 * 1024, 1, 4}, salt, key}, false},
		{"more passes", hash{params{46 * 1024, 3, 1}, salt, key}, false},
		{"less memory", hash{params{19 * 1024, 2, 1}, salt, key}, true},
		{"shorter salt", hash{current, salt[1:], key}, true},
		{"shorter key", hash{current, salt, key[1:]}, true},
	} {
		require.Equal(t, tc.want, tc.hash.weak(), tc.name)
	}
}

func TestMemoryIsBounded(t *testing.T) {
	h, err := New(&Options{Concurrency: 3})
	require.NoError(t, err)
	require.Equal(t, 3, cap(h.slots))
	h.slots <- struct{}{}
	h.slots <- struct{}{}
	require.NoError(t, h.VerifyNobody(t.Context(), "violet tractor"))
	require.Len(t, h.slots, 2, "the slot was given back")

	// While all slots are taken, everybody waits, until their context ends.
	h.slots <- struct{}{}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	errs := make([]error, 50)
	for i := range errs {
		wg.Go(func() { errs[i] = h.VerifyNobody(ctx, "violet tractor") })
	}
	cancel()
	wg.Wait()
	for _, err := range errs {
		require.ErrorIs(t, err, context.Canceled)
	}
	require.Len(t, h.slots, 3)
}

// Accounts can move here from other programs.
func TestParseAcceptsWhatOtherLibrariesMake(t *testing.T) {
	for name, costs := range map[string]string{
		"PHP":                      "m=65536,t=4,p=1",
		"RFC 9106, second choice":  "m=65536,t=3,p=4", // argon2-cffi too
		"OWASP, least memory":      "m=7168,t=5,p=1",
		"alexedwards/argon2id":     "m=65536,t=1,p=16",
		"the most that is allowed": "m=262144,t=1,p=1",
	} {
		_, err := parse(strings.Replace(reference, "m=256,t=2,p=1", costs, 1))
		require.NoError(t, err, name)
	}
}

// Whatever parses has bounded costs and is written again as it was read.
func FuzzParse(f *testing.F) {
	f.Add(reference)
	f.Add(hash{current, make([]byte, saltBytes), make([]byte, keyBytes)}.encode())
	for _, phc := range hostile {
		f.Add(phc)
	}
	f.Fuzz(func(t *testing.T, phc string) {
		h, err := parse(phc)
		if err != nil {
			if _, ok := errors.AsType[*HashError](err); !ok {
				t.Fatalf("not a HashError: %v", err)
			}
			return
		}
		if h.passes < 1 || h.lanes < 1 || h.memory > maxMemory || h.memory*h.passes > maxWork || h.memory < minMemory*uint32(h.lanes) {
			t.Fatalf("costs out of bounds: %+v", h.params)
		}
		if got := h.encode(); got != phc {
			t.Fatalf("read %q, written %q", phc, got)
		}
	})
}

func TestSqueeze(t *testing.T) {
	for _, tc := range []struct {
		given, want string
		separators  int
	}{
		{"", "", 0},
		{"...", "...", 0},
		{"p.a.s.s", "pass", 1},
		{" p -- a.s_s. ", " pass. ", 3},
		{"p.a.s.s word", "pass word", 1},
		{"word p.a.s.s", "word pass", 1},
		{"correct horse", "correct horse", 0},
		{"п а р", "пар", 1},
		{"\xff.a.\xfe.b", "\xff.ab", 1},
		{"x7 a b battery c d e", "x7 ab battery cde", 1},
	} {
		got, separators := squeeze(tc.given)
		require.Equal(t, tc.want, got)
		require.Equal(t, tc.separators, separators, tc.given)
	}
}
