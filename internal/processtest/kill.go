package processtest

import (
	"bufio"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// kills is how many processes [Kill] starts, one after the other.
const kills = 20

// Kill starts processes for a task that never ends by itself, kills each some time
// after its first line, at most the longest, and returns all lines that they wrote.
// A line counts when it is whole: a process writes each with one call.
func Kill(t *testing.T, longest time.Duration, task string, args ...string) []string {
	t.Helper()
	var lines []string
	for range kills {
		cmd := Command(t, task, args...)
		var stderr strings.Builder
		cmd.Stderr = &stderr
		out, err := cmd.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, cmd.Start())
		after := rand.N(longest) //nolint:gosec // any moment will do
		first := true
		for scanner := bufio.NewScanner(out); scanner.Scan(); {
			lines = append(lines, scanner.Text())
			if first {
				time.AfterFunc(after, func() { _ = cmd.Process.Kill() })
				first = false
			}
		}
		require.Error(t, cmd.Wait(), "it ends only because it is killed")
		require.Empty(t, stderr.String())
	}
	require.NotEmpty(t, lines)
	return lines
}
