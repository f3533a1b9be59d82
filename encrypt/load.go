package encrypt

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"

	"github.com/crmguard/crmguard"
)

// keysOfGroups gives groups of one tenant their keys, with one query for those that are not cached; another
// one only when the answer was not current any more. Keys of scopes that have none are nil; closed
// ones are in the answer.
func (k *Keyring) keysOfGroups(ctx context.Context, tenant string, groups []group, create bool) error {
	for range attempts {
		missing := k.cachedGroups(tenant, groups)
		if missing == nil {
			return nil
		}
		if err := k.loadGroups(ctx, missing, groups, create); err != nil {
			return err
		}
		if k.allSettled(groups) {
			return nil
		}
	}
	return errStalled
}

// cachedGroups gives groups the keys that are cached, and returns the query for the others; nil: there
// are none.
func (k *Keyring) cachedGroups(tenant string, groups []group) (missing *keyQuery) {
	for i := range groups {
		g := &groups[i]
		if missing == nil {
			if g.keys = k.cachedOne(&g.scope); g.keys != nil {
				continue
			}
			missing = newKeyQuery(tenant, len(groups)-i)
		}
		hash := k.cache.hash(&g.scope)
		if g.keys = k.cached(&g.scope, hash); g.keys == nil {
			missing.add(i, &g.scope, hash)
		}
	}
	return missing
}

func (k *Keyring) allSettled(groups []group) bool {
	for i := range groups {
		if !k.settled(groups[i].keys) {
			return false
		}
	}
	return true
}

// loadGroups is load for those groups that a query has.
func (k *Keyring) loadGroups(ctx context.Context, q *keyQuery, groups []group, create bool) error {
	found, err := k.load(ctx, q, create)
	if err != nil {
		return err
	}
	for _, p := range q.places {
		groups[p.group].keys = found[p.scope]
	}
	return nil
}

// keysOfAll is keysOfGroups for scopes, in their order.
func (k *Keyring) keysOfAll(ctx context.Context, tenant string, scopes []Scope, create bool) ([]*scopeKeys, error) {
	p := borrowGrouping()
	defer p.release()
	p.addScopes(scopes)
	if err := k.keysOfGroups(ctx, tenant, p.groups, create); err != nil {
		return nil, err
	}
	return keysOf(p.groups), nil
}

func keysOf(groups []group) []*scopeKeys {
	keys := make([]*scopeKeys, len(groups))
	for i := range groups {
		keys[i] = groups[i].keys
	}
	return keys
}

// load asks the store, in one query, and puts what it finds into the cache. It returns keys in the order of
// the query's scopes; those of scopes without a key are nil. Another query follows only when the
// KEK turned while the first was read.
func (k *Keyring) load(ctx context.Context, q *keyQuery, create bool) ([]*scopeKeys, error) {
	if k.closed.Load() {
		return nil, errClosed
	}
	if err := q.check(); err != nil {
		return nil, err
	}
	if err := k.firstPoll(ctx); err != nil {
		return nil, err
	}
	found, keysets, err := k.loadOnce(ctx, q, create)
	if k.turnedSince(ctx, q.scopes[0], keysets, found, err) {
		found, _, err = k.loadOnce(ctx, q, create)
	}
	return found, err
}

// loadScope is load for one scope.
func (k *Keyring) loadScope(ctx context.Context, s Scope, create bool) (*scopeKeys, error) {
	q := newKeyQuery(s.Tenant, 1)
	q.add(0, &s, k.cache.hash(&s))
	found, err := k.load(ctx, q, create)
	if err != nil {
		return nil, err
	}
	return found[1], nil
}

// turnedSince says whether keys could not be unwrapped because the tenant's keyset has
// another version than those read with them.
func (k *Keyring) turnedSince(ctx context.Context, tenantScope Scope, keysets []Record, found []*scopeKeys, err error) bool {
	if err == nil {
		for _, keys := range found {
			if keys != nil && keys.broken != nil && errors.Is(keys.broken, errNewerKeyset) {
				return true
			}
		}
		return false
	}
	if len(keysets) == 0 {
		return false
	}
	now, err := k.stored(ctx, tenantScope)
	return err == nil && len(now) > 0 && now[len(now)-1].Version > keysets[len(keysets)-1].Version
}

// loadOnce returns the keys of what a query asks for, in its order, and the tenant's keysets.
func (k *Keyring) loadOnce(ctx context.Context, q *keyQuery, create bool) (found []*scopeKeys, keysets []Record, err error) {
	started, generation, change := k.now(), k.generation.Load(), k.changed.last.Load()
	if k.closed.Load() { // which Close sets before it ends the generation
		return nil, nil, errClosed
	}
	records, err := k.store.Load(ctx, q.scopes)
	if err != nil {
		return nil, nil, unavailable("key store", err)
	}
	stored := q.sort(records, k.cache)
	var mine map[Scope]bool
	if create && slices.ContainsFunc(stored[1:], func(r []Record) bool { return len(r) == 0 }) {
		byScope := groupRecords(records)
		mine, err = k.create(ctx, q.scopes[0], q.scopes[1:], byScope)
		for i, s := range q.scopes {
			stored[i] = byScope[s]
		}
		if err != nil {
			return nil, stored[0], err
		}
	}
	found = make([]*scopeKeys, len(stored))
	unwrap := unwrapper{keyring: k, keysets: stored[0]}
	for i, records := range stored {
		if i == 0 || len(records) == 0 {
			continue
		}
		// The name is the store's own: that of the caller may be a piece of something large.
		s := Scope{q.scopes[0].Tenant, q.scopes[i].Purpose, records[0].Scope.Name}
		versions := len(records)
		if records[0].State != Active {
			versions = 0
		}
		keys := newScopeKeys(versions)
		keys.scope, keys.state, keys.loaded, keys.unwrapped, keys.generation, keys.change = s, records[0].State, started, started, generation, change
		if keys.state == Active {
			err := unwrap.all(ctx, keys, records)
			if errors.Is(err, ErrDamaged) {
				found[i] = &scopeKeys{scope: s, broken: err}
				continue
			}
			if err != nil {
				return nil, stored[0], err
			}
			if mine[s] {
				keys.newest().left.Store(leaseSize(s))
			}
		}
		found[i] = k.cache.putAt(keys, q.hashes[i])
	}
	return found, stored[0], nil
}

// groups are the runs of records of one scope; a store may have several of one.
func groups(records []Record) iter.Seq[[]Record] {
	return func(yield func([]Record) bool) {
		for first := 0; first < len(records); {
			end := first + 1
			for end < len(records) && records[end].Scope.is(&records[first].Scope) {
				end++
			}
			if !yield(records[first:end:end]) {
				return
			}
			first = end
		}
	}
}

func groupRecords(records []Record) map[Scope][]Record {
	byScope := make(map[Scope][]Record, len(records))
	for group := range groups(records) {
		byScope[group[0].Scope] = append(byScope[group[0].Scope], group...)
	}
	return byScope
}

// create makes the keys that byScope lacks, in one store call, and adds what the
// store then holds to byScope: this node's or, when another was faster, the
// other's. It returns the scopes whose newest key is this node's.
func (k *Keyring) create(ctx context.Context, tenantScope Scope, scopes []Scope, byScope map[Scope][]Record) (map[Scope]bool, error) {
	missing := lacking(scopes, byScope)
	if len(missing) == 0 {
		return nil, nil
	}
	if len(byScope[tenantScope]) == 0 {
		if err := k.createTenant(ctx, tenantScope, byScope); err != nil {
			return nil, err
		}
	}
	// Every backup that holds a client's key shall hold the key of receipts too, see Replay; and
	// whoever has made the keyset may have come no further.
	receipts := receiptScope(tenantScope.Tenant)
	if _, kept := k.receipts.Load(receipts); !kept && !slices.Contains(missing, receipts) {
		missing = append(missing, receipts)
	}
	mine := make(map[Scope]bool, len(missing))
	for range attempts {
		made, err := k.createUnder(ctx, byScope[tenantScope], missing, byScope)
		if err != nil {
			return nil, err
		}
		maps.Copy(mine, made)
		if missing = lacking(missing, byScope); len(missing) == 0 {
			k.receipts.Store(receipts, nil)
			return mine, nil
		}
		// The tenant has got another keyset meanwhile.
		if byScope[tenantScope], err = k.keysets(ctx, tenantScope.Tenant); err != nil {
			return nil, err
		}
	}
	return nil, errNotKept
}

// lacking are the scopes without records.
func lacking(scopes []Scope, byScope map[Scope][]Record) (missing []Scope) {
	for _, s := range scopes {
		if len(byScope[s]) == 0 {
			missing = append(missing, s)
		}
	}
	return missing
}

// stored returns all versions of a scope, past the cache.
func (k *Keyring) stored(ctx context.Context, s Scope) ([]Record, error) {
	records, err := k.store.Load(ctx, []Scope{s})
	if err != nil {
		return nil, unavailable("key store", err)
	}
	return records, nil
}

// keysets are never empty without an error.
func (k *Keyring) keysets(ctx context.Context, tenant string) ([]Record, error) {
	records, err := k.stored(ctx, Scope{Tenant: tenant, Purpose: TenantKeyset})
	if err == nil && len(records) == 0 {
		err = ErrNoKey
	}
	return records, err
}

// createUnder makes first keys of scopes, as long as the newest of these keysets of the tenant
// is the newest in the store.
func (k *Keyring) createUnder(ctx context.Context, keysets []Record, scopes []Scope, byScope map[Scope][]Record) (map[Scope]bool, error) {
	fresh := make([]Record, 0, len(scopes))
	newest := &keysets[len(keysets)-1]
	wrapping, err := k.tenantKey(ctx, keysets, newest.Version)
	if err != nil {
		return nil, err
	}
	for _, s := range scopes {
		record, err := k.newRecord(s, 1, wrapping)
		if err != nil {
			return nil, err
		}
		record.Under = newest.Wrapped
		fresh = append(fresh, record)
	}
	return k.insert(ctx, fresh, byScope)
}

// newRecord makes a random key.
func (k *Keyring) newRecord(s Scope, version uint32, wrapping *tenantKeyset) (Record, error) {
	secret := make([]byte, keySize)
	if _, err := rand.Read(secret); err != nil {
		return Record{}, err
	}
	s = s.clone() // a store keeps it
	wrapped, err := wrapping.wrap(s, version, secret)
	if err != nil {
		return Record{}, err
	}
	return Record{
		Scope: s, Version: version, State: Active, Wrapped: wrapped, CreatedAt: k.wallClock(),
		Messages: uint64(leaseSize(s)), //nolint:gosec // never negative
	}, nil
}

// errNotKept is returned when [Keyring.Turn] was faster again and again, or the store
// does not do what it should.
var errNotKept = fmt.Errorf("%w: the key store did not keep a new key", crmguard.ErrUnavailable)

// insert stores fresh records and puts what the store holds then into byScope. It
// returns the scopes whose record won; none has won where what wrapped it is not
// the newest any more.
func (k *Keyring) insert(ctx context.Context, fresh []Record, byScope map[Scope][]Record) (map[Scope]bool, error) {
	stored, err := k.store.Insert(ctx, fresh)
	if err != nil {
		return nil, unavailable("key store", err)
	}
	maps.Copy(byScope, groupRecords(stored))
	mine := make(map[Scope]bool, len(fresh))
	for _, r := range fresh {
		if records := byScope[r.Scope]; len(records) > 0 {
			newest := records[len(records)-1]
			mine[r.Scope] = newest.Version == r.Version && bytes.Equal(newest.Wrapped, r.Wrapped)
		}
	}
	return mine, nil
}

// newScopeKeys returns keys with room for n versions.
func newScopeKeys(n int) *scopeKeys {
	if n == 1 { // as most scopes have
		one := new(struct {
			keys     scopeKeys
			versions [1]key
		})
		one.keys.versions = one.versions[:]
		return &one.keys
	}
	return &scopeKeys{versions: make([]key, n)}
}
