package encrypttest_test

import (
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
	encrypttest.KEK(t, func(t *testing.T) encrypttest.KEKUnderTest {
		return files(t, func(path string, create bool) (encrypt.RotatingKEK, error) {
			return encrypt.OpenKeyFile(path, "", create)
		})
	})
}

func TestPassphraseFile(t *testing.T) {
	encrypttest.KEK(t, func(t *testing.T) encrypttest.KEKUnderTest {
		return files(t, func(path string, create bool) (encrypt.RotatingKEK, error) {
			return encrypt.OpenPassphraseFile(path, "", []byte("correct horse battery"), create)
		})
	})
}

// files makes two files of which open opens one.
func files(t *testing.T, open func(path string, create bool) (encrypt.RotatingKEK, error)) encrypttest.KEKUnderTest {
	t.Helper()
	kek := func(name string, create bool) encrypt.RotatingKEK {
		kek, err := open(name, create)
		require.NoError(t, err)
		return kek
	}
	path := t.TempDir() + "/kek"
	kek(path, true)
	return encrypttest.KEKUnderTest{
		Open:  func() encrypt.RotatingKEK { return kek(path, false) },
		Other: func() encrypt.RotatingKEK { return kek(t.TempDir()+"/other", true) },
	}
}
