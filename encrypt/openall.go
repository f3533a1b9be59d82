package encrypt

import (
	"context"
	"slices"

	"github.com/crmguard/crmguard"
)

// OpenAll fills Plaintext of cells of one tenant from Sealed, after asking Options.OnOpen once.
// However many there are, it calls the key store once for keys that are not cached, and once
// more for versions that another process has made since. NULL stays NULL. Cells that do not
// open say why in Err; they have no Plaintext. After any other error no cell has.
func (k *Keyring) OpenAll(ctx context.Context, tenant string, cells []Cell) error {
	for i := range cells {
		cells[i].Plaintext, cells[i].Err = nil, nil
	}
	return k.openAll(ctx, tenant, cells)
}

// openAll leaves out cells that have an error already.
func (k *Keyring) openAll(ctx context.Context, tenant string, cells []Cell) error {
	return k.openCells(ctx, tenant, cells, nil, false)
}

// openCells asks Options.OnOpen, about more clients too, unless that was asked about all of them just now.
func (k *Keyring) openCells(ctx context.Context, tenant string, cells []Cell, more []string, allowed bool) error {
	p := borrowGrouping()
	defer p.release()
	size, err := p.groupSealed(ctx, tenant, cells)
	if err != nil {
		return err
	}
	groups := p.groups
	if err := k.keysOfGroups(ctx, tenant, groups, false); err != nil {
		return err
	}
	if err := k.newerVersions(ctx, tenant, groups); err != nil {
		return err
	}
	asked := false
	if !allowed {
		var err error
		if asked, err = k.askForGroups(ctx, tenant, groups, more); err != nil {
			return err
		}
	}
	if asked && k.anyRunOut(groups) { // that took long
		before := slices.Clone(groups)
		if err := k.keysOfGroups(ctx, tenant, groups, false); err != nil {
			return err
		}
		for i := range groups {
			if before[i].keys.usable(&before[i].scope) != nil { // it was not asked about this one
				groups[i].keys = before[i].keys
			}
		}
	}
	arena := make([]byte, size)
	for i := range groups {
		g := &groups[i]
		err := g.keys.usable(&g.scope)
		if err == nil && !k.current(g.keys, k.now()) { // opening what was before took long
			g.keys, err = k.still(ctx, &g.scope, g.keys)
		}
		for i := g.first; i < g.end; i++ {
			c := &cells[i]
			if c.Sealed == nil || c.Err != nil {
				continue
			}
			if c.Err = err; err != nil {
				continue
			}
			n := len(c.Sealed) - Overhead
			c.Plaintext, c.Err = k.openCell(ctx, g, c, arena[:0:n], &p.ad)
			arena = arena[n:]
		}
	}
	return nil
}

// groupSealed leaves malformed cells out, and says so in their Err. It returns how many bytes the
// plaintexts have.
func (p *grouping) groupSealed(ctx context.Context, tenant string, cells []Cell) (size int, err error) {
	if tenant == "" {
		return 0, errTenant
	}
	if err := checkForeign(ctx, tenant); err != nil {
		return 0, err
	}
	checked := false
	for i := range cells {
		c := &cells[i]
		if c.Err != nil {
			continue
		}
		if err := checkCell(tenant, c); err != nil {
			c.Err = err
			continue
		}
		if c.Place.Client != "" && !checked {
			if err := checkSubject(ctx, tenant); err != nil {
				return 0, err
			}
			checked = true
		}
		if c.Sealed == nil {
			continue
		}
		_, version, err := parseField(c.Sealed)
		if err != nil {
			c.Err = err
			continue
		}
		p.add(cells, i, version)
		size += len(c.Sealed) - Overhead
	}
	return size, nil
}

func (k *Keyring) openCell(ctx context.Context, g *group, c *Cell, into []byte, ad *[]byte) ([]byte, error) {
	_, version, err := parseField(c.Sealed)
	if err != nil {
		return nil, err
	}
	key := g.keys.version(version)
	if key == nil {
		if key, err = k.versionOf(ctx, &g.scope, g.keys, version); err != nil {
			return nil, err
		}
	}
	key.begin(ad, &g.keys.scope)
	return key.open(into, &c.Place, c.Sealed, ad)
}

// newerVersions reads anew, in one query, the keys of all groups that another node may
// have sealed with a version made since.
func (k *Keyring) newerVersions(ctx context.Context, tenant string, groups []group) error {
	var wanted *keyQuery
	for i := range groups {
		g := &groups[i]
		if g.keys.usable(&g.scope) != nil || !k.maySeek(g.keys, g.newest) {
			continue
		}
		if wanted == nil {
			wanted = newKeyQuery(tenant, len(groups)-i)
		}
		wanted.add(i, &g.scope, k.cache.hash(&g.scope))
	}
	if wanted == nil {
		return nil
	}
	if err := k.loadGroups(ctx, wanted, groups, false); err != nil {
		return err
	}
	for _, p := range wanted.places {
		g := &groups[p.group]
		if g.keys.usable(&g.scope) == nil && g.newest > g.keys.newest().version {
			g.keys.sought.Store(k.now())
		}
	}
	return nil
}

// askForGroups asks once for all clients that can be opened, and more, and were not yet.
func (k *Keyring) askForGroups(ctx context.Context, tenant string, groups []group, more []string) (asked bool, err error) {
	if k.opts.OnOpen == nil {
		return false, nil
	}
	act := crmguard.ActFrom(ctx)
	var clients []string
	seen := make(map[string]bool, len(groups))
	for i := range groups {
		client := groups[i].scope.Name
		if client == "" || seen[client] || groups[i].keys.usable(&groups[i].scope) != nil || act.Opened(client) {
			continue
		}
		seen[client] = true
		clients = append(clients, client)
	}
	for _, client := range more {
		if !seen[client] && !act.Opened(client) {
			seen[client] = true
			clients = append(clients, client)
		}
	}
	if len(clients) == 0 {
		return false, nil
	}
	return true, k.askOnOpen(ctx, act, tenant, clients)
}

func (k *Keyring) anyRunOut(groups []group) bool {
	now := k.now()
	return slices.ContainsFunc(groups, func(g group) bool {
		return g.keys.usable(&g.scope) == nil && !k.current(g.keys, now)
	})
}
