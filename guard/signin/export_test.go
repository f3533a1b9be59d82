package signin

import (
	"math"
	"time"
)

// SetRefusalTime makes tests of refusals quick.
func (d *Door) SetRefusalTime(t time.Duration) { d.refusalTime = t }

// CountNoCodes is the planted fault of a door that leaves counting to Factors.
func (d *Door) CountNoCodes() { d.codes = newPauses(math.MaxInt32, longestPauseOfCodes) }
