package guardgorm_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"gorm.io/gorm"
)

// Which rows a condition fits may change between finding their entries and deleting them. SQLite has
// one writer at a time.
func TestDeleteBesideEdits(t *testing.T) {
	each(t, func(t *testing.T, c *crm) {
		if c.dial.Name() != "postgres" {
			t.Skip("its transactions do not run side by side")
		}
		rename := func(db *gorm.DB, id, name string) {
			require.NoError(t, db.Exec("UPDATE contacts SET name = ? WHERE id = ?", name, id).Error)
		}
		stored := func() (ids []string) {
			require.NoError(t, c.Model(&Contact{}).Order("id").Pluck("id", &ids).Error)
			return ids
		}
		require.NoError(t, c.Create(&[]Contact{{ID: "a", Name: "old", Phone: phone1}, {ID: "b", Name: "new", Phone: phone2}}).Error)

		edit := c.raw.Begin()
		rename(edit, "a", "new")
		deleted := make(chan *gorm.DB, 1)
		go func() { deleted <- c.Unscoped().Where("name = ?", "old").Delete(&Contact{}) }()
		require.Eventually(t, func() bool {
			var waiting int
			err := c.sql.QueryRow(`SELECT COUNT(*) FROM pg_locks w JOIN pg_locks h ON h.transactionid = w.transactionid AND h.granted
				WHERE NOT w.granted AND h.pid IN (SELECT pid FROM pg_locks WHERE relation = 'contacts'::regclass)`).Scan(&waiting)
			require.NoError(t, err)
			return waiting > 0
		}, time.Minute, time.Millisecond)
		require.NoError(t, edit.Commit().Error)
		result := <-deleted
		require.NoError(t, result.Error)
		require.Zero(t, result.RowsAffected)
		require.Equal(t, []string{"a", "b"}, stored())
		require.Equal(t, []string{"a"}, c.found(t, phone1), "a row that stays keeps its entries")

		for _, fits := range []string{"a", "none"} {
			name := "more than " + fits
			rename(c.raw, fits, name)
			require.NoError(t, c.Callback().Delete().After("guardgorm:find").Before("gorm:delete").Register("edit", func(*gorm.DB) { rename(c.raw, "b", name) }))
			require.ErrorContains(t, c.Unscoped().Where("name = ?", name).Delete(&Contact{}).Error, "while they were deleted")
			require.Equal(t, []string{"a", "b"}, stored())
			require.Equal(t, []string{"b"}, c.found(t, phone2), "nothing is deleted whose entries would stay")
			rename(c.raw, "b", "new")
			require.NoError(t, c.Callback().Delete().Remove("edit"))
		}
		require.NoError(t, c.Unscoped().Where("name = ?", "new").Delete(&Contact{}).Error, "again")
		require.Equal(t, []string{"a"}, stored())
		require.Empty(t, c.found(t, phone2))
	})
}
