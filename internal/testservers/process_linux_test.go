package testservers

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

const helperVariable = "TESTSERVERS_HELPER"

// TestMain lets the test binary be the program that is killed below.
func TestMain(m *testing.M) {
	if os.Getenv(helperVariable) == "" {
		os.Exit(m.Run())
	}
	p, err := StartPostgres(context.Background())
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(p.cmd.Process.Pid, p.dir)
	select {}
}

func TestServerEndsWithAKilledProcess(t *testing.T) {
	if _, err := FindPostgres(); err != nil {
		require.ErrorIs(t, err, ErrNotInstalled)
		return
	}
	self, err := os.Executable()
	require.NoError(t, err)
	helper := exec.Command(self)
	helper.Env = append(os.Environ(), helperVariable+"=1")
	out, err := helper.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, helper.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	pid, dir, _ := strings.Cut(strings.TrimSpace(line), " ")
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })

	require.NoError(t, helper.Process.Kill())
	require.Error(t, helper.Wait())
	server, err := strconv.Atoi(pid)
	require.NoError(t, err)
	require.Eventually(t, func() bool { return !running(server) }, stopTimeout, pollEvery)
}

// running tells whether a process exists and is more than a zombie.
func running(pid int) bool {
	if syscall.Kill(pid, 0) != nil {
		return false
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !strings.Contains(string(stat), ") Z ")
}
