package encrypt_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/tink-crypto/tink-go/v2/tink"

	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/internal/racetest"
)

func TestKeyFileIsMadeOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a", "b", "kek.json")
	_, err := encrypt.OpenKeyFile(path, "", false)
	require.ErrorIs(t, err, os.ErrNotExist)

	keks := racetest.Run(t, func(int) (tink.AEADWithContext, error) { return encrypt.OpenKeyFile(path, "", true) })
	for i := range keks {
		ciphertext, err := keks[i].EncryptWithContext(t.Context(), []byte("x"), []byte("ad"))
		require.NoError(t, err)
		for _, other := range keks {
			_, err := other.DecryptWithContext(t.Context(), ciphertext, []byte("ad"))
			require.NoError(t, err, "all opened the same key")
			_, err = other.DecryptWithContext(t.Context(), ciphertext, nil)
			require.ErrorIs(t, err, encrypt.ErrWrongKEK)
		}
	}
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode())
	info, err = os.Stat(filepath.Dir(path))
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o700), info.Mode().Perm())
	entries, err := os.ReadDir(filepath.Dir(path))
	require.NoError(t, err)
	require.Len(t, entries, 1, "no half-made copies are left")
}

func TestKeyFileExposed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kek.json")
	_, err := encrypt.OpenKeyFile(path, "", true)
	require.NoError(t, err)
	for mode, ok := range map[os.FileMode]bool{0o600: true, 0o400: true, 0o640: false, 0o604: false, 0o660: false, 0o601: false, 0o777: false} {
		require.NoError(t, os.Chmod(path, mode))
		_, err := encrypt.OpenKeyFile(path, "", true)
		if ok {
			require.NoError(t, err, "%v", mode)
			continue
		}
		require.ErrorIs(t, err, encrypt.ErrKeyFileExposed, "%v", mode)
		e, isKeyFile := errors.AsType[*encrypt.KeyFileError](err)
		require.True(t, isKeyFile)
		require.Equal(t, path, e.Path)
	}
}

func TestKeyFileInsideTheDataFolder(t *testing.T) {
	dir := t.TempDir()
	data, keys := filepath.Join(dir, "data"), filepath.Join(dir, "keys")
	require.NoError(t, os.MkdirAll(data, 0o700))
	require.NoError(t, os.MkdirAll(keys, 0o700))
	require.NoError(t, os.Symlink(data, filepath.Join(dir, "other-name")))
	require.NoError(t, os.Symlink(filepath.Join(data, "sub"), filepath.Join(keys, "link")))
	_, err := encrypt.OpenKeyFile(filepath.Join(keys, "kek.json"), data, true)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(data, "linked.json"), nil, 0o600))
	require.NoError(t, os.Symlink(filepath.Join(data, "linked.json"), filepath.Join(keys, "soft.json")))

	for name, test := range map[string]struct {
		path, data string
		inside     bool
	}{
		"beside":               {filepath.Join(keys, "kek.json"), data, false},
		"same beginning":       {filepath.Join(dir, "data2", "kek.json"), data, false},
		"two dots in a name":   {filepath.Join(dir, "..data", "kek.json"), data, false},
		"data inside keys":     {filepath.Join(dir, "kek.json"), data, false},
		"data does not exist":  {filepath.Join(keys, "kek.json"), filepath.Join(dir, "no", "such"), false},
		"inside":               {filepath.Join(data, "kek.json"), data, true},
		"deep inside":          {filepath.Join(data, "a", "b", "kek.json"), data, true},
		"the folder itself":    {data, data, true},
		"by dots":              {filepath.Join(keys, "x") + "/../../data/kek.json", data, true},
		"link to the folder":   {filepath.Join(dir, "other-name", "kek.json"), data, true},
		"folder given as link": {filepath.Join(data, "kek.json"), filepath.Join(dir, "other-name"), true},
		"soft link to a file":  {filepath.Join(keys, "soft.json"), data, true},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := encrypt.OpenKeyFile(test.path, test.data, true)
			if test.inside {
				require.ErrorIs(t, err, encrypt.ErrKeyFileInside)
				_, err := os.Stat(filepath.Join(data, "kek.json"))
				require.ErrorIs(t, err, os.ErrNotExist, "and is not made there")
				return
			}
			require.NoError(t, err)
		})
	}
	_, err = encrypt.OpenKeyFile(filepath.Join(keys, "link", "kek.json"), data, true)
	require.Error(t, err, "a link that leads nowhere yet could lead inside later")
}

// A new key file in a folder that others write to is refused only once it is there.
func TestNoLinkIsFollowedBesideAKeyFile(t *testing.T) {
	for _, side := range []string{".lock", ".new", ".old"} {
		dir := t.TempDir()
		victim, link := filepath.Join(dir, "victim"), filepath.Join(dir, "keys", ".kek.json"+side)
		require.NoError(t, os.Mkdir(filepath.Dir(link), 0o777))
		require.NoError(t, os.Chmod(filepath.Dir(link), 0o777)) //nolint:gosec // that is the attack
		require.NoError(t, os.Symlink(victim, link))
		_, err := encrypt.OpenKeyFile(filepath.Join(dir, "keys", "kek.json"), "", true)
		require.Error(t, err, side)
		_, err = os.Lstat(victim)
		require.ErrorIs(t, err, os.ErrNotExist, side)
	}
}

// What is checked is what is opened: to the eye "link/../kek.json" lies beside
// link, to the system beside what link leads to.
func TestKeyFileBehindALinkAndDots(t *testing.T) {
	dir := t.TempDir()
	data, keys := filepath.Join(dir, "data"), filepath.Join(dir, "keys")
	require.NoError(t, os.MkdirAll(filepath.Join(data, "sub"), 0o700))
	require.NoError(t, os.MkdirAll(keys, 0o700))
	require.NoError(t, os.Symlink(filepath.Join(data, "sub"), filepath.Join(keys, "link")))
	_, err := encrypt.OpenKeyFile(keys+"/link/../kek.json", data, true)
	require.NoError(t, err)
	_, err = os.Stat(filepath.Join(data, "kek.json"))
	require.ErrorIs(t, err, os.ErrNotExist)
	_, err = os.Stat(filepath.Join(keys, "kek.json"))
	require.NoError(t, err)
}

func TestKeyFileThatOthersCanReach(t *testing.T) {
	dir := t.TempDir()
	keys := filepath.Join(dir, "keys")
	path := filepath.Join(keys, "kek.json")
	_, err := encrypt.OpenKeyFile(path, "", true)
	require.NoError(t, err)

	second := filepath.Join(dir, "second.json")
	require.NoError(t, os.Link(path, second))
	_, err = encrypt.OpenKeyFile(path, "", false)
	require.ErrorIs(t, err, encrypt.ErrKeyFileLinked)
	require.NoError(t, os.Remove(second))

	for mode, ok := range map[os.FileMode]bool{0o777: false, 0o770: false, 0o755: true, 0o777 | os.ModeSticky: false} {
		require.NoError(t, os.Chmod(keys, mode))
		_, err = encrypt.OpenKeyFile(path, "", false)
		require.Equal(t, ok, err == nil, "folder %v: %v", mode, err)
	}
	if os.Geteuid() == 0 {
		require.NoError(t, os.Chown(path, 65534, 65534))
		_, err = encrypt.OpenKeyFile(path, "", false)
		require.ErrorIs(t, err, encrypt.ErrKeyFileExposed, "somebody else's file")
		require.NoError(t, os.Chown(path, 0, 0))
	}
	pipe := filepath.Join(dir, "pipe")
	require.NoError(t, syscall.Mkfifo(pipe, 0o600))
	_, err = encrypt.OpenKeyFile(pipe, "", true)
	require.ErrorIs(t, err, encrypt.ErrKeyFileMalformed, "and nobody waits")
}

func TestKeyFileDamaged(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kek.json")
	_, err := encrypt.OpenKeyFile(path, "", true)
	require.NoError(t, err)
	good, err := os.ReadFile(path)
	require.NoError(t, err)
	for name, text := range map[string][]byte{
		"empty":       nil,
		"truncated":   good[:len(good)/2],
		"short":       good[:len(good)-2],
		"other JSON":  []byte(`{"a": 1}`),
		"not JSON":    []byte("-----BEGIN PRIVATE KEY-----"),
		"binary":      bytes.Repeat([]byte{0xff}, 100),
		"large":       bytes.Repeat([]byte{' '}, 2<<20),
		"no keys":     []byte(`{"primaryKeyId":1,"key":[]}`),
		"not an AEAD": []byte(`{"primaryKeyId":1,"key":[{"keyData":{"typeUrl":"type.googleapis.com/google.crypto.tink.HmacKey","value":"EgQIAxAgGiBlZWVlZWVlZWVlZWVlZWVlZWVlZWVlZWVlZWVlZWVlZQ==","keyMaterialType":"SYMMETRIC"},"status":"ENABLED","keyId":1,"outputPrefixType":"TINK"}]}`),
	} {
		t.Run(name, func(t *testing.T) {
			require.NoError(t, os.WriteFile(path, text, 0o600))
			_, err := encrypt.OpenKeyFile(path, "", true)
			require.ErrorIs(t, err, encrypt.ErrKeyFileMalformed)
			now, err := os.ReadFile(path)
			require.NoError(t, err)
			require.True(t, bytes.Equal(text, now), "a damaged file is never overwritten")
		})
	}
	require.NoError(t, os.Remove(path))
	require.NoError(t, os.Mkdir(path, 0o700))
	_, err = encrypt.OpenKeyFile(path, "", true)
	require.ErrorIs(t, err, encrypt.ErrKeyFileMalformed)
}

func TestKeysAreNotPrinted(t *testing.T) {
	kek, err := encrypt.OpenKeyFile(filepath.Join(t.TempDir(), "kek.json"), "", true)
	require.NoError(t, err)
	k, err := encrypt.New(kek, encrypt.NewMemory(), nil)
	require.NoError(t, err)
	for _, format := range []string{"%v", "%+v", "%#v", "%s"} {
		require.Equal(t, "encrypt.KEK[redacted]", fmt.Sprintf(format, kek))
		require.Equal(t, "encrypt.Keyring[redacted]", fmt.Sprintf(format, k))
	}
}

func FuzzKeyFile(f *testing.F) {
	path := filepath.Join(f.TempDir(), "kek.json")
	_, err := encrypt.OpenKeyFile(path, "", true)
	require.NoError(f, err)
	good, err := os.ReadFile(path)
	require.NoError(f, err)
	f.Add(good)
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		path := filepath.Join(t.TempDir(), "kek.json")
		require.NoError(t, os.WriteFile(path, text, 0o600))
		kek, err := encrypt.OpenKeyFile(path, "", true)
		if err != nil {
			require.ErrorIs(t, err, encrypt.ErrKeyFileMalformed)
			return
		}
		_, err = kek.EncryptWithContext(t.Context(), nil, nil)
		require.NoError(t, err)
	})
}

// writeFile makes a key file with some content.
func TestKeyFileSize(t *testing.T) {
	const most = 1 << 20
	path := filepath.Join(t.TempDir(), "kek.json")
	_, err := encrypt.OpenKeyFile(path, "", true)
	require.NoError(t, err)
	good, err := os.ReadFile(path)
	require.NoError(t, err)
	blanks := bytes.Repeat([]byte{' '}, most)
	for size, want := range map[int]error{most: nil, most + 1: encrypt.ErrKeyFileMalformed} {
		_, err := encrypt.OpenKeyFile(writeFile(t, append(good, blanks...)[:size]), "", false)
		require.ErrorIs(t, err, want, size)
	}
}

func writeFile(t *testing.T, text []byte) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "kek.json")
	require.NoError(t, os.WriteFile(path, text, 0o600))
	return path
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	return text
}
