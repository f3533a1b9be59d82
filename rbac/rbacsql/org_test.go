package rbacsql_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/internal/racetest"
	"github.com/crmguard/crmguard/internal/sqldb/sqldbtest"
	"github.com/crmguard/crmguard/internal/uptime"
	"github.com/crmguard/crmguard/rbac"
	"github.com/crmguard/crmguard/rbac/rbacsql"
)

func admin(ctx context.Context, tenant string) context.Context {
	return crmguard.WithSubject(ctx, crmguard.Subject{Tenant: tenant, ID: "admin", Kind: crmguard.KindEmployee})
}

// inNorth are departments in which a person is a member of north, and heads it.
func inNorth(person string) rbac.Units {
	return rbac.Units{
		Parent:  map[string]string{"north": "sales", "юг": "sales"},
		Members: map[string][]string{person: {"north"}, "boris": {"north", "юг"}},
		Heads:   map[string][]string{person: {"north"}},
	}
}

func orgOf(t testing.TB, db *sql.DB, o *rbacsql.Options) *rbacsql.Org {
	t.Helper()
	a, err := rbacsql.New(t.Context(), db, testKeys, o)
	require.NoError(t, err)
	return a.Org()
}

func TestDepartmentsAreKept(t *testing.T) {
	sqldbtest.Each(t, func(t *testing.T, db *sql.DB) {
		ctx := admin(t.Context(), "acme")
		org := orgOf(t, db, nil)
		units, err := org.Load(ctx, "acme")
		require.NoError(t, err)
		require.Empty(t, units.Members)
		const changes = 105 // so that there are several versions with all rows
		for n := range int64(changes) {
			units := inNorth(fmt.Sprint("seller-", n))
			if n%2 == 0 {
				units.Members[""] = []string{"north"}
				units.Parent["юг"] = ""
			}
			v, err := org.Replace(ctx, "acme", n, units, "hired")
			require.NoError(t, err)
			require.Equal(t, n+1, v.Number)
		}
		again := orgOf(t, db, nil)
		for _, o := range []*rbacsql.Org{org, again} {
			version, err := o.Version(ctx, "acme")
			require.NoError(t, err)
			require.EqualValues(t, changes, version)
			units, err = o.Load(ctx, "acme")
			require.NoError(t, err)
			want := inNorth("seller-104")
			delete(want.Parent, "юг")
			require.Equal(t, want, units)
			version, err = o.Version(ctx, "globex")
			require.NoError(t, err)
			require.Zero(t, version)
		}
		_, err = org.Replace(ctx, "acme", changes-1, inNorth("late"), "x")
		require.ErrorIs(t, err, rbac.ErrChanged)
		same, err := org.Replace(ctx, "acme", changes, units, "nothing")
		require.NoError(t, err)
		require.EqualValues(t, changes, same.Number)

		page, err := org.History(ctx, "acme", 0, 3)
		require.NoError(t, err)
		require.Len(t, page, 3)
		require.Equal(t, []string{"acme", "admin", "hired"}, []string{page[0].Tenant, page[0].Author, page[0].Reason})
		require.ElementsMatch(t, [][]string{{"member", "seller-104", "north"}, {"head", "seller-104", "north"}}, page[0].Added)
		require.ElementsMatch(t, [][]string{{"member", "seller-103", "north"}, {"head", "seller-103", "north"}, {"unit", "юг", "sales"}}, page[0].Removed)

		_, err = org.Replace(ctx, "globex", 0, inNorth("anna"), "x")
		require.ErrorContains(t, err, "tenant")
		_, err = org.History(ctx, "globex", 0, 1)
		require.ErrorContains(t, err, "tenant")
		_, err = org.Replace(t.Context(), "acme", changes, inNorth("anna"), "x")
		require.ErrorContains(t, err, "nobody acts")
		_, err = org.Replace(ctx, "acme", changes, inNorth("anna"), "")
		require.ErrorContains(t, err, "reason")
		_, err = org.Version(ctx, "")
		require.ErrorContains(t, err, "empty tenant")
		_, err = org.Replace(ctx, "acme", changes, rbac.Units{Parent: map[string]string{"a": "b\x00"}}, "x")
		require.ErrorContains(t, err, "NUL")
	})
}

func TestOfManyChangesOfDepartmentsOneIsMade(t *testing.T) {
	sqldbtest.Each(t, func(t *testing.T, db *sql.DB) {
		ctx := admin(t.Context(), "acme")
		org := orgOf(t, db, nil)
		require.Equal(t, 1, racetest.Winners(t, func(n int) (bool, error) {
			_, err := org.Replace(ctx, "acme", 0, inNorth(fmt.Sprint("seller-", n)), "hired")
			if errors.Is(err, rbac.ErrChanged) {
				return false, nil
			}
			return err == nil, err
		}))
		version, err := org.Version(ctx, "acme")
		require.NoError(t, err)
		require.EqualValues(t, 1, version)
	})
}

// orgAttacks are tried on four versions of acme's departments; in the second one mallory headed
// north, as she does in globex.
var orgAttacks = map[string]struct {
	do   func(d table)
	want error
	// The fault is what lets the attack pass: a host without keys, or one that starts and
	// has no marks.
	fault func(ctx context.Context, d table) (*rbacsql.Adapter, error)
}{
	"a row is edited": {func(d table) {
		d.exec(`UPDATE casbin_version SET added = '[["head","mallory","north"]]', whole = 1 WHERE document = 'departments/acme' AND number = 4`)
		d.fitDepartments(rbac.Digest([][]string{{"head", "mallory", "north"}}))
	}, rbacsql.ErrTampered, departmentsWithoutKeys},
	"rows of the newest version are edited": {func(d table) {
		d.exec(`UPDATE casbin_version SET added = '[["head","mallory","north"]]' WHERE document = 'departments/acme' AND number = 4`)
	}, rbacsql.ErrTampered, nil},
	"a version is made up": {func(d table) {
		d.exec(`INSERT INTO casbin_version SELECT document, 5, at, tenant, author, reason, digest, whole, added, removed, changes, mac FROM casbin_version
			WHERE document = 'departments/acme' AND number = 4`)
	}, rbacsql.ErrTampered, departmentsWithoutKeys},
	"an older version gets the newest number": {func(d table) {
		d.exec(`DELETE FROM casbin_version WHERE document = 'departments/acme' AND number = 4`)
		d.exec(`UPDATE casbin_version SET number = 4 WHERE document = 'departments/acme' AND number = 2`)
	}, rbacsql.ErrTampered, nil},
	"another tenant's rows": {func(d table) {
		d.exec(`DELETE FROM casbin_version WHERE document = 'departments/acme'`)
		d.exec(`UPDATE casbin_version SET document = 'departments/acme' WHERE document = 'departments/globex'`)
	}, rbacsql.ErrTampered, departmentsWithoutKeys},
	"older rows are put back": {func(d table) {
		d.exec(`DELETE FROM casbin_version WHERE document = 'departments/acme' AND number > 2`)
	}, rbacsql.ErrOlder, departmentsWithoutMarks},
	"all rows are deleted": {func(d table) {
		d.exec(`DELETE FROM casbin_version WHERE document = 'departments/acme'`)
	}, rbacsql.ErrOlder, departmentsWithoutMarks},
	"a row in between is deleted": {func(d table) {
		d.exec(`DELETE FROM casbin_version WHERE document = 'departments/acme' AND number = 3`)
	}, rbacsql.ErrTampered, nil},
}

// fitDepartments makes the newest version name other rows.
func (d table) fitDepartments(digest string) {
	d.exec(`UPDATE casbin_version SET digest = $1 WHERE document = 'departments/acme' AND number = 4`, digest)
}

func departmentsWithoutKeys(ctx context.Context, d table) (*rbacsql.Adapter, error) {
	return rbacsql.NewWithoutKeys(ctx, d.db, nil)
}

func departmentsWithoutMarks(ctx context.Context, d table) (*rbacsql.Adapter, error) {
	return rbacsql.New(ctx, d.db, testKeys, nil)
}

func TestWhoWritesTheDatabaseHeadsNothing(t *testing.T) {
	sqldbtest.Each(t, func(t *testing.T, db *sql.DB) {
		d := table{t, db}
		marks := &memoryMarks{}
		ctx, o := admin(t.Context(), "acme"), &rbacsql.Options{Marks: marks}
		org := orgOf(t, db, o)
		for n, head := range []string{"anna", "mallory", "olga", "anna"} {
			_, err := org.Replace(ctx, "acme", int64(n), inNorth(head), "moved")
			require.NoError(t, err)
			_, err = org.Replace(admin(t.Context(), "globex"), "globex", int64(n), inNorth(fmt.Sprint("mallory", n)), "moved")
			require.NoError(t, err)
		}
		require.Equal(t, map[string]int64{`departments/"default"/acme`: 4, `departments/"default"/globex`: 4}, marks.highest)
		d.dump("good")
		for name, attack := range orgAttacks {
			t.Run(name, func(t *testing.T) {
				d := table{t, db}
				defer d.restore("good")
				attack.do(d)
				for _, org := range []*rbacsql.Org{org, orgOf(t, db, o)} { // of a process that runs, and of one that starts
					_, err := org.Load(ctx, "acme")
					require.ErrorIs(t, err, attack.want)
					_, err = org.Replace(ctx, "acme", 4, inNorth("boris"), "the next change does not make it genuine")
					require.ErrorIs(t, err, attack.want)
				}
				if attack.fault == nil {
					return
				}
				faulty, err := attack.fault(ctx, d) // planted fault
				require.NoError(t, err)
				_, err = faulty.Org().Version(ctx, "acme")
				require.NoError(t, err)
				if errors.Is(attack.want, rbacsql.ErrOlder) || name == "another tenant's rows" { // whose digests fit
					_, err = faulty.Org().Load(ctx, "acme")
					require.NoError(t, err)
				}
			})
		}
		units, err := org.Load(ctx, "acme")
		require.NoError(t, err)
		require.Equal(t, inNorth("anna"), units)

		d.exec(`UPDATE casbin_version SET author = 'x' WHERE document = 'departments/acme' AND number = 4`)
		v, err := org.Adopt(ctx, "acme", inNorth("olga"), "the table was repaired")
		require.NoError(t, err)
		require.EqualValues(t, 5, v.Number)
		units, err = orgOf(t, db, o).Load(ctx, "acme")
		require.NoError(t, err)
		require.Equal(t, inNorth("olga"), units)
		_, err = org.Load(ctx, "globex")
		require.NoError(t, err, "the others stay")
	})
}

// Who cannot be recorded changes no departments, not even by taking people out.
func TestChangesOfDepartmentsAreInTheJournal(t *testing.T) {
	var events []crmguard.Event
	var fail error
	journal := crmguard.RecorderFunc(func(_ context.Context, e crmguard.Event) error {
		events = append(events, e)
		return fail
	})
	ctx := admin(t.Context(), "acme")
	org := orgOf(t, sqldbtest.SQLite(t), &rbacsql.Options{Journal: journal})
	_, err := org.Replace(ctx, "acme", 0, inNorth("anna"), "hired")
	require.NoError(t, err)
	require.Len(t, events, 2)
	require.Equal(t, crmguard.Resource{Tenant: "acme", Kind: "departments"}, events[0].Resource)
	require.Equal(t, crmguard.Configure, events[0].Action)
	require.Equal(t, "version:1", events[0].Reason)
	require.Equal(t, []crmguard.Outcome{crmguard.Attempted, crmguard.Done}, []crmguard.Outcome{events[0].Outcome, events[1].Outcome})

	fail = errors.New("the journal is away")
	_, err = org.Replace(ctx, "acme", 1, rbac.Units{}, "all are gone")
	require.ErrorIs(t, err, fail)
	version, err := org.Version(ctx, "acme")
	require.NoError(t, err)
	require.EqualValues(t, 1, version)
}

const northPolicy = "p, role:head, acme, contacts, view, headed, allow\ng, u:anna, role:head, acme\n"

func viewsNorth(ctx context.Context, e *rbac.Engine) bool {
	return e.Check(ctx, crmguard.Subject{Tenant: "acme", ID: "anna", Kind: crmguard.KindEmployee}, crmguard.View,
		crmguard.Resource{Tenant: "acme", Kind: "contacts", ID: "1", Unit: "north"}) == nil
}

func TestAnEngineDecidesByStoredDepartments(t *testing.T) {
	sqldbtest.Each(t, func(t *testing.T, db *sql.DB) {
		t.Cleanup(uptime.Move(func() time.Duration { return time.Hour })) // nothing gets old
		ctx := admin(t.Context(), "acme")
		a := open(t, db, nil, northPolicy)
		o := quiet()
		o.Org = a.Org()
		e, err := rbac.New(ctx, a, o)
		require.NoError(t, err)
		require.False(t, viewsNorth(ctx, e))
		_, err = a.Org().Replace(ctx, "acme", 0, inNorth("anna"), "promoted")
		require.NoError(t, err)
		require.False(t, viewsNorth(ctx, e))
		e.Invalidate("acme")
		require.True(t, viewsNorth(ctx, e))
		_, err = e.Revoke(ctx, "acme", "nobody")
		require.NoError(t, err, "the policy's versions are their own")
	})
}

func TestChangesOfDepartmentsAreNotified(t *testing.T) {
	url := sqldbtest.PostgresURL(t)
	db, err := sql.Open("pgx", url)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	t.Cleanup(uptime.Move(func() time.Duration { return time.Hour })) // nobody looks of themselves
	ctx := admin(t.Context(), "acme")
	a := open(t, db, nil, northPolicy)
	o := quiet()
	o.Org = a.Org()
	e, err := rbac.New(ctx, a, o)
	require.NoError(t, err)
	ready := make(chan struct{}, 1)
	watch(t, e, &rbac.WatchOptions{Every: time.Hour, MaxAge: 2 * time.Hour, Listen: hear(url, a.Channel(), func() { ready <- struct{}{} })})
	<-ready
	require.False(t, viewsNorth(ctx, e))
	_, err = orgOf(t, db, nil).Replace(ctx, "acme", 0, inNorth("anna"), "promoted in another process")
	require.NoError(t, err)
	require.Eventually(t, func() bool { return viewsNorth(ctx, e) }, moment, time.Millisecond)
}
