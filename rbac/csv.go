package rbac

import (
	"bytes"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/casbin/casbin/v2/model"
	"github.com/casbin/casbin/v2/persist"
)

// maxLine is the longest line that Casbin's own file adapter reads.
const maxLine = 64<<10 - 1

// csvFile is a policy in Casbin's file format. Its changes keep comments and the
// order of lines, and replace the file as a whole.
type csvFile struct {
	path string
}

var (
	_ persist.Adapter = (*csvFile)(nil)
	_ ruleSource      = (*csvFile)(nil)
	_ ruleRemover     = (*csvFile)(nil)
)

// Rules returns the rows with their lines, and a [*PolicyError] about lines that are no rows.
func (f *csvFile) Rules(context.Context) (where []string, rules [][]string, err error) {
	text, err := os.ReadFile(f.path)
	if err != nil {
		return nil, nil, err
	}
	return parseCSV(filepath.Base(f.path), text)
}

// parseCSV reads rows as Casbin does, line by line, and names them "name:line".
func parseCSV(name string, text []byte) (where []string, rules [][]string, err error) {
	var findings []Finding
	lines := bytes.Count(text, []byte("\n")) + 1
	where, rules = make([]string, 0, lines), make([][]string, 0, lines)
	number := 0
	for line := range strings.SplitSeq(string(text), "\n") {
		number++
		rule, err := parseLine(line)
		if err == nil && rule == nil {
			continue
		}
		at := name + ":" + strconv.Itoa(number)
		if err != nil {
			findings = append(findings, Finding{Where: at, Reason: err.Error()})
			continue
		}
		where = append(where, at)
		rules = append(rules, rule)
	}
	if len(findings) > 0 {
		return where, rules, &PolicyError{findings}
	}
	return where, rules, nil
}

// parseLine returns nil for a line without a row.
func parseLine(line string) ([]string, error) {
	switch {
	case len(line) > maxLine:
		return nil, fmt.Errorf("the line is longer than %d bytes", maxLine)
	case !utf8.ValidString(line):
		return nil, errors.New("the line is not UTF-8")
	}
	line = strings.TrimSpace(line)
	if line == "" || strings.HasPrefix(line, "#") {
		return nil, nil
	}
	if strings.IndexByte(line, '"') < 0 { // as nearly every line, and far cheaper
		rule := strings.Split(line, ",")
		for i, field := range rule {
			rule[i] = strings.TrimLeftFunc(field, unicode.IsSpace)
		}
		return rule, nil
	}
	return parseQuoted(line)
}

func parseQuoted(line string) ([]string, error) {
	r := csv.NewReader(strings.NewReader(line))
	r.Comment = '#'
	r.TrimLeadingSpace = true
	rule, err := r.Read()
	if err != nil {
		return nil, fmt.Errorf("not a row: %w", err)
	}
	return rule, nil
}

// LoadPolicy is Casbin's way to read; the engine uses Rules.
func (f *csvFile) LoadPolicy(m model.Model) error {
	_, rules, err := f.Rules(context.Background())
	if err != nil {
		return err
	}
	for _, rule := range rules {
		if err := persist.LoadPolicyArray(rule, m); err != nil {
			return err
		}
	}
	return nil
}

// SavePolicy is refused: it would lose the comments of a file that people edit.
func (f *csvFile) SavePolicy(model.Model) error {
	return errors.New("rbac: a CSV policy is changed row by row")
}

// AddPolicy appends a line, unless the row is in the file.
func (f *csvFile) AddPolicy(_, kind string, fields []string) error {
	text, err := os.ReadFile(f.path)
	if err != nil {
		return err
	}
	for line := range bytes.Lines(text) {
		if rule, err := parseLine(string(line)); err == nil && rule != nil && rule[0] == kind && slices.Equal(rule[1:], fields) {
			return nil
		}
	}
	b := bytes.NewBuffer(text)
	if len(text) > 0 && text[len(text)-1] != '\n' {
		b.WriteByte('\n')
	}
	w := csv.NewWriter(b)
	if err := w.Write(append([]string{kind}, fields...)); err != nil {
		return err
	}
	w.Flush()
	return f.replace(b.Bytes())
}

// RemovePolicy removes the lines with this row.
func (f *csvFile) RemovePolicy(_, kind string, fields []string) error {
	_, err := f.removeLines(func(rule []string) bool {
		return rule[0] == kind && slices.Equal(rule[1:], fields)
	})
	return err
}

// RemoveFilteredPolicy removes the lines whose fields match; an empty value matches any.
func (f *csvFile) RemoveFilteredPolicy(_, kind string, index int, values ...string) error {
	_, err := f.removeLines(func(rule []string) bool {
		return rule[0] == kind && len(rule) > 1+index && fieldsMatch(rule[1+index:], values)
	})
	return err
}

// RemoveRules is RemoveFilteredPolicy that counts.
func (f *csvFile) RemoveRules(_ context.Context, kind string, fields ...string) (removed int, err error) {
	return f.removeLines(func(rule []string) bool { return rule[0] == kind && fieldsMatch(rule[1:], fields) })
}

func (f *csvFile) removeLines(match func(rule []string) bool) (removed int, err error) {
	text, err := os.ReadFile(f.path)
	if err != nil {
		return 0, err
	}
	var kept []byte
	for line := range bytes.Lines(text) {
		// A line that cannot be read gives nobody anything; whoever broke it repairs it.
		if rule, err := parseLine(string(line)); err != nil || rule == nil || !match(rule) {
			kept = append(kept, line...)
		} else {
			removed++
		}
	}
	if removed == 0 {
		return 0, nil
	}
	return removed, f.replace(kept)
}

// replace writes a new file beside the old one and renames it, so that a reader
// and a crash see either all of the old or all of the new. A symbolic link stays
// one: the file that it names is replaced.
func (f *csvFile) replace(text []byte) (err error) {
	path, err := filepath.EvalSymlinks(f.path)
	if err != nil {
		return err
	}
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), ".policy-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(tmp.Name()) // the first error counts
		}
	}()
	_, err = tmp.Write(text)
	err = errors.Join(err, tmp.Chmod(info.Mode().Perm()), tmp.Sync(), tmp.Close())
	if err != nil {
		return err
	}
	if err := os.Rename(tmp.Name(), path); err != nil {
		return err
	}
	// Until the folder is on disk too, a crash could bring back what was revoked.
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
