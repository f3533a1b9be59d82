package encryptsql_test

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/internal/processtest"
)

// Points of a job at which its process is killed.
const (
	beforeCommit = "before a batch is committed"
	afterCommit  = "after a batch was committed"
	beforeCursor = "before the cursor is stored"
	afterCursor  = "after the cursor was stored"
)

// kills are how often a process comes to which point until it dies there: one after the
// other, each goes on with what those before have left.
var kills = []struct {
	point string
	times int
}{
	{beforeCommit, 1}, {afterCommit, 1}, {beforeCursor, 1}, {afterCursor, 1},
	{beforeCommit, 5}, {afterCommit, 3}, {beforeCursor, 4}, {afterCursor, 2},
	{beforeCommit, 2}, {afterCommit, 2}, {beforeCursor, 2}, {afterCursor, 3},
}

// killedPeople are more than all kills get done, in batches of killedBatch.
const killedPeople, killedBatch = 80, 2

// fate kills its process when it comes to a point so many times.
type fate struct {
	point string
	times int
}

func (f *fate) at(point string) {
	if f.point != point {
		return
	}
	if f.times--; f.times > 0 {
		return
	}
	self, err := os.FindProcess(os.Getpid())
	if err == nil {
		err = self.Kill()
	}
	if err != nil {
		panic(err)
	}
	select {}
}

// mortalRows come to the points of a batch.
type mortalRows struct {
	encrypt.Rows
	fate *fate
}

func (m mortalRows) Swap(ctx context.Context, tenant string, changes []encrypt.Change, then func(tx encrypt.Execer, swapped []string) error) ([]string, error) {
	stale, err := m.Rows.Swap(ctx, tenant, changes, func(tx encrypt.Execer, swapped []string) error {
		if then != nil {
			if err := then(tx, swapped); err != nil {
				return err
			}
		}
		m.fate.at(beforeCommit)
		return nil
	})
	m.fate.at(afterCommit)
	return stale, err
}

// job is one that dies: with options and rows that come to all points.
type job func(ctx context.Context, c *crm, rows encrypt.Rows, o *encrypt.JobOptions) (encrypt.Report, error)

// jobThenDie opens a CRM in a process that will be killed. Its arguments are the database, the
// KEK, how it goes on, the point and how often.
func jobThenDie(do job) processtest.Task {
	return func(_ context.Context, p *processtest.Process) error {
		ctx := system()
		db, store, err := openStore(ctx, p.Args[0])
		if err != nil {
			return err
		}
		c, err := openCRM(ctx, db, store, p.Args[1])
		if err != nil {
			return err
		}
		times, err := strconv.Atoi(p.Args[4])
		if err != nil {
			return err
		}
		fate := &fate{p.Args[3], times}
		// What a host does with the progress of a job.
		o := &encrypt.JobOptions{Batch: killedBatch, Progress: func(ctx context.Context, r encrypt.Report) error {
			fate.at(beforeCursor)
			_, err := db.ExecContext(ctx, `UPDATE job SET at = $1`, r.Cursor)
			fate.at(afterCursor)
			return err
		}}
		if p.Args[2] == fromTheCursor {
			if err := db.QueryRowContext(ctx, `SELECT at FROM job`).Scan(&o.After); err != nil {
				return err
			}
		}
		report, err := do(ctx, c, mortalRows{c.rows, fate}, o)
		return fmt.Errorf("not killed: %+v: %w", report, err)
	}
}

const (
	fromTheCursor = "from the cursor"
	fromNothing   = "from nothing"
)

func reencryptUntilKilled(ctx context.Context, c *crm, rows encrypt.Rows, o *encrypt.JobOptions) (encrypt.Report, error) {
	return c.table.Reencrypt(ctx, "acme", rows, o)
}

// migrateUntilKilled needs no cursor: the set of records is what is left.
func migrateUntilKilled(ctx context.Context, c *crm, rows encrypt.Rows, o *encrypt.JobOptions) (encrypt.Report, error) {
	return c.table.Migrate(ctx, "acme", rows, o)
}

func startJob(t *testing.T, db *sql.DB) {
	t.Helper()
	_, err := db.Exec(`CREATE TABLE job (at TEXT NOT NULL)`)
	require.NoError(t, err)
	_, err = db.Exec(`INSERT INTO job (at) VALUES ('')`)
	require.NoError(t, err)
}

// killAtEachPoint starts a job again and again. Whatever is done or not, all people are to
// be read after each.
func killAtEachPoint(t *testing.T, c *crm, task, database, kek, from string) {
	t.Helper()
	for _, k := range kills {
		output, err := processtest.Command(t, task, database, kek, from, k.point, strconv.Itoa(k.times)).CombinedOutput()
		require.Error(t, err, "%s", k.point)
		require.Empty(t, string(output), "%s", k.point)
		requirePeople(t, c)
	}
}

func requirePeople(t *testing.T, c *crm) {
	t.Helper()
	list, err := c.read(system())
	require.NoError(t, err)
	require.Len(t, list, killedPeople)
	for i, p := range list {
		require.Equal(t, fmt.Sprintf("+7 912 345-%04d", i), p.Phone)
	}
}

func TestReencryptSurvivesKills(t *testing.T) {
	for _, from := range []string{fromTheCursor, fromNothing} {
		t.Run(from, func(t *testing.T) {
			processtest.EachDatabase(t, func(t *testing.T, database string) {
				kek := filepath.Join(t.TempDir(), "kek.json")
				db, store, err := openStore(t.Context(), database)
				require.NoError(t, err)
				defer closeIt(t, db)
				c, err := openCRM(t.Context(), db, store, kek)
				require.NoError(t, err)
				c.fill(t, killedPeople, true)
				startJob(t, db)
				for i := range killedPeople {
					_, err := c.keys.Rotate(system(), personScope(i))
					require.NoError(t, err)
				}
				killAtEachPoint(t, c, "reencrypt", database, kek, from)

				o := &encrypt.JobOptions{}
				if from == fromTheCursor {
					require.NoError(t, db.QueryRow(`SELECT at FROM job`).Scan(&o.After))
					require.NotEmpty(t, o.After)
				}
				_, err = c.table.Reencrypt(system(), "acme", c.rows, o)
				require.NoError(t, err)
				for i := range killedPeople {
					_, err = c.keys.Retire(system(), personScope(i), 2)
					require.NoError(t, err)
				}
				requirePeople(t, c) // nothing is left under the older version
			})
		})
	}
}

func TestMigrateSurvivesKills(t *testing.T) {
	processtest.EachDatabase(t, func(t *testing.T, database string) {
		kek := filepath.Join(t.TempDir(), "kek.json")
		db, store, err := openStore(t.Context(), database)
		require.NoError(t, err)
		defer closeIt(t, db)
		c, err := openCRM(t.Context(), db, store, kek)
		require.NoError(t, err)
		c.fill(t, killedPeople, false)
		startJob(t, db)
		_, err = c.table.Collect(system(), "acme", c.rows, nil)
		require.NoError(t, err)
		killAtEachPoint(t, c, "migrate", database, kek, fromNothing)

		left, err := c.table.Pending(system(), "acme")
		require.NoError(t, err)
		require.NotZero(t, left)
		require.Less(t, left, killedPeople)
		report, err := c.table.Migrate(system(), "acme", c.rows, nil)
		require.NoError(t, err)
		require.True(t, report.OK())
		left, err = c.table.Pending(system(), "acme")
		require.NoError(t, err)
		require.Zero(t, left)
		requirePeople(t, c)
		for i := range killedPeople {
			found, err := c.table.Find(system(), "acme", "phone", "phone", fmt.Sprintf("+7 912 345-%04d", i))
			require.NoError(t, err)
			require.Equal(t, []string{personID(i)}, found, "index entries come with the row")
		}
		_, err = db.Exec(`UPDATE people SET phone = '+7 900 000-00-00', phone_sealed = NULL WHERE id = $1`, personID(3))
		require.NoError(t, err)
		_, err = c.read(system())
		require.ErrorIs(t, err, encrypt.ErrPlaintext)
		scanned, err := c.table.Scan(system(), "acme", c.rows, nil)
		require.NoError(t, err)
		require.Equal(t, 1, scanned.Plaintext)
		require.Equal(t, personID(3), scanned.Findings[0].Record)
	})
}
