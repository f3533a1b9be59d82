package mfasql_test

import (
	"bufio"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pquerna/otp/totp"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/encrypt/encryptsql"
	"github.com/crmguard/crmguard/internal/sqldb/sqldbtest"
	"github.com/crmguard/crmguard/mfa"
	"github.com/crmguard/crmguard/mfa/mfasql"
)

const (
	childEnv  = "CRMGUARD_MFASQL_CHILD" // what the child tries: verify, recover, confirm, or faulty
	processes = 4
	perChild  = 13
)

func TestMain(m *testing.M) {
	if task := os.Getenv(childEnv); task != "" {
		if err := child(task, os.Args[len(os.Args)-4:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// node is one process of the CRM: factors in PostgreSQL, keys in PostgreSQL too,
// under a key in a file.
func node(ctx context.Context, url, kekFile string) (*mfa.Factors, *mfasql.Store, *encrypt.Keyring, func() error, error) {
	db, err := sql.Open("pgx", url)
	if err != nil {
		return nil, nil, nil, nil, err
	}
	kek, err := encrypt.OpenKeyFile(kekFile, "", true)
	if err != nil {
		return nil, nil, nil, nil, err
	}
	wrapped, err := encryptsql.New(ctx, db, nil)
	if err != nil {
		return nil, nil, nil, nil, err
	}
	keys, err := encrypt.New(kek, wrapped, nil)
	if err != nil {
		return nil, nil, nil, nil, err
	}
	store, err := mfasql.New(ctx, db, nil)
	if err != nil {
		return nil, nil, nil, nil, err
	}
	f, err := mfa.New(store, keys, "Acme CRM", &mfa.Options{Clock: func() time.Time { return noon }})
	return f, store, keys, func() error { return errors.Join(keys.Close(), db.Close()) }, err
}

// child says that it is ready, waits for a line, tries in many goroutines, and
// prints how many were let in.
func child(task string, args []string) error {
	ctx := context.Background()
	url, kekFile, code, id := args[0], args[1], args[2], args[3]
	f, store, keys, closeAll, err := node(ctx, url, kekFile)
	if err != nil {
		return err
	}
	if task == "faulty" {
		f, err = mfa.New(&twoStatements{store}, keys, "Acme CRM", &mfa.Options{Clock: func() time.Time { return noon }})
		if err != nil {
			return err
		}
		task = "verify"
	}
	if _, err := f.Has(ctx, "acme", "anna"); err != nil {
		return err
	}
	fmt.Println("ready")
	if _, err := bufio.NewReader(os.Stdin).ReadString('\n'); err != nil {
		return err
	}
	var in atomic.Int64
	errs := make([]error, perChild)
	var wg sync.WaitGroup
	for n := range perChild {
		wg.Go(func() {
			switch task {
			case "verify":
				errs[n] = f.Verify(ctx, "acme", "anna", code)
			case "recover":
				errs[n] = f.Recover(ctx, "acme", "anna", code)
			case "confirm":
				errs[n] = f.Confirm(ctx, "acme", "anna", id, code)
			}
			if errs[n] == nil {
				in.Add(1)
			} else if _, denied := errors.AsType[*crmguard.Denial](errs[n]); denied {
				errs[n] = nil
			}
		})
	}
	wg.Wait()
	fmt.Println(in.Load())
	return errors.Join(errors.Join(errs...), closeAll())
}

// twoStatements is a planted fault: it looks, and then writes.
type twoStatements struct{ *mfasql.Store }

func (s *twoStatements) Advance(ctx context.Context, tenant, person, id string, step int64) (bool, error) {
	_, rows, err := s.Load(ctx, tenant, person)
	if err != nil {
		return false, err
	}
	time.Sleep(300 * time.Millisecond) // everybody has looked
	for _, r := range rows {
		if r.ID == id && r.Step < step {
			_, err := s.Store.Advance(ctx, tenant, person, id, step)
			return true, err
		}
	}
	return false, nil
}

// Four processes with thirteen goroutines each try one code: one is let in.
func TestFourProcesses(t *testing.T) {
	for _, task := range []string{"verify", "recover", "confirm", "faulty"} {
		t.Run(task, func(t *testing.T) {
			url, kekFile := sqldbtest.PostgresURL(t), filepath.Join(t.TempDir(), "kek")
			f, _, _, closeAll, err := node(t.Context(), url, kekFile)
			require.NoError(t, err)
			e, err := f.Enrol(t.Context(), "acme", "anna", "anna")
			require.NoError(t, err)
			code, err := totp.GenerateCode(e.Secret(), noon)
			require.NoError(t, err)
			if task != "confirm" {
				require.NoError(t, f.Confirm(t.Context(), "acme", "anna", e.ID, code))
				code, err = totp.GenerateCode(e.Secret(), noon.Add(30*time.Second))
				require.NoError(t, err)
			}
			if task == "recover" {
				codes, err := f.ReplaceRecovery(t.Context(), "acme", "anna")
				require.NoError(t, err)
				code = codes.Show()[0]
			}
			require.NoError(t, closeAll())
			in := letIn(t, task, url, kekFile, code, e.ID)
			if task == "faulty" {
				require.Greater(t, in, 1, "planted fault: several are let in")
			} else {
				require.Equal(t, 1, in)
			}
		})
	}
}

// letIn starts the processes and counts who was let in.
func letIn(t *testing.T, task string, args ...string) int {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	var children []*exec.Cmd
	var begin []func()
	var outputs []*bufio.Reader
	for range processes {
		c := exec.CommandContext(t.Context(), self, args...)
		c.Env = append(os.Environ(), childEnv+"="+task)
		c.Stderr = os.Stderr
		stdin, err := c.StdinPipe()
		require.NoError(t, err)
		stdout, err := c.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, c.Start())
		children = append(children, c) // the context ends those that a failure leaves behind
		r := bufio.NewReader(stdout)
		line, err := r.ReadString('\n')
		require.NoError(t, err)
		require.Equal(t, "ready\n", line)
		begin = append(begin, func() { _, _ = stdin.Write([]byte("go\n")) })
		outputs = append(outputs, r)
	}
	for _, start := range begin {
		start()
	}
	total := 0
	for _, r := range outputs {
		line, err := r.ReadString('\n')
		require.NoError(t, err)
		n, err := strconv.Atoi(strings.TrimSpace(line))
		require.NoError(t, err)
		total += n
	}
	for _, c := range children {
		require.NoError(t, c.Wait())
	}
	return total
}
