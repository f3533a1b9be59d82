package main

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"slices"
	"strings"

	"github.com/crmguard/crmguard/internal/testservers"
)

// need is something outside Go that the tests want.
type need struct {
	what     string   // as the summary names it
	missing  string   // what has to be there
	packages []string // of Debian and Ubuntu
	present  func(ctx context.Context) bool
}

// needs lists what this run wants, whether it is there or not.
func (d *dev) needs() []need {
	all := []need{{
		what: race, missing: "a C compiler", packages: []string{"gcc", "libc6-dev"}, present: d.compilesC,
	}}
	if os.Getenv(testservers.PostgresVariable) == "" {
		all = append(all, need{
			what: postgres, missing: "PostgreSQL", packages: []string{"postgresql"},
			present: func(context.Context) bool { _, err := testservers.FindPostgres(); return err == nil },
		})
	}
	return all
}

// compilesC tells whether cgo, and so -race, works: a compiler without the C
// library's headers does not do.
func (d *dev) compilesC(ctx context.Context) bool {
	cc, err := command{args: []string{"go", "env", "CC"}}.output(ctx)
	if err != nil {
		return false
	}
	compile := command{stdin: strings.NewReader("#include <stdlib.h>\n#include <pthread.h>\n"), args: append(strings.Fields(cc), "-xc", "-E", "-")}
	_, err = compile.output(ctx)
	return err == nil
}

// provide installs what is missing, where it may, and returns what stays
// missing, each with its reason.
func (d *dev) provide(ctx context.Context, all []need) leftOut {
	absent := func(n need) bool { return !n.present(ctx) }
	missing := filter(all, absent)
	left := leftOut{}
	if len(missing) == 0 {
		return left
	}
	reason := d.install(ctx, missing)
	for _, n := range filter(missing, absent) {
		left[n.what] = n.missing + " is not installed, " + reason
	}
	return left
}

// install runs apt-get and returns why something may still be missing.
func (d *dev) install(ctx context.Context, missing []need) (reason string) {
	var packages []string
	for _, n := range missing {
		packages = append(packages, n.packages...)
	}
	apt, reason := installer(ctx, os.Geteuid())
	if reason != "" {
		return reason
	}
	d.out.printf("Installing %s with apt-get, which may take some minutes (NOINSTALL=1 prevents it)\n", strings.Join(packages, ", "))
	for _, args := range [][]string{{"update"}, append([]string{"install", "-y", "--no-install-recommends"}, packages...)} {
		var said bytes.Buffer
		err := command{stdout: &said, stderr: &said, args: slices.Concat(apt, []string{"-q"}, args)}.run(ctx)
		if err != nil {
			d.out.printf("%s", said.Bytes())
		}
		// Packages may be had from an old list, or from a mirror that does answer.
		if err != nil && args[0] == "install" {
			return "and apt-get could not install it"
		}
	}
	return "although apt-get installed its package"
}

// installer returns how to call apt-get without being asked anything, or why
// not.
func installer(ctx context.Context, uid int) (apt []string, reason string) {
	if os.Getenv("NOINSTALL") == "1" {
		return nil, "and NOINSTALL=1 forbids it"
	}
	if _, err := exec.LookPath("apt-get"); err != nil {
		return nil, "and there is no apt-get to install it"
	}
	apt = []string{"env", "DEBIAN_FRONTEND=noninteractive", "apt-get"}
	if uid == 0 {
		return apt, ""
	}
	if err := (command{args: []string{"sudo", "-n", "true"}}).run(ctx); err != nil {
		return nil, "and installing it wants root or sudo without a password"
	}
	return append([]string{"sudo", "-n"}, apt...), ""
}

func filter(needs []need, keep func(need) bool) []need {
	return slices.DeleteFunc(slices.Clone(needs), func(n need) bool { return !keep(n) })
}
