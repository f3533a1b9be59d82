package main

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// machine makes PATH a folder with nothing in it but the given programs.
func machine(t *testing.T, programs map[string]string) (dir string) {
	t.Helper()
	quick(t)
	t.Setenv("NOINSTALL", "")
	env, err := exec.LookPath("env")
	require.NoError(t, err)
	dir = t.TempDir()
	require.NoError(t, os.Symlink(env, filepath.Join(dir, "env")))
	for name, script := range programs {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+script+"\n"), 0o600))
		require.NoError(t, os.Chmod(filepath.Join(dir, name), 0o700))
	}
	t.Setenv("PATH", dir)
	t.Setenv("MACHINE", dir)
	return dir
}

// wanted is a need that is met by a file on the machine.
func wanted(dir string) []need {
	return []need{{
		what: "tests on Oracle", missing: "Oracle", packages: []string{"oracle", "oracle-common"},
		present: func(context.Context) bool {
			_, err := os.Stat(filepath.Join(dir, "installed"))
			return err == nil
		},
	}}
}

const (
	apt        = `[ "$DEBIAN_FRONTEND" = noninteractive ] || exit 9; echo "$*" >>"$MACHINE/calls"`
	aptInstall = apt + `; case "$*" in *install*) : >"$MACHINE/installed";; esac`
	// Only called by users other than root.
	sudo = `shift; exec "$@"`
)

func TestInstallsWhatIsMissing(t *testing.T) {
	dir := machine(t, map[string]string{"apt-get": aptInstall, "sudo": sudo})
	var out bytes.Buffer
	d := &dev{out: terminal{&out}, err: terminal{&out}}
	require.Empty(t, d.provide(t.Context(), wanted(dir)))
	require.Equal(t, "Installing oracle, oracle-common with apt-get, which may take some minutes (NOINSTALL=1 prevents it)\n", out.String())
	calls, err := os.ReadFile(filepath.Join(dir, "calls"))
	require.NoError(t, err)
	require.Equal(t, "-q update\n-q install -y --no-install-recommends oracle oracle-common\n", string(calls))

	// What is there is not installed again.
	require.Empty(t, d.provide(t.Context(), wanted(dir)))
	again, err := os.ReadFile(filepath.Join(dir, "calls"))
	require.NoError(t, err)
	require.Equal(t, calls, again)
}

func TestNamesWhatStaysMissing(t *testing.T) {
	for name, c := range map[string]struct {
		noInstall string
		programs  map[string]string
		want      string
	}{
		"forbidden":     {"1", map[string]string{"apt-get": aptInstall}, "Oracle is not installed, and NOINSTALL=1 forbids it"},
		"no apt-get":    {"", nil, "Oracle is not installed, and there is no apt-get to install it"},
		"install fails": {"", map[string]string{"apt-get": `case "$*" in *install*) echo disk full; exit 100;; esac`, "sudo": sudo}, "Oracle is not installed, and apt-get could not install it"},
		"wrong package": {"", map[string]string{"apt-get": apt, "sudo": sudo}, "Oracle is not installed, although apt-get installed its package"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := machine(t, c.programs)
			t.Setenv("NOINSTALL", c.noInstall)
			var out bytes.Buffer
			d := &dev{out: terminal{&out}, err: terminal{&out}}
			require.Equal(t, leftOut{"tests on Oracle": c.want}, d.provide(t.Context(), wanted(dir)))
			require.Equal(t, name == "install fails", strings.Contains(out.String(), "disk full"))
			if c.noInstall != "" {
				require.NoFileExists(t, filepath.Join(dir, "calls"))
			}
		})
	}
}

// Without root and without sudo nothing is asked of the person at the keyboard.
func TestNoPasswordIsAskedFor(t *testing.T) {
	machine(t, map[string]string{"apt-get": aptInstall, "sudo": `[ "$1" = -n ] && exit 1; echo asked; exit 1`})
	command, reason := installer(t.Context(), 1000)
	require.Empty(t, command)
	require.Equal(t, "and installing it wants root or sudo without a password", reason)

	command, reason = installer(t.Context(), 0)
	require.Empty(t, reason)
	require.Equal(t, []string{"env", "DEBIAN_FRONTEND=noninteractive", "apt-get"}, command)
}
