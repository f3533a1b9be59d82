package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/quota"
)

// normRules are the norms of the company, as they are stored: one document with a
// version, and a MAC beside it.
type normRules struct {
	Version int64        `json:"version"` // 0: those of the program, never changed
	Zone    string       `json:"zone"`    // where a day begins and ends
	Norms   []quota.Norm `json:"norms"`
}

// firstNorms hold until somebody changes them.
var firstNorms = normRules{Zone: "Europe/Moscow", Norms: []quota.Norm{
	{Action: crmguard.View, Kind: kind, Soft: 40, Hard: 50},
	{Action: crmguard.List, Kind: kind, Soft: 2000, Hard: 4000},
	{Action: crmguard.Search, Kind: kind, Of: quota.Queries, Soft: 100, Hard: 200},
	{Action: crmguard.Export, Kind: kind, Soft: 1000, Hard: 20000},
	{Of: quota.Attempts, Hard: 100},
}}

// normNouns are what norms count, by quota.Norm.Counter.
var normNouns = map[string]string{
	"records view contacts":   "cards opened",
	"records list contacts":   "rows listed",
	"queries search contacts": "searches",
	"records export contacts": "contacts exported",
	"attempts":                "refusals",
}

// norms count what each person opens. The counter is replaced when the norms
// change; what was counted stays in the store.
type norms struct {
	store quota.Store
	alert func(context.Context, quota.Alert) error
	app   *App

	rules   atomic.Pointer[normRules]
	place   atomic.Pointer[time.Location] // of rules.Zone
	counter atomic.Pointer[quota.Quota]
}

const normsSetting = "norms"

// load puts the stored norms in force.
func (n *norms) load(ctx context.Context) error {
	text, err := n.app.vault.proven(ctx, n.app.db, normsSetting)
	if err != nil {
		return fmt.Errorf("the norms in the database were changed past the CRM: nobody was let in; put back a backup of the data (%w)", err)
	}
	rules := firstNorms
	if text != nil {
		rules = normRules{}
		if err := json.Unmarshal(text, &rules); err != nil {
			return fmt.Errorf("norms: %w", err)
		}
	}
	return n.use(rules)
}

// use puts norms in force, unless newer ones were in force before.
func (n *norms) use(rules normRules) error {
	counter, err := n.make(rules)
	if err != nil {
		return err
	}
	place, err := time.LoadLocation(rules.Zone)
	if err != nil {
		return err
	}
	highest, err := n.app.marks.raise(normsSetting, rules.Version)
	if err != nil {
		return err
	}
	if rules.Version < highest {
		return fmt.Errorf("the norms in the database are version %d, but version %d was in force: somebody put an old state of the database back; put back a newer one, or remove %s from the keys folder if that was you",
			rules.Version, highest, marksFile)
	}
	n.rules.Store(&rules)
	n.place.Store(place)
	n.counter.Store(counter)
	return nil
}

// make checks norms.
func (n *norms) make(rules normRules) (*quota.Quota, error) {
	zone, err := quota.OneZone(rules.Zone)
	if err != nil {
		return nil, fmt.Errorf("time zone %q: %w", rules.Zone, err)
	}
	return quota.New(n.store, zone, rules.Norms, &quota.Options{Alert: n.alert, Clock: n.app.cfg.Clock})
}

// today is when the company's day began.
func (n *norms) today() time.Time {
	place := n.place.Load()
	year, month, day := n.app.now().In(place).Date()
	return time.Date(year, month, day, 0, 0, 0, 0, place)
}

// zone is that of the company's day, in which pages tell times.
func (a *App) zone() *time.Location {
	if place := a.norms.place.Load(); place != nil {
		return place
	}
	return time.UTC
}

// onOpen counts clients whose data is about to be decrypted. Until norms are in
// force nothing is.
func (n *norms) onOpen(ctx context.Context, tenant string, clients []string) error {
	counter := n.counter.Load()
	if counter == nil {
		return errors.New("the norms are not loaded yet")
	}
	return counter.OnOpen(ctx, tenant, clients)
}

// Check implements crmguard.Checker, for the guard.
func (n *norms) Check(ctx context.Context, s crmguard.Subject, a crmguard.Action, r crmguard.Resource) error {
	return n.counter.Load().Check(ctx, s, a, r)
}

// CountRefusal is told by the guard of what others have refused.
func (n *norms) CountRefusal(ctx context.Context, s crmguard.Subject) error {
	return n.counter.Load().CountRefusal(ctx, s)
}

// cardsUsed says how many of today's cards somebody has opened, when it is most of
// them.
func (a *App) cardsUsed(ctx context.Context) (string, error) {
	usage, err := a.norms.counter.Load().Usage(ctx, tenant, subjectOf(ctx).ID)
	if err != nil {
		return "", err
	}
	for _, used := range usage.Norms {
		if used.Norm.Action == crmguard.View && used.Count*5 >= used.Norm.Hard*4 {
			return fmt.Sprintf("%d of your %d cards today", min(used.Count, used.Norm.Hard), used.Norm.Hard), nil
		}
	}
	return "", nil
}

// normEnds tells somebody who has used up a norm when it begins anew.
func (a *App) normEnds(wait time.Duration) string {
	ends := a.now().Add(wait).In(a.zone()).Round(time.Second)
	return fmt.Sprintf("You have reached a norm of today, so this was not opened, and those who look after the norms were told. What you have opened today stays open. The norm begins anew at %s, %s (%s).",
		ends.Format("15:04"), inWords(wait), a.norms.rules.Load().Zone)
}

// inWords says roughly how long something takes.
func inWords(d time.Duration) string {
	if d = d.Round(time.Minute); d < time.Hour {
		return "in " + plural(max(1, int(d.Minutes())), "minute")
	}
	return "in about " + plural(int(d.Round(time.Hour).Hours()), "hour")
}
