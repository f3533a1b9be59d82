package document_test

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
)

// The tool asks for passphrases at its terminal only, so it gets one. To it a wrapped
// identity is an identity file.
func TestStandardAgeToolTakesAWrappedIdentity(t *testing.T) {
	tool := buildAge(t)
	anna, wrapped := wrappedAnna()
	l := seal(t, "contract", anna, "c-17", anna.Person())
	folder := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(folder, "identity.age"), wrapped, 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(folder, "contract.age"), l.document, 0o600))

	master, terminal := openTerminal(t)
	cmd := exec.CommandContext(t.Context(), tool, "-d", "-i", "identity.age", "-o", "contract", "contract.age")
	cmd.Dir, cmd.Stdin, cmd.Stdout, cmd.Stderr = folder, terminal, terminal, terminal
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	require.NoError(t, cmd.Start())
	require.NoError(t, terminal.Close())
	_, err := io.WriteString(master, string(passphrase)+"\n")
	require.NoError(t, err)
	said, _ := io.ReadAll(master) // ends with EIO when the tool has gone
	require.NoError(t, cmd.Wait(), "%s", said)
	got, err := os.ReadFile(filepath.Join(folder, "contract"))
	require.NoError(t, err)
	require.Equal(t, "contract", string(got))
}

// openTerminal returns both ends of a pseudo-terminal.
func openTerminal(t *testing.T) (master, terminal *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	require.NoError(t, err)
	t.Cleanup(func() { _ = master.Close() })
	var unlock, number int32
	for request, arg := range map[uintptr]*int32{syscall.TIOCSPTLCK: &unlock, syscall.TIOCGPTN: &number} {
		_, _, errno := syscall.Syscall(syscall.SYS_IOCTL, master.Fd(), request, uintptr(unsafe.Pointer(arg)))
		require.Zero(t, errno)
	}
	terminal, err = os.OpenFile(fmt.Sprint("/dev/pts/", number), os.O_RDWR|syscall.O_NOCTTY, 0)
	require.NoError(t, err)
	return master, terminal
}
