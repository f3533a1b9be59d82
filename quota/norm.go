package quota

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/crmguard/crmguard"
)

// MaxHard is the largest norm: what is counted is kept one by one.
const MaxHard = 1_000_000

// Norm is how much one person may do in a day. The zero value of Of is [Records].
type Norm struct {
	Action crmguard.Action // see "What counts"; empty for Attempts
	Kind   string          // of resource, such as "contacts"; empty for Attempts
	Of     Unit
	Soft   int // the next one tells; 0: there is no soft norm
	Hard   int // the next one is refused and tells; more than Soft, at most MaxHard
}

// Unit is what a norm counts.
type Unit uint8

// The units.
const (
	Records  Unit = iota // distinct clients whose data was opened
	Queries              // calls of Check for List or Search
	Attempts             // refusals by any norm
)

var unitNames = [...]string{"records", "queries", "attempts"}

// String returns a lower-case word.
func (u Unit) String() string {
	if int(u) < len(unitNames) {
		return unitNames[u]
	}
	return fmt.Sprintf("Unit(%d)", uint8(u))
}

// AttemptsCounter is what counts a person's refusals, with or without a norm.
const AttemptsCounter = "attempts"

// Counter is the name under which stores count toward the norm.
func (n Norm) Counter() string {
	if n.Of == Attempts {
		return AttemptsCounter
	}
	return n.Of.String() + " " + string(n.Action) + " " + n.Kind
}

// withView are the actions whose records are cards too.
var withView = []crmguard.Action{crmguard.Reveal, crmguard.Unmask, crmguard.Call, crmguard.Update, crmguard.Delete}

// cards are the actions that surely open the record that they are about.
var cards = []crmguard.Action{crmguard.View, crmguard.Reveal, crmguard.Unmask, crmguard.Call}

func (n Norm) check() error {
	switch {
	case n.Of > Attempts:
		return fmt.Errorf("no such unit: %d", n.Of)
	case n.Hard < 1 || n.Hard > MaxHard:
		return fmt.Errorf("hard norm %d: want 1 to %d", n.Hard, MaxHard)
	case n.Soft < 0 || n.Soft >= n.Hard:
		return fmt.Errorf("soft norm %d of %d: want less than the hard one, or 0", n.Soft, n.Hard)
	case n.Of == Attempts && (n.Action != "" || n.Kind != ""):
		return errors.New("attempts are counted over all actions and kinds")
	case n.Of == Attempts:
		return nil
	case n.Kind == "":
		return errors.New("a kind is needed")
	}
	if err := checkName(n.Kind); err != nil {
		return fmt.Errorf("kind: %w", err)
	}
	allowed := []crmguard.Action{crmguard.List, crmguard.Search}
	if n.Of == Records {
		allowed = append(append(allowed, crmguard.View, crmguard.Export), withView...)
	}
	if !slices.Contains(allowed, n.Action) {
		return fmt.Errorf("no %s of action %q are counted", n.Of, n.Action)
	}
	return nil
}

type (
	target struct {
		unit   Unit
		action crmguard.Action
		kind   string // empty: any kind that no norm names
	}
	// table holds the limits of acts on the kinds that norms name, and under "" on
	// all others.
	table struct {
		limits map[target][]Limit
		named  map[target]bool // a norm of View or of the action names the kind
	}
)

// compile makes the table, and the limit of attempts.
func compile(norms []Norm) (table, Limit, error) {
	if len(norms) == 0 {
		return table{}, Limit{}, errors.New("quota: no norms")
	}
	attempts := Limit{Counter: AttemptsCounter}
	own := map[target][]Limit{}
	kinds := map[string]bool{"": true}
	for i, n := range norms {
		if err := n.check(); err != nil {
			return table{}, Limit{}, fmt.Errorf("quota: norm %d: %w", i, err)
		}
		if slices.ContainsFunc(norms[:i], func(o Norm) bool { return o.Counter() == n.Counter() }) {
			return table{}, Limit{}, fmt.Errorf("quota: norm %d is there twice: %s", i, n.Counter())
		}
		limit := Limit{n.Counter(), n.Soft, n.Hard}
		if n.Of == Attempts {
			attempts = limit
			continue
		}
		own[target{n.Of, n.Action, n.Kind}] = []Limit{limit}
		other := target{n.Of, n.Action, ""}
		own[other] = append(own[other], limit)
		kinds[n.Kind] = true
	}
	// of finds the norms of one action for a kind, or all of them.
	of := func(u Unit, a crmguard.Action, kind string) []Limit {
		if limits := own[target{u, a, kind}]; limits != nil {
			return limits
		}
		return own[target{u, a, ""}]
	}
	t := table{limits: map[target][]Limit{}, named: map[target]bool{}}
	for kind := range maps.Keys(kinds) {
		view := of(Records, crmguard.View, kind)
		t.limits[target{Records, crmguard.View, kind}] = view
		for _, a := range withView {
			t.limits[target{Records, a, kind}] = slices.Concat(view, of(Records, a, kind))
		}
		for _, a := range cards {
			t.named[target{Records, a, kind}] = kind != "" && (own[target{Records, crmguard.View, kind}] != nil || own[target{Records, a, kind}] != nil)
		}
		t.limits[target{Records, crmguard.Export, kind}] = view
		if limits := of(Records, crmguard.Export, kind); limits != nil {
			t.limits[target{Records, crmguard.Export, kind}] = limits
		}
		for _, a := range []crmguard.Action{crmguard.List, crmguard.Search} {
			t.limits[target{Records, a, kind}] = of(Records, a, kind)
			t.limits[target{Queries, a, kind}] = of(Queries, a, kind)
		}
	}
	return t, attempts, nil
}

// records returns the limits of opening clients of a kind.
func (t *table) records(a crmguard.Action, kind string) []Limit {
	if a == "" {
		a = crmguard.Reveal
	}
	if limits, ok := t.limits[target{Records, a, kind}]; ok {
		return limits
	}
	if limits, ok := t.limits[target{Records, a, ""}]; ok { // of a kind without norms
		return limits
	}
	if limits, ok := t.limits[target{Records, crmguard.View, kind}]; ok { // an action without norms
		return limits
	}
	return t.limits[target{Records, crmguard.View, ""}]
}

// card returns the limits of opening one record whose id is its client's, none if
// no norm names the kind.
func (t *table) card(a crmguard.Action, kind string) []Limit {
	if !t.named[target{Records, a, kind}] {
		return nil
	}
	return t.limits[target{Records, a, kind}]
}

// queries returns the limits of listing or searching a kind.
func (t *table) queries(a crmguard.Action, kind string) []Limit {
	if limits, ok := t.limits[target{Queries, a, kind}]; ok {
		return limits
	}
	return t.limits[target{Queries, a, ""}]
}
