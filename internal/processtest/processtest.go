// Package processtest is for tests that need several processes. It starts the test's
// own binary again, which then does one task instead of running tests.
//
//	func TestMain(m *testing.M) {
//		processtest.Main(map[string]processtest.Task{"take": processtest.Racer(taker)})
//		os.Exit(m.Run())
//	}
//
//	won := processtest.Race[bool](t, "take", database)
package processtest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// variable holds what a started process has to do.
const variable = "CRMGUARD_TEST_PROCESS"

// Task is what a process does. Its error goes to standard error and ends the process
// with status 1.
type Task func(ctx context.Context, p *Process) error

// Process is one that was started for a task.
type Process struct {
	Task string
	Args []string
	N    int // which of those that race, from 0

	atEnd []func() error
}

// AtEnd has fn called when the task is done, the last one first.
func (p *Process) AtEnd(fn func() error) { p.atEnd = append(p.atEnd, fn) }

// Main does a task and exits, if this process was started for one. Otherwise it
// returns. TestMain calls it first.
func Main(tasks map[string]Task) {
	text := os.Getenv(variable)
	if text == "" {
		return
	}
	if err := do(tasks, text); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func do(tasks map[string]Task, text string) error {
	var p Process
	if err := json.Unmarshal([]byte(text), &p); err != nil {
		return err
	}
	task := tasks[p.Task]
	if task == nil {
		return fmt.Errorf("processtest: TestMain knows no task %q", p.Task)
	}
	err := task(context.Background(), &p)
	for _, end := range slices.Backward(p.atEnd) {
		err = errors.Join(err, end())
	}
	return err
}

// Command returns a process that will do a task. It is killed when the test ends, or
// hangs for a minute, or a second for each of many [Rounds].
func Command(t testing.TB, task string, args ...string) *exec.Cmd {
	t.Helper()
	return command(t, Process{Task: task, Args: args})
}

func command(t testing.TB, p Process) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	text, err := json.Marshal(p)
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), max(time.Minute, time.Duration(Rounds())*time.Second))
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, self) //nolint:gosec // this very program
	cmd.Env = append(os.Environ(), variable+"="+string(text))
	return cmd
}
