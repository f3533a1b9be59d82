package encrypttest_test

import (
	"testing"

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
