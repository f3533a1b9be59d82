package rbacsql

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/rbac"
)

// eventKind is the kind of resource of the journal's entries.
const eventKind = "policy"

// maxTold is how many bytes of rows an entry holds; the history has them all.
const maxTold = 4 << 10

// announce records that a version is about to be stored, and returns the entry to conclude.
func (a *Adapter) announce(ctx context.Context, d *document) (*crmguard.Event, error) {
	if a.journal == nil {
		return nil, nil
	}
	s, ok := crmguard.SubjectFrom(ctx)
	if !ok {
		s, _ = crmguard.SubjectFrom(a.asItself(ctx))
	}
	e := &crmguard.Event{
		ID: rand.Text(), Time: d.Time, Subject: s, Action: actionOf(&d.Version), Outcome: crmguard.Attempted,
		Resource: crmguard.Resource{Tenant: s.Tenant, Kind: eventKind},
		Reason:   fmt.Sprintf("version:%d", d.Number), Count: len(d.Added) + len(d.Removed), Policy: d.Digest,
	}
	for _, text := range []struct{ name, value string }{{"reason", d.Reason}, {"added", told(d.Added)}, {"removed", told(d.Removed)}} {
		if text.value != "" {
			e.Private = append(e.Private, crmguard.Private{Name: text.name, Value: []byte(text.value)})
		}
	}
	err := a.journal.Record(ctx, *e)
	e.Private = nil // the journal has them now
	if err == nil {
		return e, nil
	}
	if widens(&d.Version) {
		return nil, fmt.Errorf("rbacsql: record the intent: %w", err)
	}
	a.log.ErrorContext(ctx, "rbacsql: rights are taken away without an entry in the journal", "event", e.ID, "version", d.Number, "error", err)
	return e, nil
}

// conclude records how it ended.
func (a *Adapter) conclude(ctx context.Context, e *crmguard.Event, err error) {
	if e == nil {
		return
	}
	e.Time, e.Outcome = a.now().UTC(), crmguard.Done
	switch {
	case errors.Is(err, rbac.ErrChanged):
		e.Outcome, e.Reason = crmguard.Failed, "changed-meanwhile"
	case err != nil:
		e.Outcome, e.Reason = crmguard.Failed, "error"
	}
	if recordErr := a.journal.Record(context.WithoutCancel(ctx), *e); recordErr != nil {
		a.log.ErrorContext(ctx, "rbacsql: an outcome was not recorded", "event", e.ID, "outcome", e.Outcome.String(), "policy", e.Policy, "error", recordErr)
	}
}

// actionOf is what a change does: it gives roles, takes rows away, or more.
func actionOf(v *rbac.Version) crmguard.Action {
	if len(v.Added) == 0 {
		return crmguard.Revoke
	}
	for _, rule := range v.Added {
		if rule[0] == "p" || rule[0] == "p4" || rule[0] == "g2" {
			return crmguard.Configure
		}
	}
	if len(v.Removed) > 0 || v.Whole {
		return crmguard.Configure
	}
	return crmguard.Grant
}

// widens reports whether somebody may have more rights after it than before.
func widens(v *rbac.Version) bool {
	return len(v.Added) > 0 || slices.ContainsFunc(v.Removed, func(rule []string) bool {
		return rule[0] == "p4" || rule[0] == "p" && rule[len(rule)-1] == "deny"
	})
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
