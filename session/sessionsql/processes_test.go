package sessionsql_test

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/encrypt/encryptsql"
	"github.com/crmguard/crmguard/internal/processtest"
	"github.com/crmguard/crmguard/internal/sqldb/sqldbtest"
	"github.com/crmguard/crmguard/session"
	"github.com/crmguard/crmguard/session/sessionsql"
)

func TestMain(m *testing.M) {
	tasks := map[string]processtest.Task{}
	for name, try := range tries {
		tasks[name] = processtest.Racer(func(ctx context.Context, p *processtest.Process) (func(int) (string, error), error) {
			n, err := openNode(ctx, p.Args[0], p.Args[1])
			if err != nil {
				return nil, err
			}
			p.AtEnd(n.Close)
			n.token = p.Args[2]
			var rows []session.Row
			if n.person, rows, err = n.store.Person(ctx, "acme", "anna"); err != nil {
				return nil, err
			}
			if len(rows) > 0 {
				n.row = rows[0]
			}
			if p.Args[3] == faulty {
				err = n.over(&looksFirst{n.store, n.db, n.person, n.row})
			}
			return func(number int) (string, error) { return try(ctx, n, number) }, err
		})
	}
	processtest.Main(tasks)
	os.Exit(m.Run())
}

// node is one process of the CRM: sessions and keys in one database, under a key in a
// file.
type node struct {
	*session.Manager
	store session.Store
	db    *sql.DB
	keys  *encrypt.Keyring
	Close func() error

	// What a process that races knows beforehand.
	person session.Person
	row    session.Row
	token  string
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
	n := &node{db: db}
	if n.keys, err = encrypt.New(kek, wrapped, nil); err != nil {
		return nil, err
	}
	n.Close = func() error { return errors.Join(n.keys.Close(), db.Close()) }
	store, err := sessionsql.New(ctx, db, nil)
	if err != nil {
		return nil, err
	}
	return n, n.over(store)
}

func (n *node) over(s session.Store) (err error) {
	n.store = s
	n.Manager, err = session.New(s, n.keys, &session.Options{Logger: slog.New(slog.DiscardHandler)})
	return err
}

// tries are what may succeed once. The text is what it gave, empty for who lost.
var tries = map[string]func(ctx context.Context, n *node, number int) (string, error){
	"swap": func(ctx context.Context, n *node, number int) (string, error) {
		next := n.row
		next.Verifier = session.MAC(strconv.Itoa(number))
		return won(n.store.Swap(ctx, n.row.ID, n.row.Verifier, &next))
	},
	"end": func(ctx context.Context, n *node, _ int) (string, error) {
		return won(n.store.Swap(ctx, n.row.ID, n.row.Verifier, nil))
	},
	"raise": func(ctx context.Context, n *node, _ int) (string, error) {
		return unlessDenied(n.Raise(ctx, n.token, crmguard.AssuranceSecondFactor))
	},
	"change": func(ctx context.Context, n *node, number int) (string, error) {
		next := n.person
		next.Epoch++
		next.MAC = session.MAC(strconv.Itoa(number))
		_, changed, err := n.store.Change(ctx, n.person, next)
		return won(changed, err)
	},
	"make": func(ctx context.Context, n *node, number int) (string, error) {
		none := session.Person{Tenant: "acme", ID: "boris"}
		next := none
		next.Epoch, next.MAC = 1, session.MAC(strconv.Itoa(number))
		_, changed, err := n.store.Change(ctx, none, next)
		return won(changed, err)
	},
	"start or close": func(ctx context.Context, n *node, number int) (string, error) {
		if number == processtest.Racers/2 {
			return "", n.ClosePerson(ctx, "acme", "anna")
		}
		return unlessDenied(n.Start(ctx, anna))
	},
}

func won(won bool, err error) (string, error) {
	if won {
		return "won", err
	}
	return "", err
}

func unlessDenied(token string, err error) (string, error) {
	if _, denied := errors.AsType[*crmguard.Denial](err); denied {
		return "", nil
	}
	return token, err
}

const faulty = "faulty"

// looksFirst is a planted fault: it decides by what it saw before anybody acted.
type looksFirst struct {
	session.Store
	db     *sql.DB
	person session.Person
	row    session.Row
}

func (s *looksFirst) Session(context.Context, string) (session.Row, session.Person, error) {
	return s.row, s.person, nil
}

func (s *looksFirst) Swap(ctx context.Context, id string, verifier session.MAC, next *session.Row) (bool, error) {
	_, err := s.Store.Swap(ctx, id, verifier, next)
	return bytes.Equal(s.row.Verifier, verifier), err
}

// Change closes whom it saw, and ends the sessions that it saw: none.
func (s *looksFirst) Change(ctx context.Context, old, next session.Person) (int, bool, error) {
	if !next.Closed {
		_, _, err := s.Store.Change(ctx, old, next)
		return 0, true, err
	}
	for { // until somebody has started one
		_, rows, err := s.Person(ctx, old.Tenant, old.ID)
		if err != nil {
			return 0, false, err
		}
		if len(rows) > 0 {
			break
		}
		time.Sleep(time.Millisecond)
	}
	_, err := s.db.ExecContext(ctx, `UPDATE crmguard_session_persons SET closed = 1, epoch = $1, mac = $2 WHERE tenant = $3 AND person = $4`,
		next.Epoch, []byte(next.MAC), old.Tenant, old.ID)
	return 0, true, err
}

// Each succeeds once, however many processes try. The same race notices a store that
// looks and then writes.
func TestProcessesShareSessions(t *testing.T) {
	for task := range tries {
		if task == "start or close" {
			continue
		}
		t.Run(task, func(t *testing.T) {
			processtest.EachDatabase(t, func(t *testing.T, database string) {
				n := raceOn(t, database)
				given := n.race(t, task, "")
				require.Len(t, given, 1)
				if task == "raise" {
					raised, err := n.Authenticate(t.Context(), given[0])
					require.NoError(t, err)
					require.Equal(t, crmguard.AssuranceSecondFactor, raised.Assurance)
					_, err = n.Authenticate(t.Context(), n.token)
					requireDenied(t, err, "the token from before")
				}
			})
		})
		t.Run(task+", planted fault", func(t *testing.T) {
			require.Len(t, raceOn(t, sqldbtest.PostgresURL(t)).race(t, task, faulty), processtest.Racers)
		})
	}
}

// When one process closes a person while all start sessions, none is left.
func TestProcessesLeaveNoSessionAfterClosing(t *testing.T) {
	left := func(t *testing.T, database, store string) []session.Row {
		t.Helper()
		n := raceOn(t, database)
		require.NoError(t, n.EndByID(t.Context(), "acme", "anna", n.row.ID))
		for _, token := range n.race(t, "start or close", store) {
			_, err := n.Authenticate(t.Context(), token)
			requireDenied(t, err, "a token from before")
		}
		_, err := n.Start(t.Context(), anna)
		requireDenied(t, err, "a closed person starts nothing")
		_, rows, err := n.store.Person(t.Context(), "acme", "anna")
		require.NoError(t, err)
		return rows
	}
	processtest.EachDatabase(t, func(t *testing.T, database string) { require.Empty(t, left(t, database, "")) })
	t.Run("planted fault", func(t *testing.T) { require.NotEmpty(t, left(t, sqldbtest.PostgresURL(t), faulty)) })
}

// raceNode is a node with anna, who has one session.
type raceNode struct {
	*node
	database, kekFile string
}

func raceOn(t *testing.T, database string) *raceNode {
	t.Helper()
	kekFile := filepath.Join(t.TempDir(), "kek")
	n, err := openNode(t.Context(), database, kekFile)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, n.Close()) })
	require.NoError(t, n.OpenPerson(t.Context(), "acme", "anna"))
	n.token, err = n.Start(t.Context(), anna)
	require.NoError(t, err)
	_, rows, err := n.store.Person(t.Context(), "acme", "anna")
	require.NoError(t, err)
	n.row = rows[0]
	return &raceNode{n, database, kekFile}
}

// race returns what processes were given that raced for a task.
func (n *raceNode) race(t *testing.T, task, store string) (given []string) {
	t.Helper()
	for _, text := range processtest.Race[string](t, task, n.database, n.kekFile, n.token, store) {
		if text != "" {
			given = append(given, text)
		}
	}
	return given
}
