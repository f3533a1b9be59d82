package main

import (
	"context"
	"errors"
	"io"
	"os"

	"github.com/crmguard/crmguard/internal/testservers"
)

// What a machine may be unable to run.
const (
	race     = "the race detector"
	postgres = "tests on PostgreSQL"
)

// packageTimeout ends a package that hangs.
const packageTimeout = "-timeout=20m"

// leftOut says why something could not be run.
type leftOut map[string]string

// test is make test. What could not be run is named at the end; in CI it is a
// failure, and so is a skipped test.
func (d *dev) test(ctx context.Context) error {
	r := newReport(d.out)
	missing, err := d.testAll(ctx, r)
	if err != nil && ctx.Err() == nil {
		r.fail(err.Error())
	}
	if ctx.Err() != nil {
		d.out.printf("\nInterrupted; what was running counts as failed.\n")
	}
	r.summary(missing, strict(r, missing))
	if r.failed > 0 || strict(r, missing) {
		return errReported
	}
	return nil
}

// strict tells whether what was not run makes this run fail.
func strict(r *report, missing leftOut) bool {
	return os.Getenv("CI") == "true" && (len(missing) > 0 || r.skipped > 0)
}

// testAll returns when everything that it started has ended.
func (d *dev) testAll(ctx context.Context, r *report) (missing leftOut, err error) {
	modules, err := findModules(d.root)
	if err != nil {
		return nil, err
	}
	// A short name: the path of a Unix socket below it has 108 bytes.
	tmp, err := os.MkdirTemp("", "crmguard-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(tmp)) }()
	// Servers that tests start run as other users, who must get to their folders.
	if err := os.Chmod(tmp, 0o711); err != nil { // #nosec G302 -- nobody else can list it
		return nil, err
	}
	missing = d.provide(ctx, d.needs())
	env := []string{"GOWORK=off", "TMPDIR=" + tmp}
	if missing[race] == "" {
		// Each process would sleep a second at its end, and tests start hundreds.
		env = append(env, "CGO_ENABLED=1", "GORACE=atexit_sleep_ms=0 "+os.Getenv("GORACE"))
	}
	if os.Getenv(testservers.PostgresVariable) == "" && missing[postgres] == "" {
		server, startErr := testservers.StartPostgres(ctx)
		if startErr != nil {
			missing[postgres] = startErr.Error()
		} else {
			defer func() { err = errors.Join(err, server.Stop()) }()
			env = append(env, testservers.PostgresVariable+"="+server.URL())
		}
	}
	for _, m := range withPackages(modules) {
		if err := d.testModule(ctx, m, env, missing[race] == "", r); err != nil {
			return missing, err
		}
	}
	d.checkWorkspace(ctx, r)
	return missing, nil
}

// bystanders are packages of others, without goroutines of their own, that the race
// detector would make many times slower: SQLite, which was translated from C, and what
// stretches passphrases. Their callers stay under it.
var bystanders = []string{"modernc.org/sqlite/lib", "modernc.org/libc", "modernc.org/libc/...", "golang.org/x/crypto/scrypt", "golang.org/x/crypto/pbkdf2", "golang.org/x/crypto/argon2", "golang.org/x/crypto/blake2b"}

func (d *dev) testModule(ctx context.Context, m module, env []string, withRace bool, r *report) error {
	d.out.printf("\nTesting module %s\n", m.name)
	args := []string{"go", "test", "-json", "-p=2", packageTimeout}
	if withRace {
		args = append(args, "-race")
		for _, pattern := range bystanders {
			args = append(args, "-gcflags="+pattern+"=-race=false")
		}
	}
	events, stdout := io.Pipe()
	read := make(chan error, 1)
	go func() { read <- r.read(events) }()
	before := r.failed
	runErr := command{dir: m.dir, env: env, stdout: stdout, stderr: d.err, args: append(args, "./...")}.run(ctx)
	if err := errors.Join(stdout.Close(), <-read); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if runErr != nil && r.failed == before {
		r.fail("module " + m.name + ": " + runErr.Error())
	}
	return nil
}

// checkWorkspace builds and vets the modules together, which may link newer
// versions than each does alone.
func (d *dev) checkWorkspace(ctx context.Context, r *report) {
	d.out.printf("\nBuilding and vetting the workspace\n")
	for _, args := range [][]string{{"go", "build", "-buildvcs=false", "work"}, {"go", "vet", "work"}} {
		if err := (command{dir: d.root, stdout: d.out, stderr: d.err, args: args}).run(ctx); err != nil && ctx.Err() == nil {
			r.fail("workspace: " + err.Error())
		}
	}
}
