package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

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

// norms count what each person opens. The counter is replaced when the norms
// change; what was counted stays in the store.
type norms struct {
	store quota.Store
	alert func(context.Context, quota.Alert) error
	app   *App

	changing sync.Mutex
	rules    atomic.Pointer[normRules]
	counter  atomic.Pointer[quota.Quota]
}

const normsSetting = "norms"

// load puts the stored norms in force.
func (n *norms) load(ctx context.Context) error {
	text, err := n.app.vault.proven(ctx, n.app.db, normsSetting)
	if err != nil {
		return fmt.Errorf("norms: %w", err)
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
	highest, err := n.app.marks.raise(normsSetting, rules.Version)
	if err != nil {
		return err
	}
	if rules.Version < highest {
		return fmt.Errorf("the norms in the database are version %d, but version %d was in force: somebody put an old state of the database back; put back a newer one, or remove %s from the keys folder if that was you",
			rules.Version, highest, marksFile)
	}
	n.rules.Store(&rules)
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

// alert puts into the journal that somebody has passed a norm, where the head of
// the person's department and the owner see it.
func (a *App) alert(ctx context.Context, passed quota.Alert) error {
	e := passed.Event()
	e.Resource = crmguard.Resource{Tenant: passed.Subject.Tenant, Kind: "alerts", ID: passed.Person, Owner: passed.Person}
	if units, err := a.people.org.Units(ctx, tenant); err == nil {
		if of := units.Members[passed.Person]; len(of) > 0 {
			e.Resource.Unit = of[0]
		}
	}
	return a.journal.Record(ctx, e)
}
