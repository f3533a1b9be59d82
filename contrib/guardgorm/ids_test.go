package guardgorm_test

import (
	"testing"

	"github.com/glebarez/sqlite"
	"github.com/stretchr/testify/require"
	"gorm.io/gorm"

	"github.com/crmguard/crmguard/contrib/guardgorm"
	"github.com/crmguard/crmguard/encrypt"
)

// What the plugin finds by an id that is unique within a tenant only may be somebody else's row.
type (
	perTenant struct {
		Tenant      string `gorm:"primaryKey"`
		ID          string `gorm:"primaryKey" encrypt:",record"`
		Phone       string `gorm:"-" encrypt:"phone"`
		PhoneSealed []byte `encrypt:"phone,sealed"`
	}
	ofAnyKey struct {
		ID          uint
		Key         string `encrypt:",record"`
		Phone       string `gorm:"-" encrypt:"phone"`
		PhoneSealed []byte `encrypt:"phone,sealed"`
	}
	uniqueTogether struct {
		ID          uint
		Tenant      string `gorm:"uniqueIndex:both"`
		Key         string `gorm:"uniqueIndex:both" encrypt:",record"`
		Phone       string `gorm:"-" encrypt:"phone"`
		PhoneSealed []byte `encrypt:"phone,sealed"`
	}
	uniqueHere struct {
		ID          uint
		Key         string `gorm:"uniqueIndex:,where:deleted = false" encrypt:",record"`
		Phone       string `gorm:"-" encrypt:"phone"`
		PhoneSealed []byte `encrypt:"phone,sealed"`
	}
	uniqueIndex struct {
		ID          uint
		Key         string `gorm:"uniqueIndex" encrypt:",record"`
		Phone       string `gorm:"-" encrypt:"phone"`
		PhoneSealed []byte `encrypt:"phone,sealed"`
	}
	tenantAndUnique struct {
		Tenant      string `gorm:"primaryKey"`
		ID          string `gorm:"primaryKey;unique" encrypt:",record"`
		Phone       string `gorm:"-" encrypt:"phone"`
		PhoneSealed []byte `encrypt:"phone,sealed"`
	}
)

func TestIdsAreUniqueByThemselves(t *testing.T) {
	kek, err := encrypt.OpenKeyFile(t.TempDir()+"/kek.json", "", true)
	require.NoError(t, err)
	keys, err := encrypt.New(kek, encrypt.NewMemory(), nil)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, keys.Close()) })
	refused := []any{perTenant{}, ofAnyKey{}, uniqueTogether{}, uniqueHere{}}
	for i, row := range append(refused, uniqueIndex{}, tenantAndUnique{}) {
		db, err := gorm.Open(sqlite.Open(t.TempDir() + "/crm.db"))
		require.NoError(t, err)
		t.Cleanup(func() { closeDB(t, db) })
		plugin, err := guardgorm.New(keys, guardgorm.Kinds{"leads": {row}}, nil)
		require.NoError(t, err)
		if err = db.Use(plugin); i < len(refused) {
			require.ErrorContains(t, err, "not unique by itself", "%T", row)
		} else {
			require.NoError(t, err, "%T", row)
		}
	}
}
