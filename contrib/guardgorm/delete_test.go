package guardgorm_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"gorm.io/gorm"
)

// Which rows a condition fits may change between finding their entries and deleting them.
func TestDeleteBesideEdits(t *testing.T) {
	onPostgres(t, func(t *testing.T, c *crm) {
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
			var free []string
			var err error
			rename(c.raw, fits, name)
			require.NoError(t, c.Callback().Delete().After("guardgorm:find").Before("gorm:delete").Register("edit", func(*gorm.DB) {
				err = c.raw.Raw("SELECT id FROM contacts WHERE name = ? FOR UPDATE SKIP LOCKED", name).Scan(&free).Error
				rename(c.raw, "b", name)
			}))
			require.ErrorContains(t, c.Unscoped().Where("name = ?", name).Delete(&Contact{}).Error, "while they were deleted")
			require.Equal(t, []string{"a", "b"}, stored())
			require.Equal(t, []string{"b"}, c.found(t, phone2), "nothing is deleted whose entries would stay")
			require.NoError(t, err)
			require.Empty(t, free, "a row that another one deletes would be counted for the one that came")
			rename(c.raw, "b", "new")
			require.NoError(t, c.Callback().Delete().Remove("edit"))
		}
		require.NoError(t, c.Unscoped().Where("name = ?", "new").Delete(&Contact{}).Error, "again")
		require.Equal(t, []string{"a"}, stored())
		require.Empty(t, c.found(t, phone2))
	})
}

// A condition on another table may name other rows by the time they are deleted, and a trigger keeps rows.
func TestDeleteKeepsEntriesOfRowsThatStay(t *testing.T) {
	each(t, func(t *testing.T, c *crm) {
		require.NoError(t, c.raw.Exec("CREATE TABLE doomed (id TEXT)").Error)
		require.NoError(t, c.raw.Exec("INSERT INTO doomed VALUES ('a')").Error)
		require.NoError(t, c.Create(&[]Contact{{ID: "a", Phone: phone1}, {ID: "b", Phone: phone2}}).Error)
		for id, more := range map[string]bool{"none": false, "b": true} {
			require.NoError(t, c.Callback().Delete().After("guardgorm:find").Before("gorm:delete").Register("edit", func(db *gorm.DB) {
				require.NoError(t, db.Session(&gorm.Session{NewDB: true}).Exec("UPDATE doomed SET id = ?", id).Error)
			}))
			err := c.Unscoped().Where("id IN (SELECT id FROM doomed)").Delete(&Contact{}).Error
			require.NoError(t, c.Callback().Delete().Remove("edit"))
			if more {
				require.ErrorContains(t, err, "while they were deleted")
			} else {
				require.NoError(t, err)
				require.NoError(t, c.raw.Exec("UPDATE doomed SET id = 'a'").Error)
			}
			require.Equal(t, []string{"a"}, c.found(t, phone1), id)
			require.Equal(t, []string{"b"}, c.found(t, phone2), id)
		}

		keep := []string{"CREATE TRIGGER keep BEFORE DELETE ON contacts WHEN OLD.id = 'a' BEGIN SELECT RAISE(IGNORE); END"}
		if c.dial.Name() == "postgres" {
			keep = []string{"CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
				"CREATE TRIGGER keep BEFORE DELETE ON contacts FOR EACH ROW WHEN (OLD.id = 'a') EXECUTE FUNCTION keep()"}
		}
		for _, statement := range keep {
			require.NoError(t, c.raw.Exec(statement).Error)
		}
		result := c.Unscoped().Delete(&Contact{}, "id IN ?", []string{"a", "b"})
		require.NoError(t, result.Error)
		require.EqualValues(t, 1, result.RowsAffected)
		require.Equal(t, []string{"a"}, c.found(t, phone1))
		require.Empty(t, c.found(t, phone2))
	})
}
