// Package archtest states which package of the root module may import what, and
// finds the imports that break it. Imports only go down:
//
//	cmd                                  whatever the module has, database drivers too
//	guard, guard/…                       the root package and internal
//	primitives                           the same, and the libraries that they exist to wrap
//	  <name>/<name>sql, <name>/…         their primitive, too
//	crmguard (root package)              the standard library
//
// No primitive imports another; what one needs of another it is handed as an
// interface of the root package. The package testing, and what exists for tests,
// stays in packages whose names end in test. Files named _test.go are free.
//
// A package that the tables below do not know is a violation, so that a new one
// has to be entered here with what it may import.
package archtest

import (
	"errors"
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

const module = "github.com/crmguard/crmguard"

// primitives are the packages that are usable alone, each with the libraries
// that it and those below it exist to wrap. One below that wraps others has a line
// of its own.
var primitives = map[string][]string{
	"audit":            {"golang.org/x/mod"},
	"encrypt":          {"github.com/tink-crypto/tink-go/v2", "golang.org/x/crypto", "golang.org/x/sync", "golang.org/x/text"},
	"encrypt/document": {"filippo.io/age"},
	"ipfilter":         {"github.com/gaissmai/bart"},
	"masking":          {"github.com/rivo/uniseg", "golang.org/x/text"},
	"mfa":              {"github.com/pquerna/otp"},
	"password":         {"golang.org/x/crypto", "golang.org/x/text"},
	"quota":            nil,
	"rbac":             {"github.com/casbin/casbin/v2", "golang.org/x/text"},
	"session":          nil,
}

// internals are the packages below internal, each with its libraries.
var internals = map[string][]string{
	"internal/fipstest":        nil,
	"internal/jsontext":        nil,
	"internal/phone":           nil,
	"internal/policylog":       nil,
	"internal/processtest":     nil,
	"internal/racetest":        nil,
	"internal/sqldb":           nil,
	"internal/sqldb/sqldbtest": {"github.com/jackc/pgx/v5", "modernc.org/sqlite"},
	"internal/uptime":          {"golang.org/x/sys"},
	"internal/webhook":         nil,
}

// tools serve this repository and are no part of the library.
var tools = []string{"internal/archtest", "internal/dev", "internal/doctest", "internal/testservers"}

// testLibraries may be imported wherever testing may.
var testLibraries = []string{"github.com/stretchr/testify", "go.uber.org/goleak", "pgregory.net/rapid"}

// sourceFile is what a Go file imports.
type sourceFile struct {
	pkg     string // folder relative to the module, "." for the root package
	name    string
	imports []string
}

// violation is one import that may not be.
type violation struct{ file, imported, rule string }

func (v violation) String() string { return v.file + " imports " + v.imported + ": " + v.rule }

// read parses the import clauses of every Go file of the module in root, for
// whatever platform it is.
func read(root string) ([]sourceFile, error) {
	var files []sourceFile
	err := filepath.WalkDir(root, func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			return skipFolder(root, name, entry.Name())
		}
		if path.Ext(name) != ".go" {
			return nil
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, filepath.Dir(name))
		if err != nil {
			return err
		}
		f := sourceFile{pkg: filepath.ToSlash(rel), name: entry.Name()}
		for _, spec := range parsed.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			f.imports = append(f.imports, imported)
		}
		files = append(files, f)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("archtest: %w", err)
	}
	return files, nil
}

// skipFolder leaves out nested modules and what the go command leaves out.
func skipFolder(root, name, base string) error {
	if name == root {
		return nil
	}
	if strings.HasPrefix(base, ".") || strings.HasPrefix(base, "_") || base == "testdata" {
		return fs.SkipDir
	}
	_, err := os.Stat(filepath.Join(name, "go.mod"))
	if err == nil {
		return fs.SkipDir
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// check returns every import that breaks the rules.
func check(files []sourceFile) []violation {
	var found []violation
	for _, f := range files {
		if strings.HasSuffix(f.name, "_test.go") {
			continue
		}
		where := path.Join(f.pkg, f.name)
		if !known(f.pkg) {
			found = append(found, violation{where, "…", "a new package has to be entered in internal/archtest"})
			continue
		}
		for _, imported := range f.imports {
			if rule := breaks(f.pkg, imported); rule != "" {
				found = append(found, violation{where, imported, rule})
			}
		}
	}
	return found
}

// breaks returns the rule that an import of a package breaks, if any.
func breaks(pkg, imported string) string {
	if own, ok := strings.CutPrefix(imported, module); ok && (own == "" || own[0] == '/') {
		return breaksInside(pkg, strings.TrimPrefix(own, "/"))
	}
	first, _, _ := strings.Cut(imported, "/")
	switch {
	case first == "testing" || oneOf(imported, testLibraries):
		if !forTests(pkg) && !isTool(pkg) {
			return "only packages whose names end in test, and tests, import testing"
		}
	case !strings.Contains(first, "."): // the standard library
	case pkg == ".":
		return "the root package imports the standard library only"
	case !under(pkg, "cmd") && !oneOf(imported, libraries(pkg)):
		return "not a library that this package exists to wrap"
	}
	return ""
}

// breaksInside is breaks for packages of this module; the root package is "".
func breaksInside(pkg, imported string) string {
	family, _, _ := strings.Cut(pkg, "/")
	importedFamily, _, _ := strings.Cut(imported, "/")
	switch {
	case pkg == ".":
		return "the root package imports the standard library only"
	case imported == "":
	case isTool(imported) && !isTool(pkg):
		return "the library does not import the repository's tools"
	case forTests(imported) && !forTests(pkg) && !isTool(pkg):
		return "only tests import packages for tests"
	case importedFamily == "internal", under(pkg, "cmd"):
	case imported == "crmguardtest" && forTests(pkg): // it has nothing but stand-ins for the root's interfaces
	case family != importedFamily:
		return "imports only go down, and no primitive imports another"
	case pkg == family:
		return "a package does not import those below it"
	}
	return ""
}

// libraries are the third-party packages that a package may import.
func libraries(pkg string) []string {
	if list, ok := internals[pkg]; ok {
		return list
	}
	if list, ok := primitives[pkg]; ok {
		return list
	}
	family, _, _ := strings.Cut(pkg, "/")
	return primitives[family]
}

func known(pkg string) bool {
	family, _, _ := strings.Cut(pkg, "/")
	if family == "internal" {
		_, ok := internals[pkg]
		return ok || isTool(pkg)
	}
	_, ok := primitives[family]
	return ok || slices.Contains([]string{".", "cmd", "crmguardtest", "guard"}, family)
}

func isTool(pkg string) bool { return slices.Contains(tools, pkg) }

func forTests(pkg string) bool { return strings.HasSuffix(pkg, "test") && !isTool(pkg) }

func oneOf(imported string, list []string) bool {
	return slices.ContainsFunc(list, func(library string) bool { return under(imported, library) })
}

func under(p, folder string) bool { return p == folder || strings.HasPrefix(p, folder+"/") }
