package rbac

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"
	"time"
)

// orgCache keeps the tree of each tenant. Decisions take no lock, and look at the clock
// only. When what they find is older than every, the first of them starts a look and
// goes on with it; only who finds nothing, or what is older than maxAge, waits.
type orgCache struct {
	source        Org        // nil: the host has no departments
	static        *StaticOrg // source, if it is one: it costs nothing to ask
	clock         *quickClock
	every, maxAge time.Duration

	mu      sync.Mutex // one replacement of tenants at a time
	tenants atomic.Pointer[map[string]*tenantOrg]
}

// tenantOrg is what is known of the departments of one tenant.
type tenantOrg struct {
	kept atomic.Pointer[keptTree] // by the last look that succeeded; nil: none has
	due  atomic.Bool              // something may have changed since the last look began
	last atomic.Pointer[orgLook]
}

type keptTree struct {
	version int64
	tree    *tree
	looked  time.Duration // uptime when the look began
}

// orgLook is one look at the host's departments.
type orgLook struct {
	began time.Duration // uptime
	done  chan struct{} // closed when it has ended
	err   error         // why it failed
}

func (l *orgLook) ended() bool {
	select {
	case <-l.done:
		return true
	default:
		return false
	}
}

var noDepartments = newTree(Units{})

func (c *orgCache) open(source Org, clock *quickClock) {
	c.source, c.clock, c.every, c.maxAge = source, clock, DefaultEvery, DefaultMaxAge
	c.static, _ = source.(*StaticOrg)
}

// Invalidate forgets the departments of a tenant: the next decision waits for those that
// the host's [Org] has then. Other processes take them over as Org says.
func (e *Engine) Invalidate(tenant string) {
	c := &e.org
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, known := of(&c.tenants)[tenant]; known { // a look that is under way goes with it
		replaceIn(&c.tenants, tenant, &tenantOrg{}, maxTenants)
	}
}

// signal has each tenant's departments looked at when they are needed next.
func (c *orgCache) signal() {
	for _, t := range of(&c.tenants) {
		t.due.Store(true)
	}
}

// tree returns the tenant's departments.
func (c *orgCache) tree(ctx context.Context, tenant string) (*tree, error) {
	switch {
	case c.source == nil:
		return noDepartments, nil
	case c.static != nil:
		return c.static.tree(tenant), nil
	}
	t := of(&c.tenants)[tenant]
	if t == nil {
		t = c.add(tenant)
	}
	kept := t.kept.Load()
	if kept != nil && c.clock.now()-kept.looked < c.every && !t.due.Load() {
		return kept.tree, nil
	}
	c.clock.notice() // nobody else may do so
	now := c.clock.now()
	look := c.look(ctx, t, tenant, now)
	if kept != nil && now-kept.looked < c.maxAge {
		return kept.tree, nil
	}
	select {
	case <-look.done:
	case <-ctx.Done():
		return nil, fmt.Errorf("rbac: wait for the departments: %w", context.Cause(ctx))
	}
	switch kept = t.kept.Load(); {
	case kept == nil:
		return nil, look.err
	case c.clock.now()-kept.looked > c.maxAge:
		return nil, &StaleError{What: "the departments", Age: c.clock.now() - kept.looked, MaxAge: c.maxAge, Err: look.err}
	}
	return kept.tree, nil
}

func (c *orgCache) add(tenant string) *tenantOrg {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := of(&c.tenants)[tenant]
	if t == nil {
		t = &tenantOrg{}
		replaceIn(&c.tenants, tenant, t, maxTenants)
	}
	return t
}

// look returns the look that is under way or was the last one, and starts another if it
// is time: they do not follow one another faster than every, unless something is due.
func (c *orgCache) look(ctx context.Context, t *tenantOrg, tenant string, now time.Duration) *orgLook {
	last := t.last.Load()
	if last != nil && (!last.ended() || now-last.began < c.every && !t.due.Load()) {
		return last
	}
	next := &orgLook{began: now, done: make(chan struct{})}
	if !t.last.CompareAndSwap(last, next) {
		return t.last.Load()
	}
	t.due.Store(false) // before it looks: what changes from here on is due again
	go func() {
		defer close(next.done)
		looking, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.maxAge)
		defer cancel()
		next.err = c.refresh(looking, t, tenant, now)
	}()
	return next
}

// refresh asks the host.
func (c *orgCache) refresh(ctx context.Context, t *tenantOrg, tenant string, began time.Duration) (err error) {
	defer func() { // nobody else would catch it here
		if p := recover(); p != nil {
			err = fmt.Errorf("rbac: departments: panic: %v", p)
		}
	}()
	version, err := c.source.Version(ctx, tenant)
	if err != nil {
		return fmt.Errorf("rbac: version of the departments: %w", err)
	}
	kept := t.kept.Load()
	if kept != nil && kept.version == version {
		t.kept.Store(&keptTree{version, kept.tree, began})
		return nil
	}
	units, err := c.source.Load(ctx, tenant)
	if err != nil {
		return fmt.Errorf("rbac: departments: %w", err)
	}
	t.kept.Store(&keptTree{version, newTree(units), began})
	return nil
}

// maxTenants bounds the trees that are kept. Beyond it all are dropped.
const maxTenants = 4096

// of is the map that is in place now.
func of[V any](maps *atomic.Pointer[map[string]V]) map[string]V {
	if m := maps.Load(); m != nil {
		return *m
	}
	return nil
}

// replaceIn puts a copy with a new value in its place, alone if it is full.
func replaceIn[V any](in *atomic.Pointer[map[string]V], key string, value V, limit int) {
	next := make(map[string]V)
	if old := of(in); len(old) < limit {
		maps.Copy(next, old)
	}
	next[key] = value
	in.Store(&next)
}
