package uptime_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/crmguard/crmguard/internal/uptime"
)

// Of all clocks of Linux only this one counts the time of a suspension, and is not set.
func TestTheClockCountsSuspensions(t *testing.T) {
	boot := func() time.Duration {
		var ts unix.Timespec
		require.NoError(t, unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts))
		return time.Duration(ts.Nano())
	}
	lower := boot()
	offset := uptime.Now()
	upper := boot()
	for range 3 {
		before := boot()
		now := uptime.Now()
		after := boot()
		require.GreaterOrEqual(t, now-offset, before-upper)
		require.LessOrEqual(t, now-offset, after-lower)
	}
}
