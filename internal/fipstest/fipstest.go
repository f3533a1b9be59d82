// Package fipstest runs a test where only algorithms of FIPS 140-3 may run, which a process
// cannot ask for once it has begun.
package fipstest

import (
	"crypto/fips140"
	"os"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"
)

const variable = "CRMGUARD_TEST_FIPS_CHILD"

// Only runs test in a process of its own under GODEBUG=fips140=only, in which the calling test
// comes here again.
func Only(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	if os.Getenv(variable) == t.Name() {
		require.True(t, fips140.Enforced())
		test(t)
		return
	}
	self, err := os.Executable()
	require.NoError(t, err)
	child := exec.CommandContext(t.Context(), self, "-test.run=^"+t.Name()+"$", "-test.v") //nolint:gosec // this test itself
	child.Env = append(os.Environ(), variable+"="+t.Name(), "GODEBUG=fips140=only")
	out, err := child.CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Contains(t, string(out), "--- PASS: "+t.Name())
}
