package archtest

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestImportsOnlyGoDown(t *testing.T) {
	files, err := read("../..")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, v := range check(files) {
		t.Error(v)
	}
}

// The table has no entry for what is no longer there.
func TestTablesAreCurrent(t *testing.T) {
	files, err := read("../..")
	require.NoError(t, err)
	there := map[string]bool{}
	for _, f := range files {
		there[f.pkg] = true
	}
	for pkg := range primitives {
		require.True(t, there[pkg], pkg)
	}
	for pkg := range internals {
		require.True(t, there[pkg], pkg)
	}
	for _, pkg := range tools {
		require.True(t, there[pkg], pkg)
	}
}

// Each kind of violation is planted once in testdata, among imports that are
// right.
func TestPlantedViolationsAreFound(t *testing.T) {
	const (
		rootRule    = "the root package imports the standard library only"
		downRule    = "imports only go down, and no primitive imports another"
		libraryRule = "not a library that this package exists to wrap"
		testingRule = "only packages whose names end in test, and tests, import testing"
	)
	files, err := read("testdata/planted")
	require.NoError(t, err)
	require.ElementsMatch(t, []violation{
		{"root.go", module + "/encrypt", rootRule},
		{"root.go", "golang.org/x/text/unicode/norm", rootRule},
		{"encrypt/encrypt.go", module + "/audit", downRule},
		{"encrypt/encrypt.go", module + "/encrypt/encryptsql", "a package does not import those below it"},
		{"encrypt/encrypt.go", "github.com/casbin/casbin/v2", libraryRule},
		{"encrypt/encryptsql/windows.go", module + "/audit", downRule},
		{"encrypt/encryptsql/windows.go", "github.com/jackc/pgx/v5/stdlib", libraryRule},
		{"guard/guard.go", module + "/rbac", downRule},
		{"guard/guard.go", "golang.org/x/text/language", libraryRule},
		{"guard/signin/signin.go", module + "/session", downRule},
		{"internal/phone/phone.go", module + "/masking", downRule},
		{"session/session.go", "testing", testingRule},
		{"session/session.go", "testing/fstest", testingRule},
		{"session/session.go", "github.com/stretchr/testify/require", testingRule},
		{"session/session.go", module + "/session/sessiontest", "only tests import packages for tests"},
		{"session/session.go", module + "/internal/testservers", "the library does not import the repository's tools"},
		{"telephony/telephony.go", "…", "a new package has to be entered in internal/archtest"},
		{"internal/cache/cache.go", "…", "a new package has to be entered in internal/archtest"},
	}, check(files))
}

func TestBreaks(t *testing.T) {
	for _, c := range []struct {
		pkg, imported string
		allowed       bool
	}{
		{".", "context", true},
		{".", module + "/internal/sqldb", false},
		{"encrypt", module, true},
		{"encrypt", module + "/internal/phone", true},
		{"encrypt", "github.com/tink-crypto/tink-go/v2/aead", true},
		{"encrypt", "github.com/tink-crypto/tink-go/v22/aead", false},
		{"encrypt", module + "more/text", false},
		{"encrypt/encryptsql", module + "/encrypt", true},
		{"encrypt/encryptsql", module + "/internal/sqldb/sqldbtest", false},
		{"encrypt/encrypttest", "testing", true},
		{"encrypt/encrypttest", "github.com/stretchr/testify/require", true},
		{"encrypt/encrypttest", module + "/internal/sqldb/sqldbtest", true},
		{"encrypt/encrypttest", module + "/internal/racetest", true},
		{"encrypt/encrypttest", module + "/audit", false},
		{"encrypt", module + "/internal/racetest", false},
		{"session", "golang.org/x/crypto/hkdf", false},
		{"session/sessionsql", "modernc.org/sqlite", false},
		{"guard/signin", module + "/guard", true},
		{"guard", module + "/guard/signin", false},
		{"guard/guardtest", module + "/guard", true},
		{"guard/guardtest", module + "/crmguardtest", true},
		{"guard/signin", module + "/crmguardtest", false},
		{"crmguardtest", module, true},
		{"crmguardtest", "testing", true},
		{"cmd/crmguard", module + "/encrypt/encryptsql", true},
		{"cmd/crmguard", "modernc.org/sqlite", true},
		{"cmd/crmguard", "testing", false},
		{"internal/sqldb", "modernc.org/sqlite", false},
		{"internal/sqldb/sqldbtest", "modernc.org/sqlite", true},
		{"internal/dev", module + "/internal/testservers", true},
		{"internal/dev", module + "/encrypt", false},
	} {
		require.Equal(t, c.allowed, breaks(c.pkg, c.imported) == "", "%s imports %s", c.pkg, c.imported)
	}
}
