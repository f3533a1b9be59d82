package signin

import (
	"math"
	"time"
)

// SetRefusalTime makes tests of refusals quick.
func (d *Door) SetRefusalTime(t time.Duration) { d.refusalTime = t }

// CountNoCodes is the planted fault of a door that leaves counting to Factors.
func (d *Door) CountNoCodes() { d.codes = uncounted() }

// CountCodesOfNoNetwork is the planted fault of a door where strangers are one.
func (d *Door) CountCodesOfNoNetwork() { d.codesAt = uncounted() }

func uncounted() *pauses { return newPauses(math.MaxInt32, firstPause, longestPause) }
