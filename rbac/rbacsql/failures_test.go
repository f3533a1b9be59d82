package rbacsql_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/crmguardtest"
	"github.com/crmguard/crmguard/internal/racetest"
	"github.com/crmguard/crmguard/internal/sqldb/sqldbtest"
	"github.com/crmguard/crmguard/rbac"
	"github.com/crmguard/crmguard/rbac/rbacsql"
)

// What is taken away is gone in its own process, whatever the store does; what is given
// is not given before it is stored.
func TestAStoreThatCannotBeReached(t *testing.T) {
	store := &failingHead{Adapter: open(t, sqldbtest.SQLite(t), nil, rbac.StarterPolicy()+people2)}
	e, err := rbac.New(t.Context(), store, quiet())
	require.NoError(t, err)
	job := crmguard.System(t.Context(), "default", "test")
	store.down.Store(true)
	require.ErrorContains(t, e.GrantRole(job, "default", "boris", "seller"), "connection refused")
	require.False(t, mayList(e, "boris"))
	got, err := e.Revoke(job, "default", "anna")
	require.ErrorContains(t, err, "connection refused")
	require.Equal(t, 1, got.Count)
	require.False(t, mayList(e, "anna"))
	require.ErrorContains(t, e.RevokeRole(job, "default", "vera", "seller"), "connection refused")
	require.False(t, mayList(e, "vera"))

	// Again, once the store is back: then it is gone everywhere.
	store.down.Store(false)
	got, err = e.Revoke(job, "default", "anna")
	require.NoError(t, err)
	require.Equal(t, 1, got.Count)
	require.NotContains(t, rules(t, store.Adapter), "g u:anna role:seller default")
}

// neverFirst is a store in which somebody else is always faster.
type neverFirst struct {
	*rbacsql.Adapter
	tries int
}

func (a *neverFirst) Change(context.Context, rbac.Stored, [][]string, [][]string) (rbac.Version, error) {
	a.tries++
	return rbac.Version{}, rbac.ErrChanged
}

func TestNobodyTriesForEver(t *testing.T) {
	store := &neverFirst{Adapter: open(t, sqldbtest.SQLite(t), nil, rbac.StarterPolicy())}
	e, err := rbac.New(t.Context(), store, quiet())
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(crmguard.System(t.Context(), "default", "test"))
	require.ErrorIs(t, e.GrantRole(ctx, "default", "boris", "seller"), rbac.ErrChanged)
	require.Greater(t, store.tries, 10)
	require.False(t, mayList(e, "boris"))
	cancel()
	require.ErrorIs(t, e.GrantRole(ctx, "default", "boris", "seller"), context.Canceled)
}

// Some adopt what is there while others change it: nobody overwrites anybody, and what
// comes out is genuine.
func TestAdoptingDuringChanges(t *testing.T) {
	sqldbtest.Each(t, func(t *testing.T, db *sql.DB) {
		adapters := make([]*rbacsql.Adapter, 5)
		for i := range adapters {
			adapters[i] = open(t, db, nil, rbac.StarterPolicy())
		}
		adopted := racetest.Winners(t, func(n int) (bool, error) {
			a := adapters[n%len(adapters)]
			if n%3 > 0 {
				return false, a.AddPolicy("g", "g", []string{fmt.Sprintf("u:p%d", n), "role:seller", "default"})
			}
			_, err := a.Adopt(t.Context(), "test")
			if errors.Is(err, rbac.ErrChanged) {
				return false, nil
			}
			return err == nil, err
		})
		t.Logf("%d of %d adopted", adopted, (racetest.Racers+2)/3)
		require.Len(t, rules(t, adapters[0]), len(rowsOf(t, rbac.StarterPolicy())["p"])+len(rowsOf(t, rbac.StarterPolicy())["g"])+racetest.Racers-(racetest.Racers+2)/3)
		head := history(t, adapters[0])[0].Number
		at, err := adapters[0].At(t.Context(), head)
		require.NoError(t, err)
		require.Equal(t, rbac.Digest(at), history(t, adapters[0])[0].Digest)
	})
}

func TestWhatCannotBeStored(t *testing.T) {
	a := open(t, sqldbtest.SQLite(t), nil, "")
	_, err := a.Adopt(t.Context(), "test")
	require.ErrorContains(t, err, "no rows")
	require.ErrorContains(t, a.AddPolicy("g", "g", []string{"u:a\xff", "role:x", "t"}), "UTF-8")
	require.ErrorContains(t, a.AddPolicy("g", "g", []string{"u:a\x00", "role:x", "t"}), "NUL")
	require.ErrorContains(t, a.AddPoliciesCtx(rbac.WithReason(t.Context(), strings.Repeat("x", 1001)), "g", "g", [][]string{{"u:a", "role:x", "t"}}), "1000")
	require.Empty(t, history(t, a))
}

// A large change is in the journal with its first rows; how it ended is told to the
// logger if the journal does not take it any more.
func TestLargeChangesAreCutInTheJournal(t *testing.T) {
	journal := crmguardtest.NewRecorder()
	a := open(t, sqldbtest.SQLite(t), &rbacsql.Options{Journal: journal}, "")
	require.NoError(t, a.AddPolicies("g", "g", sellers(1000)))
	e := journal.Events()[0]
	require.Equal(t, 1000, e.Count)
	text := string(e.Private[1].Value)
	require.Less(t, len(text), 5000)
	require.Contains(t, text, " more\n")

	var log lockedBuffer
	half := crmguard.RecorderFunc(func(_ context.Context, e crmguard.Event) error {
		if e.Outcome == crmguard.Done {
			return errors.New("disk full")
		}
		return nil
	})
	a = open(t, sqldbtest.SQLite(t), &rbacsql.Options{Journal: half, Logger: textLogger(&log)}, "")
	require.NoError(t, a.AddPolicy("g", "g", []string{"u:a", "role:x", "t"}))
	require.Contains(t, log.String(), "outcome was not recorded")
}

// Whoever cannot reach the database gets an error that is no judgement about the policy.
func TestAClosedDatabase(t *testing.T) {
	db := sqldbtest.SQLite(t)
	a := open(t, db, nil, rbac.StarterPolicy())
	require.NoError(t, db.Close())
	ctx, cancel := context.WithTimeout(t.Context(), moment)
	defer cancel()
	for name, ask := range map[string]func() error{
		"Head":    func() error { _, err := a.Head(ctx); return err },
		"Load":    func() error { _, err := a.Load(ctx); return err },
		"History": func() error { _, err := a.History(ctx, 0, 1); return err },
		"At":      func() error { _, err := a.At(ctx, 1); return err },
		"Adopt":   func() error { _, err := a.Adopt(ctx, "test"); return err },
		"Add":     func() error { return a.AddPolicy("g", "g", []string{"u:a", "role:x", "t"}) },
	} {
		err := ask()
		require.Error(t, err, name)
		require.NotErrorIs(t, err, rbacsql.ErrTampered, name)
		require.NotErrorIs(t, err, rbacsql.ErrOlder, name)
	}
	require.Contains(t, (&rbac.StaleError{What: "the policy", Age: 11 * time.Second, MaxAge: 10 * time.Second}).Error(), "11s, longer than 10s")
}
