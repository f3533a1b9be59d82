package encrypt

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// However long it rested, the clock never lags by more than it says; and it rests
// when nobody asks.
func TestCoarseClock(t *testing.T) {
	c := &coarseClock{}
	for _, rest := range []time.Duration{0, coarse / 3, coarse, 4 * coarse} {
		time.Sleep(rest)
		before := c.exact()
		now := c.now()
		require.LessOrEqual(t, now, c.exact())
		require.Greater(t, now, before-int64(slack), "after %v", rest)
	}
	require.Eventually(t, func() bool { return c.time.Load() == 0 }, 10*time.Second, coarse/4, "no timer runs for an idle clock")
	last := c.now()
	require.Eventually(t, func() bool { return c.now() > last }, 10*time.Second, time.Millisecond)
}
