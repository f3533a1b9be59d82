package archtest

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Modules of their own share no code but what they publish, so a few lines stand in each:
// whoever mends one mends all.
func TestCopiesInModulesAreAlike(t *testing.T) {
	var first string
	for _, pkg := range []string{"awskms", "gcpkms", "vaultkms"} {
		text, err := os.ReadFile("../../contrib/" + pkg + "/eventually.go")
		require.NoError(t, err)
		require.Contains(t, string(text), "package "+pkg+"\n")
		same := strings.ReplaceAll(string(text), pkg, "PACKAGE")
		if first == "" {
			first = same
		}
		require.Equal(t, first, same, pkg)
	}
}
