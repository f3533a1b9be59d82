package mfa

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/crmguard/crmguard"
)

// Rule says that an act wants a proof of at least Need, at most MaxAge ago.
type Rule struct {
	Action crmguard.Action
	Kind   string             // of the resource; empty: every kind
	Need   crmguard.Assurance // at least
	MaxAge time.Duration      // since the proof, however busy the session was; 0: any age
}

// StepUp asks for a fresh proof before acts that have a rule, and lets all others
// pass. It is a [crmguard.Checker]; its denials have status [crmguard.StepUp] and
// name what is needed. The host's own jobs pass, because nobody could prove
// anything for them; integrations do not.
type StepUp struct {
	rules map[ruleKey]Rule
	clock func() time.Time
}

type ruleKey struct {
	action crmguard.Action
	kind   string
}

var _ crmguard.Checker = (*StepUp)(nil)

// ahead is how much earlier than the proof the clock may be: nodes differ.
const ahead = time.Minute

// NewStepUp returns a checker of the rules. Where several fit an act, all hold.
func NewStepUp(rules []Rule, o *Options) (*StepUp, error) {
	u := &StepUp{rules: map[ruleKey]Rule{}}
	u.clock, _ = o.orDefault()
	for _, r := range rules {
		if _, err := r.Need.MarshalText(); err != nil || r.Action == "" || r.MaxAge < 0 {
			return nil, fmt.Errorf("mfa: rule for %q %q: want an action, a known assurance and no negative age", r.Action, r.Kind)
		}
		if r.Need == crmguard.AssuranceNone {
			return nil, fmt.Errorf("mfa: rule for %q %q needs nothing", r.Action, r.Kind)
		}
		key := ruleKey{r.Action, r.Kind}
		u.rules[key] = both(u.rules[key], r)
	}
	if len(u.rules) == 0 {
		return nil, errors.New("mfa: step-up without rules")
	}
	return u, nil
}

// both is the rule that holds when a and b do; the zero rule always holds.
func both(a, b Rule) Rule {
	b.Need = max(a.Need, b.Need)
	if a.MaxAge > 0 && (b.MaxAge == 0 || a.MaxAge < b.MaxAge) {
		b.MaxAge = a.MaxAge
	}
	return b
}

// Check implements [crmguard.Checker].
func (u *StepUp) Check(_ context.Context, s crmguard.Subject, a crmguard.Action, r crmguard.Resource) error {
	if err := crmguard.CheckTenant(s, r.Tenant); err != nil {
		return err
	}
	rule := both(u.rules[ruleKey{a, ""}], u.rules[ruleKey{a, r.Kind}])
	if s.Kind == crmguard.KindSystem || rule.Need == crmguard.AssuranceNone {
		return nil
	}
	if s.Assurance >= rule.Need && (rule.MaxAge == 0 || u.fresh(s.AuthenticatedAt, rule.MaxAge)) {
		return nil
	}
	return &crmguard.Denial{By: "mfa", Code: "step-up", Status: crmguard.StepUp, Need: rule.Need, MaxAge: rule.MaxAge}
}

// fresh is false for a proof of the future: the clock was set back, and nobody
// knows how old it is.
func (u *StepUp) fresh(proved time.Time, maxAge time.Duration) bool {
	age := u.clock().Sub(proved)
	return age >= -ahead && age <= maxAge
}
