package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/internal/testservers"
)

const helperVariable = "CRMGUARD_DEV_HELPER"

// TestMain lets the test binary be the command itself, for tests that send
// signals to it.
func TestMain(m *testing.M) {
	if os.Getenv(helperVariable) != "" {
		main()
	}
	os.Exit(m.Run())
}

// repository writes files and returns the folder. It lies where servers of
// another user can get, which t.TempDir does not.
func repository(t *testing.T, files map[string]string) string {
	t.Helper()
	root, err := os.MkdirTemp("", "crmguard-dev-")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(root)) })
	require.NoError(t, os.Chmod(root, 0o711))
	for name, text := range files {
		path := filepath.Join(root, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	}
	return root
}

// quick leaves out whatever makes a run slow.
func quick(t *testing.T) {
	t.Helper()
	for name, value := range map[string]string{
		"NOINSTALL": "1", "CI": "", "CC": "/nonexistent/cc", "CGO_ENABLED": "0", "GOWORK": "", "GOFLAGS": "",
		testservers.PostgresVariable: "postgres://nobody@127.0.0.1:1/none",
	} {
		t.Setenv(name, value)
	}
}

func run(t *testing.T, root string, args ...string) (code int, out, errs string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	d := &dev{root: root, out: terminal{&stdout}, err: terminal{&stderr}}
	code = d.run(t.Context(), args)
	t.Logf("%s%s", stdout.String(), stderr.String())
	return code, stdout.String(), stderr.String()
}

func lastLine(out string) string {
	lines := strings.Split(strings.TrimSuffix(out, "\n"), "\n")
	return lines[len(lines)-1]
}

const (
	passing = "package a\n\nimport \"testing\"\n\nfunc TestGood(t *testing.T) { t.Run(\"sub\", func(t *testing.T) {}) }\n"
	skipped = "package a\n\nimport \"testing\"\n\nfunc TestLater(t *testing.T) { t.Skip(\"the moon is full\") }\n"
	failing = "package b\n\nimport \"testing\"\n\nfunc TestBad(t *testing.T) { t.Error(\"two and two is five\") }\n"
)

func TestSummary(t *testing.T) {
	quick(t)
	files := map[string]string{
		"go.mod":                  "module example.test/a\n\ngo 1.26.0\n",
		"a.go":                    "package a\n",
		"good_test.go":            passing,
		"nested/go.mod":           "module example.test/b\n\ngo 1.26.0\n",
		"nested/b.go":             "package b\n",
		"tools/go.mod":            "module example.test/tools\n\ngo 1.26.0\n",
		"testdata/broken/go.mod":  "not a module",
		"testdata/broken/main.go": "not Go",
	}
	root := repository(t, files)
	write := func(name, text string) {
		require.NoError(t, os.WriteFile(filepath.Join(root, name), []byte(text), 0o600))
	}

	code, out, _ := run(t, root, "test")
	require.Equal(t, 0, code)
	require.Equal(t, "2 passed, 0 failed, 0 skipped", lastLine(out))
	require.Contains(t, out, "the race detector: a C compiler is not installed, and NOINSTALL=1 forbids it")
	require.NotContains(t, out, "Testing module tools", "it has no packages")

	// In CI it is a failure that something was left out.
	t.Setenv("CI", "true")
	code, out, _ = run(t, root, "test")
	require.Equal(t, exitFailed, code)
	require.Equal(t, "2 passed, 0 failed, 0 skipped", lastLine(out))
	t.Setenv("CI", "")

	write("later_test.go", skipped)
	code, out, _ = run(t, root, "test")
	require.Equal(t, 0, code)
	require.Contains(t, out, "Skipped:\n  example.test/a TestLater: later_test.go:5: the moon is full\n")
	require.Equal(t, "2 passed, 0 failed, 1 skipped", lastLine(out))

	write("nested/bad_test.go", failing)
	code, out, _ = run(t, root, "test")
	require.Equal(t, exitFailed, code)
	require.Contains(t, out, "two and two is five")
	require.Contains(t, out, "Failed:\n  example.test/b TestBad\n")
	require.Equal(t, "2 passed, 1 failed, 1 skipped", lastLine(out))

	// A module that does not build, and a workspace that does not vet.
	write("nested/b.go", "package b\n\nfunc f() int { return \"text\" }\n")
	write("a.go", "package a\n\nimport \"fmt\"\n\nfunc f() { fmt.Printf(\"%d\", \"text\") }\n")
	code, out, _ = run(t, root, "test")
	require.Equal(t, exitFailed, code)
	require.Contains(t, out, "cannot use \"text\"")
	require.Contains(t, out, "Failed:\n  example.test/a\n  example.test/b\n  workspace: go vet work")
	require.Equal(t, "0 passed, 3 failed, 0 skipped", lastLine(out))
}

func TestSkippedTestsFailInCI(t *testing.T) {
	var out bytes.Buffer
	r := newReport(terminal{&out})
	require.NoError(t, r.read(strings.NewReader(
		`{"Action":"run","Package":"p","Test":"TestA"}`+"\n"+
			`{"Action":"skip","Package":"p","Test":"TestA"}`+"\n"+
			`{"Action":"pass","Package":"p"}`+"\n")))
	t.Setenv("CI", "") // this test runs in CI too
	require.False(t, strict(r, nil))
	t.Setenv("CI", "true")
	require.True(t, strict(r, nil))
	require.False(t, strict(newReport(terminal{&out}), nil))
	require.True(t, strict(newReport(terminal{&out}), leftOut{race: "no compiler"}))
}

// A test that never ends, because the process died, is a failure, and what it
// printed is shown.
func TestCrash(t *testing.T) {
	var out bytes.Buffer
	r := newReport(terminal{&out})
	require.NoError(t, r.read(strings.NewReader(strings.Join([]string{
		`{"Action":"start","Package":"p"}`,
		`{"Action":"run","Package":"p","Test":"TestA"}`,
		`{"Action":"output","Package":"p","Test":"TestA","Output":"fine\n"}`,
		`{"Action":"pass","Package":"p","Test":"TestA"}`,
		`{"Action":"run","Package":"p","Test":"TestB"}`,
		`{"Action":"output","Package":"p","Test":"TestB","Output":"panic: oh\n"}`,
		`{"Action":"fail","Package":"p","Elapsed":1}`,
		`{"Action":"fail","Package":"q"}`,
		"go: words of the go command",
	}, "\n"))))
	require.Equal(t, []string{"p TestB (did not end)", "q"}, r.failures)
	require.Equal(t, 1, r.passed)
	require.Contains(t, out.String(), "panic: oh\n")
	require.Contains(t, out.String(), "go: words of the go command")
	require.NotContains(t, out.String(), "fine")
}

func TestUsage(t *testing.T) {
	for _, args := range [][]string{nil, {"deploy"}, {"test", "lint"}} {
		code, _, errs := run(t, t.TempDir(), args...)
		require.Equal(t, exitUsage, code)
		require.Contains(t, errs, "usage")
	}
}

func TestFuzzRunsEveryTarget(t *testing.T) {
	quick(t)
	t.Setenv("FUZZTIME", "10x")
	root := repository(t, map[string]string{
		"go.mod":        "module example.test/a\n\ngo 1.26.0\n",
		"a_test.go":     "package a\n\nimport \"testing\"\n\nfunc FuzzOne(f *testing.F) { f.Fuzz(func(*testing.T, int) {}) }\n\nfunc FuzzTwo(f *testing.F) { f.Fuzz(func(*testing.T, int) {}) }\n",
		"sub/go.mod":    "module example.test/b\n\ngo 1.26.0\n",
		"sub/b_test.go": "package b\n\nimport \"testing\"\n\nfunc FuzzBad(f *testing.F) { f.Fuzz(func(t *testing.T, n int) { t.Fatal(\"found\") }) }\n",
	})
	code, out, errs := run(t, root, "fuzz")
	require.Equal(t, exitFailed, code)
	for _, name := range []string{"FuzzOne", "FuzzTwo", "FuzzBad"} {
		require.Contains(t, out, name+" for 10x")
	}
	require.Contains(t, errs, "1 fuzz targets failed")
}
