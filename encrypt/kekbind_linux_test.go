package encrypt_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/encrypt"
)

const bindChild = "CRMGUARD_BIND_CHILD"

// The data folder has a second name that no link leads to. It is mounted where only the child
// sees it.
func TestKeyFileInsideABindMount(t *testing.T) {
	if dir := os.Getenv(bindChild); dir != "" {
		insideABindMount(t, dir)
		return
	}
	self, err := os.Executable()
	require.NoError(t, err)
	child := exec.CommandContext(t.Context(), self, "-test.run=^TestKeyFileInsideABindMount$", "-test.v")
	child.Env = append(os.Environ(), bindChild+"="+t.TempDir())
	child.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
	}
	out, err := child.CombinedOutput()
	if child.ProcessState == nil || strings.Contains(string(out), "--- SKIP") {
		t.Skipf("no mounts here: %v %s", err, out)
	}
	require.NoError(t, err, "%s", out)
	require.Contains(t, string(out), "--- PASS: TestKeyFileInsideABindMount")
}

func insideABindMount(t *testing.T, dir string) {
	data, mounted := filepath.Join(dir, "data"), filepath.Join(dir, "mounted")
	for _, folder := range []string{data, mounted} {
		require.NoError(t, os.Mkdir(folder, 0o700))
	}
	if err := syscall.Mount(data, mounted, "", syscall.MS_BIND, ""); err != nil {
		t.Skip(err)
	}
	for _, path := range []string{filepath.Join(mounted, "kek.json"), filepath.Join(mounted, "new", "kek.json")} {
		_, err := encrypt.OpenKeyFile(path, data, true)
		require.ErrorIs(t, err, encrypt.ErrKeyFileInside)
		_, err = encrypt.OpenKeyFile(strings.Replace(path, mounted, data, 1), mounted, true)
		require.ErrorIs(t, err, encrypt.ErrKeyFileInside)
	}
	entries, err := os.ReadDir(data)
	require.NoError(t, err)
	require.Empty(t, entries, "nothing was made there")
}
