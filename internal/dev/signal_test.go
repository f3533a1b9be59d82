//go:build unix

package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/internal/testservers"
)

// interrupted starts the command on a test that sleeps, sends it a signal when
// the test runs, and returns how it ended and what PostgreSQL it had started.
func interrupted(t *testing.T, sig os.Signal) (ended *os.ProcessState, server, sleeper int) {
	t.Helper()
	quick(t)
	t.Setenv(testservers.PostgresVariable, "")
	root := repository(t, map[string]string{
		"go.mod":    "module example.test/a\n\ngo 1.26.0\n",
		"a_test.go": sleeping,
	})
	tmp := filepath.Join(root, "tmp")
	require.NoError(t, os.Mkdir(tmp, 0o711))
	self, err := os.Executable()
	require.NoError(t, err)
	var out bytes.Buffer
	cmd := exec.Command(self, "test")
	cmd.Dir, cmd.Stdout, cmd.Stderr = root, &out, &out
	cmd.Env = append(os.Environ(), helperVariable+"=1", "TMPDIR="+tmp)
	ownGroup(cmd)
	require.NoError(t, cmd.Start())
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		_ = cmd.Wait() // the caller looks at the status
	}()

	sleeper = waitForPID(t, filepath.Join(root, "running"), gone)
	if pidFiles, err := filepath.Glob(filepath.Join(tmp, "crmguard-postgres-*", "data", "postmaster.pid")); err == nil && len(pidFiles) > 0 {
		server = waitForPID(t, pidFiles[0], gone)
	}
	require.NoError(t, cmd.Process.Signal(sig))
	<-gone
	t.Log(out.String())
	require.Contains(t, lastLine(out.String()), " passed, ")
	left, err := os.ReadDir(tmp)
	require.NoError(t, err)
	require.Empty(t, left, "temporary folders are left")
	return cmd.ProcessState, server, sleeper
}

const sleeping = `package a

import (
	"fmt"
	"os"
	"testing"
	"time"
)

func TestSleep(t *testing.T) {
	if err := os.WriteFile("running", fmt.Appendln(nil, os.Getpid()), 0o600); err != nil {
		t.Fatal(err)
	}
	t.TempDir()
	time.Sleep(time.Hour)
}
`

func TestSignalEndsEverything(t *testing.T) {
	_, notFound := testservers.FindPostgres()
	for _, sig := range []os.Signal{os.Interrupt, syscall.SIGTERM} {
		t.Run(sig.String(), func(t *testing.T) {
			ended, server, sleeper := interrupted(t, sig)
			require.Equal(t, exitInterrupted, ended.ExitCode())
			gone := func(pid int) bool { return syscall.Kill(pid, 0) != nil }
			require.Eventually(t, func() bool { return gone(sleeper) }, killDelay, 10*time.Millisecond)
			if notFound == nil {
				require.NotZero(t, server, "PostgreSQL was not started")
				require.True(t, gone(server))
			}
		})
	}
}

// waitForPID waits for a file whose first line is a process id: as long as the program
// runs that has it written, for that compiles a test first.
func waitForPID(t *testing.T, path string, gone <-chan struct{}) (pid int) {
	t.Helper()
	for {
		if text, err := os.ReadFile(path); err == nil {
			first, _, complete := strings.Cut(string(text), "\n")
			if n, err := strconv.Atoi(first); complete && err == nil {
				return n
			}
		}
		select {
		case <-gone:
			require.FailNow(t, "the program ended and left no "+filepath.Base(path))
		case <-time.After(10 * time.Millisecond):
		}
	}
}
