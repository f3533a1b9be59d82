package quota_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/internal/sqldb/sqldbtest"
	"github.com/crmguard/crmguard/quota"
	"github.com/crmguard/crmguard/quota/quotasql"
)

// fault is one mistake that the model can be told to make, to show that the
// comparison finds it.
type fault string

const (
	noFault       fault = ""
	halfBatches   fault = "takes of a batch what there is room for"
	countsAgain   fault = "counts what was seen"
	refusesSeen   fault = "refuses what was seen when the norm is full"
	oneMore       fault = "lets one more through"
	keepsDays     fault = "does not begin anew"
	followsClock  fault = "goes back with the clock"
	ownDay        fault = "goes back with the clock for who was away"
	inUTC         fault = "counts days in UTC"
	tellsAgain    fault = "tells twice"
	tellsEarly    fault = "tells when the norm is reached"
	freeAttempts  fault = "does not count refusals"
	freeElsewhere fault = "does not count refusals by other checks"
	askTakes      fault = "takes what was only asked for"
	viewOnly      fault = "counts reveals as cards only"
	listIsCard    fault = "counts lists as cards"
	refundsAll    fault = "gives back what was seen before"
	refundsOpened fault = "gives back what another act has opened"
)

// model is a list of everything that was taken, searched from end to end.
type model struct {
	fault fault
	taken []*modelItem
	days  map[string]quota.Day // of the tenants
	told  []modelAlert
	tries []modelTry
}

type modelItem struct {
	tenant, person, counter, item string
	day                           quota.Day
	act                           int // that may give it back; 0: none
}

type modelTry struct {
	tenant, person string
	day            quota.Day
}

type modelAlert struct {
	tenant, person, counter string
	day                     quota.Day
	level                   quota.Level
}

var modelNorms = []quota.Norm{
	{Action: crmguard.View, Kind: "contacts", Soft: 2, Hard: 4},
	{Action: crmguard.Reveal, Kind: "contacts", Hard: 2},
	{Action: crmguard.List, Kind: "contacts", Soft: 5, Hard: 6},
	{Of: quota.Attempts, Soft: 1, Hard: 3},
}

func (m *model) normsOf(a crmguard.Action) []quota.Norm {
	view, reveal, list := modelNorms[0], modelNorms[1], modelNorms[2]
	switch {
	case a == crmguard.View || a == crmguard.Reveal && m.fault == viewOnly:
		return []quota.Norm{view}
	case a == crmguard.Reveal:
		return []quota.Norm{view, reveal}
	case m.fault == listIsCard:
		return []quota.Norm{view}
	}
	return []quota.Norm{list}
}

// turn returns the day in which something is counted, which is the tenant's now.
func (m *model) turn(tenant, person string, now time.Time, loc *time.Location) quota.Day {
	day, key := m.today(tenant, person, now, loc)
	m.days[key] = day
	if m.fault == keepsDays {
		return 0
	}
	return day
}

// today returns the day that turn would, and whose it is.
func (m *model) today(tenant, person string, now time.Time, loc *time.Location) (quota.Day, string) {
	if m.fault == inUTC {
		loc = time.UTC
	}
	y, month, d := now.In(loc).Date()
	day := quota.Day(time.Date(y, month, d, 0, 0, 0, 0, time.UTC).Unix() / 86400)
	key := tenant
	if m.fault == ownDay {
		key += "/" + person
	}
	if last, ok := m.days[key]; ok && m.fault != followsClock {
		day = max(day, last)
	}
	return day, key
}

func (m *model) find(tenant, person, counter, item string, day quota.Day) *modelItem {
	for _, i := range m.taken {
		if i.tenant == tenant && i.person == person && i.counter == counter && i.item == item && i.day == day {
			return i
		}
	}
	return nil
}

func (m *model) count(tenant, person, counter string, day quota.Day) (n int) {
	for _, i := range m.taken {
		if i.tenant == tenant && i.person == person && i.counter == counter && i.day == day {
			n++
		}
	}
	return n
}

func (m *model) attempts(try modelTry) (n int) {
	for _, t := range m.tries {
		if t == try {
			n++
		}
	}
	return n
}

func (m *model) tell(a modelAlert) {
	if !slices.Contains(m.told, a) || m.fault == tellsAgain {
		m.told = append(m.told, a)
	}
}

func (m *model) past(count, norm int) bool {
	if m.fault == tellsEarly {
		return count >= norm
	}
	return count > norm
}

func (m *model) refuse(try modelTry) {
	if m.fault != freeAttempts {
		m.tries = append(m.tries, try)
	}
	n := m.attempts(try)
	if m.past(n, modelNorms[3].Soft) {
		m.tell(modelAlert{try.tenant, try.person, quota.AttemptsCounter, try.day, quota.Soft})
	}
	if m.past(n, modelNorms[3].Hard) {
		m.tell(modelAlert{try.tenant, try.person, quota.AttemptsCounter, try.day, quota.Hard})
	}
}

// refuseElsewhere is what another check does.
func (m *model) refuseElsewhere(tenant, person string, now time.Time, loc *time.Location) {
	try := modelTry{tenant, person, m.turn(tenant, person, now, loc)}
	if m.fault != freeElsewhere {
		m.refuse(try)
	}
}

// open returns the code of the refusal, or "".
func (m *model) open(tenant, person string, a crmguard.Action, items []string, act int, ask bool, now time.Time, loc *time.Location) string {
	day := m.turn(tenant, person, now, loc)
	fresh := map[string][]string{}
	anything := false
	for _, n := range m.normsOf(a) {
		for _, item := range items {
			if (m.find(tenant, person, n.Counter(), item, day) == nil || m.fault == countsAgain) && !slices.Contains(fresh[n.Counter()], item) {
				fresh[n.Counter()] = append(fresh[n.Counter()], item)
				anything = true
			}
		}
	}
	code := ""
	if tries := m.attempts(modelTry{tenant, person, day}); anything && tries >= modelNorms[3].Hard {
		code = quota.CodeAttempts
	}
	for _, n := range m.normsOf(a) {
		hard := n.Hard
		if m.fault == oneMore {
			hard++
		}
		full := m.count(tenant, person, n.Counter(), day)+len(fresh[n.Counter()]) > hard
		if m.fault == refusesSeen && m.count(tenant, person, n.Counter(), day) == hard {
			full = true
		} else if len(fresh[n.Counter()]) == 0 {
			full = false
		}
		if code == "" && full {
			code = quota.CodeNorm
			m.tell(modelAlert{tenant, person, n.Counter(), day, quota.Hard})
			if m.fault == halfBatches && len(fresh[n.Counter()]) > 1 {
				m.taken = append(m.taken, &modelItem{tenant, person, n.Counter(), fresh[n.Counter()][0], day, act})
			}
		}
	}
	if code != "" {
		m.refuse(modelTry{tenant, person, day})
		return code
	}
	if ask && m.fault != askTakes {
		return ""
	}
	for _, n := range m.normsOf(a) {
		for _, item := range items {
			if i := m.find(tenant, person, n.Counter(), item, day); i != nil && i.act != act && m.fault != refundsOpened {
				i.act = 0
			}
		}
		for _, item := range fresh[n.Counter()] {
			m.taken = append(m.taken, &modelItem{tenant, person, n.Counter(), item, day, act})
		}
		if len(fresh[n.Counter()]) > 0 && n.Soft > 0 && m.past(m.count(tenant, person, n.Counter(), day), n.Soft) {
			m.tell(modelAlert{tenant, person, n.Counter(), day, quota.Soft})
		}
	}
	return ""
}

func (m *model) refund(tenant, person string, act int, items []string) {
	day := m.days[tenant]
	m.taken = slices.DeleteFunc(m.taken, func(i *modelItem) bool {
		if i.tenant != tenant || i.person != person || i.day != day && m.fault != keepsDays {
			return false
		}
		return i.act == act || m.fault == refundsAll && slices.Contains(items, i.item)
	})
}

// play does random things with a Quota and the model, and returns the first
// difference.
func play(r *rapid.T, store quota.Store, f fault) error {
	d := newDesk(r, store, modelNorms...)
	m := &model{fault: f, days: map[string]quota.Day{}}
	zones := []string{"UTC", "Pacific/Kiritimati", "America/Los_Angeles"}
	subjects := []crmguard.Subject{anna(), {Tenant: "acme", ID: "boris", Kind: crmguard.KindEmployee}, {Tenant: "other", ID: "anna", Kind: crmguard.KindEmployee}}
	item := rapid.SampledFrom(clients(0, 9))
	act := 0
	for step := range rapid.IntRange(1, 40).Draw(r, "steps") {
		switch rapid.IntRange(0, 9).Draw(r, "turn") {
		case 0:
			d.clock.set(d.clock.now().Add(time.Duration(rapid.IntRange(-60, 60).Draw(r, "hours")) * time.Hour))
		case 1:
			d.zone = location(r, rapid.SampledFrom(zones).Draw(r, "zone"))
		}
		s := rapid.SampledFrom(subjects).Draw(r, "subject")
		a := rapid.SampledFrom([]crmguard.Action{crmguard.View, crmguard.Reveal, crmguard.List}).Draw(r, "action")
		items := rapid.SliceOfN(item, 1, 4).Draw(r, "items")
		other := rapid.SliceOfN(item, 1, 2).Draw(r, "other")
		ctx := on(r, s, a, "contacts")
		var err error
		want := ""
		act++
		switch rapid.IntRange(0, 5).Draw(r, "how") {
		case 0: // given back, unless opened meanwhile by another act
			err = d.OpenOrRefund(ctx, func(inner context.Context) (bool, error) {
				err := d.OnOpen(inner, s.Tenant, items)
				_ = d.OnOpen(ctx, s.Tenant, other) // compared by what it leaves
				return false, err
			})
			want = m.open(s.Tenant, s.ID, a, items, act, false, d.clock.now(), d.zone)
			_ = m.open(s.Tenant, s.ID, a, other, 0, false, d.clock.now(), d.zone)
			if want == "" {
				m.refund(s.Tenant, s.ID, act, items)
			}
		case 1:
			err = d.Check(ctx, s, a, crmguard.Resource{Tenant: s.Tenant, Kind: "contacts", ID: items[0]})
			if a != crmguard.List {
				want = m.open(s.Tenant, s.ID, a, items[:1], 0, true, d.clock.now(), d.zone)
			}
		case 2:
			err = d.CountRefusal(ctx, s)
			m.refuseElsewhere(s.Tenant, s.ID, d.clock.now(), d.zone)
		default:
			err = d.OnOpen(ctx, s.Tenant, items)
			want = m.open(s.Tenant, s.ID, a, items, 0, false, d.clock.now(), d.zone)
		}
		got := ""
		if denial, ok := errors.AsType[*crmguard.Denial](err); ok {
			got = denial.Code
		} else if err != nil {
			return err
		}
		if got != want {
			return fmt.Errorf("step %d: %s %s %v: %q, want %q", step, s.ID, a, items, got, want)
		}
		if err := compare(r, d, m, s); err != nil {
			return fmt.Errorf("step %d: %w", step, err)
		}
	}
	return nil
}

// compare looks at the counters of a person and at all alerts.
func compare(r *rapid.T, d *desk, m *model, s crmguard.Subject) error {
	u, err := d.Usage(r.Context(), s.Tenant, s.ID)
	if err != nil {
		return err
	}
	day, _ := m.today(s.Tenant, s.ID, d.clock.now(), d.zone)
	if u.Day != day {
		return fmt.Errorf("day %v, want %v", u.Day, day)
	}
	if m.fault == keepsDays {
		day = 0
	}
	for i, n := range modelNorms {
		want := m.count(s.Tenant, s.ID, n.Counter(), day)
		if n.Of == quota.Attempts {
			want = m.attempts(modelTry{s.Tenant, s.ID, day})
		}
		if u.Norms[i].Count != want {
			return fmt.Errorf("%s: %d, want %d", n.Counter(), u.Norms[i].Count, want)
		}
	}
	got, want := map[modelAlert]int{}, map[modelAlert]int{}
	for _, a := range d.alerts {
		day := a.Day
		if m.fault == keepsDays {
			day = 0
		}
		got[modelAlert{a.Subject.Tenant, a.Person, a.Norm.Counter(), day, a.Level}]++
	}
	for _, a := range m.told {
		want[a]++
	}
	if !maps.Equal(got, want) {
		return fmt.Errorf("alerts %v, want %v", got, want)
	}
	return nil
}

func TestModel(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) { require.NoError(r, play(r, quota.NewMemory(), noFault)) })
}

// Each fault in the model is found within some hundred plays.
func TestModelFindsFaults(t *testing.T) {
	for _, f := range []fault{
		halfBatches, countsAgain, refusesSeen, oneMore, keepsDays, followsClock, ownDay, inUTC, tellsAgain, tellsEarly,
		freeAttempts, freeElsewhere, askTakes, viewOnly, listIsCard, refundsAll, refundsOpened,
	} {
		t.Run(string(f), func(t *testing.T) {
			random := rapid.Custom(func(r *rapid.T) bool { return play(r, quota.NewMemory(), f) != nil })
			for seed := range 3000 {
				if random.Example(seed) {
					return
				}
			}
			t.Fatal("not found")
		})
	}
}

// The same plays on databases, fewer because each is made for one.
func TestModelOnDatabases(t *testing.T) {
	sqldbtest.Each(t, func(t *testing.T, db *sql.DB) {
		for seed := range 20 {
			store, err := quotasql.New(t.Context(), db, &quotasql.Options{TablePrefix: fmt.Sprintf("play%d_", seed)})
			require.NoError(t, err)
			require.NoError(t, rapid.Custom(func(r *rapid.T) error { return play(r, store, noFault) }).Example(seed))
		}
	})
}

// A set of items against a map.
func TestItemSet(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		s, want := quota.NewItemSet(), map[string]int64{}
		for range rapid.IntRange(0, 200).Draw(r, "steps") {
			item := rapid.StringMatching(`[a-c]{0,4}`).Draw(r, "item")
			holder := rapid.Int64Range(0, 2).Draw(r, "holder")
			switch rapid.IntRange(0, 30).Draw(r, "turn") {
			case 0:
				removed := s.Remove(holder)
				before := len(want)
				maps.DeleteFunc(want, func(_ string, h int64) bool { return h == holder })
				require.Equal(r, before-len(want), removed)
			case 1:
				s.Empty()
				clear(want)
			default:
				_, there := want[item]
				require.Equal(r, !there, s.Add(item, holder))
				if !there {
					want[item] = holder
				}
			}
			require.Equal(r, want, s.All())
		}
	})
}
