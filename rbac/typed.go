package rbac

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/casbin/casbin/v2/model"
	"github.com/casbin/casbin/v2/persist"

	"github.com/crmguard/crmguard"
)

// Scope says whose records a rule is about.
type Scope string

// The scopes; see the package comment.
const (
	Own    Scope = "own"
	Dept   Scope = "dept"
	Tree   Scope = "tree"
	Headed Scope = "headed"
	Shared Scope = "shared"
	All    Scope = "all"
)

// Rule is a p row: it allows something, or denies it.
type Rule struct {
	Subject string // u:ID, role:NAME or unit:NAME
	Tenant  string
	Object  string          // a kind, kind#field or section:name
	Action  crmguard.Action // of a field also "read" and "write"
	Scope   Scope
	Deny    bool
}

// Link is a g row, or a p2 row if it ends: the subject has the role.
type Link struct {
	Subject string // u:ID, role:NAME or unit:NAME
	Role    string // role:NAME or unit:NAME
	Tenant  string
	End     time.Time // a full second, and a person's only; zero: none
}

// Deputy is a p3 row: one person stands in for another.
type Deputy struct {
	Person    string // u:ID, who has the rights of Whom besides their own
	Whom      string // u:ID
	Tenant    string
	From, End time.Time // full seconds
}

// Exclusion is a p4 row: nobody has both roles at the same time.
type Exclusion struct {
	Tenant      string
	Role, Other string // role:NAME or unit:NAME
}

// Policy is a policy written in Go.
type Policy struct {
	Rules      []Rule
	Links      []Link
	Deputies   []Deputy
	Exclusions []Exclusion
}

// FromPolicy makes an engine of a policy that is part of the program. It is checked as
// a file is. What GrantRole, RevokeRole and Revoke change lasts as long as the engine.
func FromPolicy(ctx context.Context, p Policy, o *Options) (*Engine, error) {
	return New(ctx, newMemory(p), o)
}

// memory keeps rows as long as the process lives.
type memory struct {
	mu    sync.Mutex
	where []string
	rules [][]string
}

var (
	_ persist.Adapter = (*memory)(nil)
	_ ruleSource      = (*memory)(nil)
	_ ruleRemover     = (*memory)(nil)
)

func newMemory(p Policy) *memory {
	m := &memory{}
	for i, r := range p.Rules {
		effect := effectWords[effectAllow]
		if r.Deny {
			effect = effectWords[effectDeny]
		}
		m.add(fmt.Sprintf("Rules[%d]", i), "p", r.Subject, r.Tenant, r.Object, string(r.Action), string(r.Scope), effect)
	}
	for i, l := range p.Links {
		at := fmt.Sprintf("Links[%d]", i)
		if l.End.IsZero() {
			m.add(at, "g", l.Subject, l.Role, l.Tenant)
		} else {
			m.add(at, "p2", l.Subject, l.Role, l.Tenant, l.End.UTC().Format(time.RFC3339Nano))
		}
	}
	for i, d := range p.Deputies {
		m.add(fmt.Sprintf("Deputies[%d]", i), "p3", d.Person, d.Whom, d.Tenant, d.From.UTC().Format(time.RFC3339Nano), d.End.UTC().Format(time.RFC3339Nano))
	}
	for i, x := range p.Exclusions {
		m.add(fmt.Sprintf("Exclusions[%d]", i), "p4", x.Tenant, x.Role, x.Other)
	}
	return m
}

func (m *memory) add(where string, rule ...string) {
	m.where, m.rules = append(m.where, where), append(m.rules, rule)
}

// Rules returns copies.
func (m *memory) Rules(context.Context) (where []string, rules [][]string, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, rule := range m.rules {
		rules = append(rules, slices.Clone(rule))
	}
	return slices.Clone(m.where), rules, nil
}

// RemoveRules removes the rows whose fields match; an empty field matches any.
func (m *memory) RemoveRules(_ context.Context, kind string, fields ...string) (removed int, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	where, rules := m.where, m.rules
	m.where, m.rules = nil, nil
	for i, rule := range rules {
		if rule[0] == kind && fieldsMatch(rule[1:], fields) {
			removed++
		} else {
			m.add(where[i], rule...)
		}
	}
	return removed, nil
}

// AddPolicy adds a row, unless it is there.
func (m *memory) AddPolicy(_, kind string, fields []string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	rule := append([]string{kind}, fields...)
	if !slices.ContainsFunc(m.rules, func(r []string) bool { return slices.Equal(r, rule) }) {
		m.add("grant", rule...)
	}
	return nil
}

var errInMemory = errors.New("rbac: a policy of the program is asked for with Rules and changed by the engine")

// LoadPolicy is Casbin's way to read, which the engine does not use.
func (*memory) LoadPolicy(model.Model) error { return errInMemory }

// SavePolicy is not needed by the engine.
func (*memory) SavePolicy(model.Model) error { return errInMemory }

// RemovePolicy is not needed by the engine.
func (*memory) RemovePolicy(string, string, []string) error { return errInMemory }

// RemoveFilteredPolicy is not needed by the engine.
func (*memory) RemoveFilteredPolicy(string, string, int, ...string) error { return errInMemory }
