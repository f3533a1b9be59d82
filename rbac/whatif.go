package rbac

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"

	"github.com/crmguard/crmguard"
)

// Draft returns an engine that decides by the policy in force, but for the rows of one
// tenant: rules, each with its type first, take their place, as [Engine.Replace] would
// have it. It is for looking at a policy before it is stored, with [Engine.WhatIf] and
// with Check and Filter; what is changed through it goes nowhere.
func (e *Engine) Draft(ctx context.Context, tenant string, rules [][]string) (*Engine, error) {
	if err := reaches(ctx, tenant); err != nil {
		return nil, err
	}
	policy, err := e.inForce()
	if err != nil {
		return nil, err
	}
	next, _, err := replaced(tenant, policy.stored(), rules, e.now)
	if err != nil {
		return nil, err
	}
	adapter := &memory{}
	for _, r := range next.rows.all() {
		adapter.add(r.where, r.rule()...)
	}
	return New(ctx, adapter, &Options{Org: e.org.source, Logger: slog.New(slog.DiscardHandler), Clock: e.clock})
}

// Change is what another policy means for the people of a tenant.
type Change struct {
	Added, Removed [][]string    // rows, each with its type first
	Rights         []RightChange // by person, for whom they stand in, object and action

	// Lost are rights that somebody has without end and nobody would have any more, under these
	// relations: nobody could give them back, be it by [Engine.Rollback], but a job of the host.
	Lost []Right
}

// RightChange is a right that a person has under more relations than before, or under
// fewer. Both can be.
type RightChange struct {
	Person string          // such as "u:anna"
	Object string          // a kind, kind#field or section:name
	Action crmguard.Action // as in rows

	// Gains and Loses are relations to records, in the words of docs/formats/rbac.md. The only one to
	// a section is none.
	Gains, Loses []string

	// As is for whom the person stands in if the right comes by that, such as "u:boris": the
	// relations are then of that one, and all of them gained or lost if it is a rule that
	// denies to the deputy which changed. Empty: the right is the person's own.
	As string
}

// WhatIf tells what would change in a tenant if the policy of another engine, such as a
// [Engine.Draft], came into force: rows, and who gains and loses which rights, as grants
// stand at this moment. How many records that means is the difference of what the two
// engines' [Engine.Filter] choose; of phones, that of contacts#phone. Who may ask is a
// question of the host.
func (e *Engine) WhatIf(ctx context.Context, tenant string, other *Engine) (Change, error) {
	if err := reaches(ctx, tenant); err != nil {
		return Change{}, err
	}
	before, err := e.inForce()
	if err != nil {
		return Change{}, err
	}
	after, err := other.inForce()
	if err != nil {
		return Change{}, err
	}
	return changeBetween(before, after, tenant, e.now()), nil
}

func changeBetween(before, after *snapshot, tenant string, now int64) Change {
	c := Change{Added: rowsOnlyIn(after, before, tenant), Removed: rowsOnlyIn(before, after, tenant), Lost: lost(before, after, tenant)}
	for _, name := range touched(tenant, before, after, edit{add: c.Added, remove: c.Removed}) {
		if strings.HasPrefix(name, personPrefix) {
			had, has := before.rights(tenant, name, now), after.rights(tenant, name, now)
			c.compare(name, "", beyond(has, had), beyond(had, has))
		}
	}
	for _, d := range slices.Concat(before.deputies(tenant, now), after.deputies(tenant, now)) {
		if !slices.ContainsFunc(c.Rights, func(r RightChange) bool { return r.Person == d.Person && r.As == d.Whom }) {
			had, has := before.rightsAs(d, now), after.rightsAs(d, now)
			c.compare(d.Person, d.Whom, lentBeyond(has, had), lentBeyond(had, has))
		}
	}
	slices.SortStableFunc(c.Rights, func(a, b RightChange) int {
		return cmp.Or(strings.Compare(a.Person, b.Person), strings.Compare(a.As, b.As))
	})
	return c
}

// compare tells what a person may do more and less, as somebody else if as says so.
func (c *Change) compare(person, as string, gains, loses map[right]relationSet) {
	both := maps.Clone(gains)
	maps.Copy(both, loses)
	for _, what := range slices.SortedFunc(maps.Keys(both), compareRights) {
		c.Rights = append(c.Rights, RightChange{person, what.object, crmguard.Action(what.action), gains[what].words(), loses[what].words(), as})
	}
}

// rowsOnlyIn are the rows of a tenant that one policy has and the other has not.
func rowsOnlyIn(one, other *snapshot, tenant string) (rows [][]string) {
	there := keysOf(other.rows.all())
	for _, r := range one.rows.all() {
		if r.tenant() == tenant && !there[r.key()] {
			rows = append(rows, r.rule())
		}
	}
	return rows
}

func (s relationSet) words() (words []string) {
	for rel := range relation(relations) {
		if s.has(rel) {
			words = append(words, rel.String())
		}
	}
	return words
}

// String tells rows and rights, a line each.
func (c Change) String() string {
	var b strings.Builder
	for _, row := range c.Removed {
		fmt.Fprintf(&b, "- %s\n", strings.Join(row, ", "))
	}
	for _, row := range c.Added {
		fmt.Fprintf(&b, "+ %s\n", strings.Join(row, ", "))
	}
	for _, r := range c.Rights {
		b.WriteString(r.String() + "\n")
	}
	for _, r := range c.Lost {
		b.WriteString("nobody has any more: " + r.String() + "\n")
	}
	return b.String()
}

// String tells who gains and loses what.
func (r RightChange) String() string {
	var parts []string
	for _, part := range []struct {
		word      string
		relations []string
	}{{"gains", r.Gains}, {"loses", r.Loses}} {
		if len(part.relations) > 0 {
			parts = append(parts, part.word+" "+Right{r.Object, r.Action, part.relations}.String())
		}
	}
	who := r.Person
	if r.As != "" {
		who += ", as deputy of " + r.As + ","
	}
	return who + " " + strings.Join(parts, " and ")
}

// recordsThatAre says of which records a right on an object is, and those that are headed or
// shared too apart only where that makes a difference.
func recordsThatAre(object string, words []string) string {
	switch {
	case isSection(object):
		return ""
	case len(words) == relations:
		return " of all records"
	}
	alike := func(word, without string) bool {
		rest := slices.DeleteFunc(strings.Split(word, "+"), func(part string) bool { return part == without })
		if len(rest) == 0 {
			rest = []string{relNone.String()}
		}
		less := strings.Join(rest, "+")
		return less != word && slices.Contains(words, less)
	}
	var short []string
	for _, word := range words {
		if !alike(word, string(Headed)) && !alike(word, string(Shared)) {
			short = append(short, word)
		}
	}
	return " of records that are " + strings.Join(short, ", ")
}
