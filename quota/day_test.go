package quota_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/quota"
)

// Days that are not 24 hours, found by opening a card as each begins and ends.
func TestDaysOfTheTenant(t *testing.T) {
	for _, tc := range []struct {
		name, zone, date string
		begins, ends     string // RFC 3339
	}{
		{"ordinary", "Europe/Moscow", "2026-03-02", "2026-03-02T00:00:00+03:00", "2026-03-03T00:00:00+03:00"},
		{"far east", "Pacific/Kiritimati", "2026-03-02", "2026-03-01T10:00:00Z", "2026-03-02T10:00:00Z"},
		{"far west", "Pacific/Pago_Pago", "2026-03-02", "2026-03-02T11:00:00Z", "2026-03-03T11:00:00Z"},
		{"quarter hours", "Asia/Kathmandu", "2026-03-02", "2026-03-01T18:15:00Z", "2026-03-02T18:15:00Z"},
		{"23 hours", "Europe/Berlin", "2026-03-29", "2026-03-29T00:00:00+01:00", "2026-03-30T00:00:00+02:00"},
		{"25 hours", "Europe/Berlin", "2026-10-25", "2026-10-25T00:00:00+02:00", "2026-10-26T00:00:00+01:00"},
		{"half an hour more", "Australia/Lord_Howe", "2026-04-05", "2026-04-05T00:00:00+11:00", "2026-04-06T00:00:00+10:30"},
		{"begins at one", "America/Sao_Paulo", "2018-11-04", "2018-11-04T01:00:00-02:00", "2018-11-05T00:00:00-02:00"},
		{"ends at midnight that is left out", "America/Sao_Paulo", "2018-11-03", "2018-11-03T00:00:00-03:00", "2018-11-04T01:00:00-02:00"},
		{"begins at one", "Asia/Beirut", "2022-03-27", "2022-03-27T01:00:00+03:00", "2022-03-28T00:00:00+03:00"},
		{"23 o'clock comes twice", "America/Sao_Paulo", "2018-02-17", "2018-02-17T00:00:00-02:00", "2018-02-18T00:00:00-03:00"},
		{"before a date that is left out", "Pacific/Apia", "2011-12-29", "2011-12-29T00:00:00-10:00", "2011-12-31T00:00:00+14:00"},
		{"after it", "Pacific/Apia", "2011-12-31", "2011-12-31T00:00:00+14:00", "2012-01-01T00:00:00+14:00"},
		{"a minute into the next day and back", "America/St_Johns", "2010-11-06", "2010-11-06T00:00:00-02:30", "2010-11-07T00:00:00-02:30"},
		{"the day that begins twice", "America/St_Johns", "2010-11-07", "2010-11-07T00:00:00-02:30", "2010-11-08T00:00:00-03:30"},
		{"before 1970", "Europe/Berlin", "1969-07-20", "1969-07-20T00:00:00+01:00", "1969-07-21T00:00:00+01:00"},
	} {
		t.Run(tc.name+" "+tc.zone, func(t *testing.T) {
			at := func(text string) time.Time {
				at, err := time.Parse(time.RFC3339, text)
				require.NoError(t, err)
				return at
			}
			begins, ends := at(tc.begins), at(tc.ends)
			d := newDesk(t, quota.NewMemory(), quota.Norm{Action: crmguard.View, Kind: "contacts", Hard: 1})
			d.zone = location(t, tc.zone)
			ctx := as(t, anna(), crmguard.View)
			d.clock.set(begins.Add(-time.Nanosecond))
			require.NoError(t, d.open(ctx, "the day before"))
			d.clock.set(begins)
			require.NoError(t, d.open(ctx, "c1"))
			for step := time.Duration(0); begins.Add(step).Before(ends); step += 7 * time.Minute {
				d.clock.set(begins.Add(step))
				denial := denialOf(t, d.open(ctx, "c2"), quota.CodeNorm)
				require.Equal(t, ends.Sub(d.clock.now()), denial.RetryAfter, "%v", d.clock.now())
			}
			d.clock.set(ends.Add(-time.Second))
			u, err := d.Usage(t.Context(), "acme", "anna")
			require.NoError(t, err)
			require.Equal(t, tc.date, u.Day.String())
			require.True(t, u.Ends.Equal(ends))
			d.clock.set(ends)
			require.NoError(t, d.open(ctx, "c2"))
		})
	}
}

// Each turn of the clock or the zone that could open a second norm does not.
func TestDayNeverGoesBackwards(t *testing.T) {
	noon := time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)
	type step struct {
		zone   string
		after  time.Duration // since noon
		opens  int           // new cards until refused
		retry  time.Duration
		person string
	}
	for name, steps := range map[string][]step{
		"clock set back": {
			{"UTC", 0, 5, 12 * time.Hour, "anna"},
			{"UTC", -24 * time.Hour, 0, 36 * time.Hour, "anna"},
			{"UTC", -400 * 24 * time.Hour, 0, 400*24*time.Hour + 12*time.Hour, "anna"},
			{"UTC", 13 * time.Hour, 5, 23 * time.Hour, "anna"},
			{"UTC", 11 * time.Hour, 0, 25 * time.Hour, "anna"},
			{"UTC", 14 * time.Hour, 0, 22 * time.Hour, "anna"},
		},
		"clock set back to a day when somebody else was away": {
			{"UTC", -72 * time.Hour, 5, 12 * time.Hour, "anna"},
			{"UTC", 0, 5, 12 * time.Hour, "boris"},
			{"UTC", -72 * time.Hour, 5, 84 * time.Hour, "anna"}, // of today, not three days ago
			{"UTC", 0, 0, 12 * time.Hour, "anna"},
		},
		"moved west": {
			{"Asia/Tokyo", 6 * time.Hour, 5, 21 * time.Hour, "anna"}, // 3 March, 03:00
			{"America/Los_Angeles", 6 * time.Hour, 0, 38 * time.Hour, "anna"},
			{"America/Los_Angeles", 21 * time.Hour, 0, 23 * time.Hour, "anna"}, // 3 March there, too
			{"America/Los_Angeles", 44 * time.Hour, 5, 24 * time.Hour, "anna"},
		},
		"moved to and fro: one day begins early, no second one": {
			{"America/Los_Angeles", 6 * time.Hour, 5, 14 * time.Hour, "anna"},
			{"Asia/Tokyo", 6 * time.Hour, 5, 21 * time.Hour, "anna"},
			{"America/Los_Angeles", 7 * time.Hour, 0, 37 * time.Hour, "anna"},
			{"Asia/Tokyo", 8 * time.Hour, 0, 19 * time.Hour, "anna"},
			{"America/Los_Angeles", 22 * time.Hour, 0, 22 * time.Hour, "anna"},
		},
		"an hour that comes twice, over midnight": {
			{"America/St_Johns", time.Date(2010, 11, 7, 2, 30, 30, 0, time.UTC).Sub(noon), 5, 25*time.Hour - 30*time.Second, "anna"}, // 00:00:30
			{"America/St_Johns", time.Date(2010, 11, 7, 2, 31, 0, 0, time.UTC).Sub(noon), 0, 25*time.Hour - time.Minute, "anna"},     // 23:01 again
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDesk(t, quota.NewMemory(), cardNorm)
			card := 0
			for i, s := range steps {
				d.zone = location(t, s.zone)
				d.clock.set(noon.Add(s.after))
				who := anna()
				who.ID = s.person
				opened := 0
				for {
					card++
					err := d.open(as(t, who, crmguard.View), clients(card, 1)...)
					if err != nil {
						require.Equal(t, s.retry, denialOf(t, err, quota.CodeNorm).RetryAfter, "step %d", i)
						break
					}
					opened++
				}
				require.Equal(t, s.opens, opened, "step %d", i)
			}
		})
	}
}

// FuzzDayEnds compares with looking at the date minute by minute.
func FuzzDayEnds(f *testing.F) {
	zones := []string{"UTC", "Europe/Moscow", "America/Sao_Paulo", "America/St_Johns", "Pacific/Apia", "Africa/Cairo", "Asia/Beirut", "Australia/Lord_Howe"}
	f.Add(uint8(2), int64(1541300400-1))
	f.Add(uint8(3), int64(1289097000))
	f.Add(uint8(4), int64(1325239200-1))
	f.Fuzz(func(t *testing.T, zone uint8, seconds int64) {
		const from, to = -2_000_000_000, 4_000_000_000 // years 1906 to 2096
		if seconds < from || seconds > to {
			return
		}
		loc := location(t, zones[int(zone)%len(zones)])
		now := time.Unix(seconds, 0)
		day := quota.DayOf(now, loc)
		require.Equal(t, now.In(loc).Format(time.DateOnly), day.String())
		want := now.Truncate(time.Second)
		for quota.DayOf(want.Add(time.Minute), loc) <= day {
			want = want.Add(time.Minute)
		}
		for quota.DayOf(want, loc) <= day {
			want = want.Add(time.Second)
		}
		require.True(t, day.End(now, loc).Equal(want), "%v ends %v, want %v", now.In(loc), day.End(now, loc), want.In(loc))
	})
}
