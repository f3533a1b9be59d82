// Package policylog enters changes of a policy in a journal, as docs/formats/rbac.md
// says: for stores that keep versions, and for engines over adapters that do not.
package policylog

import (
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/crmguard/crmguard"
)

// kind is that of the resource of entries.
const kind = "policy"

// departments are a document of which nobody can say what less of it takes away.
const departments = "departments"

// maxTold is how many bytes of rows an entry holds.
const maxTold = 4 << 10

// Log makes entries in a journal; nil: none.
type Log struct {
	Journal crmguard.Recorder
	Logger  *slog.Logger
	Clock   func() time.Time
}

// Change is a change of a policy. Rows have their type first.
type Change struct {
	Kind           string // of the document; empty: the policy
	Tenant         string // of who acts, if nobody does
	Code           string // Reason of the entry
	Reason         string // as its author wrote it
	Policy         string // see Event.Policy
	Added, Removed [][]string
	Whole          bool // Added are all rows that there are
}

type givingKey struct{}

// Giving returns a context in which a change gives somebody something though its rows do not
// say so: who takes away a role takes away what it denies.
func Giving(ctx context.Context) context.Context { return context.WithValue(ctx, givingKey{}, true) }

// Entry is one that is still to be concluded.
type Entry struct {
	log   Log
	event crmguard.Event
}

// Begin records that a change is about to be made. Where that fails nothing may be given;
// to take rights away nobody waits for a journal.
func (l Log) Begin(ctx context.Context, c Change) (Entry, error) {
	if l.Journal == nil {
		return Entry{}, nil
	}
	e := Entry{l, l.event(ctx, c)}
	err := l.Journal.Record(ctx, e.event)
	if err != nil && (c.widens() || ctx.Value(givingKey{}) != nil) {
		return Entry{}, fmt.Errorf("record the intent: %w", err)
	}
	if err != nil {
		l.Logger.ErrorContext(ctx, "policy: rights are taken away without an entry in the journal", "event", e.event.ID, "code", c.Code, "error", err)
	}
	e.event.Private = nil // the journal has them now
	return e, nil
}

// End records how it ended: done and now this policy, or failed for a reason.
func (e Entry) End(ctx context.Context, policy, failure string) {
	if e.log.Journal == nil {
		return
	}
	e.event.Outcome, e.event.Policy = crmguard.Done, policy
	if failure != "" {
		e.event.Outcome, e.event.Reason = crmguard.Failed, failure
	}
	e.record(ctx)
}

// Found records what was changed by others.
func (l Log) Found(ctx context.Context, c Change) {
	if l.Journal == nil {
		return
	}
	e := Entry{l, l.event(ctx, c)}
	e.event.Outcome = crmguard.Done
	e.record(ctx)
}

func (e Entry) record(ctx context.Context) {
	e.event.Time = e.log.Clock().UTC()
	if err := e.log.Journal.Record(context.WithoutCancel(ctx), e.event); err != nil {
		e.log.Logger.ErrorContext(ctx, "policy: an outcome was not recorded", "event", e.event.ID, "outcome", e.event.Outcome.String(), "policy", e.event.Policy, "error", err)
	}
}

func (l Log) event(ctx context.Context, c Change) crmguard.Event {
	s, ok := crmguard.SubjectFrom(ctx)
	if !ok {
		s, _ = crmguard.SubjectFrom(crmguard.System(ctx, c.Tenant, "policy"))
	}
	e := crmguard.Event{
		ID: rand.Text(), Time: l.Clock().UTC(), Subject: s, Action: c.action(), Outcome: crmguard.Attempted,
		Resource: crmguard.Resource{Tenant: s.Tenant, Kind: cmp.Or(c.Kind, kind)},
		Reason:   c.Code, Count: len(c.Added) + len(c.Removed), Policy: c.Policy,
	}
	for _, text := range []struct{ name, value string }{{"reason", c.Reason}, {"added", told(c.Added)}, {"removed", told(c.Removed)}} {
		if text.value != "" {
			e.Private = append(e.Private, crmguard.Private{Name: text.name, Value: []byte(text.value)})
		}
	}
	return e
}

// action is what a change does: it gives roles, takes rows away, or more.
func (c Change) action() crmguard.Action {
	gives := func(rule []string) bool { return slices.Contains([]string{"g", "p2", "p3"}, rule[0]) }
	switch {
	case c.Kind == departments:
		return crmguard.Configure
	case len(c.Added) == 0:
		return crmguard.Revoke
	case len(c.Removed) > 0 || c.Whole || !allOf(c.Added, gives):
		return crmguard.Configure
	}
	return crmguard.Grant
}

// widens reports whether its rows say that somebody may have more rights after it than before.
func (c Change) widens() bool {
	takes := func(rule []string) bool {
		return c.Kind != departments && rule[0] != "p4" && (rule[0] != "p" || rule[len(rule)-1] != "deny")
	}
	return len(c.Added) > 0 || !allOf(c.Removed, takes)
}

func allOf(rules [][]string, are func(rule []string) bool) bool {
	return !slices.ContainsFunc(rules, func(rule []string) bool { return !are(rule) })
}

// told are rows as text, the first of them if they are many.
func told(rules [][]string) string {
	var b strings.Builder
	for i, rule := range rules {
		line := strings.Join(rule, ", ") + "\n"
		if b.Len()+len(line) > maxTold {
			fmt.Fprintf(&b, "and %d more\n", len(rules)-i)
			break
		}
		b.WriteString(line)
	}
	return b.String()
}
