package app

import (
	"context"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
)

// foundings are installations on SQLite that were founded and stopped, by their
// contacts: tests go on from copies of them.
var foundings struct {
	dir string
	mu  sync.Mutex
	by  map[string]func() (Config, error)
}

// withFoundings runs tests with a folder for foundings.
func withFoundings(run func() int) (code int) {
	dir, err := os.MkdirTemp("", "crm")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir) //nolint:errcheck // a temporary folder
	foundings.dir, foundings.by = dir, map[string]func() (Config, error){}
	return run()
}

// copyFounded gives an installation that is empty yet the data and the keys of one with
// these contacts, which is founded when a test wants it first.
func copyFounded(cfg Config, contacts []byte) error {
	name := "with " + string(contacts)
	if contacts == nil {
		name = "without"
	}
	foundings.mu.Lock()
	found, ok := foundings.by[name]
	if !ok {
		found = sync.OnceValues(func() (Config, error) { return foundOnce(contacts) })
		foundings.by[name] = found
	}
	foundings.mu.Unlock()
	from, err := found()
	if err != nil {
		return err
	}
	if err := copyFolder(cfg.Data, from.Data); err != nil {
		return err
	}
	return copyFolder(cfg.Keys, from.Keys)
}

// foundOnce founds an installation and stops it.
func foundOnce(contacts []byte) (Config, error) {
	dir, err := os.MkdirTemp(foundings.dir, "")
	if err != nil {
		return Config{}, err
	}
	cfg := Config{
		Data: filepath.Join(dir, "crm-data"), Keys: filepath.Join(dir, "crm-keys"), Loopback: true,
		Contacts: contacts, Logger: slog.New(slog.DiscardHandler),
	}
	a, err := New(context.Background(), cfg)
	if err != nil {
		return Config{}, err
	}
	return cfg, a.Close()
}

// copyFolder copies files with their permissions.
func copyFolder(to, from string) error {
	return filepath.WalkDir(from, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		target := to + path[len(from):]
		if entry.IsDir() {
			return os.Mkdir(target, info.Mode().Perm())
		}
		content, err := os.ReadFile(path) //nolint:gosec // the tests' own
		if err != nil {
			return err
		}
		return os.WriteFile(target, content, info.Mode().Perm()) //nolint:gosec // likewise
	})
}
