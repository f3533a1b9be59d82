// Package doctest holds the documentation to the code.
package doctest

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const root = "../.."

var (
	goBlock = regexp.MustCompile("(?s)```go\n(.*?)```")
	link    = regexp.MustCompile(`\]\(([^)#:]+)(?:#[^)]*)?\)`)
)

// squash drops white space at the ends of lines, and the indentation.
func squash(text string) string {
	var b strings.Builder
	for line := range strings.SplitSeq(text, "\n") {
		if line = strings.TrimSpace(line); line != "" {
			b.WriteString(line + "\n")
		}
	}
	return b.String()
}

func files(t *testing.T, match func(path string) bool) map[string]string {
	t.Helper()
	found := map[string]string{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == ".git" || d.Name() == "bin" || d.Name() == "testdata") {
			return filepath.SkipDir
		}
		if !d.IsDir() && match(path) {
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			found[path] = string(text)
		}
		return nil
	})
	require.NoError(t, err)
	return found
}

// missing returns the Go blocks of doc that no source contains as they stand.
func missing(doc string, sources []string) (blocks []string) {
next:
	for _, block := range goBlock.FindAllStringSubmatch(doc, -1) {
		for _, source := range sources {
			if strings.Contains(source, squash(block[1])) {
				continue next
			}
		}
		blocks = append(blocks, block[1])
	}
	return blocks
}

// Go code in the documentation is taken from examples that compile and whose
// output is checked, or from the example CRM.
func TestCodeInDocsCompiles(t *testing.T) {
	var sources []string
	for _, text := range files(t, func(path string) bool {
		return strings.HasSuffix(path, "_test.go") || strings.HasSuffix(path, ".go") && strings.Contains(path, "examples/")
	}) {
		sources = append(sources, squash(text))
	}
	n := 0
	for path, doc := range files(t, func(path string) bool { return strings.HasSuffix(path, ".md") }) {
		n += len(goBlock.FindAllString(doc, -1))
		for _, block := range missing(doc, sources) {
			t.Errorf("%s: this code is in no example:\n%s", path, block)
		}
	}
	require.Positive(t, n)

	planted := "```go\nnobody.Wrote(this)\n```"
	require.Len(t, missing(planted, sources), 1, "a block that is in no example is noticed")
}

func TestLinksLeadSomewhere(t *testing.T) {
	for path, doc := range files(t, func(path string) bool { return strings.HasSuffix(path, ".md") }) {
		for _, m := range link.FindAllStringSubmatch(goBlock.ReplaceAllString(doc, ""), -1) { // type arguments look like links
			_, err := os.Stat(filepath.Join(filepath.Dir(path), m[1]))
			require.NoError(t, err, "%s links to %s", path, m[1])
		}
	}
}
