package rbac

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/internal/uptime"
)

// The clock of decisions goes as the uptime does, and learns of a suspension when it is
// told to look.
func TestTheQuickClockNoticesSuspensions(t *testing.T) {
	c := quickClock{began: time.Now()}
	c.notice()
	before, now, after := uptime.Now(), c.now(), uptime.Now()
	require.InDelta(t, before.Seconds(), now.Seconds(), (after-before).Seconds()+1)

	asleep := uptime.Now() + 8*time.Hour
	restore := uptime.Move(func() time.Duration { return asleep })
	require.Equal(t, asleep, c.now(), "a test's clock is asked itself")
	restore()
	require.Less(t, c.now(), asleep, "planted fault: nobody has looked")
	restore = uptime.Move(func() time.Duration { return asleep })
	c.notice()
	restore()
	require.GreaterOrEqual(t, c.now(), asleep)
}
