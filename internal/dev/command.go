package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"
)

// errReported means that what went wrong was already shown.
var errReported = errors.New("failed")

// killDelay is how long an interrupted command may take to end by itself.
const killDelay = 5 * time.Second

// command is a program to run. It inherits our environment.
type command struct {
	dir    string
	env    []string // added, NAME=value
	stdin  io.Reader
	stdout io.Writer
	stderr io.Writer
	args   []string // program first
}

// run runs the command in a process group of its own. When ctx ends, the group
// is interrupted, and killed if that does not help; nothing of it is left.
func (c command) run(ctx context.Context) error {
	cmd := exec.CommandContext(ctx, c.args[0], c.args[1:]...) // #nosec G204 -- every caller names a program of the toolchain
	cmd.Dir, cmd.Stdin, cmd.Stdout, cmd.Stderr = c.dir, c.stdin, c.stdout, c.stderr
	cmd.Env = append(os.Environ(), c.env...)
	cmd.WaitDelay = killDelay
	ownGroup(cmd)
	cmd.Cancel = func() error { return interruptGroup(cmd) }
	err := cmd.Run()
	if ctx.Err() != nil {
		killGroup(cmd)
		return ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("%s: %w", strings.Join(c.args[:min(len(c.args), 3)], " "), err)
	}
	return nil
}

// output runs the command and returns what it prints.
func (c command) output(ctx context.Context) (string, error) {
	var out strings.Builder
	c.stdout = &out
	err := c.run(ctx)
	return out.String(), err
}
