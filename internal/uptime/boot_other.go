//go:build !linux

package uptime

import "time"

var began = time.Now()

func sinceBoot() time.Duration { return time.Since(began) }
