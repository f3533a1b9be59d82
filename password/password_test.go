package password_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/text/unicode/norm"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/crmguardtest"
	"github.com/crmguard/crmguard/internal/fipstest"
	"github.com/crmguard/crmguard/password"
)

// A hash is sealed at the place of its person, so that a writer of the database
// cannot give a person another one's hash.
func ExampleHasher() {
	ctx := context.Background()
	var keys crmguard.Sealer = crmguardtest.NewKeys() // in a host: *encrypt.Keyring
	at := crmguard.Place{Tenant: "acme", Kind: "accounts", Record: "anna", Field: "password"}

	hasher, err := password.New(nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	phc, err := hasher.Hash(ctx, "violet tractor hums underwater")
	if err != nil {
		fmt.Println(err)
		return
	}
	stored, err := keys.Seal(ctx, at, []byte(phc))
	if err != nil {
		fmt.Println(err)
		return
	}

	opened, err := keys.Open(ctx, at, stored)
	if err != nil {
		fmt.Println(err)
		return
	}
	ok, rehash, err := hasher.Verify(ctx, "violet tractor hums underwater", string(opened))
	fmt.Println(ok, rehash, err)
	fmt.Println(strings.HasPrefix(phc, "$argon2id$v=19$m=47104,t=1,p=1$"))
	at.Record = "boris"
	_, err = keys.Open(ctx, at, stored)
	fmt.Println(err != nil)
	// Output:
	// true false <nil>
	// true
	// true
}

func newHasher(t testing.TB, o *password.Options) *password.Hasher {
	t.Helper()
	h, err := password.New(o)
	require.NoError(t, err)
	return h
}

// The vectors of argon2's reference implementation (phc-winner-argon2, test.c,
// version 0x13). Those of RFC 9106 section 5.3 use a secret and associated data,
// which golang.org/x/crypto/argon2 tests inside and does not offer to callers.
func TestVerifyReferenceVectors(t *testing.T) {
	h := newHasher(t, nil)
	for _, tc := range []struct {
		password, phc string
		rehash        bool
	}{
		{"password", "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc", true}, // salt of 8 bytes
		{"password", "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4", true},
		{"password", "$argon2id$v=19$m=256,t=2,p=2$c29tZXNhbHQ$bQk8UB/VmZZF4Oo79iDXuL5/0ttZwg2f/5U52iv1cDc", true},
		{"password", "$argon2id$v=19$m=65536,t=1,p=1$c29tZXNhbHQ$9qWtwbpyPd3vm1rB1GThgPzZ3/ydHL92zKL+15XZypg", true},
		{"password", "$argon2id$v=19$m=65536,t=4,p=1$c29tZXNhbHQ$kCXUjmjvc5XMqQedpMTsOv+zyJEf5PhtGiUghW9jFyw", true},
		{"differentpassword", "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$C4TWUs9rDEvq7w3+J4umqA32aWKB1+DSiRuBfYxFj94", true},
		{"password", "$argon2id$v=19$m=65536,t=2,p=1$ZGlmZnNhbHQ$vfMrBczELrFdWP0ZsfhWsRPaHppYdP3MVEMIVlqoFBw", true},
	} {
		ok, rehash, err := h.Verify(t.Context(), tc.password, tc.phc)
		require.NoError(t, err, tc.phc)
		require.True(t, ok, tc.phc)
		require.Equal(t, tc.rehash, rehash, tc.phc)

		ok, rehash, err = h.Verify(t.Context(), tc.password+"x", tc.phc)
		require.NoError(t, err)
		require.False(t, ok)
		require.False(t, rehash, "nothing is rehashed for a wrong password")
	}
}

func TestGolden(t *testing.T) {
	golden, err := os.ReadFile("testdata/v1.phc")
	require.NoError(t, err)
	ok, rehash, err := newHasher(t, nil).Verify(t.Context(), "violet tractor hums underwater", strings.TrimSpace(string(golden)))
	require.NoError(t, err)
	require.True(t, ok)
	require.False(t, rehash, "the current parameters")
}

func TestHash(t *testing.T) {
	h := newHasher(t, nil)
	first, err := h.Hash(t.Context(), "violet tractor")
	require.NoError(t, err)
	second, err := h.Hash(t.Context(), "violet tractor")
	require.NoError(t, err)
	require.NotEqual(t, first, second, "salts are random")
	require.Regexp(t, `^\$argon2id\$v=19\$m=47104,t=1,p=1\$[A-Za-z0-9+/]{22}\$[A-Za-z0-9+/]{43}$`, first)

	for _, given := range []string{"", strings.Repeat("x", password.MaxBytes+1)} {
		_, err = h.Hash(t.Context(), given)
		_, ok := errors.AsType[*password.WeakError](err)
		require.True(t, ok, "%v", err)
	}
	longest := strings.Repeat("x", password.MaxBytes)
	phc, err := h.Hash(t.Context(), longest)
	require.NoError(t, err)
	for given, want := range map[string]bool{longest: true, longest[1:]: false, longest + "x": false, "": false} {
		ok, _, err := h.Verify(t.Context(), given, phc)
		require.NoError(t, err)
		require.Equal(t, want, ok, len(given))
	}
}

func TestSamePasswordTypedElsewhere(t *testing.T) {
	h := newHasher(t, nil)
	const typed = "Крутой ёж Ａ①" // ё composed, wide A, circled one
	phc, err := h.Hash(t.Context(), typed)
	require.NoError(t, err)
	for _, again := range []string{typed, norm.NFD.String(typed), norm.NFKD.String(typed), "Крутой ёж A1"} {
		ok, _, err := h.Verify(t.Context(), again, phc)
		require.NoError(t, err)
		require.True(t, ok, again)
	}
	ok, _, err := h.Verify(t.Context(), "крутой ёж A1", phc)
	require.NoError(t, err)
	require.False(t, ok, "letter case counts")
}

func TestNothingIsDoneForAnEndedContext(t *testing.T) {
	h := newHasher(t, &password.Options{Concurrency: 1})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := h.Hash(ctx, "violet tractor")
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorIs(t, h.VerifyNobody(ctx, "violet tractor"), context.Canceled)
}

// An unknown account costs what a known one costs, measured in memory, which
// unlike time is the same each run.
func TestVerifyNobodyDoesTheWorkOfVerify(t *testing.T) {
	h := newHasher(t, nil)
	phc, err := h.Hash(t.Context(), "violet tractor")
	require.NoError(t, err)
	verify := allocated(func() { _, _, err = h.Verify(t.Context(), "another tractor", phc) })
	require.NoError(t, err)
	nobody := allocated(func() { err = h.VerifyNobody(t.Context(), "another tractor") })
	require.NoError(t, err)
	require.True(t, sameWork(verify, nobody), "%d and %d bytes", verify, nobody)

	// The planted fault: an answer without work.
	shortcut := allocated(func() { err = h.VerifyNobody(t.Context(), strings.Repeat("x", password.MaxBytes+1)) })
	require.NoError(t, err)
	require.False(t, sameWork(verify, shortcut), "%d and %d bytes", verify, shortcut)
}

func sameWork(a, b uint64) bool { return max(a, b)-min(a, b) < 1<<20 }

func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

func TestOptions(t *testing.T) {
	for _, n := range []int{-1, 1025} {
		_, err := password.New(&password.Options{Concurrency: n})
		require.Error(t, err)
	}
}

func TestFIPSRefuses(t *testing.T) {
	fipstest.Only(t, func(t *testing.T) {
		h := newHasher(t, nil)
		_, err := h.Hash(t.Context(), "violet tractor")
		require.ErrorIs(t, err, password.ErrFIPS)
		_, _, err = h.Verify(t.Context(), "password", "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4")
		require.ErrorIs(t, err, password.ErrFIPS)
		require.ErrorIs(t, h.VerifyNobody(t.Context(), "violet tractor"), password.ErrFIPS)
		require.NoError(t, password.Strong("violet tractor hums underwater"))
	})
}

func BenchmarkHash(b *testing.B) {
	h := newHasher(b, nil)
	for b.Loop() {
		if _, err := h.Hash(b.Context(), "violet tractor hums underwater"); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkVerify(b *testing.B) {
	h := newHasher(b, nil)
	phc, err := h.Hash(b.Context(), "violet tractor hums underwater")
	require.NoError(b, err)
	for b.Loop() {
		if ok, _, err := h.Verify(b.Context(), "violet tractor hums underwater", phc); !ok || err != nil {
			b.Fatal(ok, err)
		}
	}
}

func BenchmarkVerifyNobody(b *testing.B) {
	h := newHasher(b, nil)
	for b.Loop() {
		if err := h.VerifyNobody(b.Context(), "violet tractor hums underwater"); err != nil {
			b.Fatal(err)
		}
	}
}
