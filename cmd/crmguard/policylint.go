package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/crmguard/crmguard/rbac"
)

var policyLint = command{
	name:  "policy lint",
	args:  "FILE|- [-strict]",
	about: "say what package rbac would refuse in a policy, and what is suspicious",
	help: `Reads a policy in Casbin's CSV format as rbac.FromCSV does; - is standard input. Errors
are what it would refuse. Warnings, given when there are no errors, are rows that change
no answer, roles that nobody has and roles that give nothing.

Exit codes: 0 no errors, 1 errors (with -strict: or warnings), 2 not understood, 3 cannot
be read.
`,
	do: lintPolicy,
}

func lintPolicy(c *call) int {
	strict := c.flags.Bool("strict", false, "warnings count as errors")
	rest, code, ok := c.parse(1)
	if !ok {
		return code
	}
	name := rest[0]
	path := name
	if name == "-" {
		name = "stdin"
		var remove func()
		var err error
		if path, remove, err = keepInput(c.in); err != nil {
			return c.fail(unable, "%v", err)
		}
		defer remove()
	}
	_, err := rbac.FromCSV(c, path, &rbac.Options{Logger: slog.New(slog.DiscardHandler)})
	if refused, ok := errors.AsType[*rbac.PolicyError](err); ok {
		c.printErrors(name, filepath.Base(path), refused.Findings)
		return bad
	}
	if err != nil {
		return c.fail(unable, "%v", err)
	}
	text, err := os.ReadFile(path) //nolint:gosec // the caller's own path
	if err != nil {
		return c.fail(unable, "%v", err)
	}
	p, err := readPolicy(string(text))
	if err != nil {
		return c.fail(unable, "%s: %v", plain(name), err)
	}
	warnings := p.suspicions()
	for _, w := range warnings {
		fmt.Fprintf(c.out, "%s:%d: warning: %s\n", plain(name), w.line, w.text)
	}
	fmt.Fprintf(c.out, "%s: %s, no errors, %s\n", plain(name), count(len(p.rows), "row"), count(len(warnings), "warning"))
	if *strict && len(warnings) > 0 {
		return bad
	}
	return good
}

// keepInput writes standard input where rbac can read it.
func keepInput(in io.Reader) (path string, remove func(), err error) {
	dir, err := os.MkdirTemp("", "crmguard")
	if err != nil {
		return "", nil, err
	}
	remove = func() { _ = os.RemoveAll(dir) } // a temporary folder; nobody to tell
	path = filepath.Join(dir, "stdin")
	text, err := io.ReadAll(in)
	if err == nil {
		err = os.WriteFile(path, text, 0o600)
	}
	if err != nil {
		remove()
		return "", nil, err
	}
	return path, remove, nil
}

// printErrors prints findings in the order of their lines. Rbac names the file by
// base.
func (c *call) printErrors(name, base string, findings []rbac.Finding) {
	line := func(f rbac.Finding) int {
		n, _ := strconv.Atoi(strings.TrimPrefix(f.Where, base+":")) // 0: about the whole policy
		return n
	}
	slices.SortStableFunc(findings, func(a, b rbac.Finding) int { return cmp.Compare(line(a), line(b)) })
	for _, f := range findings {
		fmt.Fprintf(c.out, "%s%s: error: %s\n", plain(name), strings.TrimPrefix(f.Where, base), f.Reason)
	}
	fmt.Fprintf(c.out, "%s: %s; package rbac refuses it as a whole\n", plain(name), count(len(findings), "error"))
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
