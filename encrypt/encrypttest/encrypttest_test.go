package encrypttest_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/encrypt/encrypttest"
)

func TestMemory(t *testing.T) {
	encrypttest.Store(t, func(*testing.T) encrypt.Store { return encrypt.NewMemory() })
}

func TestMemoryIndex(t *testing.T) {
	encrypttest.Index(t, func(*testing.T) (encrypt.Index, encrypt.Execer) { return encrypt.NewMemoryIndex(), nil })
}

func TestMemoryRows(t *testing.T) {
	encrypttest.Rows(t, func(*testing.T) encrypttest.RowsTable {
		rows := encrypttest.NewMemoryRows()
		return encrypttest.RowsTable{Rows: rows, Put: rows.Put}
	})
}

func TestMemoryPending(t *testing.T) {
	encrypttest.Pending(t, func(*testing.T) encrypt.Pending { return encrypt.NewMemory() })
}

func TestKeyFile(t *testing.T) {
	kekFile(t, func(path string, create bool) (encrypt.RotatingKEK, error) {
		return encrypt.OpenKeyFile(path, "", create)
	})
}

func TestPassphraseFile(t *testing.T) {
	kekFile(t, func(path string, create bool) (encrypt.RotatingKEK, error) {
		return encrypt.OpenPassphraseFile(path, "", []byte("correct horse battery"), create)
	})
}

// kekFile makes two files and gives copies of them to each duty: a passphrase costs time.
func kekFile(t *testing.T, open func(path string, create bool) (encrypt.RotatingKEK, error)) {
	made := make(map[string][]byte)
	for _, name := range []string{"kek", "other"} {
		path := filepath.Join(t.TempDir(), name)
		_, err := open(path, true)
		require.NoError(t, err)
		made[name], err = os.ReadFile(path)
		require.NoError(t, err)
	}
	encrypttest.KEK(t, func(t *testing.T) encrypttest.KEKUnderTest {
		dir := t.TempDir()
		for name, content := range made {
			require.NoError(t, os.WriteFile(filepath.Join(dir, name), content, 0o600))
		}
		opened := func(name string) encrypt.RotatingKEK {
			kek, err := open(filepath.Join(dir, name), false)
			require.NoError(t, err)
			return kek
		}
		return encrypttest.KEKUnderTest{
			Open:  func() encrypt.RotatingKEK { return opened("kek") },
			Other: func() encrypt.RotatingKEK { return opened("other") },
		}
	})
}
