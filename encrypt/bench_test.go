package encrypt_test

import (
	"context"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/tink"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/encrypt"
)

var fieldValue = []byte("+7 912 345-67-89, Anna Sergeevna")

// fieldAD is the associated data of a field, as both sides of the comparison
// authenticate it.
func fieldAD(at crmguard.Place) []byte {
	ad := []byte("crmguard/encrypt field\x00\x01\x01\x00\x00\x00\x01")
	for _, part := range []string{at.Tenant, at.Client, at.Kind, at.Field, at.Record} {
		ad = append(ad, 0, 0, 0, byte(len(part)))
		ad = append(ad, part...)
	}
	return ad
}

func bareTink(tb testing.TB) tink.AEAD {
	tb.Helper()
	handle, err := keyset.NewHandle(aead.AES256GCMKeyTemplate())
	require.NoError(tb, err)
	primitive, err := aead.New(handle)
	require.NoError(tb, err)
	return primitive
}

func allowAll(context.Context, string, []string) error { return nil }

// BenchmarkSeal: ours at most 1.5 times tink.
func BenchmarkSeal(b *testing.B) {
	at := crmguard.Place{Tenant: "default", Client: "c-000017", Kind: "contacts", Record: "c-000017", Field: "phone"}
	ctx := acting("default")
	k := newKeyring(b, encrypt.NewMemory(), &encrypt.Options{OnOpen: allowAll})
	bare := bareTink(b)
	b.Run("ours", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := k.Seal(ctx, at, fieldValue); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("tink", func(b *testing.B) {
		ad := fieldAD(at)
		b.ReportAllocs()
		for b.Loop() {
			if _, err := bare.Encrypt(fieldValue, ad); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkOpen: ours at most 1.8 times tink.
func BenchmarkOpen(b *testing.B) {
	at := crmguard.Place{Tenant: "default", Client: "c-000017", Kind: "contacts", Record: "c-000017", Field: "phone"}
	ctx := acting("default")
	k := newKeyring(b, encrypt.NewMemory(), &encrypt.Options{OnOpen: allowAll})
	bare := bareTink(b)
	b.Run("ours", func(b *testing.B) {
		sealed, err := k.Seal(ctx, at, fieldValue)
		require.NoError(b, err)
		b.ReportAllocs()
		for b.Loop() {
			if _, err := k.Open(ctx, at, sealed); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("tink", func(b *testing.B) {
		ad := fieldAD(at)
		sealed, err := bare.Encrypt(fieldValue, ad)
		require.NoError(b, err)
		b.ReportAllocs()
		for b.Loop() {
			if _, err := bare.Decrypt(sealed, ad); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkPage opens 50 rows of two fields, all keys in the cache.
func BenchmarkPage(b *testing.B) {
	ctx := acting("default")
	k := newKeyring(b, encrypt.NewMemory(), &encrypt.Options{OnOpen: allowAll, Index: encrypt.NewMemoryIndex()})
	table, err := encrypt.NewTable[contact](k, "contacts", &encrypt.TableOptions{Region: "RU"})
	require.NoError(b, err)
	rows := make([]*contact, 50)
	for i := range rows {
		note := "likes tea"
		rows[i] = &contact{ID: "c" + strconv.Itoa(i), Phone: "+7 912 345-67-89", Note: &note}
	}
	b.Run("seal", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := table.Seal(ctx, "default", rows...); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("open", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if err := table.Open(ctx, "default", rows...); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkMAC(b *testing.B) {
	at := crmguard.Place{Tenant: "default", Kind: "sessions", Record: "s1"}
	k := newKeyring(b, encrypt.NewMemory(), nil)
	mac, err := k.MAC(context.Background(), at, fieldValue)
	require.NoError(b, err)
	b.ReportAllocs()
	for b.Loop() {
		if err := k.Verify(context.Background(), at, fieldValue, mac); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkRow: a row of five fields at most 1.3 times five values.
func BenchmarkRow(b *testing.B) {
	type five struct {
		ID    string `encrypt:",record"`
		A     string `encrypt:"a"`
		ASeal []byte `encrypt:"a,sealed"`
		B     string `encrypt:"b"`
		BSeal []byte `encrypt:"b,sealed"`
		C     string `encrypt:"c"`
		CSeal []byte `encrypt:"c,sealed"`
		D     string `encrypt:"d"`
		DSeal []byte `encrypt:"d,sealed"`
		E     string `encrypt:"e"`
		ESeal []byte `encrypt:"e,sealed"`
	}
	ctx := acting("default")
	k := newKeyring(b, encrypt.NewMemory(), &encrypt.Options{OnOpen: allowAll})
	table, err := encrypt.NewTable[five](k, "contacts", nil)
	require.NoError(b, err)
	text := string(fieldValue)
	row := &five{ID: "c-000017", A: text, B: text, C: text, D: text, E: text}
	b.Run("row", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := table.Seal(ctx, "default", row); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("five", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			for _, field := range []string{"a", "b", "c", "d", "e"} {
				at := crmguard.Place{Tenant: "default", Client: row.ID, Kind: "contacts", Record: row.ID, Field: field}
				if _, err := k.Seal(ctx, at, fieldValue); err != nil {
					b.Fatal(err)
				}
			}
		}
	})
}
