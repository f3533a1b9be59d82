package processtest_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/internal/processtest"
	"github.com/crmguard/crmguard/internal/racetest"
)

func TestMain(m *testing.M) {
	processtest.Main(map[string]processtest.Task{
		"create":  processtest.Racer(creator),
		"look":    processtest.Racer(looker),
		"who":     processtest.Racer(teller),
		"refuses": func(context.Context, *processtest.Process) error { return errors.New("it refuses") },
	})
	os.Exit(m.Run())
}

// creator wins if it makes the file.
func creator(_ context.Context, p *processtest.Process) (func(int) (bool, error), error) {
	return func(int) (bool, error) {
		f, err := os.OpenFile(p.Args[0], os.O_CREATE|os.O_EXCL, 0o600)
		if errors.Is(err, os.ErrExist) {
			return false, nil
		}
		return err == nil, errors.Join(err, f.Close())
	}, nil
}

// looker is creator with a planted fault: it looks whether the file is there, and
// then makes it.
func looker(_ context.Context, p *processtest.Process) (func(int) (bool, error), error) {
	_, err := os.Stat(p.Args[0])
	free := errors.Is(err, os.ErrNotExist)
	return func(int) (bool, error) { return free, os.WriteFile(p.Args[0], nil, 0o600) }, nil
}

type who struct{ PID, N int }

func teller(_ context.Context, p *processtest.Process) (func(int) (who, error), error) {
	ended := false
	p.AtEnd(func() error {
		if !ended {
			return errors.New("the first one is called last")
		}
		return nil
	})
	p.AtEnd(func() error { ended = true; return nil })
	return func(n int) (who, error) { return who{os.Getpid(), n}, nil }, nil
}

func TestOneWins(t *testing.T) {
	require.Equal(t, 1, racetest.Count(processtest.Race[bool](t, "create", filepath.Join(t.TempDir(), "x"))))
	require.Equal(t, processtest.Racers, racetest.Count(processtest.Race[bool](t, "look", filepath.Join(t.TempDir(), "x"))))
}

func TestProcessesAreSeveral(t *testing.T) {
	pids := map[int]bool{}
	for i, w := range processtest.Race[who](t, "who") {
		require.Equal(t, i, w.N)
		pids[w.PID] = true
	}
	require.Len(t, pids, processtest.Processes)
	require.NotContains(t, pids, os.Getpid())
}

// What goes wrong in a process fails the test and says why.
func TestErrorsAreTold(t *testing.T) {
	for task, want := range map[string]string{"refuses": "it refuses", "unknown": `no task "unknown"`} {
		output, err := processtest.Command(t, task).CombinedOutput()
		require.Error(t, err)
		require.Contains(t, string(output), want)

		told := &told{TB: t}
		require.False(t, racetest.Passes(func(r require.TestingT) {
			told.TestingT = r
			processtest.Race[bool](told, task)
		}))
		require.Contains(t, told.text, want)
	}
}

// told is a test that notes its failure.
type told struct {
	testing.TB
	require.TestingT
	text string
}

func (t *told) Errorf(format string, args ...any) {
	t.text += fmt.Sprintf(format, args...)
	t.TestingT.Errorf(format, args...)
}

func (t *told) FailNow() { t.TestingT.FailNow() }
