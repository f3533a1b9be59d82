package encrypt_test

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/fips140"
	"crypto/pbkdf2"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/argon2"

	"github.com/crmguard/crmguard/encrypt"
)

var passphrase = []byte("nine crows on a wire")

func TestPassphraseFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "keys", "kek.sealed")
	_, err := encrypt.OpenPassphraseFile(path, "", passphrase, false)
	require.ErrorIs(t, err, os.ErrNotExist)
	_, err = encrypt.OpenPassphraseFile(path, "", []byte("eleven char"), true)
	require.ErrorContains(t, err, "12 bytes")
	require.NoFileExists(t, path)

	kek, err := encrypt.OpenPassphraseFile(path, "", passphrase, true)
	require.NoError(t, err)
	other, err := encrypt.OpenPassphraseFile(path, "", passphrase, true)
	require.NoError(t, err)
	first := wrapped(t, kek)
	require.NoError(t, kek.Rotate(t.Context()))
	second := wrapped(t, other)
	require.NotEqual(t, first[:5], second[:5], "the other process has noticed")
	requireOpens(t, kek, second)
	requireOpens(t, other, first)
	_, err = kek.DestroyOld(t.Context())
	require.NoError(t, err)
	requireWrongKEK(t, other, first)
	reopened, err := encrypt.OpenPassphraseFile(path, "", passphrase, false)
	require.NoError(t, err)
	requireOpens(t, reopened, second)
	require.Equal(t, "encrypt.KEK[redacted]", fmt.Sprintf("%+v", kek))

	text, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NotContains(t, string(text), "AesGcmKey")
	for _, wrong := range [][]byte{nil, []byte("nine crows on a wirf"), []byte("nine crows on a wire ")} {
		_, err = encrypt.OpenPassphraseFile(path, "", wrong, true)
		require.ErrorIs(t, err, encrypt.ErrPassphrase, "%q", wrong)
	}
	_, err = encrypt.OpenKeyFile(path, "", true)
	require.ErrorIs(t, err, encrypt.ErrKeyFileMalformed)
	require.ErrorContains(t, err, "under a passphrase")
	clear := filepath.Join(dir, "keys", "kek.json")
	_, err = encrypt.OpenKeyFile(clear, "", true)
	require.NoError(t, err)
	_, err = encrypt.OpenPassphraseFile(clear, "", passphrase, true)
	require.ErrorIs(t, err, encrypt.ErrKeyFileMalformed)

	_, err = encrypt.OpenPassphraseFile(path, dir, passphrase, true)
	require.ErrorIs(t, err, encrypt.ErrKeyFileInside)
	require.NoError(t, os.Chmod(path, 0o644))
	_, err = encrypt.OpenPassphraseFile(path, "", passphrase, true)
	require.ErrorIs(t, err, encrypt.ErrKeyFileExposed)
}

// Golden files hold the keyset of testdata/v1/kek.json. They are read twice: by the
// package, and by what docs/formats/encrypt.md says.
func TestPassphraseGoldenFiles(t *testing.T) {
	dir := filepath.Join("testdata", "v1")
	clear := read(t, filepath.Join(dir, "kek.json"))
	if *update { // once more with GODEBUG=fips140=on
		file, _, _, err := encrypt.SealUnderPassphrase(passphrase, clear)
		require.NoError(t, err)
		name := "kek-argon2id"
		if fips140.Enabled() {
			name = "kek-pbkdf2"
		}
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), file, 0o600))
	}
	plain, err := encrypt.OpenKeyFile(writeFile(t, clear), "", false)
	require.NoError(t, err)
	for name, head := range map[string]int{"kek-argon2id": 33, "kek-pbkdf2": 28} {
		t.Run(name, func(t *testing.T) {
			file := read(t, filepath.Join(dir, name))
			kek, err := encrypt.OpenPassphraseFile(writeFile(t, file), "", passphrase, false)
			require.NoError(t, err)
			requireOpens(t, kek, wrapped(t, plain))
			requireOpens(t, plain, wrapped(t, kek))

			require.Equal(t, []byte{'c', 'g', 1, file[3], 0, 0, 0, 1}, file[:8])
			salt, passes := file[head-16:head], binary.BigEndian.Uint32(file[8:])
			var key []byte
			switch file[3] {
			case 6:
				key = argon2.IDKey(passphrase, salt, passes, binary.BigEndian.Uint32(file[12:]), file[16], 32)
			case 7:
				key, err = pbkdf2.Key(sha256.New, string(passphrase), salt, int(passes), 32)
				require.NoError(t, err)
			}
			block, err := aes.NewCipher(key)
			require.NoError(t, err)
			gcm, err := cipher.NewGCM(block)
			require.NoError(t, err)
			ad := append([]byte("crmguard/encrypt key file\x00"), file[:head]...)
			json, err := gcm.Open(nil, file[head:head+12], file[head+12:], ad)
			require.NoError(t, err)
			require.Equal(t, string(clear), string(json))
		})
	}
}

// Every flipped bit of a passphrase file is refused: when the file is opened, and when
// a process reads it again later. Opening takes a tenth of a second where the
// derivation itself is changed, so there a bit of each of the first bytes stands for all.
func TestPassphraseFileFlipped(t *testing.T) {
	file, first, later, err := encrypt.SealUnderPassphrase(passphrase, []byte(`{"any": "text"}`))
	require.NoError(t, err)
	for _, open := range []func([]byte) ([]byte, error){first, later} {
		text, err := open(file)
		require.NoError(t, err)
		require.Equal(t, `{"any": "text"}`, string(text))
	}
	head, _, err := encrypt.ParsePassphraseFile(file)
	require.NoError(t, err)
	for bit := range 8 * len(file) {
		flipped := append([]byte{}, file...)
		flipped[bit/8] ^= 1 << (bit % 8)
		_, err := later(flipped)
		require.Error(t, err, "bit %d", bit)
		if bit/8 < len(head) && (bit%8 != 0 || bit/8 > 18) {
			continue
		}
		if bit == 8*len(head) { // the right key from here on
			_, err = first(file)
			require.NoError(t, err)
		}
		_, err = first(flipped)
		require.Error(t, err, "bit %d", bit)
	}
	for length := range len(file) {
		_, err := later(file[:length])
		require.Error(t, err)
	}
	_, err = later(append(file, 0))
	require.ErrorIs(t, err, encrypt.ErrPassphrase)
}

// A planted file costs no more than a real one may.
func TestPassphraseFileThatIsTooCostly(t *testing.T) {
	argon := func(passes, memory uint32, threads byte) []byte {
		b := []byte{'c', 'g', 1, 6, 0, 0, 0, 1}
		b = binary.BigEndian.AppendUint32(b, passes)
		b = binary.BigEndian.AppendUint32(b, memory)
		return append(append(b, threads), make([]byte, 16+12+16)...)
	}
	rounds := func(n uint32) []byte {
		return append(binary.BigEndian.AppendUint32([]byte{'c', 'g', 1, 7, 0, 0, 0, 1}, n), make([]byte, 16+12+16)...)
	}
	for name, file := range map[string][]byte{
		"memory":          argon(3, 1<<20+1, 4),
		"most memory":     argon(3, 1<<32-1, 4),
		"passes":          argon(17, 64<<10, 4),
		"threads":         argon(3, 64<<10, 17),
		"no threads":      argon(3, 64<<10, 0),
		"too few passes":  argon(2, 64<<10, 4),
		"too little":      argon(3, 64<<10-1, 4),
		"rounds":          rounds(10_000_001),
		"too few rounds":  rounds(599_999),
		"other algorithm": append([]byte{'c', 'g', 1, 8, 0, 0, 0, 1}, make([]byte, 100)...),
		"other version":   append([]byte{'c', 'g', 1, 7, 0, 0, 0, 2}, rounds(600_000)[8:]...),
		"no payload":      argon(3, 64<<10, 4)[:60],
		"empty":           {},
	} {
		_, err := encrypt.OpenPassphraseFile(writeFile(t, file), "", passphrase, false)
		require.ErrorIs(t, err, encrypt.ErrKeyFileMalformed, name)
	}
	_, err := encrypt.OpenPassphraseFile(writeFile(t, argon(3, 64<<10, 4)), "", passphrase, false)
	require.ErrorIs(t, err, encrypt.ErrPassphrase)
}

// The passphrase is not kept: what was sealed under another salt asks for it.
func TestPassphraseFileMadeAnew(t *testing.T) {
	dir := t.TempDir()
	path, other := filepath.Join(dir, "kek"), filepath.Join(dir, "other")
	kek, err := encrypt.OpenPassphraseFile(path, "", passphrase, true)
	require.NoError(t, err)
	known := wrapped(t, kek)
	_, err = encrypt.OpenPassphraseFile(other, "", passphrase, true)
	require.NoError(t, err)
	require.NoError(t, os.Rename(other, path))
	_, err = kek.EncryptWithContext(t.Context(), nil, nil)
	require.ErrorContains(t, err, "made it anew")
	requireOpens(t, kek, known)
}

func FuzzPassphraseFile(f *testing.F) {
	file, _, open, err := encrypt.SealUnderPassphrase(passphrase, []byte(`{}`))
	require.NoError(f, err)
	f.Add(file)
	f.Add(file[:40])
	f.Add(append([]byte{'c', 'g', 1, 7, 0, 0, 0, 1, 0, 9, 39, 192}, make([]byte, 60)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		head, sealed, err := encrypt.ParsePassphraseFile(b)
		if err != nil {
			require.ErrorIs(t, err, encrypt.ErrKeyFileMalformed)
			return
		}
		require.Equal(t, string(b), string(head)+string(sealed), "one way to write it")
		if _, err := open(b); err == nil {
			require.Equal(t, string(file), string(b))
		}
	})
}

func ExampleOpenPassphraseFile() {
	dir, err := os.MkdirTemp("", "keys")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir) //nolint:errcheck // the system does it too
	path := filepath.Join(dir, "kek.sealed")
	kek, err := encrypt.OpenPassphraseFile(path, "crm-data", []byte("nine crows on a wire"), true)
	fmt.Println(kek, err)

	_, err = encrypt.OpenPassphraseFile(path, "crm-data", []byte("nine crows on a fence"), false)
	fmt.Println(errors.Is(err, encrypt.ErrPassphrase))
	// Output:
	// encrypt.KEK[redacted] <nil>
	// true
}
