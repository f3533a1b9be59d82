package auditout_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/audit/auditout"
)

func TestFileCursor(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cursor")
	c, err := auditout.NewFileCursor(path)
	require.NoError(t, err)
	log, seq, err := c.Load(t.Context())
	require.NoError(t, err)
	require.Zero(t, log)
	require.EqualValues(t, -1, seq)
	log[0] = 7
	for _, want := range []int64{0, 17, 3} {
		require.NoError(t, c.Save(t.Context(), log, want))
		again, err := auditout.NewFileCursor(path)
		require.NoError(t, err)
		gotLog, got, err := again.Load(t.Context())
		require.NoError(t, err)
		require.Equal(t, log, gotLog)
		require.Equal(t, want, got)
	}
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, "crmguard audit cursor 1\n07000000000000000000000000000000\n3\n", string(content))

	for _, bad := range []string{"", "x", string(content[:len(content)-1]), string(content) + "\n", "crmguard audit cursor 1\n07000000000000000000000000000000\n-3\n", "crmguard audit cursor 1\n07000000000000000000000000000000\n03\n"} {
		require.NoError(t, os.WriteFile(path, []byte(bad), 0o600))
		_, err := auditout.NewFileCursor(path)
		require.ErrorContains(t, err, "is not a cursor", "%q", bad)
	}
	_, err = auditout.NewFileCursor(filepath.Join(t.TempDir(), "no", "folder", "\x00"))
	require.Error(t, err)
	gone, err := auditout.NewFileCursor(filepath.Join(t.TempDir(), "no", "cursor"))
	require.NoError(t, err)
	require.Error(t, gone.Save(t.Context(), log, 1))
}
