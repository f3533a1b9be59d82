package rbac

import (
	"context"
	"fmt"
	"slices"
)

// changes keep two things apart. Who asks the store, to read or to change it, is
// alone in that and may wait long. Who replaces the policy in force never waits
// for a store, so that what is taken away is gone whatever the store does.

// lock waits until nobody else asks the store, or ctx ends.
func (e *Engine) lock(ctx context.Context) error {
	select {
	case e.store <- struct{}{}:
		return nil
	default:
	}
	select {
	case e.store <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("rbac: wait for another change of the policy: %w", context.Cause(ctx))
	}
}

func (e *Engine) unlock() { <-e.store }

// put brings a policy into force, without what is being taken away just now: what
// it was read from may be older than that.
func (e *Engine) put(next *snapshot) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.leaving) > 0 {
		next = newSnapshot(rowSetOf(e.withoutLeaving(next.rows.all())))
	}
	e.current.Store(next)
}

// change replaces the rows in force by those that by makes of them, and returns
// how many fewer they are.
func (e *Engine) change(by func(old *snapshot) []row) (fewer int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	old := e.current.Load()
	next := newSnapshot(rowSetOf(e.withoutLeaving(by(old))))
	e.current.Store(next)
	return old.rows.len() - next.rows.len()
}

// removal describes rows to take away; an empty field matches any.
type removal struct {
	kind   string
	fields []string
}

func (m removal) matches(r row) bool {
	return r.kind == m.kind && fieldsMatch(r.fields, m.fields)
}

func fieldsMatch(fields, pattern []string) bool {
	for i, want := range pattern {
		if want != "" && (i >= len(fields) || fields[i] != want) {
			return false
		}
	}
	return true
}

// removals are taken away together.
type removals []removal

func (ms removals) match(r row) bool {
	return slices.ContainsFunc(ms, func(m removal) bool { return m.matches(r) })
}

// withoutLeaving takes from rows those that match what is being taken away.
func (e *Engine) withoutLeaving(rows []row) []row {
	return slices.DeleteFunc(rows, func(r row) bool {
		return slices.ContainsFunc(e.leaving, func(ms *removals) bool { return ms.match(r) })
	})
}

// leave takes rows out of force, and keeps out what a change that was begun
// earlier would bring back, until arrived is called.
func (e *Engine) leave(what *removals) (fewer int) {
	e.mu.Lock()
	e.leaving = append(e.leaving, what)
	e.mu.Unlock()
	return e.change(func(old *snapshot) []row { return old.rows.all() })
}

func (e *Engine) arrived(what *removals) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.leaving = slices.DeleteFunc(e.leaving, func(ms *removals) bool { return ms == what })
}

// stays brings rows back that were on their way out.
func (e *Engine) stays(what *removals, rows []row) {
	e.arrived(what)
	e.change(func(old *snapshot) []row { return append(old.rows.all(), rows...) })
}
