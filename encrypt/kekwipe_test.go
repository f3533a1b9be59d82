package encrypt_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/encrypt"
)

// Somebody else has put a file under the name that the old key file gets.
func TestRotatingOverwritesNoOtherFile(t *testing.T) {
	for name, put := range map[string]func(victim, name string) error{"hard link": os.Link, "symbolic link": os.Symlink} {
		for _, side := range []string{"old", "new"} {
			t.Run(name+" "+side, func(t *testing.T) {
				dir := t.TempDir()
				victim := filepath.Join(dir, "crm.db")
				require.NoError(t, os.WriteFile(victim, []byte("all clients"), 0o600))
				path := filepath.Join(dir, "keys", "kek.json")
				kek, err := encrypt.OpenKeyFile(path, "", true)
				require.NoError(t, err)
				require.NoError(t, put(victim, filepath.Join(dir, "keys", ".kek.json."+side)))
				err = kek.Rotate(t.Context())
				require.Equal(t, name == "hard link", err != nil, "%v", err)
				text, err := os.ReadFile(victim)
				require.NoError(t, err)
				require.Equal(t, "all clients", string(text))
			})
		}
	}
}
