package processtest

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// Who takes part in a [Race].
const (
	Processes  = 4
	PerProcess = 13 // goroutines of each
	Racers     = Processes * PerProcess
)

// Racer makes the task of a [Race]. In each process prepare runs once, before any
// process begins: what it reads is what everybody knows beforehand, which is how a
// faulty store looks first and acts later. Then [PerProcess] goroutines call try at
// once, with numbers that no other process has.
func Racer[T any](prepare func(ctx context.Context, p *Process) (try func(n int) (T, error), err error)) Task {
	return func(ctx context.Context, p *Process) error {
		try, err := prepare(ctx, p)
		if err != nil {
			return err
		}
		fmt.Println(ready)
		if _, err := bufio.NewReader(os.Stdin).ReadString('\n'); err != nil {
			return fmt.Errorf("processtest: nobody began the race: %w", err)
		}
		got := make([]T, PerProcess)
		errs := make([]error, PerProcess)
		var wg sync.WaitGroup
		for i := range PerProcess {
			wg.Go(func() { got[i], errs[i] = try(p.N*PerProcess + i) })
		}
		wg.Wait()
		return errors.Join(errors.Join(errs...), json.NewEncoder(os.Stdout).Encode(got))
	}
}

const ready = "ready"

// Race has [Processes] processes do a task that [Racer] made, and returns what all
// calls of try returned, in the order of their numbers. An error of one fails t.
func Race[T any](t testing.TB, task string, args ...string) []T {
	t.Helper()
	var children []*child
	for n := range Processes {
		children = append(children, start(t, Process{Task: task, Args: args, N: n}))
	}
	for _, c := range children {
		line, err := c.out.ReadString('\n')
		c.require(t, err)
		require.Equal(t, ready, strings.TrimSpace(line))
	}
	for _, c := range children {
		_, err := io.WriteString(c.in, "go\n")
		c.require(t, err)
	}
	var all []T
	for _, c := range children {
		var got []T
		c.require(t, json.NewDecoder(c.out).Decode(&got))
		require.Len(t, got, PerProcess)
		c.require(t, c.cmd.Wait())
		all = append(all, got...)
	}
	return all
}

// child is a process that races.
type child struct {
	cmd    *exec.Cmd
	in     io.WriteCloser
	out    *bufio.Reader
	stderr strings.Builder
}

func start(t testing.TB, p Process) *child {
	t.Helper()
	c := &child{cmd: command(t, p)}
	c.cmd.Stderr = &c.stderr
	var err error
	c.in, err = c.cmd.StdinPipe()
	require.NoError(t, err)
	out, err := c.cmd.StdoutPipe()
	require.NoError(t, err)
	c.out = bufio.NewReader(out)
	require.NoError(t, c.cmd.Start())
	return c
}

// require fails t with what the process wrote, if err is not nil.
func (c *child) require(t testing.TB, err error) {
	t.Helper()
	if err == nil {
		return
	}
	_ = c.cmd.Process.Kill() // it may have ended by itself
	_ = c.cmd.Wait()         // then stderr is complete
	require.NoError(t, err, c.stderr.String())
}
