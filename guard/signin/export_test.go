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

// CountNoOffices is the planted fault of a door that counts only for each login
// where it came in before.
func (d *Door) CountNoOffices() { d.offices = uncounted() }

func uncounted() *pauses { return newPauses(math.MaxInt32, firstPause, longestPause) }
