// Command dev does what the Makefile names: it tests, lints, fuzzes and measures
// all modules of this repository, which it finds by their go.mod files.
//
//	dev test    every module's tests with -race, on a throwaway PostgreSQL; builds and vets the workspace
//	dev lint    gofmt, go vet, golangci-lint, tidy module files
//	dev fuzz    every fuzz target for FUZZTIME (10s), then the tests that kill, for long
//	dev bench   every benchmark, then the claims of bench/claims
//
// It uses the standard library only, so that it builds before anything is
// downloaded. SIGINT, SIGTERM and SIGHUP end what it started, too.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

const (
	exitFailed      = 1
	exitUsage       = 2
	exitInterrupted = 130
)

// dev is one run of the command.
type dev struct {
	root     string // of the repository
	out, err terminal
}

// terminal is where a person reads. When that fails there is nobody to tell.
type terminal struct{ io.Writer }

func (t terminal) printf(text string, args ...any) { _, _ = fmt.Fprintf(t, text, args...) }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	root, err := os.Getwd()
	if err != nil {
		fmt.Fprintln(os.Stderr, "dev:", err)
		os.Exit(exitFailed)
	}
	d := &dev{root: root, out: terminal{os.Stdout}, err: terminal{os.Stderr}}
	code := d.run(ctx, os.Args[1:])
	stop()
	os.Exit(code)
}

func (d *dev) run(ctx context.Context, args []string) int {
	tasks := map[string]func(context.Context) error{"test": d.test, "lint": d.lint, "fuzz": d.fuzz, "bench": d.bench}
	if len(args) != 1 || tasks[args[0]] == nil {
		d.err.printf("usage: dev test|lint|fuzz|bench\n")
		return exitUsage
	}
	err := tasks[args[0]](ctx)
	switch {
	case ctx.Err() != nil:
		return exitInterrupted
	case err != nil:
		if !errors.Is(err, errReported) {
			d.err.printf("make %s: %v\n", args[0], err)
		}
		return exitFailed
	}
	return 0
}
