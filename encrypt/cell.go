package encrypt

import (
	"context"
	"errors"
	"slices"

	"github.com/crmguard/crmguard"
)

// Cell is one value of a record on its way into storage or out of it.
type Cell struct {
	Place     crmguard.Place
	Plaintext []byte // nil is NULL
	Sealed    []byte // nil is NULL

	// Pad hides the length of the plaintext up to a multiple of so many bytes; 0: the
	// length is not hidden.
	Pad int
	Err error // why this cell did not open
}

// group is a run of cells of one client.
type group struct {
	scope    Scope
	first    int // of the cells
	end      int
	messages int64 // cells that are not NULL
	keys     *scopeKeys
}

// SealAll fills Sealed of cells of one tenant from Plaintext, with at most one query to the key
// store, or two where clients get their first key. NULL stays NULL. The error of a cell
// is a [RowError], whose Row is its index. On an error no cell was changed.
func (k *Keyring) SealAll(ctx context.Context, tenant string, cells []Cell) error {
	_, err := k.sealAll(ctx, tenant, cells, nil)
	return err
}

// sealAll also returns the keys of more scopes of the tenant.
func (k *Keyring) sealAll(ctx context.Context, tenant string, cells []Cell, more []Scope) ([]*scopeKeys, error) {
	var few [4]group
	groups, size, err := sealGroups(ctx, tenant, cells, few[:0])
	if err != nil {
		return nil, err
	}
	arena := make([]byte, size)
	for range attempts {
		keys, err := k.keysOfGroups(ctx, tenant, groups, more, true)
		if err != nil {
			return nil, err
		}
		if err := k.reserveGroups(ctx, groups, cells); err != nil {
			return nil, err
		}
		err = k.sealCells(ctx, groups, cells, arena)
		if errors.Is(err, errStalled) {
			continue
		}
		if err != nil {
			return nil, err
		}
		rest := arena
		for i := range cells {
			cells[i].Sealed = nil
			if cells[i].Plaintext != nil {
				n := cells[i].sealedSize()
				cells[i].Sealed, rest = rest[:n:n], rest[n:]
			}
		}
		return keys, nil
	}
	return nil, errStalled
}

// sealGroups appends to groups, which spares small batches an allocation.
func sealGroups(ctx context.Context, tenant string, cells []Cell, groups []group) (_ []group, size int, err error) {
	if tenant == "" {
		return nil, 0, errTenant
	}
	checked := false
	for i := range cells {
		c := &cells[i]
		if err := checkCell(tenant, c); err != nil {
			return nil, 0, c.error(i, err)
		}
		if c.Place.Client != "" && !checked {
			if err := checkSealing(ctx, &c.Place); err != nil {
				return nil, 0, c.error(i, err)
			}
			checked = true
		}
		if c.Plaintext == nil {
			continue
		}
		if c.Pad < 0 || c.Pad > maxPad || len(c.Plaintext) > maxPlaintext {
			return nil, 0, c.error(i, errTooLong)
		}
		groups = addToGroup(groups, cells, i)
		size += c.sealedSize()
	}
	return groups, size, nil
}

// addToGroup adds the next cell, in most cases to the group of the one before.
func addToGroup(groups []group, cells []Cell, i int) []group {
	place := &cells[i].Place
	if n := len(groups); n > 0 && groups[n-1].scope.Name == place.Client {
		groups[n-1].end = i + 1
		groups[n-1].messages++
		return groups
	}
	return append(groups, group{scope: Scope{place.Tenant, DataKey, place.Client}, first: i, end: i + 1, messages: 1})
}

// keysOfGroups gives groups their keys, and returns those of more scopes. Keys that do
// not exist are nil.
func (k *Keyring) keysOfGroups(ctx context.Context, tenant string, groups []group, more []Scope, create bool) ([]*scopeKeys, error) {
	if len(groups)+len(more) == 0 {
		return nil, nil
	}
	scopes := make([]Scope, 0, len(groups)+len(more))
	for i := range groups {
		scopes = append(scopes, groups[i].scope)
	}
	keys, err := k.keysOfAll(ctx, tenant, append(scopes, more...), create)
	if err != nil {
		return nil, err
	}
	for i := range groups {
		groups[i].keys = keys[i]
	}
	return keys[len(groups):], nil
}

// reserveGroups refuses closed clients and leases messages for all keys that have too
// few left, in one call; worn keys are replaced one by one.
func (k *Keyring) reserveGroups(ctx context.Context, groups []group, cells []Cell) error {
	var wanted []reservation
	for i := range groups {
		g := &groups[i]
		if err := g.keys.usable(&g.scope); err != nil {
			return cells[g.first].error(g.first, err)
		}
		if key := g.keys.newest(); key.left.Load() < g.messages {
			wanted = append(wanted, reservation{g.scope, key, 0})
		}
	}
	worn, err := k.reserve(ctx, wanted)
	if err != nil {
		return err
	}
	for _, scope := range worn {
		for i := range groups {
			if groups[i].scope != scope {
				continue
			}
			if _, err := k.rotate(ctx, scope, groups[i].keys.newest()); err != nil {
				return err
			}
			if next := k.cached(&scope); next.usable(&scope) == nil {
				groups[i].keys = next
			}
		}
	}
	return nil
}

// sealCells returns errStalled when keys have run out meanwhile.
func (k *Keyring) sealCells(ctx context.Context, groups []group, cells []Cell, arena []byte) error {
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
		for i := g.first; i < g.end; i++ {
			c := &cells[i]
			if c.Plaintext == nil {
				continue
			}
			n := c.sealedSize()
			key.seal(arena[:0:n], &c.Place, c.Plaintext, c.Pad)
			arena = arena[n:]
		}
	}
	return nil
}

// OpenAll fills Plaintext of cells of one tenant from Sealed: with at most one query to the key
// store, and after asking Options.OnOpen once. NULL stays NULL. Cells that do not open say why
// in Err; they have no Plaintext. After any other error no cell has.
func (k *Keyring) OpenAll(ctx context.Context, tenant string, cells []Cell) error {
	for i := range cells {
		cells[i].Plaintext, cells[i].Err = nil, nil
	}
	return k.openAll(ctx, tenant, cells)
}

// openAll leaves out cells that have an error already.
func (k *Keyring) openAll(ctx context.Context, tenant string, cells []Cell) error {
	return k.openCells(ctx, tenant, cells, false)
}

// openCells asks Options.OnOpen unless that was asked about all these clients just now.
func (k *Keyring) openCells(ctx context.Context, tenant string, cells []Cell, allowed bool) error {
	var few [4]group
	groups, size, err := openGroups(ctx, tenant, cells, few[:0])
	if err != nil {
		return err
	}
	if _, err := k.keysOfGroups(ctx, tenant, groups, nil, false); err != nil {
		return err
	}
	if err := k.newerVersions(ctx, tenant, groups, cells); err != nil {
		return err
	}
	if !allowed {
		if err := k.askForGroups(ctx, tenant, groups); err != nil {
			return err
		}
	}
	if k.anyRunOut(groups) { // asking took long
		if _, err := k.keysOfGroups(ctx, tenant, groups, nil, false); err != nil {
			return err
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
			c.Plaintext, c.Err = k.openCell(ctx, g, c, arena[:0:n])
			arena = arena[n:]
		}
	}
	return nil
}

// openGroups leaves malformed cells out, and says so in their Err.
func openGroups(ctx context.Context, tenant string, cells []Cell, groups []group) (_ []group, size int, err error) {
	if tenant == "" {
		return nil, 0, errTenant
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
				return nil, 0, err
			}
			checked = true
		}
		if c.Sealed == nil {
			continue
		}
		if _, _, c.Err = parseField(c.Sealed); c.Err != nil {
			continue
		}
		groups = addToGroup(groups, cells, i)
		size += len(c.Sealed) - Overhead
	}
	return groups, size, nil
}

func (k *Keyring) openCell(ctx context.Context, g *group, c *Cell, into []byte) ([]byte, error) {
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
	return key.open(into, &c.Place, c.Sealed)
}

// newerVersions reads anew, in one query, the keys of all groups that another node may
// have sealed with a version made since.
func (k *Keyring) newerVersions(ctx context.Context, tenant string, groups []group, cells []Cell) error {
	var wanted []int
	for i := range groups {
		g := &groups[i]
		if g.keys.usable(&g.scope) != nil {
			continue
		}
		for _, c := range cells[g.first:g.end] {
			if _, version, err := parseField(c.Sealed); err == nil && c.Err == nil && k.maySeek(g.keys, version) {
				wanted = append(wanted, i)
				break
			}
		}
	}
	if len(wanted) == 0 {
		return nil
	}
	scopes := make([]Scope, len(wanted))
	for j, i := range wanted {
		scopes[j] = groups[i].scope
	}
	found, err := k.load(ctx, tenant, scopes, false)
	if err != nil {
		return err
	}
	for j, i := range wanted {
		g, keys := &groups[i], found[j]
		g.keys = keys
		if keys.usable(&g.scope) != nil {
			continue
		}
		for _, c := range cells[g.first:g.end] {
			if _, version, err := parseField(c.Sealed); err == nil && c.Err == nil && version > keys.newest().version {
				keys.sought.Store(k.now())
			}
		}
	}
	return nil
}

// askForGroups asks once for all clients that can be opened and were not yet.
func (k *Keyring) askForGroups(ctx context.Context, tenant string, groups []group) error {
	if k.opts.OnOpen == nil {
		return nil
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
	if len(clients) == 0 {
		return nil
	}
	return k.askOnOpen(ctx, act, tenant, clients)
}

func (k *Keyring) anyRunOut(groups []group) bool {
	now := k.now()
	return slices.ContainsFunc(groups, func(g group) bool {
		return g.keys.usable(&g.scope) == nil && !k.current(g.keys, now)
	})
}

var errForeignCell = errors.New("encrypt: a cell of another tenant")

func checkCell(tenant string, c *Cell) error {
	if c.Place.Tenant != tenant {
		return errForeignCell
	}
	return checkPlace(&c.Place)
}

// error names a cell in an error.
func (c *Cell) error(i int, err error) error {
	return RowError{Row: i, Record: c.Place.Record, Field: c.Place.Field, Err: err}
}

// maxPad is far above what hides lengths of fields and far below what memory holds.
const maxPad = 1 << 16

// paddedSize is what a plaintext becomes: at least one byte more, up to a multiple of pad.
func paddedSize(plaintext, pad int) int {
	if pad == 0 {
		return plaintext
	}
	return (plaintext/pad + 1) * pad
}

func (c *Cell) sealedSize() int { return Overhead + paddedSize(len(c.Plaintext), c.Pad) }

// padded appends to plaintext what ISO/IEC 7816-4 does: 0x80, then zeros.
func padded(plaintext []byte, pad int) []byte {
	b := make([]byte, paddedSize(len(plaintext), pad))
	b[copy(b, plaintext)] = 0x80
	return b
}

// unpadded is the inverse of padded.
func unpadded(b []byte) ([]byte, error) {
	for i, x := range slices.Backward(b) {
		switch x {
		case 0:
		case 0x80:
			return b[:i], nil
		default:
			return nil, ErrMalformed
		}
	}
	return nil, ErrMalformed
}
