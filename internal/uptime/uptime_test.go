package uptime_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/internal/uptime"
)

func TestMove(t *testing.T) {
	before := uptime.Now()
	require.Nil(t, uptime.Moved())
	restore := uptime.Move(func() time.Duration { return time.Hour })
	require.Equal(t, time.Hour, uptime.Now())
	restore()
	require.Nil(t, uptime.Moved())
	require.GreaterOrEqual(t, uptime.Now(), before)
}
