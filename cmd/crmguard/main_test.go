package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/auditsql"
	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/encrypt/encryptsql"
	"github.com/crmguard/crmguard/internal/sqldb"
	"github.com/crmguard/crmguard/internal/sqldb/sqldbtest"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"crmguard": hurried,
		"clients":  fixture(makeClients),
		"contacts": fixture(makeContacts),
		"journal":  fixture(makeJournal),
		"keystore": fixture(makeKeyStore),
		"opens":    fixture(openClients),
		"sql":      fixture(execute),
	})
}

// TestScripts runs what needs no server.
func TestScripts(t *testing.T) {
	t.Parallel()
	testscript.Run(t, params("testdata/script"))
}

// TestScriptsOnDatabases runs the rest on both databases, which are $DB.
func TestScriptsOnDatabases(t *testing.T) {
	t.Parallel()
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		scripts := params("testdata/database")
		scripts.Setup = func(e *testscript.Env) error { return setUp(e, "crm.db") }
		testscript.Run(t, scripts)
	})
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		sqldbtest.PostgresURL(t) // skips all of them where there is no server
		scripts := params("testdata/database")
		scripts.Setup = func(e *testscript.Env) error {
			return setUp(e, sqldbtest.PostgresURL(e.T().(testing.TB)))
		}
		testscript.Run(t, scripts)
	})
}

func params(dir string) testscript.Params {
	return testscript.Params{Dir: dir, RequireExplicitExec: true, RequireUniqueNames: true, Setup: endAtOnce, Cmds: map[string]func(*testscript.TestScript, bool, []string){
		"exits": exits, "mode": mode, "flip": flip,
	}}
}

// endAtOnce spares each program the second that the race detector waits at its end for
// races of goroutines that it left behind: scripts run hundreds of programs.
func endAtOnce(e *testscript.Env) error {
	e.Setenv("GORACE", "atexit_sleep_ms=0")
	return nil
}

// exits CODE COMMAND… is exec for a command that ends with this code.
func exits(ts *testscript.TestScript, _ bool, args []string) {
	code := 0
	err := ts.Exec(args[1], args[2:]...)
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		code = exit.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if got := strconv.Itoa(code); got != args[0] {
		ts.Fatalf("exit code %s; want %s", got, args[0])
	}
}

// mode OCTAL FILE wants these permissions.
func mode(ts *testscript.TestScript, _ bool, args []string) {
	info, err := os.Stat(ts.MkAbs(args[1]))
	ts.Check(err)
	if got := strconv.FormatUint(uint64(info.Mode().Perm()), 8); got != args[0] {
		ts.Fatalf("mode %s; want %s", got, args[0])
	}
}

// flip FILE OFFSET changes one bit.
func flip(ts *testscript.TestScript, _ bool, args []string) {
	path := ts.MkAbs(args[0])
	text, err := os.ReadFile(path)
	ts.Check(err)
	offset, err := strconv.Atoi(args[1])
	ts.Check(err)
	text[offset] ^= 1
	ts.Check(os.WriteFile(path, text, 0o600))
}

func setUp(e *testscript.Env, database string) error {
	e.Setenv("DB", database)
	return endAtOnce(e)
}

// fixture makes a program of a function that gets the program's arguments.
func fixture(do func(ctx context.Context, args []string) error) func() {
	return func() {
		if err := do(context.Background(), os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
}

func open(ctx context.Context, name string) (*sql.DB, error) {
	if isPostgres(name) {
		return sql.Open("pgx", name)
	}
	return sqldb.OpenSQLite(ctx, name)
}

// execute runs statements: sql DB STATEMENT…
func execute(ctx context.Context, args []string) error {
	db, err := open(ctx, args[0])
	if err != nil {
		return err
	}
	defer db.Close() //nolint:errcheck // a fixture
	for _, statement := range args[1:] {
		if _, err := db.ExecContext(ctx, statement); err != nil {
			return err
		}
	}
	return nil
}

// makeJournal adds entries to a journal, and a checkpoint: journal DB|FOLDER/ KEY N [PREFIX]
// The variables ANCHOR and ANCHOR_DB name where checkpoints are kept besides.
func makeJournal(ctx context.Context, args []string) error {
	n, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	signer, verifier, err := audit.OpenSigner(args[1], "crm.example/journal", true)
	if err != nil {
		return err
	}
	var store audit.Store
	if name := args[0]; name[len(name)-1] == '/' {
		folder, err := audit.OpenFile(name)
		if err != nil {
			return err
		}
		defer folder.Close() //nolint:errcheck // a fixture
		store = folder
	} else {
		db, err := open(ctx, name)
		if err != nil {
			return err
		}
		defer db.Close() //nolint:errcheck // a fixture
		o := &auditsql.Options{}
		if len(args) > 3 {
			o.TablePrefix = args[3]
		}
		if store, err = auditsql.New(ctx, db, o); err != nil {
			return err
		}
	}
	o := &audit.Options{}
	if name := os.Getenv("ANCHOR"); name != "" {
		anchor, err := audit.NewFileAnchor(name, verifier)
		if err != nil {
			return err
		}
		o.Anchors = append(o.Anchors, anchor)
	}
	if name := os.Getenv("ANCHOR_DB"); name != "" {
		db, err := open(ctx, name)
		if err != nil {
			return err
		}
		defer db.Close() //nolint:errcheck // a fixture
		anchor, err := auditsql.NewAnchor(ctx, db, verifier, nil)
		if err != nil {
			return err
		}
		o.Anchors = append(o.Anchors, anchor)
	}
	keys, done, err := keysBeside(ctx, args[1])
	if err != nil {
		return err
	}
	defer done() //nolint:errcheck // a fixture
	journal, err := audit.New(ctx, store, keys, signer, verifier, o)
	if err != nil {
		return err
	}
	for i := range n {
		if err := journal.Record(ctx, view(strconv.Itoa(i))); err != nil {
			return err
		}
	}
	return journal.Close()
}

// keysBeside are the same ones each time, as a journal wants them.
func keysBeside(ctx context.Context, path string) (*encrypt.Keyring, func() error, error) {
	kek, err := encrypt.OpenKeyFile(path+".kek", "", true)
	if err != nil {
		return nil, nil, err
	}
	db, err := open(ctx, path+".db")
	if err != nil {
		return nil, nil, err
	}
	store, err := encryptsql.New(ctx, db, nil)
	if err != nil {
		return nil, nil, err
	}
	keys, err := encrypt.New(kek, store, nil)
	return keys, db.Close, err
}

// makeKeyStore seals for three clients of each tenant and forgets one: keystore DB KEK TENANT…
func makeKeyStore(ctx context.Context, args []string) error {
	kek, err := encrypt.OpenKeyFile(args[1], "", true)
	if err != nil {
		return err
	}
	db, err := open(ctx, args[0])
	if err != nil {
		return err
	}
	defer db.Close() //nolint:errcheck // a fixture
	store, err := encryptsql.New(ctx, db, nil)
	if err != nil {
		return err
	}
	keys, err := encrypt.New(kek, store, nil)
	if err != nil {
		return err
	}
	for _, tenant := range args[2:] {
		ctx := crmguard.WithSubject(ctx, crmguard.Subject{Tenant: tenant, ID: "anna", Kind: crmguard.KindEmployee})
		for _, client := range []string{"", "c1", "c2", "c3"} {
			if _, err := keys.Seal(ctx, crmguard.Place{Tenant: tenant, Client: client, Kind: "contacts", Field: "phone", Record: "1"}, []byte("x")); err != nil {
				return err
			}
		}
		if _, err := keys.Erase(ctx, tenant, "c3"); err != nil {
			return err
		}
	}
	return keys.Close()
}
