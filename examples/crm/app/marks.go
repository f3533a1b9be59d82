package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
)

// versionMarks remember in the keys folder the highest version of each document of rules
// that was ever in force. Whoever puts an old backup of the database back does not
// bring old rules back with it.
type versionMarks struct {
	path string

	mu      sync.Mutex
	highest map[string]int64
}

const marksFile = "marks.json"

// openMarks reads the marks; a folder without has had no rules yet.
func openMarks(dir string) (*versionMarks, error) {
	m := &versionMarks{path: filepath.Join(dir, marksFile), highest: map[string]int64{}}
	text, err := os.ReadFile(m.path)
	if errors.Is(err, fs.ErrNotExist) {
		return m, nil
	}
	if err == nil {
		err = json.Unmarshal(text, &m.highest)
	}
	if err != nil {
		return nil, fmt.Errorf("keys folder: %s: %w", marksFile, err)
	}
	return m, nil
}

// raise makes the mark of a document, unless it is higher already, and returns
// what it is then.
func (m *versionMarks) raise(document string, version int64) (int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	before := m.highest[document]
	if version <= before {
		return before, nil
	}
	m.highest[document] = version
	text, err := json.Marshal(m.highest)
	if err == nil {
		err = writeWhole(m.path, text)
	}
	if err != nil {
		m.highest[document] = before
		return 0, fmt.Errorf("keys folder: %w", err)
	}
	return version, nil
}

// addressMarks are the marks of the address rules, as ipfilter wants them.
type addressMarks struct{ *versionMarks }

// Raise implements ipfilter.Marks.
func (m addressMarks) Raise(_ context.Context, tenant string, version int64) (int64, error) {
	return m.raise("addresses/"+tenant, version)
}

// writeWhole writes a file so that a crash leaves the whole of it or what was there.
func writeWhole(path string, content []byte) error {
	err := os.WriteFile(path+".new", content, 0o600)
	if err == nil {
		err = syncPath(path + ".new")
	}
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	if err == nil {
		err = syncPath(filepath.Dir(path))
	}
	return err
}
