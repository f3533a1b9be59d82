package quota_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/quota"
)

// The fifty-first card.
func TestCardPastTheNormIsRefused(t *testing.T) {
	norm := quota.Norm{Action: crmguard.View, Kind: "contacts", Soft: 40, Hard: 50}
	d := newDesk(t, quota.NewMemory(), norm)
	ctx := as(t, anna(), crmguard.View)
	for _, client := range clients(0, 50) {
		require.NoError(t, d.open(ctx, client))
	}
	denial := denialOf(t, d.open(ctx, "c50"), quota.CodeNorm)
	require.Equal(t, 12*time.Hour, denial.RetryAfter)
	require.Contains(t, denial.Detail, "records view contacts")
	require.Equal(t, []quota.Alert{
		{Norm: norm, Level: quota.Soft, Person: "anna", Subject: anna(), Count: 41, Day: d.alerts[0].Day, Time: d.clock.now()},
		{Norm: norm, Level: quota.Hard, Person: "anna", Subject: anna(), Count: 51, Day: d.alerts[0].Day, Time: d.clock.now()},
	}, d.alerts)
	require.Equal(t, "2026-03-02", d.alerts[0].Day.String())

	for _, client := range clients(0, 50) {
		require.NoError(t, d.open(ctx, client), "what was seen today stays open")
	}
	mustDeny(t, d.open(ctx, "c51"), quota.CodeNorm)
	require.Len(t, d.alerts, 2, "once a day")

	u, err := d.Usage(t.Context(), "acme", "anna")
	require.NoError(t, err)
	require.Equal(t, quota.Usage{
		Day: d.alerts[0].Day, Ends: time.Date(2026, 3, 3, 0, 0, 0, 0, d.zone), Refused: 2,
		Norms: []quota.NormUsage{{Norm: norm, Count: 50, Passed: quota.Soft | quota.Hard}},
	}, u)

	d.clock.set(u.Ends)
	require.NoError(t, d.open(ctx, "c50"))
	require.Equal(t, 1, d.count(t, "anna", 0))
	require.NoError(t, d.open(ctx, clients(0, 41)...))
	require.Len(t, d.alerts, 3, "a new day tells anew")
}

func TestBatchIsOpenedWholeOrNotAtAll(t *testing.T) {
	d := newDesk(t, quota.NewMemory(), cardNorm)
	ctx := as(t, anna(), crmguard.View)
	given := []string{"c2", "c1", "c2", "c1"}
	require.NoError(t, d.open(ctx, given...))
	require.Equal(t, []string{"c2", "c1", "c2", "c1"}, given, "the caller's slice is the caller's")
	require.Equal(t, 2, d.count(t, "anna", 0))
	mustDeny(t, d.open(ctx, clients(0, 6)...), quota.CodeNorm)
	require.Equal(t, 2, d.count(t, "anna", 0))
	require.NoError(t, d.open(ctx, clients(0, 5)...))
	require.NoError(t, d.open(ctx))
}

// Which norms count what: one client is opened by each act.
func TestActChoosesTheNorms(t *testing.T) {
	norms := []quota.Norm{
		{Action: crmguard.View, Kind: "contacts", Hard: 9},
		{Action: crmguard.Reveal, Kind: "contacts", Hard: 9},
		{Action: crmguard.Call, Kind: "contacts", Hard: 9},
		{Action: crmguard.Export, Kind: "contacts", Hard: 9},
		{Action: crmguard.List, Kind: "contacts", Hard: 9},
		{Action: crmguard.View, Kind: "deals", Hard: 9},
	}
	const view, reveal, call, export, list, deals = 1 << 0, 1 << 1, 1 << 2, 1 << 3, 1 << 4, 1 << 5
	for _, tc := range []struct {
		action crmguard.Action
		kind   string
		want   int
	}{
		{crmguard.View, "contacts", view},
		{crmguard.View, "deals", deals},
		{crmguard.View, "section:journal", view | deals},
		{crmguard.Reveal, "contacts", view | reveal},
		{crmguard.Reveal, "deals", deals | reveal},
		{crmguard.Reveal, "section:journal", view | deals | reveal},
		{"", "contacts", view | reveal},
		{crmguard.Unmask, "contacts", view},
		{crmguard.Call, "contacts", view | call},
		{crmguard.Update, "contacts", view},
		{crmguard.Delete, "contacts", view},
		{crmguard.Export, "contacts", export},
		{crmguard.List, "contacts", list},
		{crmguard.List, "deals", list},
		{crmguard.Search, "contacts", 0},
		{crmguard.Create, "contacts", view},
		{crmguard.Import, "deals", deals},
		{crmguard.Access, "section:journal", view | deals},
		{"made-up", "contacts", view},
	} {
		t.Run(string(tc.action)+" "+tc.kind, func(t *testing.T) {
			d := newDesk(t, quota.NewMemory(), norms...)
			require.NoError(t, d.open(on(t, anna(), tc.action, tc.kind), "c1"))
			got := 0
			for i := range norms {
				got |= d.count(t, "anna", i) << i
			}
			require.Equal(t, tc.want, got, "%06b", got)
		})
	}
	t.Run("no act", func(t *testing.T) {
		d := newDesk(t, quota.NewMemory(), norms...)
		require.NoError(t, d.open(crmguard.WithSubject(t.Context(), anna()), "c1"))
		for i, want := range []int{1, 1, 0, 0, 0, 1} {
			require.Equal(t, want, d.count(t, "anna", i))
		}
	})
	t.Run("export without a norm of its own counts cards", func(t *testing.T) {
		d := newDesk(t, quota.NewMemory(), cardNorm)
		require.NoError(t, d.open(as(t, anna(), crmguard.Export), "c1"))
		require.Equal(t, 1, d.count(t, "anna", 0))
	})
}

func TestWhoIsCounted(t *testing.T) {
	d := newDesk(t, quota.NewMemory(), cardNorm)
	require.NoError(t, d.open(crmguard.System(t.Context(), "acme", "reindex"), clients(0, 1000)...))
	require.NoError(t, d.Check(t.Context(), crmguard.Subject{Tenant: "acme", ID: "system:x", Kind: crmguard.KindSystem}, crmguard.Search, crmguard.Resource{Tenant: "acme", Kind: "contacts"}))

	for name, ctx := range map[string]context.Context{
		"nobody":              t.Context(),
		"of another tenant":   as(t, crmguard.Subject{Tenant: "other", ID: "anna", Kind: crmguard.KindEmployee}, crmguard.View),
		"without kind":        as(t, crmguard.Subject{Tenant: "acme", ID: "anna"}, crmguard.View),
		"act of other tenant": crmguard.WithAct(as(t, anna(), crmguard.View), crmguard.View, crmguard.Resource{Tenant: "other", Kind: "contacts"}),
		"act of no tenant":    crmguard.WithAct(as(t, anna(), crmguard.View), crmguard.View, crmguard.Resource{Kind: "contacts"}),
		"job of other tenant": crmguard.System(t.Context(), "other", "reindex"),
	} {
		err := d.open(ctx, "c1")
		denial, ok := errors.AsType[*crmguard.Denial](err)
		require.True(t, ok, name)
		require.Equal(t, "crmguard", denial.By, name)
	}
	require.Error(t, d.OnOpen(as(t, anna(), crmguard.View), "", []string{"c1"}))
	require.Error(t, d.Check(t.Context(), anna(), crmguard.View, crmguard.Resource{Kind: "contacts", ID: "c1"}))
	for _, bad := range []string{"", string(make([]byte, 513))} {
		require.Error(t, d.open(as(t, anna(), crmguard.View), "c1", bad))
	}
	require.Zero(t, d.count(t, "anna", 0))

	lost := crmguard.Subject{Tenant: "nowhere", ID: "anna", Kind: crmguard.KindEmployee}
	require.ErrorContains(t, d.OnOpen(as(t, lost, crmguard.View), "nowhere", []string{"c1"}), "no such tenant")
	d.zone = nil
	require.ErrorContains(t, d.open(as(t, anna(), crmguard.View), "c1"), "no zone", "never UTC by default")
}

// Neither three integrations nor a deputy widen a person's norm, nor the persons
// for whom it acts an integration's.
func TestWhoActsForSomebodyCountsTwice(t *testing.T) {
	d := newDesk(t, quota.NewMemory(), cardNorm)
	bot := func(id, person string) crmguard.Subject {
		return crmguard.Subject{Tenant: "acme", ID: id, OnBehalfOf: person, Kind: crmguard.KindIntegration}
	}
	require.NoError(t, d.open(as(t, bot("bot1", "anna"), crmguard.View), clients(0, 3)...))
	require.NoError(t, d.open(as(t, bot("bot2", "anna"), crmguard.View), clients(3, 2)...))
	mustDeny(t, d.open(as(t, bot("bot3", "anna"), crmguard.View), "c9"), quota.CodeNorm)
	mustDeny(t, d.open(as(t, anna(), crmguard.View), "c9"), quota.CodeNorm)
	require.Zero(t, d.count(t, "bot3", 0), "what the other refused was given back")
	require.NoError(t, d.open(as(t, bot("bot3", "anna"), crmguard.View), "c0"))
	require.Equal(t, 5, d.count(t, "anna", 0))

	require.NoError(t, d.open(as(t, bot("bot1", "boris"), crmguard.View), clients(10, 2)...))
	mustDeny(t, d.open(as(t, bot("bot1", "clara"), crmguard.View), "c12"), quota.CodeNorm)
	require.Zero(t, d.count(t, "clara", 0))
	require.NoError(t, d.open(as(t, bot("bot1", "bot1"), crmguard.View), "c10"))
}

func TestCheckCountsQueriesAndAsks(t *testing.T) {
	d := newDesk(t, quota.NewMemory(), cardNorm,
		quota.Norm{Action: crmguard.Search, Kind: "contacts", Of: quota.Queries, Hard: 3},
		quota.Norm{Action: crmguard.Reveal, Kind: "contacts", Hard: 2})
	check := func(a crmguard.Action, kind, id string) error {
		return d.Check(t.Context(), anna(), a, crmguard.Resource{Tenant: "acme", Kind: kind, ID: id})
	}
	for range 3 {
		require.NoError(t, check(crmguard.Search, "contacts", ""))
	}
	mustDeny(t, check(crmguard.Search, "contacts", ""), quota.CodeNorm)
	mustDeny(t, check(crmguard.Search, "deals", ""), quota.CodeNorm)
	require.NoError(t, check(crmguard.List, "contacts", ""))
	require.Equal(t, 3, d.count(t, "anna", 1))

	for range 9 {
		require.NoError(t, check(crmguard.View, "contacts", "c0"))
	}
	require.Zero(t, d.count(t, "anna", 0), "asking takes nothing")
	require.NoError(t, d.open(as(t, anna(), crmguard.View), clients(0, 5)...))
	require.NoError(t, check(crmguard.View, "contacts", "c4"))
	require.NoError(t, check(crmguard.Call, "contacts", "c4"))
	require.NoError(t, check(crmguard.Reveal, "contacts", "c4"))
	require.Len(t, d.alerts, 2, "soft norm of cards, hard one of queries")
	mustDeny(t, check(crmguard.View, "contacts", "c5"), quota.CodeNorm)
	require.Len(t, d.alerts, 3, "who asks first, tells")
	mustDeny(t, d.open(as(t, anna(), crmguard.View), "c5"), quota.CodeNorm)
	require.Len(t, d.alerts, 3)

	for _, tc := range []struct {
		a        crmguard.Action
		kind, id string
	}{
		{crmguard.View, "contacts", ""}, {crmguard.View, "deals", "17"}, {crmguard.Create, "contacts", ""},
		{crmguard.Update, "contacts", "c9"}, {crmguard.Export, "contacts", ""}, {crmguard.Access, "section:staff", ""},
	} {
		require.NoError(t, check(tc.a, tc.kind, tc.id), "only OnOpen knows what %s %s opens", tc.a, tc.kind)
	}
	u, err := d.Usage(t.Context(), "acme", "anna")
	require.NoError(t, err)
	require.Equal(t, 4, u.Refused)
}

func TestAttempts(t *testing.T) {
	d := newDesk(t, quota.NewMemory(), cardNorm, quota.Norm{Action: crmguard.List, Kind: "contacts", Hard: 100},
		quota.Norm{Of: quota.Attempts, Soft: 1, Hard: 3})
	view, list := as(t, anna(), crmguard.View), as(t, anna(), crmguard.List)
	require.NoError(t, d.open(view, clients(0, 5)...))
	for range 3 {
		mustDeny(t, d.open(view, "c5"), quota.CodeNorm)
	}
	require.NoError(t, d.open(view, "c0"))
	denial := denialOf(t, d.open(list, "c5"), quota.CodeAttempts)
	require.Equal(t, 12*time.Hour, denial.RetryAfter)
	require.NoError(t, d.open(view, clients(0, 5)...), "what was seen stays open")
	require.Equal(t, 4, d.count(t, "anna", 2))
	var told []string
	for _, a := range d.alerts {
		told = append(told, a.Norm.Counter()+" "+a.Level.String())
	}
	require.Equal(t, []string{"records view contacts soft", "records view contacts hard", "attempts soft", "attempts hard"}, told)
}

// A seller who tries records of others is refused by rights, not by a norm, and is
// found out all the same.
func TestRefusalsByOtherChecksAreAttempts(t *testing.T) {
	d := newDesk(t, quota.NewMemory(), cardNorm, quota.Norm{Action: crmguard.Search, Kind: "contacts", Of: quota.Queries, Hard: 9},
		quota.Norm{Of: quota.Attempts, Soft: 1, Hard: 3})
	view := as(t, anna(), crmguard.View)
	require.NoError(t, d.open(view, "c0"))
	for range 3 {
		require.NoError(t, d.CountRefusal(t.Context(), anna()))
	}
	require.Len(t, d.alerts, 1, "the soft norm tells once")
	mustDeny(t, d.open(view, "c1"), quota.CodeAttempts)
	mustDeny(t, d.Check(t.Context(), anna(), crmguard.Search, crmguard.Resource{Tenant: "acme", Kind: "contacts"}), quota.CodeAttempts)
	require.NoError(t, d.CountRefusal(t.Context(), anna()), "it refuses nothing itself")
	require.NoError(t, d.open(view, "c0"), "what was seen stays open")
	norm := quota.Norm{Of: quota.Attempts, Soft: 1, Hard: 3}
	require.Equal(t, []quota.Alert{
		{Norm: norm, Level: quota.Soft, Person: "anna", Subject: anna(), Count: 2, Day: d.alerts[0].Day, Time: d.clock.now()},
		{Norm: norm, Level: quota.Hard, Person: "anna", Subject: anna(), Count: 4, Day: d.alerts[0].Day, Time: d.clock.now()},
	}, d.alerts)
	require.Equal(t, 1, d.count(t, "anna", 0))
	require.Equal(t, 6, d.count(t, "anna", 2))

	d.clock.set(d.clock.now().Add(24 * time.Hour))
	require.NoError(t, d.open(view, "c1"), "the next day begins anew")
	require.Zero(t, d.count(t, "anna", 2))
}

func TestWhoseRefusalItIs(t *testing.T) {
	d := newDesk(t, quota.NewMemory(), cardNorm, quota.Norm{Of: quota.Attempts, Hard: 2})
	bot := func(id, person string) crmguard.Subject {
		return crmguard.Subject{Tenant: "acme", ID: id, OnBehalfOf: person, Kind: crmguard.KindIntegration}
	}
	for _, s := range []crmguard.Subject{bot("bot1", "anna"), bot("bot2", "anna"), bot("bot1", "bot1")} {
		require.NoError(t, d.CountRefusal(t.Context(), s))
	}
	for person, want := range map[string]int{"anna": 0, "bot1": 2, "bot2": 1, "boris": 0} {
		require.Equal(t, want, d.count(t, person, 1), person)
	}
	require.NoError(t, d.CountRefusal(t.Context(), bot("bot1", "anna")))
	require.NoError(t, d.open(as(t, anna(), crmguard.View), "c1"), "nobody's deputy locks them out")
	mustDeny(t, d.open(as(t, bot("bot1", "anna"), crmguard.View), "c2"), quota.CodeAttempts)
	require.Equal(t, "bot1", d.alerts[0].Person)

	system, _ := crmguard.SubjectFrom(crmguard.System(t.Context(), "acme", "reindex"))
	require.NoError(t, d.CountRefusal(t.Context(), system))
	require.Zero(t, d.count(t, system.ID, 1), "jobs of the host are not counted")
	for name, nobody := range map[string]crmguard.Subject{
		"nobody": {}, "without tenant": {ID: "anna", Kind: crmguard.KindEmployee}, "without kind": {Tenant: "acme", ID: "anna"},
		"in no zone": {Tenant: "nowhere", ID: "anna", Kind: crmguard.KindEmployee}, "long": {Tenant: "acme", ID: string(make([]byte, 513)), Kind: crmguard.KindEmployee},
	} {
		require.Error(t, d.CountRefusal(t.Context(), nobody), name)
	}
	require.Zero(t, d.count(t, "anna", 1))
}

// What could not be told is told with the next refusal.
func TestRefusalThatCannotBeCounted(t *testing.T) {
	d := newDesk(t, quota.NewMemory(), quota.Norm{Of: quota.Attempts, Hard: 1})
	bot := crmguard.Subject{Tenant: "acme", ID: "bot", OnBehalfOf: "anna", Kind: crmguard.KindIntegration}
	require.NoError(t, d.CountRefusal(t.Context(), bot))
	d.fail = errors.New("the journal is down")
	require.ErrorIs(t, d.CountRefusal(t.Context(), bot), d.fail)
	require.Equal(t, 2, d.count(t, "bot", 0))
	d.fail = nil
	require.NoError(t, d.CountRefusal(t.Context(), bot))
	require.NoError(t, d.CountRefusal(t.Context(), bot))
	require.Len(t, d.alerts, 1)
	require.ErrorIs(t, newDesk(t, down{}, cardNorm).CountRefusal(t.Context(), anna()), errDown)
}

// An alert that fails stops the act and is told later; the records that were
// counted stay counted.
func TestAlertThatFails(t *testing.T) {
	d := newDesk(t, quota.NewMemory(), cardNorm)
	ctx := as(t, anna(), crmguard.View)
	require.NoError(t, d.open(ctx, clients(0, 3)...))
	d.fail = errors.New("the journal is down")
	err := d.open(ctx, "c3")
	require.ErrorIs(t, err, d.fail)
	_, denied := errors.AsType[*crmguard.Denial](err)
	require.False(t, denied, "it could not be decided")
	require.Equal(t, 4, d.count(t, "anna", 0))
	d.fail = nil
	require.NoError(t, d.open(ctx, "c3"))
	require.Empty(t, d.alerts)
	require.NoError(t, d.open(ctx, "c4"))
	require.Len(t, d.alerts, 1)
	require.Equal(t, 5, d.alerts[0].Count)

	d.fail = errors.New("the journal is down")
	require.ErrorIs(t, d.open(ctx, "c5"), d.fail)
	d.fail = nil
	mustDeny(t, d.open(ctx, "c5"), quota.CodeNorm)
	mustDeny(t, d.open(ctx, "c5"), quota.CodeNorm)
	require.Len(t, d.alerts, 2)
}

// The request ends, but what it set off is told.
func TestAlertOutlivesTheRequest(t *testing.T) {
	var told error
	store := quota.NewMemory()
	zone, err := quota.OneZone("Asia/Almaty")
	require.NoError(t, err)
	ctx, hangUp := context.WithCancel(as(t, anna(), crmguard.View))
	q, err := quota.New(store, zone, []quota.Norm{{Action: crmguard.View, Kind: "contacts", Hard: 1}}, &quota.Options{
		Alert: func(ctx context.Context, _ quota.Alert) error {
			hangUp()
			told = ctx.Err()
			s, ok := crmguard.SubjectFrom(ctx)
			require.True(t, ok)
			require.Equal(t, "anna", s.ID)
			return nil
		},
	})
	require.NoError(t, err)
	mustDeny(t, q.OnOpen(ctx, "acme", clients(0, 2)), quota.CodeNorm)
	require.Error(t, ctx.Err())
	require.NoError(t, told)
}

func TestAlertsAreTheSameEventWhoeverMakesThem(t *testing.T) {
	d := newDesk(t, quota.NewMemory(), cardNorm, quota.Norm{Of: quota.Attempts, Hard: 1})
	ctx := as(t, anna(), crmguard.View)
	require.NoError(t, d.open(ctx, clients(0, 5)...))
	mustDeny(t, d.open(ctx, "c5"), quota.CodeNorm)
	mustDeny(t, d.open(ctx, "c5"), quota.CodeAttempts)
	require.Len(t, d.alerts, 3)
	soft, hard, attempts := d.alerts[0].Event(), d.alerts[1].Event(), d.alerts[2].Event()
	require.Equal(t, crmguard.Event{
		ID: soft.ID, Time: d.clock.now(), Subject: anna(), Action: crmguard.View,
		Resource: crmguard.Resource{Tenant: "acme", Kind: "contacts"}, Outcome: crmguard.Done, Reason: "quota:soft-norm", Count: 5,
	}, soft)
	require.Equal(t, crmguard.Denied, hard.Outcome)
	require.Equal(t, "quota:hard-norm", hard.Reason)
	require.Equal(t, "attempts", attempts.Resource.Kind)
	require.Len(t, map[string]bool{soft.ID: true, hard.ID: true, attempts.ID: true}, 3)
	again := d.alerts[0]
	again.Time, again.Count, again.Subject.Session = again.Time.Add(time.Hour), 6, "s2"
	require.Equal(t, soft.ID, again.Event().ID)
	for _, change := range []func(a *quota.Alert){
		func(a *quota.Alert) { a.Day++ }, func(a *quota.Alert) { a.Person = "boris" },
		func(a *quota.Alert) { a.Subject.Tenant = "other" }, func(a *quota.Alert) { a.Norm.Kind = "deals" },
	} {
		other := d.alerts[0]
		change(&other)
		require.NotEqual(t, soft.ID, other.Event().ID)
	}
}

func TestNewRefuses(t *testing.T) {
	zone, err := quota.OneZone("Europe/Berlin")
	require.NoError(t, err)
	for name, norms := range map[string][]quota.Norm{
		"none":              nil,
		"twice":             {cardNorm, {Action: crmguard.View, Kind: "contacts", Hard: 60}},
		"without hard":      {{Action: crmguard.View, Kind: "contacts", Soft: 4}},
		"too large":         {{Action: crmguard.View, Kind: "contacts", Hard: quota.MaxHard + 1}},
		"soft above hard":   {{Action: crmguard.View, Kind: "contacts", Soft: 5, Hard: 5}},
		"negative":          {{Action: crmguard.View, Kind: "contacts", Soft: -1, Hard: 5}},
		"without kind":      {{Action: crmguard.View, Hard: 5}},
		"long kind":         {{Action: crmguard.View, Kind: string(make([]byte, 600)), Hard: 5}},
		"opens nothing":     {{Action: crmguard.Grant, Kind: "contacts", Hard: 5}},
		"typing error":      {{Action: "vew", Kind: "contacts", Hard: 5}},
		"queries of cards":  {{Action: crmguard.View, Kind: "contacts", Of: quota.Queries, Hard: 5}},
		"attempts of kinds": {{Action: crmguard.View, Of: quota.Attempts, Hard: 5}},
		"unknown unit":      {{Action: crmguard.View, Kind: "contacts", Of: 9, Hard: 5}},
	} {
		_, err := quota.New(quota.NewMemory(), zone, norms, nil)
		require.ErrorContains(t, err, "quota: ", name)
	}
	_, err = quota.New(nil, zone, []quota.Norm{cardNorm}, nil)
	require.Error(t, err)
	_, err = quota.New(quota.NewMemory(), nil, []quota.Norm{cardNorm}, nil)
	require.Error(t, err, "there is no zone by default")
	for _, name := range []string{"", "Local", "Mars/Olympus"} {
		_, err = quota.OneZone(name)
		require.Error(t, err, name)
	}
}

// down fails like a database that does not answer.
type down struct{ quota.Store }

var errDown = errors.New("no answer")

func (down) Take(context.Context, quota.Taking) (quota.Taken, error) { return quota.Taken{}, errDown }

func (down) Return(context.Context, quota.Taking, []quota.Fired) error { return errDown }

func (down) Read(context.Context, string, string, quota.Day) (quota.Reading, error) {
	return quota.Reading{}, errDown
}

func TestStoreDownOpensNothing(t *testing.T) {
	d := newDesk(t, down{}, cardNorm, quota.Norm{Action: crmguard.List, Kind: "contacts", Of: quota.Queries, Hard: 5})
	require.ErrorIs(t, d.open(as(t, anna(), crmguard.View), "c1"), errDown)
	r := crmguard.Resource{Tenant: "acme", Kind: "contacts", ID: "c1"}
	require.ErrorIs(t, d.Check(t.Context(), anna(), crmguard.View, r), errDown)
	require.ErrorIs(t, d.Check(t.Context(), anna(), crmguard.List, r), errDown)
	_, err := d.Usage(t.Context(), "acme", "anna")
	require.ErrorIs(t, err, errDown)
}

func TestUsageIsOfOneTenant(t *testing.T) {
	d := newDesk(t, quota.NewMemory(), cardNorm)
	_, err := d.Usage(as(t, crmguard.Subject{Tenant: "other", ID: "eve", Kind: crmguard.KindEmployee}, crmguard.View), "acme", "anna")
	require.Error(t, err)
	_, err = d.Usage(t.Context(), "", "anna")
	require.Error(t, err)
	_, err = d.Usage(as(t, anna(), crmguard.View), "acme", "boris")
	require.NoError(t, err)
}

func TestSeenItemsAllocateNothing(t *testing.T) {
	d := newDesk(t, quota.NewMemory(), cardNorm)
	ctx, one := as(t, anna(), crmguard.View), []string{"c1"}
	require.Zero(t, testing.AllocsPerRun(100, func() { _ = d.OnOpen(ctx, "acme", one) }))
}
