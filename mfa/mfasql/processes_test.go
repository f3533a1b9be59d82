package mfasql_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/pquerna/otp/totp"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/encrypt/encryptsql"
	"github.com/crmguard/crmguard/internal/processtest"
	"github.com/crmguard/crmguard/internal/racetest"
	"github.com/crmguard/crmguard/internal/sqldb/sqldbtest"
	"github.com/crmguard/crmguard/mfa"
	"github.com/crmguard/crmguard/mfa/mfasql"
)

func TestMain(m *testing.M) {
	tasks := map[string]processtest.Task{}
	for name, try := range tries {
		tasks[name] = processtest.Racer(func(ctx context.Context, p *processtest.Process) (func(int) (bool, error), error) {
			n, err := openNode(ctx, p.Args[0], p.Args[1])
			if err != nil {
				return nil, err
			}
			p.AtEnd(n.Close)
			if n.known, n.rows, err = n.store.Load(ctx, "acme", "anna"); err != nil {
				return nil, err
			}
			if p.Args[3] == faulty {
				if n.Factors, err = n.over(&looksFirst{n.store, n.known, n.rows}); err != nil {
					return nil, err
				}
			}
			n.app = n.rows[slices.IndexFunc(n.rows, func(r mfa.Row) bool { return r.Kind == mfa.KindApp })]
			n.code = p.Args[2]
			return func(number int) (bool, error) { return try(ctx, n, number) }, nil
		})
	}
	processtest.Main(tasks)
	os.Exit(m.Run())
}

// node is one process of the CRM: factors and keys in one database, under a key in a
// file.
type node struct {
	*mfa.Factors
	store mfa.Store
	keys  *encrypt.Keyring
	Close func() error

	// What a process that races knows beforehand.
	known mfa.Person
	rows  []mfa.Row
	app   mfa.Row
	code  string
}

func openNode(ctx context.Context, database, kekFile string) (*node, error) {
	db, err := processtest.Open(ctx, database)
	if err != nil {
		return nil, err
	}
	kek, err := encrypt.OpenKeyFile(kekFile, "", true)
	if err != nil {
		return nil, err
	}
	wrapped, err := encryptsql.New(ctx, db, nil)
	if err != nil {
		return nil, err
	}
	n := &node{}
	if n.keys, err = encrypt.New(kek, wrapped, nil); err != nil {
		return nil, err
	}
	n.Close = func() error { return errors.Join(n.keys.Close(), db.Close()) }
	if n.store, err = mfasql.New(ctx, db, nil); err != nil {
		return nil, err
	}
	n.Factors, err = n.over(n.store)
	return n, err
}

func (n *node) over(s mfa.Store) (*mfa.Factors, error) {
	n.store = s
	return mfa.New(s, n.keys, "Acme CRM", &mfa.Options{Clock: func() time.Time { return noon }})
}

// tries are what may succeed once, or as often as the budget says.
var tries = map[string]func(ctx context.Context, n *node, number int) (bool, error){
	"verify": func(ctx context.Context, n *node, _ int) (bool, error) {
		return letIn(n.Verify(ctx, "acme", "anna", n.code))
	},
	"recover": func(ctx context.Context, n *node, _ int) (bool, error) {
		return letIn(n.Recover(ctx, "acme", "anna", n.code))
	},
	"confirm": func(ctx context.Context, n *node, _ int) (bool, error) {
		return letIn(n.Confirm(ctx, "acme", "anna", n.app.ID, n.code))
	},
	"guess": func(ctx context.Context, n *node, _ int) (bool, error) { // succeeds if the code is compared
		err := n.Recover(ctx, "acme", "anna", n.code)
		if denial, ok := errors.AsType[*crmguard.Denial](err); ok {
			return denial.Detail == mfa.ReasonWrong, nil
		}
		return false, fmt.Errorf("a wrong code is let in, or: %w", err)
	},
	"advance": func(ctx context.Context, n *node, _ int) (bool, error) {
		return n.store.Advance(ctx, "acme", "anna", n.app.ID, n.app.Step+1)
	},
	"attempt": func(ctx context.Context, n *node, number int) (bool, error) {
		next := mfa.Budget{Empty: noon.Add(time.Duration(number) * time.Second), Last: noon.Add(time.Second)}
		return n.store.Attempt(ctx, "acme", "anna", n.known.Budget, next)
	},
	"change": func(ctx context.Context, n *node, number int) (bool, error) {
		next := n.known
		next.Version++
		next.MAC = mfa.Opaque("by " + strconv.Itoa(number))
		return n.store.Change(ctx, n.known, next, nil, []string{n.app.ID})
	},
}

// letIn tells a denial from an error.
func letIn(err error) (bool, error) {
	if _, denied := errors.AsType[*crmguard.Denial](err); denied {
		return false, nil
	}
	return err == nil, err
}

const faulty = "faulty"

// looksFirst is a planted fault: it decides by what it saw before anybody acted.
type looksFirst struct {
	mfa.Store
	known mfa.Person
	rows  []mfa.Row
}

func (s *looksFirst) Load(context.Context, string, string) (mfa.Person, []mfa.Row, error) {
	return s.known, s.rows, nil
}

func (s *looksFirst) Advance(ctx context.Context, tenant, person, id string, step int64) (bool, error) {
	for _, r := range s.rows {
		if r.ID == id && r.Step < step {
			_, err := s.Store.Advance(ctx, tenant, person, id, step)
			return true, err
		}
	}
	return false, nil
}

func (s *looksFirst) Attempt(ctx context.Context, tenant, person string, old, next mfa.Budget) (bool, error) {
	_, err := s.Store.Attempt(ctx, tenant, person, old, next)
	return true, err
}

func (s *looksFirst) Change(ctx context.Context, old, next mfa.Person, put []mfa.Row, remove []string) (bool, error) {
	_, err := s.Store.Change(ctx, old, next, put, remove)
	return s.known.Equal(old), err
}

// Each may succeed once, however many processes try; of wrong recovery codes, five
// are compared. The same race notices a store that looks and then writes.
func TestProcessesShareFactors(t *testing.T) {
	want := map[string]int{"verify": 1, "recover": 1, "confirm": 1, "guess": 5, "advance": 1, "attempt": 1, "change": 1}
	require.Len(t, want, len(tries))
	for task, want := range want {
		t.Run(task, func(t *testing.T) {
			processtest.EachDatabase(t, func(t *testing.T, database string) { require.Equal(t, want, race(t, database, task, "")) })
		})
		t.Run(task+", planted fault", func(t *testing.T) {
			require.Equal(t, processtest.Racers, race(t, sqldbtest.PostgresURL(t), task, faulty))
		})
	}
}

// race enrols anna, as far as the task needs it, lets the processes race, and returns
// how often they succeeded.
func race(t *testing.T, database, task, store string) int {
	t.Helper()
	kekFile := filepath.Join(t.TempDir(), "kek")
	n, err := openNode(t.Context(), database, kekFile)
	require.NoError(t, err)
	e, err := n.Enrol(t.Context(), "acme", "anna", "anna")
	require.NoError(t, err)
	code, err := totp.GenerateCode(e.Secret(), noon)
	require.NoError(t, err)
	if task != "confirm" {
		require.NoError(t, n.Confirm(t.Context(), "acme", "anna", e.ID, code))
		code, err = totp.GenerateCode(e.Secret(), noon.Add(30*time.Second))
		require.NoError(t, err)
	}
	switch task {
	case "recover":
		codes, err := n.ReplaceRecovery(t.Context(), "acme", "anna")
		require.NoError(t, err)
		code = codes.Show()[0]
	case "guess":
		code = "AAAA-AAAA-AAAA-AAAA-AAAA-AAAA"
	}
	require.NoError(t, n.Close())
	return racetest.Count(processtest.Race[bool](t, task, database, kekFile, code, store))
}
