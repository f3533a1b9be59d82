package encrypt

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
)

// The associated data of each use, as docs/formats/encrypt.md shows it.
func TestAssociatedDataIsAsSpecified(t *testing.T) {
	at := &crmguard.Place{Tenant: "acme", Client: "c1", Kind: "contacts", Record: "r1", Field: "phone"}
	place := "0000000461636d65" + "000000026331" + "00000008636f6e7461637473" + "0000000570686f6e65" + "000000027231"
	text := func(domain string) string { return hex.EncodeToString([]byte(domain)) + "00" }
	for name, test := range map[string]struct {
		got  []byte
		want string
	}{
		"field":  {appendPlaceAD(nil, domainField, header{algorithmGCM, 7}, at), text("crmguard/encrypt field") + "010100000007" + place},
		"mac":    {appendPlaceAD(nil, domainMAC, header{algorithmHMAC, 7}, at), text("crmguard/encrypt mac") + "010200000007" + place},
		"keyset": {scopeAD(domainKeyset, header{algorithmKeyset, 1}, Scope{"acme", TenantKeyset, ""}, 2), text("crmguard/encrypt keyset") + "010300000001" + "01" + "00000002" + "0000000461636d65" + "00000000"},
		"key":    {scopeAD(domainKey, header{algorithmWrapped, 3}, Scope{"acme", DataKey, "c1"}, 7), text("crmguard/encrypt key") + "010400000003" + "02" + "00000007" + "0000000461636d65" + "000000026331"},
	} {
		require.Equal(t, test.want, hex.EncodeToString(test.got), name)
	}
	key := &key{version: 7}
	for _, memory := range [][]byte{nil, make([]byte, 3), make([]byte, 0, 500), bytes.Repeat([]byte{'x'}, 500)} {
		key.begin(&memory, &Scope{"acme", DataKey, "c1"})
		require.Equal(t, appendPlaceAD(nil, domainField, header{algorithmGCM, 7}, at), fieldAD(&memory, algorithmGCM, at), "the fast way changes nothing")
		require.Equal(t, appendPlaceAD(nil, domainField, header{algorithmPadded, 7}, at), fieldAD(&memory, algorithmPadded, at))
	}
	require.Equal(t, "6367010100000007", hex.EncodeToString(header{algorithmGCM, 7}.append(nil)))
}

// readAD is the slow model: whatever can be read back to its parts cannot be the
// associated data of two places.
func readAD(b []byte) (at crmguard.Place, err error) {
	b = b[len(domainField)+6:]
	for _, part := range []*string{&at.Tenant, &at.Client, &at.Kind, &at.Field, &at.Record} {
		if len(b) < 4 || uint64(len(b)-4) < uint64(binary.BigEndian.Uint32(b)) {
			return at, errors.New("too short")
		}
		n := binary.BigEndian.Uint32(b)
		*part, b = string(b[4:4+n]), b[4+n:]
	}
	if len(b) > 0 {
		return at, errors.New("too long")
	}
	return at, nil
}

func FuzzAssociatedDataIsInjective(f *testing.F) {
	f.Add("acme", "c1", "contacts", "phone", "r1")
	f.Add("", "\x00\x00\x00\x01a", "", "\x00", "")
	f.Fuzz(func(t *testing.T, tenant, client, kind, field, record string) {
		at := crmguard.Place{Tenant: tenant, Client: client, Kind: kind, Record: record, Field: field}
		read, err := readAD(appendPlaceAD(nil, domainField, header{algorithmGCM, 1}, &at))
		require.NoError(t, err)
		require.Equal(t, at, read)
		var memory []byte
		(&key{version: 1}).begin(&memory, &Scope{tenant, DataKey, client})
		require.Equal(t, appendPlaceAD(nil, domainField, header{algorithmGCM, 1}, &at), fieldAD(&memory, algorithmGCM, &at))
	})
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("cg\x01\x01\x00\x00\x00\x01payload"), byte(algorithmGCM), 3)
	f.Add([]byte("cg"), byte(algorithmHMAC), 0)
	f.Add([]byte{}, byte(0), 0)
	f.Fuzz(func(t *testing.T, b []byte, algorithm byte, minimum int) {
		minimum = max(0, min(minimum, 1<<20))
		version, payload, err := parse(b, algorithm, minimum)
		if err != nil {
			require.ErrorIs(t, err, ErrMalformed)
			return
		}
		require.NotZero(t, version)
		require.GreaterOrEqual(t, len(payload), minimum)
		require.Equal(t, b, append(header{algorithm, version}.append(nil), payload...))
	})
}

func TestParseRefuses(t *testing.T) {
	good := append(header{algorithmGCM, 1}.append(nil), make([]byte, 28)...)
	_, _, err := parse(good, algorithmGCM, 28)
	require.NoError(t, err)
	for name, spoil := range map[string]func(b []byte) []byte{
		"short":       func(b []byte) []byte { return b[:len(b)-1] },
		"magic":       func(b []byte) []byte { b[0] = 'x'; return b },
		"format":      func(b []byte) []byte { b[2] = 2; return b },
		"algorithm":   func(b []byte) []byte { b[3] = algorithmHMAC; return b },
		"key zero":    func(b []byte) []byte { b[7] = 0; return b },
		"plain value": func([]byte) []byte { return []byte("+7 912 345-67-89, Anna Sergeevna Petrova") },
		"nothing":     func([]byte) []byte { return nil },
	} {
		_, _, err := parse(spoil(append([]byte(nil), good...)), algorithmGCM, 28)
		require.ErrorIs(t, err, ErrMalformed, name)
	}
}

func TestStatesHaveNames(t *testing.T) {
	require.Equal(t, "active closing destroyed State(9)", Active.String()+" "+Closing.String()+" "+Destroyed.String()+" "+State(9).String())
}
