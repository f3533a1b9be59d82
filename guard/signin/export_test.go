package signin

import "time"

// SetRefusalTime makes tests of refusals quick.
func (d *Door) SetRefusalTime(t time.Duration) { d.refusalTime = t }
