package rbac

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/casbin/casbin/v2"
	"github.com/casbin/casbin/v2/model"

	"github.com/crmguard/crmguard"
)

// Request makes of a question the values that the request definition of a Casbin model
// wants, in its order. An error denies.
type Request func(s crmguard.Subject, a crmguard.Action, r crmguard.Resource) ([]any, error)

// Wrapped is a [crmguard.Checker] that asks a Casbin enforcer with a model of the host's
// own. It decides at Casbin's speed and has what Casbin has: what the package comment
// says of refused policies, fields, lists and roles is [Engine]'s alone. It is safe for
// concurrent use.
type Wrapped struct {
	request Request

	mu       sync.RWMutex // Casbin's enforcers read without a lock of their own
	enforcer *casbin.Enforcer
	version  string
}

// Wrap takes an enforcer over. From then on nobody else changes it: what does, be it the
// host or a watcher's callback, goes through [Wrapped.Change]. A Casbin enforcer that locks or caches
// for itself is wrapped by the plain one within it, synced.Enforcer: its locks are not
// taken by what a watcher calls, and its cache outlives what it remembers.
func Wrap(enforcer *casbin.Enforcer, request Request) (*Wrapped, error) {
	if enforcer == nil || request == nil {
		return nil, errors.New("rbac: wrap: an enforcer and a request are needed")
	}
	w := &Wrapped{request: request, enforcer: enforcer}
	w.version = modelVersion(enforcer.GetModel())
	return w, nil
}

// Change calls change with the enforcer while nobody decides. What it has changed by
// the time it fails stays changed.
func (w *Wrapped) Change(change func(enforcer *casbin.Enforcer) error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	defer func() { w.version = modelVersion(w.enforcer.GetModel()) }()
	return change(w.enforcer)
}

// Version names the model and the policy by their content, for Event.Policy.
func (w *Wrapped) Version() string {
	w.mu.RLock()
	defer w.mu.RUnlock()
	return w.version
}

// Check asks Casbin. As with [Engine.Check], the tenant must be the subject's, the
// scopes of the credential must reach the question, and both a subject and whom it
// acts for need the right: of the latter [Request] gets tenant, ID and kind, and the
// answer must be yes whether the record is shared with that person or not.
//
// The codes of its denials are "no-rule", "scope" and "system-name".
func (w *Wrapped) Check(_ context.Context, s crmguard.Subject, a crmguard.Action, r crmguard.Resource) error {
	if err := admit(&s, r.Tenant); err != nil {
		return err
	}
	if r.Kind == "" {
		return errNoKind
	}
	if s.Scopes != nil && !inScopes(s.Scopes, r.Kind, a) {
		return denials[outOfScope]
	}
	w.mu.RLock()
	defer w.mu.RUnlock()
	if err := w.enforce(s, a, r); err != nil || s.OnBehalfOf == "" {
		return err
	}
	s = crmguard.Subject{Tenant: s.Tenant, ID: s.OnBehalfOf, Kind: crmguard.KindEmployee}
	for _, r.Shared = range []bool{false, true} {
		if err := w.enforce(s, a, r); err != nil {
			return err
		}
	}
	return nil
}

// enforce is called with the lock held.
func (w *Wrapped) enforce(s crmguard.Subject, a crmguard.Action, r crmguard.Resource) (err error) {
	defer func() { // the host's request, and functions of its model
		if p := recover(); p != nil {
			err = fmt.Errorf("rbac: wrap: panic: %v", p)
		}
	}()
	values, err := w.request(s, a, r)
	if err != nil {
		return fmt.Errorf("rbac: wrap: request: %w", err)
	}
	ok, err := w.enforcer.Enforce(values...)
	switch {
	case err != nil:
		return fmt.Errorf("rbac: wrap: %w", err)
	case !ok:
		return denials[noRule]
	}
	return nil
}

// modelVersion covers definitions and rows, these in their order, which counts in some
// models.
func modelVersion(m model.Model) string {
	h := sha256.New()
	h.Write([]byte("crmguard rbac model v1\n"))
	for _, section := range []string{"r", "p", "g", "e", "m"} {
		for _, key := range slices.Sorted(maps.Keys(m[section])) {
			assertion := m[section][key]
			b := appendField(appendField(nil, key), assertion.Value)
			for _, rule := range assertion.Policy {
				b = appendField(b, string(encodeRule(rule)))
			}
			h.Write(appendField(nil, string(b)))
		}
	}
	return sumOf(h)
}

func encodeRule(rule []string) (b []byte) {
	for _, field := range rule {
		b = appendField(b, field)
	}
	return b
}
