package encrypt_test

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io/fs"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/c2sp/wycheproof"
	"github.com/stretchr/testify/require"
	tinkpb "github.com/tink-crypto/tink-go/v2/proto/tink_go_proto"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/encrypt"
)

type hexBytes []byte

func (h *hexBytes) UnmarshalText(text []byte) (err error) {
	*h, err = hex.DecodeString(string(text))
	return err
}

// vectors are the parts of a file of Wycheproof that the tests use.
type vectors struct {
	TestGroups []struct {
		IVSize, KeySize, TagSize int
		Tests                    []struct {
			TcID                       int
			Key, IV, AAD, Msg, CT, Tag hexBytes
			Result, Comment            string
		}
	}
}

func readVectors(t *testing.T, name string) (v vectors) {
	t.Helper()
	text, err := fs.ReadFile(wycheproof.TestVectors, name)
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(text, &v))
	return v
}

// Wrapped keys, key files and fields open exactly the valid vectors of AES-GCM whose
// nonce has 96 bits, and nothing that was made with another one.
func TestWycheproofGCM(t *testing.T) {
	opened, refused := 0, 0
	for _, group := range readVectors(t, "aes_gcm_test.json").TestGroups {
		require.Equal(t, 128, group.TagSize)
		for _, test := range group.Tests {
			handle, err := gcmKeyset(newGCMKey(1, test.Key, tinkpb.OutputPrefixType_RAW, tinkpb.KeyStatusType_ENABLED))
			require.NoError(t, err)
			kek, err := encrypt.NewKeysetAEAD(handle)
			if group.KeySize == 192 {
				require.Error(t, err, "Tink knows no such keys")
				continue
			}
			require.NoError(t, err)
			field, err := encrypt.NewGCM(test.Key)
			require.NoError(t, err)
			sealed := slices.Concat(test.IV, test.CT, test.Tag)
			got, err := kek.Decrypt(sealed, test.AAD)
			gotField, errField := field.Open(nil, nil, sealed, test.AAD)
			if test.Result != "valid" || group.IVSize != 96 {
				require.Error(t, err, "%d %s", test.TcID, test.Comment)
				require.Error(t, errField)
				refused++
				continue
			}
			require.NoError(t, err, "%d %s", test.TcID, test.Comment)
			require.NoError(t, errField)
			require.Equal(t, string(test.Msg), string(got))
			require.Equal(t, string(test.Msg), string(gotField))
			opened++
		}
	}
	require.Equal(t, 79, opened)
	require.Equal(t, 134, refused)
}

// slowHMAC is RFC 2104 as it is written down.
func slowHMAC(key, message []byte) []byte {
	if len(key) > sha256.BlockSize {
		sum := sha256.Sum256(key)
		key = sum[:]
	}
	inner, outer := make([]byte, sha256.BlockSize), make([]byte, sha256.BlockSize)
	copy(inner, key)
	copy(outer, key)
	for i := range inner {
		inner[i] ^= 0x36
		outer[i] ^= 0x5c
	}
	sum := sha256.Sum256(append(inner, message...))
	sum = sha256.Sum256(append(outer, sum[:]...))
	return sum[:]
}

// MACs are the HMAC of Wycheproof over what docs/formats/encrypt.md says. A slow
// model stands between the two, since no vector begins with our domain string. Each
// way in which an invalid vector's tag is wrong is tried on a MAC of ours.
func TestWycheproofHMAC(t *testing.T) {
	var wrong [][]byte
	valid := 0
	for _, group := range readVectors(t, "hmac_sha256_test.json").TestGroups {
		for _, test := range group.Tests {
			tag := slowHMAC(test.Key, test.Msg)[:group.TagSize/8]
			if test.Result == "valid" {
				require.Equal(t, []byte(test.Tag), tag, "%d %s", test.TcID, test.Comment)
				valid++
				continue
			}
			require.NotEqual(t, []byte(test.Tag), tag)
			for i := range tag {
				tag[i] ^= test.Tag[i]
			}
			wrong = append(wrong, tag)
		}
	}
	require.Equal(t, 66, valid)
	require.Len(t, wrong, 108)

	k := newKeyring(t, encrypt.NewMemory(), nil)
	at := crmguard.Place{Tenant: "acme", Kind: "sessions", Field: "verifier", Record: "r1"}
	mac, err := k.MAC(t.Context(), at, []byte("data"))
	require.NoError(t, err)
	require.NoError(t, k.Verify(t.Context(), at, []byte("data"), mac))
	for _, difference := range wrong {
		forged := slices.Clone(mac)
		for i, b := range difference {
			forged[8+i] ^= b
		}
		require.ErrorIs(t, k.Verify(t.Context(), at, []byte("data"), forged), encrypt.ErrForeign)
	}

	random := rand.New(rand.NewPCG(3, 4))
	for range 1000 {
		secret, data := make([]byte, 32), make([]byte, random.IntN(300))
		for _, b := range [][]byte{secret, data} {
			for i := range b {
				b[i] = byte(random.Uint32())
			}
		}
		version := random.Uint32()
		require.Equal(t, slowHMAC(secret, encrypt.HMACMessage(version, at, data)), encrypt.HMAC(secret, version, at, data))
	}
}
