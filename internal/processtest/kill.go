package processtest

import (
	"bufio"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// RoundsVariable is the environment variable that says how long tests like [Kill] go
// on.
const RoundsVariable = "CRMGUARD_TEST_ROUNDS"

// Rounds is how often a test repeats what may go wrong now and then: 20 times unless
// [RoundsVariable] says otherwise, as make fuzz does.
func Rounds() int {
	if n, err := strconv.Atoi(os.Getenv(RoundsVariable)); err == nil && n > 0 {
		return n
	}
	return 20
}

// Long reports whether [RoundsVariable] is set: what takes a second each time is then
// repeated as often, too.
func Long() bool { return os.Getenv(RoundsVariable) != "" }

// Kill starts [Rounds] processes, one after the other, for a task that never ends by itself, kills each some time
// after its first line, at most the longest, and returns all lines that they wrote.
// A line counts when it is whole: a process writes each with one call.
func Kill(t *testing.T, longest time.Duration, task string, args ...string) []string {
	t.Helper()
	var lines []string
	for range Rounds() {
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
