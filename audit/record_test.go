package audit

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"flag"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/audit/internal/journaltest"
)

var update = flag.Bool("update", false, "write golden files")

// goldenRecord is a record with every field set.
func goldenRecord(t testing.TB) []byte {
	t.Helper()
	e := journaltest.Event(7)
	e.Private = nil
	e.Reason, e.Count = "customer-asked", 3
	e.Subject.OnBehalfOf, e.Subject.Scopes = "boris", []string{"contacts:read"}
	e.Subject.Addr = netip.MustParseAddr("fe80::1%eth0")
	e.Resource.Field, e.Resource.Shared = "phone", true
	c := &content{tenant: "acme", event: e, sealed: []SealedValue{
		{Client: "client-3", Name: "old", Sealed: []byte{1, 2, 3}},
		{Client: "client-4", Name: "new", Erased: true},
		{Name: "note", Sealed: []byte{}},
	}}
	body, ok := encodeBody(c)
	require.True(t, ok)
	return append(appendHead(nil, [16]byte{0xa, 0xb}, 5, time.Date(2026, 11, 21, 13, 0, 0, 1000, time.UTC), &[32]byte{31: 7}), body...)
}

func TestGoldenRecord(t *testing.T) {
	rec := goldenRecord(t)
	const path = "testdata/record-v1.hex"
	if *update {
		require.NoError(t, os.MkdirAll("testdata", 0o755))
		require.NoError(t, os.WriteFile(path, []byte(hex.Dump(rec)), 0o644))
	}
	golden, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, string(golden), hex.Dump(rec), "the format of version 1 never changes")

	decoded, err := decodeRecord(rec)
	require.NoError(t, err)
	require.EqualValues(t, 5, decoded.seq)
	require.Equal(t, [16]byte{0xa, 0xb}, decoded.log)
	require.Equal(t, "fe80::1%eth0", decoded.event.Subject.Addr.String())
	require.Equal(t, [32]byte{31: 7}, previousOf(rec))
	require.Equal(t, []crmguard.Private{{Client: "client-3", Name: "old"}, {Client: "client-4", Name: "new"}, {Name: "note"}}, decoded.event.Private)
	require.True(t, decoded.sealed[1].Erased)
	require.Equal(t, []string{"client-3", "client-4"}, decoded.keys().Clients)
	require.Equal(t, rec, encodeAgain(t, decoded, previousOf(rec)))
}

func encodeAgain(t testing.TB, r *record, previous [32]byte) []byte {
	t.Helper()
	body, ok := encodeBody(&r.content)
	require.True(t, ok)
	return append(appendHead(nil, r.log, r.seq, r.recorded, &previous), body...)
}

func TestDecodeRefuses(t *testing.T) {
	rec := goldenRecord(t)
	for n := range rec {
		_, err := decodeRecord(rec[:n])
		require.Error(t, err, "%d bytes", n)
	}
	_, err := decodeRecord(append(slices.Clip(rec), 0))
	require.Error(t, err, "a byte too many")
	rec[0] = 2
	_, err = decodeRecord(rec)
	require.ErrorContains(t, err, "version 2")
}

func TestKeyText(t *testing.T) {
	require.Equal(t, "short", keyText("short"))
	long := strings.Repeat("x", maxKey)
	require.Equal(t, long, keyText(long))
	require.Regexp(t, "^sha256:[0-9a-f]{64}$", keyText(long+"x"))
	require.NotEqual(t, keyText(long+"x"), keyText(long+"y"))
}

// A record that decodes is the only encoding of what it says.
func FuzzDecodeRecord(f *testing.F) {
	rec := goldenRecord(f)
	f.Add(rec)
	f.Add(rec[:headSize])
	f.Add([]byte{})
	after := slices.Clone(rec)
	copy(after[headSize-sha256.Size:], "another entry")
	f.Add(after)
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := decodeRecord(b)
		if err != nil {
			return
		}
		require.Equal(t, b, encodeAgain(t, r, previousOf(b)))
		k := r.keys()
		require.True(t, k.equal(&k))
	})
}

func BenchmarkEncode(b *testing.B) {
	e := journaltest.Event(1)
	e.Private = nil
	c := &content{tenant: "acme", event: e}
	b.ReportAllocs()
	for b.Loop() {
		if _, ok := encodeBody(c); !ok {
			b.Fatal("it fits")
		}
	}
}

func TestEncodeAllocates(t *testing.T) {
	e := journaltest.Event(1)
	c := &content{tenant: "acme", event: e}
	require.LessOrEqual(t, testing.AllocsPerRun(100, func() { _, _ = encodeBody(c) }), 3.0, "the body, and the address as text")
}

func TestDecodeRefusesWhatNobodyWrites(t *testing.T) {
	_, err := decodeBody(make([]byte, maxBody+1))
	require.ErrorIs(t, err, errMalformed)
	require.Regexp(t, "^sha256:[0-9a-f]{64}$", keyText("sha256:short"), "no text is taken for a digest")
	require.NotEqual(t, "sha256:short", keyText("sha256:short"))
	rec := goldenRecord(t)
	for at, zero := range map[int]bool{1 + 16 + 8: false, headSize + atTime: false, headSize + atAuthenticated: true} {
		for micro, fits := range map[int64]bool{-1: false, 0: zero, 1: true, lastMicro: true, lastMicro + 1: false} {
			changed := slices.Clone(rec)
			binary.BigEndian.PutUint64(changed[at:], uint64(micro))
			_, err := decodeRecord(changed)
			require.Equal(t, fits, err == nil, "%d at %d", micro, at)
		}
	}
}
