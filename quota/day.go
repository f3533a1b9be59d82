package quota

import (
	"context"
	"errors"
	"fmt"
	"time"
	_ "time/tzdata" // zones are the same on every machine
)

// Zone says where a tenant is. For a tenant that it does not know it returns an
// error, and nothing is opened.
type Zone func(ctx context.Context, tenant string) (*time.Location, error)

// OneZone is the zone of hosts whose tenants are all in one, such as
// "Europe/Moscow". The names are those of the IANA database, which is built in.
func OneZone(name string) (Zone, error) {
	if name == "" || name == "Local" {
		return nil, errors.New("quota: a zone needs a name such as Europe/Moscow")
	}
	loc, err := time.LoadLocation(name)
	if err != nil {
		return nil, fmt.Errorf("quota: zone: %w", err)
	}
	return func(context.Context, string) (*time.Location, error) { return loc, nil }, nil
}

// Day is a date: the number of days since 1970-01-01.
type Day int32

const secondsOfDay = 24 * 60 * 60

// dayOf returns the date of a moment in a zone.
func dayOf(at time.Time, loc *time.Location) Day {
	_, offset := at.In(loc).Zone()
	seconds := at.Unix() + int64(offset)
	day := seconds / secondsOfDay
	if seconds%secondsOfDay < 0 {
		day--
	}
	return Day(day) //nolint:gosec // the years of time.Time that have a date fit
}

// String returns the date as in RFC 3339.
func (d Day) String() string { return time.Unix(int64(d)*secondsOfDay, 0).UTC().Format(time.DateOnly) }

// end returns the first moment, not before from, whose date in the zone is later
// than d. That is midnight, or what comes instead where clocks leave it out.
func (d Day) end(from time.Time, loc *time.Location) time.Time {
	next := (int64(d) + 1) * secondsOfDay // midnight on a clock that shows UTC
	for at := from.In(loc); ; {
		_, offset := at.Zone()
		midnight := time.Unix(next-int64(offset), 0).In(loc)
		if !midnight.After(at) {
			return at
		}
		_, change := at.ZoneBounds()
		if change.IsZero() || midnight.Before(change) {
			return midnight
		}
		at = change
	}
}
