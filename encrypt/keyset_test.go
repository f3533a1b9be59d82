package encrypt_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/insecurecleartextkeyset"
	"github.com/tink-crypto/tink-go/v2/keyset"
	gcmpb "github.com/tink-crypto/tink-go/v2/proto/aes_gcm_go_proto"
	tinkpb "github.com/tink-crypto/tink-go/v2/proto/tink_go_proto"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/encrypt"
)

// gcmKeyset makes a keyset of AES-GCM keys; the first is the primary.
func gcmKeyset(keys ...*tinkpb.Keyset_Key) (*keyset.Handle, error) {
	b, err := proto.Marshal(&tinkpb.Keyset{PrimaryKeyId: keys[0].GetKeyId(), Key: keys})
	if err != nil {
		return nil, err
	}
	return insecurecleartextkeyset.Read(keyset.NewBinaryReader(bytes.NewReader(b)))
}

func newGCMKey(id uint32, secret []byte, prefix tinkpb.OutputPrefixType, status tinkpb.KeyStatusType) *tinkpb.Keyset_Key {
	value, err := proto.Marshal(&gcmpb.AesGcmKey{KeyValue: secret})
	if err != nil {
		panic(err)
	}
	return &tinkpb.Keyset_Key{
		KeyId: id, Status: status, OutputPrefixType: prefix,
		KeyData: &tinkpb.KeyData{
			TypeUrl: "type.googleapis.com/google.crypto.tink.AesGcmKey", Value: value,
			KeyMaterialType: tinkpb.KeyData_SYMMETRIC,
		},
	}
}

// FuzzKeysetAEAD compares the AEAD of keysets with Tink's own: what one makes the
// other opens, and what one refuses so does the other. The first argument says which
// keys there are.
func FuzzKeysetAEAD(f *testing.F) {
	f.Add([]byte{0}, []byte("plaintext"), []byte("ad"), uint16(0), uint8(1))
	f.Add([]byte{1, 2, 3}, []byte{}, []byte{}, uint16(5), uint8(0x80))
	f.Add([]byte{0, 3, 4, 8, 16, 32, 77, 200}, []byte("x"), []byte{}, uint16(20), uint8(0))
	random := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		keys := make([]byte, 1+random.IntN(6))
		for i := range keys {
			keys[i] = byte(random.Uint32())
		}
		f.Add(keys, []byte("some plaintext"), []byte("some data"), uint16(random.Uint32()), uint8(random.Uint32()))
	}
	f.Fuzz(func(t *testing.T, spec, plaintext, ad []byte, position uint16, flip uint8) {
		if len(spec) == 0 || len(spec) > 8 {
			return
		}
		prefixes := []tinkpb.OutputPrefixType{
			tinkpb.OutputPrefixType_TINK, tinkpb.OutputPrefixType_RAW, tinkpb.OutputPrefixType_CRUNCHY, tinkpb.OutputPrefixType_LEGACY,
		}
		statuses := []tinkpb.KeyStatusType{
			tinkpb.KeyStatusType_ENABLED, tinkpb.KeyStatusType_ENABLED, tinkpb.KeyStatusType_DISABLED, tinkpb.KeyStatusType_DESTROYED,
		}
		sizes := []int{32, 16, 32, 24}
		var keys []*tinkpb.Keyset_Key
		for i, b := range spec {
			secret := bytes.Repeat([]byte{byte(i)}, sizes[b>>4&3])
			keys = append(keys, newGCMKey(uint32(i/2+1)<<8, secret, prefixes[b&3], statuses[b>>2&3])) // some share an id
		}
		handle, err := gcmKeyset(keys...)
		if err != nil {
			return
		}
		theirs, theirErr := aead.New(handle)
		ours, err := encrypt.NewKeysetAEAD(handle)
		require.Equal(t, theirErr == nil, err == nil, "%v, %v", theirErr, err)
		if err != nil {
			return
		}
		type cipher interface {
			Encrypt(plaintext, associatedData []byte) ([]byte, error)
			Decrypt(ciphertext, associatedData []byte) ([]byte, error)
		}
		for _, pair := range [][2]cipher{{theirs, ours}, {ours, theirs}, {ours, ours}} {
			ciphertext, err := pair[0].Encrypt(plaintext, ad)
			require.NoError(t, err)
			opened, err := pair[1].Decrypt(ciphertext, ad)
			require.NoError(t, err)
			require.Equal(t, string(plaintext), string(opened))

			changed := bytes.Clone(ciphertext)
			changed[int(position)%len(changed)] ^= flip
			for _, c := range [][]byte{changed, ciphertext[:int(position)%len(ciphertext)], append(changed, flip)} {
				want, wantErr := theirs.Decrypt(c, ad)
				got, gotErr := ours.Decrypt(c, ad)
				require.Equal(t, wantErr == nil, gotErr == nil)
				require.Equal(t, string(want), string(got))
			}
		}
	})
}

// The bytes are Tink's: the key's prefix, nonce, ciphertext and tag.
func TestKeysetAEADFormat(t *testing.T) {
	const id = 0x01020304
	for prefix, want := range map[tinkpb.OutputPrefixType][]byte{
		tinkpb.OutputPrefixType_TINK:    binary.BigEndian.AppendUint32([]byte{1}, id),
		tinkpb.OutputPrefixType_CRUNCHY: binary.BigEndian.AppendUint32([]byte{0}, id),
		tinkpb.OutputPrefixType_RAW:     {},
	} {
		secret := bytes.Repeat([]byte{7}, 32)
		handle, err := gcmKeyset(newGCMKey(id, secret, prefix, tinkpb.KeyStatusType_ENABLED))
		require.NoError(t, err)
		kek, err := encrypt.NewKeysetAEAD(handle)
		require.NoError(t, err)
		ciphertext, err := kek.Encrypt([]byte("x"), []byte("ad"))
		require.NoError(t, err)
		require.Len(t, ciphertext, len(want)+12+1+16)
		require.Equal(t, want, ciphertext[:len(want)])
		gcm, err := encrypt.NewGCM(secret)
		require.NoError(t, err)
		plaintext, err := gcm.Open(nil, nil, ciphertext[len(want):], []byte("ad"))
		require.NoError(t, err)
		require.Equal(t, "x", string(plaintext))
	}
}

// Keysets of other AEADs are Tink's business, rotated they are both.
func TestKeyFilesOfOtherAEADs(t *testing.T) {
	for name, template := range map[string]*tinkpb.KeyTemplate{
		"XChaCha20-Poly1305": aead.XChaCha20Poly1305KeyTemplate(),
		"ChaCha20-Poly1305":  aead.ChaCha20Poly1305KeyTemplate(),
		"AES-CTR-HMAC":       aead.AES256CTRHMACSHA256KeyTemplate(),
		"AES-GCM-SIV":        aead.AES256GCMSIVKeyTemplate(),
		"XAES-GCM":           aead.XAES256GCM192BitNonceKeyTemplate(),
		"AES-128-GCM":        aead.AES128GCMKeyTemplate(),
		"AES-256-GCM, RAW":   aead.AES256GCMNoPrefixKeyTemplate(),
	} {
		t.Run(name, func(t *testing.T) {
			handle, err := keyset.NewHandle(template)
			require.NoError(t, err)
			theirs, err := aead.New(handle)
			require.NoError(t, err)
			path := writeKeyset(t, handle)
			kek, err := encrypt.OpenKeyFile(path, "", false)
			require.NoError(t, err)

			ciphertext := wrapped(t, kek)
			plaintext, err := theirs.Decrypt(ciphertext, []byte("ad"))
			require.NoError(t, err)
			require.Equal(t, "secret", string(plaintext))
			require.NoError(t, kek.Rotate(t.Context()))
			requireOpens(t, kek, ciphertext)
			second := wrapped(t, kek)
			_, err = theirs.Decrypt(second, []byte("ad"))
			require.Error(t, err)
			_, err = kek.DestroyOld(t.Context())
			require.NoError(t, err)
			requireWrongKEK(t, kek, ciphertext)
			requireOpens(t, kek, second)
		})
	}
}

func writeKeyset(t *testing.T, handle *keyset.Handle) (path string) {
	t.Helper()
	var text bytes.Buffer
	require.NoError(t, insecurecleartextkeyset.Write(handle, keyset.NewJSONWriter(&text)))
	return writeFile(t, text.Bytes())
}

// Disabled keys decrypt nothing, and may not be the primary one.
func TestDisabledKeysOfAKeyFile(t *testing.T) {
	secret, old := bytes.Repeat([]byte{7}, 32), bytes.Repeat([]byte{8}, 32)
	const enabled, disabled = tinkpb.KeyStatusType_ENABLED, tinkpb.KeyStatusType_DISABLED
	open := func(t *testing.T, first, second tinkpb.KeyStatusType) (encrypt.RotatingKEK, error) {
		text, err := protojson.Marshal(&tinkpb.Keyset{PrimaryKeyId: 1, Key: []*tinkpb.Keyset_Key{
			newGCMKey(1, secret, tinkpb.OutputPrefixType_TINK, first),
			newGCMKey(2, old, tinkpb.OutputPrefixType_TINK, second),
		}})
		require.NoError(t, err)
		return encrypt.OpenKeyFile(writeFile(t, text), "", false)
	}
	both, err := open(t, enabled, enabled)
	require.NoError(t, err)
	handle, err := gcmKeyset(newGCMKey(2, old, tinkpb.OutputPrefixType_TINK, enabled))
	require.NoError(t, err)
	theirs, err := aead.New(handle)
	require.NoError(t, err)
	ciphertext, err := theirs.Encrypt([]byte("secret"), []byte("ad"))
	require.NoError(t, err)
	requireOpens(t, both, ciphertext)
	one, err := open(t, enabled, disabled)
	require.NoError(t, err)
	requireWrongKEK(t, one, ciphertext)
	_, err = open(t, disabled, enabled)
	require.ErrorIs(t, err, encrypt.ErrKeyFileMalformed)
}

// babbling is a KEK that says nothing of it when it cannot decrypt what it returns.
type babbling struct {
	*turningKEK
	plaintext int // it babbles for longer ones: keysets, and not the check
}

func (b *babbling) EncryptWithContext(ctx context.Context, plaintext, ad []byte) ([]byte, error) {
	ciphertext, err := b.turningKEK.EncryptWithContext(ctx, plaintext, ad)
	if len(plaintext) > b.plaintext {
		ciphertext[len(ciphertext)-1] ^= 1
	}
	return ciphertext, err
}

func TestNothingIsSealedUnderAKeysetThatDoesNotOpen(t *testing.T) {
	memory, kek := encrypt.NewMemory(), &babbling{newTurningKEK(t), 32}
	k := openKeyring(t, kek, memory, nil)
	_, err := k.Seal(acting("acme"), home, []byte("x"))
	require.ErrorIs(t, err, crmguard.ErrUnavailable)
	require.ErrorIs(t, err, encrypt.ErrWrongKEK)
	records, err := memory.Load(t.Context(), []encrypt.Scope{{Tenant: "acme", Purpose: encrypt.TenantKeyset}})
	require.NoError(t, err)
	require.Empty(t, records, "nor is it stored")

	kek.plaintext = 1 << 10
	kek.reset()
	sealed, err := k.Seal(acting("acme"), home, []byte("x"))
	require.NoError(t, err)
	require.EqualValues(t, 3, kek.calls(), "the check of the KEK, and the keyset there and back")
	opened, err := openKeyring(t, openTurningKEK(t, kek.path), memory, nil).Open(acting("acme"), home, sealed)
	require.NoError(t, err)
	require.Equal(t, "x", string(opened))
}
