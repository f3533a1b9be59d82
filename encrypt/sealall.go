package encrypt

import (
	"context"
	"errors"
	"slices"

	"github.com/crmguard/crmguard"
)

// SealAll fills Sealed of cells of one tenant from Plaintext. However many there are, it calls the
// key store once for keys that are not cached, once to make those that are missing, and once to lease
// messages; more often only for a tenant's first key and for keys that are worn or being
// turned. NULL stays NULL. The error of a cell is a *[RowError], whose Row is its index. On an
// error no cell was changed.
func (k *Keyring) SealAll(ctx context.Context, tenant string, cells []Cell) error {
	_, err := k.sealAll(ctx, tenant, cells, nil)
	return err
}

// sealAll also returns the keys of more scopes of the tenant.
func (k *Keyring) sealAll(ctx context.Context, tenant string, cells []Cell, more []Scope) ([]*scopeKeys, error) {
	p := borrowGrouping()
	defer p.release()
	size, err := p.groupPlain(ctx, tenant, cells)
	if err != nil {
		return nil, err
	}
	n := len(p.groups)
	p.addScopes(more)
	groups, others := p.groups[:n], p.groups[n:]
	arena := make([]byte, size)
	for range attempts {
		if err := k.keysOfGroups(ctx, tenant, p.groups, true); err != nil {
			return nil, err
		}
		var err error
		if err = k.reserveGroups(ctx, groups, cells); err == nil {
			err = k.sealCells(ctx, groups, cells, arena, &p.ad)
		}
		if err == nil && !k.allSettled(others) { // index entries are made of them
			err = errStalled
		}
		if err == nil {
			fillSealed(cells, arena)
			return keysOf(others), nil
		}
		if !errors.Is(err, errStalled) && !closedMeanwhile(err) {
			return nil, err
		}
	}
	return nil, errStalled
}

// fillSealed gives cells what was sealed of them, which lies in the arena one after the other.
func fillSealed(cells []Cell, arena []byte) {
	for i := range cells {
		c := &cells[i]
		c.Sealed = nil
		if c.Plaintext != nil {
			n := c.sealedSize()
			c.Sealed, arena = arena[:n:n], arena[n:]
		}
	}
}

// closedMeanwhile says whether a client was closed after its key was read, which is known by
// now: the next look names its cell.
func closedMeanwhile(err error) bool {
	_, named := errors.AsType[*RowError](err)
	return !named && errors.Is(err, crmguard.ErrErased)
}

// groupPlain returns how many bytes the sealed values will have.
func (p *grouping) groupPlain(ctx context.Context, tenant string, cells []Cell) (size int, err error) {
	if tenant == "" {
		return 0, errTenant
	}
	if err := checkForeign(ctx, tenant); err != nil {
		return 0, err
	}
	checked := false
	for i := range cells {
		c := &cells[i]
		if err := checkCell(tenant, c); err != nil {
			return 0, c.error(i, err)
		}
		if c.Place.Client != "" && !checked {
			if err := checkSealing(ctx, &c.Place); err != nil {
				return 0, c.error(i, err)
			}
			checked = true
		}
		if c.Plaintext == nil {
			continue
		}
		if len(c.Plaintext) > maxPlaintext {
			return 0, c.error(i, errTooLong)
		}
		if c.Pad < 0 || c.Pad > maxPad {
			return 0, c.error(i, errPad)
		}
		p.add(cells, i, 0)
		size += c.sealedSize()
	}
	return size, nil
}

// reserveGroups refuses closed clients and leases messages for all keys that have too
// few left, in one call; worn keys are replaced one by one.
func (k *Keyring) reserveGroups(ctx context.Context, groups []group, cells []Cell) error {
	short := false
	for i := range groups {
		g := &groups[i]
		if err := g.keys.usable(&g.scope); err != nil {
			return cells[g.first].error(g.first, err)
		}
		short = short || g.keys.newest().left.Load() < g.messages
	}
	if !short {
		return nil
	}
	wanted := lackingMessages(groups)
	worn, err := k.reserve(ctx, wanted)
	if err != nil {
		return err
	}
	for i := range wanted { // sealCells takes them, group by group
		wanted[i].key.left.Add(wanted[i].count)
	}
	for _, scope := range worn {
		first := slices.IndexFunc(groups, func(g group) bool { return g.scope == scope })
		if _, err := k.rotate(ctx, scope, groups[first].keys.newest()); err != nil {
			return err
		}
		next := k.cachedOne(&scope)
		if next.usable(&scope) != nil {
			continue
		}
		for i := range groups {
			if groups[i].scope == scope {
				groups[i].keys = next
			}
		}
	}
	return nil
}

// lackingMessages are the keys, each once, that have fewer messages left than all their groups need.
func lackingMessages(groups []group) []reservation {
	wanted := make([]reservation, 0, len(groups))
	known := make(map[*key]int, len(groups))
	for i := range groups {
		g := &groups[i]
		key := g.keys.newest()
		j, ok := known[key]
		if !ok {
			j = len(wanted)
			known[key] = j
			wanted = append(wanted, reservation{g.scope, key, 0})
		}
		wanted[j].count += g.messages
	}
	return slices.DeleteFunc(wanted, func(r reservation) bool { return r.key.left.Load() >= r.count })
}

// sealCells returns errStalled when keys have run out meanwhile.
func (k *Keyring) sealCells(ctx context.Context, groups []group, cells []Cell, arena []byte, ad *[]byte) error {
	for i := range groups {
		g := &groups[i]
		key := g.keys.newest()
		if key.left.Add(-g.messages) < 0 {
			var err error
			if key, err = k.takeMore(ctx, g.scope, key, g.messages); err != nil {
				return err
			}
		}
		if !k.current(g.keys, k.now()) { // reserving may have taken long
			return errStalled
		}
		key.begin(ad, &g.keys.scope)
		for i := g.first; i < g.end; i++ {
			c := &cells[i]
			if c.Plaintext == nil {
				continue
			}
			n := c.sealedSize()
			key.seal(arena[:0:n], &c.Place, c.Plaintext, c.Pad, ad)
			arena = arena[n:]
		}
	}
	return nil
}
