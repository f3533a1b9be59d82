// Package uptime tells how long the process has been running: time that nobody's
// setting of the clock moves, for leases and waits that security rests on. On Linux it
// counts the time that the machine was suspended; elsewhere it may stand still then.
package uptime

import (
	"sync/atomic"
	"time"
)

var (
	start = sinceBoot()
	moved atomic.Pointer[func() time.Duration]
)

// Now is the time since the process began, or what a test says.
func Now() time.Duration {
	if now := Moved(); now != nil {
		return now()
	}
	return sinceBoot() - start
}

// Moved returns the clock of the test that runs, nil for none.
func Moved() func() time.Duration {
	if now := moved.Load(); now != nil {
		return *now
	}
	return nil
}

// Move puts the whole process under a test's clock until restore is called. Only
// tests do so; they cannot run beside each other then.
func Move(now func() time.Duration) (restore func()) {
	before := moved.Swap(&now)
	return func() { moved.Store(before) }
}
