package gcpkms_test

import (
	"crypto/fips140"
	"os"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"
)

const fipsChild = "CRMGUARD_GCPKMS_FIPS_CHILD"

// The KEK does all it does where only FIPS 140-3 algorithms may.
func TestFIPSOnly(t *testing.T) {
	if os.Getenv(fipsChild) != "" {
		require.True(t, fips140.Enforced())
		TestKEK(t)
		return
	}
	self, err := os.Executable()
	require.NoError(t, err)
	child := exec.CommandContext(t.Context(), self, "-test.run=^TestFIPSOnly$", "-test.v")
	child.Env = append(os.Environ(), fipsChild+"=1", "GODEBUG=fips140=only")
	out, err := child.CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Contains(t, string(out), "--- PASS: TestFIPSOnly")
}
