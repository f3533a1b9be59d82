package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/crmguard/crmguard/internal/testservers"
)

// moduleAlone is the environment in which a module is what its users get.
var moduleAlone = []string{"GOWORK=off"}

// fuzz is make fuzz.
func (d *dev) fuzz(ctx context.Context) error {
	modules, err := findModules(d.root)
	if err != nil {
		return err
	}
	fuzzTime := cmp.Or(os.Getenv("FUZZTIME"), "10s")
	failed := 0
	for _, m := range withPackages(modules) {
		targets, err := fuzzTargets(ctx, m)
		if err != nil {
			return err
		}
		for _, t := range targets {
			d.out.printf("\n%s %s for %s\n", t.pkg, t.name, fuzzTime)
			args := []string{"go", "test", "-run=^$", "-fuzz=^" + t.name + "$", "-fuzztime=" + fuzzTime, t.pkg}
			if err := (command{dir: m.dir, env: moduleAlone, stdout: d.out, stderr: d.err, args: args}).run(ctx); err != nil {
				failed++
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
		}
	}
	if failed > 0 {
		return fmt.Errorf("%d fuzz targets failed", failed)
	}
	return d.kill(ctx)
}

// killRounds is how often processes and servers are killed, where make test does it
// twenty times.
const killRounds = "500"

// roundsVariable is that of package processtest.
const roundsVariable = "CRMGUARD_TEST_ROUNDS"

// kill runs the tests that kill and the one that races, for long. What needs PostgreSQL
// is left out if there is none.
func (d *dev) kill(ctx context.Context) (err error) {
	rounds := cmp.Or(os.Getenv(roundsVariable), killRounds)
	env := append([]string{roundsVariable + "=" + rounds}, moduleAlone...)
	if os.Getenv(testservers.PostgresVariable) == "" {
		server, startErr := testservers.StartPostgres(ctx)
		switch {
		case startErr == nil:
			defer func() { err = errors.Join(err, server.Stop()) }()
			env = append(env, testservers.PostgresVariable+"="+server.URL())
		case !errors.Is(startErr, testservers.ErrNotInstalled):
			return startErr
		}
	}
	d.out.printf("\nProcesses and PostgreSQL are killed %s times\n", rounds)
	args := []string{"go", "test", "-count=1", "-timeout=2h", "-run=^Test(Kill|ManyProcesses|ManyDecisions)", "./..."}
	return command{dir: d.root, env: env, stdout: d.out, stderr: d.err, args: args}.run(ctx)
}

type fuzzTarget struct{ pkg, name string }

// fuzzTargets asks the test binaries of a module.
func fuzzTargets(ctx context.Context, m module) ([]fuzzTarget, error) {
	out, err := command{dir: m.dir, env: moduleAlone, args: []string{"go", "test", "-json", "-list=^Fuzz", "./..."}}.output(ctx)
	if err != nil {
		return nil, fmt.Errorf("%w:\n%s", err, out)
	}
	var targets []fuzzTarget
	for line := range strings.Lines(out) {
		var e event
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			return nil, fmt.Errorf("listing fuzz targets: %w: %s", err, line)
		}
		if name := strings.TrimSpace(e.Output); e.Action == "output" && strings.HasPrefix(name, "Fuzz") {
			targets = append(targets, fuzzTarget{e.Package, name})
		}
	}
	return targets, nil
}

// bench is make bench.
func (d *dev) bench(ctx context.Context) error {
	modules, err := findModules(d.root)
	if err != nil {
		return err
	}
	for _, m := range withPackages(modules) {
		args := []string{"go", "test", "-run=^$", "-bench=.", "-benchmem", "./..."}
		if err := (command{dir: m.dir, env: moduleAlone, stdout: d.out, stderr: d.err, args: args}).run(ctx); err != nil {
			return err
		}
	}
	return command{dir: d.root, stdout: d.out, stderr: d.err, args: []string{"go", "run", "./bench/claims"}}.run(ctx)
}
