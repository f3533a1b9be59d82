package main

import (
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
)

// module is one Go module of the repository.
type module struct {
	dir      string // absolute
	name     string // folder relative to the repository, "." for the root module
	packages bool   // it has Go files; a module may exist for its requirements only
}

// findModules walks the repository. The root module comes first.
func findModules(root string) ([]module, error) {
	var modules []module
	var sources []string // folders with Go files
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := entry.Name()
		if entry.IsDir() {
			if skipsFolder(root, path) {
				return filepath.SkipDir
			}
			return nil
		}
		switch {
		case name == "go.mod":
			rel, err := filepath.Rel(root, filepath.Dir(path))
			if err != nil {
				return err
			}
			modules = append(modules, module{dir: filepath.Dir(path), name: rel})
		case filepath.Ext(name) == ".go":
			sources = append(sources, filepath.Dir(path))
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("looking for modules: %w", err)
	}
	slices.SortFunc(modules, func(a, b module) int { return strings.Compare(a.name, b.name) }) // "." sorts first
	for _, dir := range slices.Compact(sources) {
		if m := moduleOf(modules, dir); m != nil {
			m.packages = true
		}
	}
	return modules, nil
}

// skipsFolder leaves out what the go command leaves out.
func skipsFolder(root, path string) bool {
	name := filepath.Base(path)
	return path != root && (strings.HasPrefix(name, ".") || strings.HasPrefix(name, "_") || name == "testdata")
}

// moduleOf returns the innermost module around dir.
func moduleOf(modules []module, dir string) *module {
	var inner *module
	for i := range modules {
		m := &modules[i]
		if (dir == m.dir || strings.HasPrefix(dir, m.dir+string(filepath.Separator))) && (inner == nil || len(m.dir) > len(inner.dir)) {
			inner = m
		}
	}
	return inner
}

// withPackages leaves out modules that have nothing to build.
func withPackages(modules []module) []module {
	return slices.DeleteFunc(slices.Clone(modules), func(m module) bool { return !m.packages })
}
