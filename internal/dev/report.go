package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
)

// event is a line of go test -json; see go doc test2json.
type event struct {
	Action      string
	Package     string
	ImportPath  string // of build-output and build-fail
	Test        string
	Output      string
	Elapsed     float64
	FailedBuild string
}

// report counts tests and subtests as they end, shows packages as they end, and
// everything that a failed test printed.
type report struct {
	out                     terminal
	passed, failed, skipped int
	failures, skips         []string

	packages map[string]*packageReport
	builds   map[string]*bytes.Buffer
}

type packageReport struct {
	tests           []*testReport // in the order in which they began; the first is the package itself
	passed, skipped int
}

type testReport struct {
	name, action string
	output       bytes.Buffer
}

func newReport(out terminal) *report {
	return &report{out: out, packages: map[string]*packageReport{}, builds: map[string]*bytes.Buffer{}}
}

// read consumes the events of one go test run.
func (r *report) read(in io.Reader) error {
	lines := bufio.NewReader(in)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			r.line(line)
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading go test's events: %w", err)
		}
	}
}

func (r *report) line(line []byte) {
	var e event
	if line[0] != '{' || json.Unmarshal(line, &e) != nil {
		r.out.printf("%s", line) // the go command's own words
		return
	}
	switch {
	case e.Action == "build-output":
		if r.builds[e.ImportPath] == nil {
			r.builds[e.ImportPath] = &bytes.Buffer{}
		}
		r.builds[e.ImportPath].WriteString(e.Output)
	case e.Package == "":
	case e.Test == "" && (e.Action == "pass" || e.Action == "fail" || e.Action == "skip"):
		r.endPackage(e)
	default:
		r.testEvent(e)
	}
}

func (r *report) testEvent(e event) {
	t := r.pkg(e.Package).test(e.Test)
	switch e.Action {
	case "output":
		t.output.WriteString(e.Output)
	case "pass", "fail", "skip":
		t.action = e.Action
	}
}

func (r *report) pkg(path string) *packageReport {
	p := r.packages[path]
	if p == nil {
		p = &packageReport{tests: []*testReport{{}}}
		r.packages[path] = p
	}
	return p
}

func (p *packageReport) test(name string) *testReport {
	for _, t := range slices.Backward(p.tests) { // mostly the last one
		if t.name == name {
			return t
		}
	}
	t := &testReport{name: name}
	p.tests = append(p.tests, t)
	return t
}

// endPackage counts the tests of a package that has ended.
func (r *report) endPackage(e event) {
	p := r.pkg(e.Package)
	delete(r.packages, e.Package)
	var failures []string
	for _, t := range p.tests[1:] {
		switch t.action {
		case "pass":
			p.passed++
		case "skip":
			p.skipped++
			r.skips = append(r.skips, e.Package+" "+t.name+": "+t.reason())
		case "fail":
			failures = append(failures, e.Package+" "+t.name)
		default: // the process ended before the test did
			failures = append(failures, e.Package+" "+t.name+" (did not end)")
		}
	}
	if e.Action == "fail" && len(failures) == 0 {
		failures = []string{e.Package}
	}
	r.passed += p.passed
	r.skipped += p.skipped
	r.fail(failures...)
	switch {
	case len(failures) > 0:
		r.showFailure(e, p)
	case e.Action == "pass":
		r.out.printf("ok    %s  %.1fs  %d passed%s\n", e.Package, e.Elapsed, p.passed, some(p.skipped, " skipped"))
	}
}

func (r *report) showFailure(e event, p *packageReport) {
	r.out.printf("FAIL  %s  %.1fs\n", e.Package, e.Elapsed)
	if build := r.builds[e.FailedBuild]; build != nil {
		r.out.printf("%s", build.Bytes())
	}
	for _, t := range p.tests {
		if t.action != "pass" && t.action != "skip" {
			r.out.printf("%s", t.output.Bytes())
		}
	}
}

// fail counts failures.
func (r *report) fail(names ...string) {
	r.failed += len(names)
	r.failures = append(r.failures, names...)
}

// reason is what a skipped test gave as the reason.
func (t *testReport) reason() string {
	var said []string
	for line := range strings.Lines(t.output.String()) {
		line = strings.TrimSpace(line)
		if line != "" && !strings.HasPrefix(line, "=== ") && !strings.HasPrefix(line, "--- ") {
			said = append(said, line)
		}
	}
	return strings.Join(said, " ")
}

// summary prints what was not run and what failed, and the counts as the last
// line. Strict says that what was not run is a failure, too.
func (r *report) summary(missing leftOut, strict bool) {
	var notRun []string
	for _, what := range slices.Sorted(maps.Keys(missing)) {
		notRun = append(notRun, what+": "+missing[what])
	}
	r.out.printf("\n")
	for _, part := range []struct {
		title string
		lines []string
	}{{"Left out:", notRun}, {"Skipped:", r.skips}, {"Failed:", r.failures}} {
		if len(part.lines) > 0 {
			r.out.printf("%s\n  %s\n", part.title, strings.Join(part.lines, "\n  "))
		}
	}
	if strict {
		r.out.printf("CI=true: what was left out or skipped is a failure.\n")
	}
	r.out.printf("%d passed, %d failed, %d skipped\n", r.passed, r.failed, r.skipped)
}

func some(n int, what string) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf(", %d%s", n, what)
}
