package quota

import "time"

// DayOf lets tests look at dates.
func DayOf(at time.Time, loc *time.Location) Day { return dayOf(at, loc) }

// End lets tests look at the ends of days.
func (d Day) End(from time.Time, loc *time.Location) time.Time { return d.end(from, loc) }
