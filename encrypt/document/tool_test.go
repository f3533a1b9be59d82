package document_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/encrypt/document"
)

// buildAge builds the standard tool, with the libraries that its authors chose.
func buildAge(t *testing.T) string {
	t.Helper()
	source := run(t, "", nil, "go", "list", "-m", "-f", "{{.Dir}}", "filippo.io/age")
	tool := filepath.Join(t.TempDir(), "age")
	run(t, strings.TrimSpace(source), []string{"GOWORK=off", "GOTOOLCHAIN=local", "GOFLAGS=-mod=readonly"}, "go", "build", "-buildvcs=false", "-o", tool, "./cmd/age")
	return tool
}

func run(t *testing.T, dir string, env []string, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	var errors bytes.Buffer
	cmd.Stderr = &errors
	out, err := cmd.Output()
	require.NoError(t, err, "%s %s\n%s", name, args, &errors)
	return string(out)
}

// What people take away opens with the standard age tool and the exported identity:
// the payload is the document itself, and the signature is text that says what was
// signed.
func TestStandardAgeToolOpensWhatPeopleTakeAway(t *testing.T) {
	tool := buildAge(t)
	plain := content(chunk + 1)
	for name, pair := range map[string][2]*document.Identity{
		"hybrid":  {person(t, "anna"), person(t, "boris")},
		"classic": {classic(t, "anna"), classic(t, "boris")},
	} {
		t.Run(name, func(t *testing.T) {
			anna, boris := pair[0], pair[1]
			l := seal(t, string(plain), anna, "c-17", boris.Person(), anna.Person())
			folder := t.TempDir()
			write := func(name string, data []byte) string {
				path := filepath.Join(folder, name)
				require.NoError(t, os.WriteFile(path, data, 0o600))
				return path
			}
			letter, signature := write("contract.age", l.document), write("contract.sig.age", l.signature)
			for _, i := range pair {
				identity := write("identity.txt", i.Export())
				opened := filepath.Join(folder, "contract")
				run(t, "", nil, tool, "--decrypt", "--identity", identity, "--output", opened, letter)
				got, err := os.ReadFile(opened)
				require.NoError(t, err)
				require.True(t, bytes.Equal(plain, got))

				text := run(t, "", nil, tool, "--decrypt", "--identity", identity, signature)
				_, err = document.Verify([]byte(text), anna.Person(), "c-17", bytes.NewReader(got))
				require.NoError(t, err)
			}

			// And the other way: what the tool encrypts for a card is no letter without a
			// signature, but the identity opens it.
			card := strings.TrimPrefix(strings.Split(boris.Person().String(), "\n")[3], "age ")
			byTool := filepath.Join(folder, "by-tool.age")
			run(t, "", nil, tool, "--encrypt", "--recipient", card, "--output", byTool, write("note.txt", []byte("note")))
			file, err := os.ReadFile(byTool)
			require.NoError(t, err)
			require.Equal(t, "note", string(decryptWithAge(t, file, boris)))
		})
	}
}
