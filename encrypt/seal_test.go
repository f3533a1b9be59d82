package encrypt_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/encrypt"
)

func TestSealAndOpen(t *testing.T) {
	k := newKeyring(t, encrypt.NewMemory(), nil)
	ctx := acting("acme")
	for _, at := range []crmguard.Place{home, {Tenant: "acme", Kind: "factors", Record: "anna", Field: "secret"}, {Tenant: "acme"}} {
		for _, size := range []int{0, 1, 32, 10_000} {
			plaintext := []byte(strings.Repeat("x", size))
			sealed, err := k.Seal(ctx, at, plaintext)
			require.NoError(t, err)
			require.Len(t, sealed, size+encrypt.Overhead)
			require.LessOrEqual(t, encrypt.Overhead, 40)
			opened, err := k.Open(ctx, at, sealed)
			require.NoError(t, err)
			require.NotNil(t, opened)
			require.Equal(t, plaintext, opened)
		}
	}
	first, err := k.Seal(ctx, home, []byte("same"))
	require.NoError(t, err)
	second, err := k.Seal(ctx, home, []byte("same"))
	require.NoError(t, err)
	require.NotEqual(t, first, second, "equal values look different")
}

// elsewhere are places that differ from home in one thing each, or hold the same
// letters cut differently.
func elsewhere() map[string]crmguard.Place {
	places := map[string]crmguard.Place{}
	for name, change := range map[string]func(p *crmguard.Place){
		"tenant":    func(p *crmguard.Place) { p.Tenant = "other" },
		"client":    func(p *crmguard.Place) { p.Client = "c2" },
		"no client": func(p *crmguard.Place) { p.Client = "" },
		"kind":      func(p *crmguard.Place) { p.Kind = "deals" },
		"record":    func(p *crmguard.Place) { p.Record = "r2" },
		"field":     func(p *crmguard.Place) { p.Field = "email" },
		"cut":       func(p *crmguard.Place) { p.Kind, p.Field = "contactsp", "hone" },
		"swap":      func(p *crmguard.Place) { p.Record, p.Field = p.Field, p.Record },
		"case":      func(p *crmguard.Place) { p.Field = "Phone" },
	} {
		p := home
		change(&p)
		places[name] = p
	}
	return places
}

// checkBinding returns an error when a value sealed at home opens anywhere else.
func checkBinding(s crmguard.Sealer) error {
	sealed, err := s.Seal(acting(home.Tenant), home, []byte("secret"))
	if err != nil {
		return err
	}
	if _, err := s.Open(acting(home.Tenant), home, sealed); err != nil {
		return err
	}
	for name, at := range elsewhere() {
		if _, err := s.Seal(acting(at.Tenant), at, []byte("so that the key exists")); err != nil {
			return err
		}
		plaintext, err := s.Open(acting(at.Tenant), at, sealed)
		if !errors.Is(err, encrypt.ErrForeign) || plaintext != nil {
			return fmt.Errorf("opened with another %s: %w", name, err)
		}
	}
	return nil
}

// recordless is a sealer that forgets to bind the record.
type recordless struct{ crmguard.Sealer }

func (s recordless) Seal(ctx context.Context, at crmguard.Place, b []byte) ([]byte, error) {
	at.Record = ""
	return s.Sealer.Seal(ctx, at, b)
}

func (s recordless) Open(ctx context.Context, at crmguard.Place, b []byte) ([]byte, error) {
	at.Record = ""
	return s.Sealer.Open(ctx, at, b)
}

func TestBinding(t *testing.T) {
	k := newKeyring(t, encrypt.NewMemory(), nil)
	require.NoError(t, checkBinding(k))
	require.ErrorContains(t, checkBinding(recordless{k}), "another record", "the check notices a record that is not bound")
}

// Two keyrings with the same names but different keys: names alone open nothing.
func TestAnotherKeyStoreOpensNothing(t *testing.T) {
	ctx := acting("acme")
	ours, theirs := newKeyring(t, encrypt.NewMemory(), nil), newKeyring(t, encrypt.NewMemory(), nil)
	sealed, err := ours.Seal(ctx, home, []byte("secret"))
	require.NoError(t, err)
	_, err = theirs.Open(ctx, home, sealed)
	require.ErrorIs(t, err, encrypt.ErrNoKey)
	_, err = theirs.Seal(ctx, home, []byte("own"))
	require.NoError(t, err)
	_, err = theirs.Open(ctx, home, sealed)
	require.ErrorIs(t, err, encrypt.ErrForeign)
}

func TestEveryFlippedBitOfASealedFieldIsRefused(t *testing.T) {
	k := newKeyring(t, encrypt.NewMemory(), nil)
	ctx := acting("acme")
	sealed, err := k.Seal(ctx, home, []byte("+79123456789"))
	require.NoError(t, err)
	for i := range sealed {
		for bit := range 8 {
			sealed[i] ^= 1 << bit
			plaintext, err := k.Open(ctx, home, sealed)
			require.Error(t, err, "byte %d bit %d", i, bit)
			require.Nil(t, plaintext)
			sealed[i] ^= 1 << bit
		}
	}
	for cut := range sealed {
		_, err := k.Open(ctx, home, sealed[:cut])
		require.Error(t, err, "truncated to %d", cut)
		_, err = k.Open(ctx, home, append(slices.Clip(sealed), sealed[:cut+1]...))
		require.Error(t, err, "with %d bytes more", cut+1)
	}
	_, err = k.Open(ctx, home, sealed)
	require.NoError(t, err)
}

func TestWhoMayOpen(t *testing.T) {
	k := newKeyring(t, encrypt.NewMemory(), nil)
	tenantOnly := crmguard.Place{Tenant: "acme", Kind: "sessions", Record: "s1"}
	sealed, err := k.Seal(context.Background(), home, []byte("x"))
	require.NoError(t, err, "jobs without a subject may seal")
	own, err := k.Seal(context.Background(), tenantOnly, []byte("x"))
	require.NoError(t, err)
	mac, err := k.MAC(context.Background(), tenantOnly, []byte("x"))
	require.NoError(t, err)
	for name, test := range map[string]struct {
		ctx context.Context
		ok  bool
	}{
		"nobody":         {context.Background(), false},
		"own tenant":     {acting("acme"), true},
		"system":         {crmguard.System(context.Background(), "acme", "reindex"), true},
		"foreign tenant": {acting("other"), false},
		"foreign system": {crmguard.System(context.Background(), "other", "reindex"), false},
		"no kind":        {crmguard.WithSubject(context.Background(), crmguard.Subject{Tenant: "acme", ID: "anna"}), false},
		"no id":          {crmguard.WithSubject(context.Background(), crmguard.Subject{Tenant: "acme", Kind: crmguard.KindEmployee}), false},
	} {
		t.Run(name, func(t *testing.T) {
			plaintext, err := k.Open(test.ctx, home, sealed)
			require.Equal(t, test.ok, err == nil, "%v", err)
			require.Equal(t, test.ok, plaintext != nil)
			for what, call := range map[string]func() error{
				"Seal":    func() error { _, err := k.Seal(test.ctx, home, nil); return err },
				"SealAll": func() error { return k.SealAll(test.ctx, "acme", []encrypt.Cell{{Place: home, Plaintext: []byte{}}}) },
			} {
				if test.ok || name == "nobody" {
					require.NoError(t, call(), what)
				} else {
					require.ErrorIs(t, call(), encrypt.ErrSubject, "%s: a subject seals for its own tenant only", what)
				}
			}
			for what, call := range map[string]func() error{
				"Open":       func() error { _, err := k.Open(test.ctx, tenantOnly, own); return err },
				"Seal":       func() error { _, err := k.Seal(test.ctx, tenantOnly, nil); return err },
				"MAC":        func() error { _, err := k.MAC(test.ctx, tenantOnly, nil); return err },
				"Verify":     func() error { return k.Verify(test.ctx, tenantOnly, []byte("x"), mac) },
				"Pseudonyms": func() error { _, err := k.Pseudonyms(test.ctx, tenantOnly, nil); return err },
			} {
				err := call()
				if strings.HasPrefix(name, "foreign") {
					require.ErrorIs(t, err, encrypt.ErrSubject, what)
					require.NotErrorIs(t, err, crmguard.ErrMAC, what)
				} else {
					require.NoError(t, err, "%s: a place without a client needs no subject", what)
				}
			}
		})
	}
}

func TestImpossiblePlaces(t *testing.T) {
	k := newKeyring(t, encrypt.NewMemory(), nil)
	sealed, err := k.Seal(acting("acme"), home, nil)
	require.NoError(t, err)
	const name, tenant = "names are", "empty tenant"
	for why, test := range map[string]struct {
		at   crmguard.Place
		want string
	}{
		"no tenant":   {crmguard.Place{Client: "c1"}, tenant},
		"zero byte":   {crmguard.Place{Tenant: "acme", Client: "c\x001"}, name},
		"not UTF-8":   {crmguard.Place{Tenant: "acme", Client: "c\xff"}, name},
		"long client": {crmguard.Place{Tenant: "acme", Client: strings.Repeat("c", 513)}, name},
		"long record": {crmguard.Place{Tenant: "acme", Record: strings.Repeat("r", 1<<16+1)}, name},
	} {
		t.Run(why, func(t *testing.T) {
			ctx := acting(test.at.Tenant)
			if test.at.Tenant == "" {
				ctx = context.Background()
			}
			_, err := k.Seal(ctx, test.at, nil)
			require.ErrorContains(t, err, test.want)
			_, err = k.Open(ctx, test.at, sealed)
			require.ErrorContains(t, err, test.want)
		})
	}
	mac, err := k.MAC(acting("acme"), home, nil)
	require.NoError(t, err)
	_, err = k.MAC(context.Background(), crmguard.Place{}, nil)
	require.ErrorContains(t, err, tenant)
	_, err = k.Pseudonyms(context.Background(), crmguard.Place{}, nil)
	require.ErrorContains(t, err, tenant)
	require.ErrorContains(t, k.Verify(context.Background(), crmguard.Place{}, nil, mac), tenant)
}

func TestHotPathAllocations(t *testing.T) {
	k := newKeyring(t, encrypt.NewMemory(), &encrypt.Options{OnOpen: allowAll})
	ctx := acting("acme")
	sealed, err := k.Seal(ctx, home, fieldValue)
	require.NoError(t, err)
	_, err = k.Open(ctx, home, sealed)
	require.NoError(t, err)
	// One each: the result. The race detector makes sync.Pool drop things.
	limit := 1.0
	if raceEnabled {
		limit = 4
	}
	require.LessOrEqual(t, testing.AllocsPerRun(500, func() { _, _ = k.Seal(ctx, home, fieldValue) }), limit)
	require.LessOrEqual(t, testing.AllocsPerRun(500, func() { _, _ = k.Open(ctx, home, sealed) }), limit)
}

func FuzzOpen(f *testing.F) {
	k := newKeyring(f, encrypt.NewMemory(), nil)
	ctx := acting("acme")
	for _, seed := range []string{"", "x", string(fieldValue)} {
		sealed, err := k.Seal(ctx, home, []byte(seed))
		require.NoError(f, err)
		f.Add(sealed)
		f.Add(sealed[:len(sealed)-1])
		f.Add(append([]byte("cg\x02"), sealed[3:]...))
		f.Add(slices.Concat(sealed[:4], []byte{0, 0, 0, 2}, sealed[8:])) // no such version
	}
	genuine := make(map[string]bool)
	f.Fuzz(func(t *testing.T, sealed []byte) {
		before := string(sealed)
		plaintext, err := k.Open(ctx, home, sealed)
		require.Equal(t, before, string(sealed), "the input is only read")
		if err == nil {
			genuine[before] = true
			require.Len(t, plaintext, len(sealed)-encrypt.Overhead)
			require.LessOrEqual(t, len(genuine), 3, "a forgery opened")
			return
		}
		require.Nil(t, plaintext)
		if errors.Is(err, encrypt.ErrNoKey) {
			require.NotEqual(t, "\x00\x00\x00\x01", before[4:8], "the version that there is")
		} else {
			require.True(t, errors.Is(err, encrypt.ErrMalformed) || errors.Is(err, encrypt.ErrForeign), "%v", err)
		}
		_, err = k.Open(ctx, crmguard.Place{Tenant: "acme", Kind: "x"}, sealed)
		require.Error(t, err)
		require.Error(t, k.Verify(ctx, home, nil, sealed))
	})
}

func TestFieldsHaveAMostLength(t *testing.T) {
	const most = 64 << 20
	k := openKeyring(t, newKEK(t), encrypt.NewMemory(), nil)
	long := make([]byte, most+1)
	_, err := k.Seal(acting("acme"), home, long)
	require.ErrorContains(t, err, "64 MiB")
	err = k.SealAll(acting("acme"), "acme", []encrypt.Cell{{Place: home, Plaintext: long}})
	require.ErrorContains(t, err, "64 MiB")
	sealed, err := k.Seal(acting("acme"), home, long[:most])
	require.NoError(t, err)
	require.Len(t, sealed, most+encrypt.Overhead)
}
