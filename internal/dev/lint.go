package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"go/format"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
)

// toolsModule pins the linter.
const (
	toolsModule   = "internal/tools"
	linterModule  = "github.com/golangci/golangci-lint/v2"
	linterCommand = linterModule + "/cmd/golangci-lint"
)

// lint is make lint. Every check runs, whatever the others found.
func (d *dev) lint(ctx context.Context) error {
	modules, err := findModules(d.root)
	if err != nil {
		return err
	}
	linter, err := d.buildLinter(ctx)
	if err != nil {
		return err
	}
	config := filepath.Join(d.root, ".golangci.yml")
	found := 0
	check := func(name string, err error) {
		if err == nil {
			d.out.printf("ok    %s\n", name)
			return
		}
		found++
		d.out.printf("FAIL  %s: %v\n", name, err)
	}
	run := func(m module, args ...string) {
		if ctx.Err() == nil {
			c := command{dir: m.dir, env: moduleAlone, stdout: d.out, stderr: d.err, args: args}
			check(m.name+": "+filepath.Base(args[0])+" "+args[1], c.run(ctx))
		}
	}
	check("gofmt", unformatted(d.root))
	for _, m := range modules {
		run(m, "go", "mod", "tidy", "-diff")
		if m.packages {
			run(m, "go", "vet", "./...")
			run(m, linter, "run", "--config="+config, "./...")
		}
	}
	if found > 0 {
		return fmt.Errorf("%d checks failed", found)
	}
	return nil
}

// unformatted formats the Go files below root in memory and names those that
// change.
func unformatted(root string) error {
	var errs []error
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && skipsFolder(root, path) {
			return filepath.SkipDir
		}
		if entry.IsDir() || filepath.Ext(path) != ".go" {
			return nil
		}
		source, err := os.ReadFile(path) // #nosec G304 G122 -- the repository's own files
		if err != nil {
			return err
		}
		formatted, err := format.Source(source)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", path, err))
		} else if !bytes.Equal(source, formatted) {
			errs = append(errs, fmt.Errorf("%s: not formatted", path))
		}
		return nil
	})
	return errors.Join(append(errs, err)...)
}

// buildLinter builds the pinned linter once per version of it and of Go, which
// takes minutes, and returns its path.
func (d *dev) buildLinter(ctx context.Context) (string, error) {
	version, err := d.linterVersion(ctx)
	if err != nil {
		return "", err
	}
	path := filepath.Join(d.root, "bin", "golangci-lint-"+version+"-"+runtime.Version())
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	d.out.printf("Building golangci-lint %s; this takes some minutes the first time\n", version)
	// A build that is interrupted must not leave half a program under the name.
	partial := path + ".partial"
	build := command{
		dir: filepath.Join(d.root, toolsModule), env: moduleAlone, stdout: d.out, stderr: d.err,
		args: []string{"go", "build", "-buildvcs=false", "-o", partial, linterCommand},
	}
	if err := build.run(ctx); err != nil {
		return "", err
	}
	return path, os.Rename(partial, path)
}

func (d *dev) linterVersion(ctx context.Context) (string, error) {
	text, err := command{dir: filepath.Join(d.root, toolsModule), stderr: d.err, args: []string{"go", "mod", "edit", "-json"}}.output(ctx)
	if err != nil {
		return "", err
	}
	var mod struct {
		Require []struct{ Path, Version string }
	}
	if err := json.Unmarshal([]byte(text), &mod); err != nil {
		return "", fmt.Errorf("%s/go.mod: %w", toolsModule, err)
	}
	for _, r := range mod.Require {
		if r.Path == linterModule {
			return r.Version, nil
		}
	}
	return "", fmt.Errorf("%s/go.mod does not require %s", toolsModule, linterModule)
}
