package guardgorm_test

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/glebarez/sqlite"
	"github.com/stretchr/testify/require"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"

	"github.com/crmguard/crmguard/contrib/guardgorm"
	"github.com/crmguard/crmguard/encrypt"
)

// A page of 100 rows with two sealed fields, warm, beside gorm alone reading the bytes.
func BenchmarkFind(b *testing.B) {
	file := sqlite.Open(filepath.Join(b.TempDir(), "crm.db"))
	db, err := gorm.Open(file, &gorm.Config{Logger: logger.Discard})
	require.NoError(b, err)
	bare, err := gorm.Open(file, &gorm.Config{Logger: logger.Discard})
	require.NoError(b, err)
	kek, err := encrypt.OpenKeyFile(filepath.Join(b.TempDir(), "kek.json"), "data", true)
	require.NoError(b, err)
	index := encrypt.NewMemoryIndex()
	keys, err := encrypt.New(kek, encrypt.NewMemory(), &encrypt.Options{Index: index})
	require.NoError(b, err)
	plugin, err := guardgorm.New(keys, guardgorm.Kinds{"contacts": {Contact{}}, "calls": {Call{}}}, nil)
	require.NoError(b, err)
	require.NoError(b, db.Use(plugin))
	db = db.WithContext(as("acme"))
	rows := make([]Contact, 100)
	for i := range rows {
		rows[i] = Contact{ID: fmt.Sprint(i), Phone: phone1, Email: new(mail1)}
	}
	require.NoError(b, db.AutoMigrate(&Contact{}))
	require.NoError(b, db.Create(&rows).Error)
	for name, db := range map[string]*gorm.DB{"sealed": db, "bare": bare} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				var page []Contact
				if err := db.Find(&page).Error; err != nil || len(page) != len(rows) {
					b.Fatal(err)
				}
			}
		})
		pool, err := db.DB()
		require.NoError(b, err)
		b.Cleanup(func() { require.NoError(b, pool.Close()) })
	}
}
