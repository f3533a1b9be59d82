package app

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestExportOnDisk looks at the temporary file while it is written: it has no name,
// and only encrypted bytes.
func TestExportOnDisk(t *testing.T) {
	in := newInstallation(t, onSQLite, sample(520))
	dir := temporary(t)
	owner := in.exporter("owner")
	seen := 0
	in.between(3, func(context.Context) { // all is written
		requireEmpty(t, dir)
		open, err := os.ReadDir("/proc/self/fd")
		require.NoError(t, err)
		for _, fd := range open {
			path := filepath.Join("/proc/self/fd", fd.Name())
			if name, err := os.Readlink(path); err != nil || !strings.HasPrefix(name, dir) {
				continue
			}
			seen++
			content, err := os.ReadFile(path) //nolint:gosec // the test's own
			require.NoError(t, err)
			require.True(t, bytes.HasPrefix(content, []byte("age-encryption.org/v1")))
			for i := range 520 {
				require.NotContains(t, string(content), fmt.Sprintf("Quillfeather%04d", i))
			}
		}
	})
	owner.ask()
	require.Equal(t, 1, seen)
}
