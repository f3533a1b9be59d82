package quota

import (
	"errors"
	"fmt"
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
	Attempts             // refusals, by any norm and those told to CountRefusal
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

func (n Norm) limit() Limit { return Limit{n.Counter(), n.Soft, n.Hard} }

// withView are the actions whose records are cards too.
var withView = []crmguard.Action{crmguard.Reveal, crmguard.Unmask, crmguard.Call, crmguard.Update, crmguard.Delete}

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
	if err := checkNames(n.Kind); err != nil {
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

// class is what an act is to norms.
type class uint8

const (
	viewing class = iota // and whatever is not named below
	revealing
	unmasking
	calling
	updating
	deleting
	exporting
	listing
	searching
	classes
)

func classOf(a crmguard.Action) class {
	switch a {
	case crmguard.Reveal, "":
		return revealing
	case crmguard.Unmask:
		return unmasking
	case crmguard.Call:
		return calling
	case crmguard.Update:
		return updating
	case crmguard.Delete:
		return deleting
	case crmguard.Export:
		return exporting
	case crmguard.List:
		return listing
	case crmguard.Search:
		return searching
	}
	return viewing
}

// table holds the limits of acts, by kind and class. The first kind is "", for all
// kinds that no norm names. Kinds are few, so looking from the first on is fast.
type table []kindLimits

type kindLimits struct {
	kind             string
	records, queries [classes][]Limit
	named            [classes]bool // a norm of View or of the action names the kind
}

func (t table) of(kind string) *kindLimits {
	for i := range t {
		if t[i].kind == kind {
			return &t[i]
		}
	}
	return &t[0]
}

// compile makes the table, and the limit of attempts.
func compile(norms []Norm) (table, Limit, error) {
	if len(norms) == 0 {
		return nil, Limit{}, errors.New("quota: no norms")
	}
	attempts := Limit{Counter: AttemptsCounter}
	kinds := []string{""}
	for i, n := range norms {
		if err := n.check(); err != nil {
			return nil, Limit{}, fmt.Errorf("quota: norm %d: %w", i, err)
		}
		if slices.ContainsFunc(norms[:i], func(o Norm) bool { return o.Counter() == n.Counter() }) {
			return nil, Limit{}, fmt.Errorf("quota: norm %d is there twice: %s", i, n.Counter())
		}
		if n.Of == Attempts {
			attempts = n.limit()
		} else if !slices.Contains(kinds, n.Kind) {
			kinds = append(kinds, n.Kind)
		}
	}
	t := make(table, len(kinds))
	for i, kind := range kinds {
		t[i] = limitsOf(norms, kind)
	}
	return t, attempts, nil
}

func limitsOf(norms []Norm, kind string) kindLimits {
	// find returns the limits of one action on the kind, or on all kinds.
	find := func(u Unit, a crmguard.Action) (limits []Limit, named bool) {
		for _, n := range norms {
			if n.Of != u || n.Action != a {
				continue
			}
			if n.Kind == kind {
				return []Limit{n.limit()}, true
			}
			limits = append(limits, n.limit())
		}
		return limits, false
	}
	k := kindLimits{kind: kind}
	view, viewNamed := find(Records, crmguard.View)
	k.records[viewing], k.named[viewing] = view, viewNamed
	for _, a := range withView {
		own, named := find(Records, a)
		k.records[classOf(a)], k.named[classOf(a)] = slices.Concat(view, own), viewNamed || named
	}
	if k.records[exporting], _ = find(Records, crmguard.Export); k.records[exporting] == nil {
		k.records[exporting] = view
	}
	for _, a := range []crmguard.Action{crmguard.List, crmguard.Search} {
		k.records[classOf(a)], _ = find(Records, a)
		k.queries[classOf(a)], _ = find(Queries, a)
	}
	return k
}
