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
	"strings"
	"sync"
)

// keysOfAll returns the keys of scopes of one tenant, in their order, with one query for those that
// are not cached; another one only when the answer was not current any more. Of scopes
// without a key they are nil; closed ones are in the answer.
func (k *Keyring) keysOfAll(ctx context.Context, tenant string, scopes []Scope, create bool) ([]*scopeKeys, error) {
	all := make([]*scopeKeys, len(scopes))
	for range attempts {
		if err := k.readAll(ctx, tenant, scopes, all, create); err != nil {
			return nil, err
		}
		settled := true
		for _, keys := range all {
			settled = settled && k.settled(keys)
		}
		if settled {
			return all, nil
		}
	}
	return nil, errStalled
}

func (k *Keyring) readAll(ctx context.Context, tenant string, scopes []Scope, all []*scopeKeys, create bool) error {
	var missing []int
	for i := range scopes {
		if all[i] = k.cached(&scopes[i]); all[i] == nil {
			missing = append(missing, i)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	if k.closed.Load() {
		return errClosed
	}
	wanted := make([]Scope, len(missing))
	for j, i := range missing {
		wanted[j] = scopes[i]
	}
	found, err := k.load(ctx, tenant, wanted, create)
	if err != nil {
		return err
	}
	for j, i := range missing {
		all[i] = found[j]
	}
	return nil
}

// load asks the store for scopes of one tenant, in one query, and remembers what
// it finds. Another one follows only when the KEK turned while it was read. The answer
// is in the order of the scopes, which may repeat; nil are those without a key.
func (k *Keyring) load(ctx context.Context, tenant string, scopes []Scope, create bool) ([]*scopeKeys, error) {
	if err := checkName(tenant); err != nil {
		return nil, err
	}
	tenantScope := Scope{Tenant: strings.Clone(tenant), Purpose: TenantKeyset}
	unique := make([]Scope, 1, 1+len(scopes))
	unique[0] = tenantScope
	at, known := make([]int, len(scopes)), make(map[Scope]int, 1+len(scopes))
	known[tenantScope] = 0
	for i, s := range scopes {
		if j, again := known[s]; again {
			at[i] = j
			continue
		}
		if err := checkName(s.Name); err != nil {
			return nil, err
		}
		if s.Tenant != tenant {
			return nil, errScope
		}
		at[i] = len(unique)
		known[s] = at[i]
		unique = append(unique, Scope{tenantScope.Tenant, s.Purpose, s.Name})
	}
	if err := k.firstPoll(ctx); err != nil {
		return nil, err
	}
	found, keysets, err := k.loadOnce(ctx, unique, known, create)
	if k.turnedSince(ctx, tenantScope, keysets, found, err) {
		found, _, err = k.loadOnce(ctx, unique, known, create)
	}
	if err != nil {
		return nil, err
	}
	all := make([]*scopeKeys, len(scopes))
	for i := range all {
		all[i] = found[at[i]]
	}
	return all, nil
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
	now, err := k.store.Load(ctx, []Scope{tenantScope})
	return err == nil && len(now) > 0 && now[len(now)-1].Version > keysets[len(keysets)-1].Version
}

// loadOnce takes the tenant's keyset first and then scopes, each once, and which of them is
// where.
func (k *Keyring) loadOnce(ctx context.Context, scopes []Scope, at map[Scope]int, create bool) (found []*scopeKeys, keysets []Record, err error) {
	started, generation, change := k.now(), k.generation.Load(), k.changed.last.Load()
	if k.closed.Load() { // which Close sets before it ends the generation
		return nil, nil, errClosed
	}
	records, err := k.store.Load(ctx, scopes)
	if err != nil {
		return nil, nil, unavailable("key store", err)
	}
	stored := make([][]Record, len(scopes))
	next := 0
	for group := range groups(records) {
		i, asked := next, next < len(scopes) && scopes[next] == group[0].Scope // most stores keep the order
		if !asked {
			i, asked = at[group[0].Scope]
		}
		next = i + 1
		if asked {
			if stored[i] == nil {
				stored[i] = group
			} else {
				stored[i] = append(stored[i], group...)
			}
		}
	}
	var mine map[Scope]bool
	if create && slices.ContainsFunc(stored[1:], func(r []Record) bool { return len(r) == 0 }) {
		byScope := groupRecords(records)
		mine, err = k.create(ctx, scopes[0], scopes[1:], byScope)
		for i, s := range scopes {
			stored[i] = byScope[s]
		}
		if err != nil {
			return nil, stored[0], err
		}
	}
	keysets = stored[0]
	found = make([]*scopeKeys, len(scopes))
	for i, records := range stored {
		if i == 0 || len(records) == 0 {
			continue
		}
		// The name is the store's own: that of the caller may be a piece of something large.
		s := Scope{scopes[0].Tenant, scopes[i].Purpose, records[0].Scope.Name}
		versions := len(records)
		if records[0].State != Active {
			versions = 0
		}
		keys, made := newScopeKeys(versions)
		keys.scope, keys.state, keys.loaded, keys.unwrapped, keys.generation, keys.change = s, records[0].State, started, started, generation, change
		if keys.state == Active {
			err := k.unwrapAll(ctx, keys, made, records, keysets)
			if errors.Is(err, ErrDamaged) {
				found[i] = &scopeKeys{scope: s, broken: err}
				continue
			}
			if err != nil {
				return nil, keysets, err
			}
			k.keepLeases(&s, keys)
			if mine[s] {
				keys.newest().left.Store(leaseSize(s))
			}
		}
		found[i] = k.cache.put(keys)
	}
	return found, keysets, nil
}

// keepLeases takes over from cached keys what they have left of their messages.
func (k *Keyring) keepLeases(s *Scope, keys *scopeKeys) {
	known := k.cache.get(s)
	if known == nil || known.state != Active {
		return
	}
	for _, key := range keys.versions {
		if old := known.version(key.version); old != nil {
			key.left.Store(max(0, old.left.Swap(0)))
		}
	}
}

// groups are the runs of records of one scope; a store may have several of one.
func groups(records []Record) iter.Seq[[]Record] {
	return func(yield func([]Record) bool) {
		for first := 0; first < len(records); {
			end := first + 1
			for end < len(records) && records[end].Scope == records[first].Scope {
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
		// Every backup that holds a client's key shall hold the key of receipts too:
		// see Replay.
		if receipts := receiptScope(tenantScope.Tenant); !slices.Contains(missing, receipts) {
			missing = append(missing, receipts)
		}
	}
	mine := make(map[Scope]bool, len(missing))
	for range attempts {
		made, err := k.createUnder(ctx, byScope[tenantScope], missing, byScope)
		if err != nil {
			return nil, err
		}
		maps.Copy(mine, made)
		if missing = lacking(missing, byScope); len(missing) == 0 {
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

// keysets are never empty without an error.
func (k *Keyring) keysets(ctx context.Context, tenant string) ([]Record, error) {
	records, err := k.store.Load(ctx, []Scope{{Tenant: tenant, Purpose: TenantKeyset}})
	if err != nil {
		return nil, unavailable("key store", err)
	}
	if len(records) == 0 {
		return nil, ErrNoKey
	}
	return records, nil
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
func (k *Keyring) newRecord(s Scope, version uint32, wrapping *key) (Record, error) {
	secret := make([]byte, keySize)
	if _, err := rand.Read(secret); err != nil {
		return Record{}, err
	}
	s = s.clone() // a store keeps it
	wrapped, err := wrapKey(wrapping, s, version, secret)
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
var errNotKept = fmt.Errorf("%w: the key store did not keep a new key", ErrUnavailable)

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

// newScopeKeys returns keys with n versions, and where those are.
func newScopeKeys(n int) (*scopeKeys, []key) {
	if n == 1 { // as most scopes have
		one := new(struct {
			keys     scopeKeys
			made     [1]key
			versions [1]*key
			prefix   [64]byte // of the key, if it fits
		})
		one.keys.versions = one.versions[:]
		one.made[0].prefix = one.prefix[:0]
		return &one.keys, one.made[:]
	}
	return &scopeKeys{versions: make([]*key, n)}, make([]key, n)
}

// unwrapAll makes records of one scope ready for use.
func (k *Keyring) unwrapAll(ctx context.Context, keys *scopeKeys, made []key, records, tenantRecords []Record) error {
	for i := range records {
		r, ready := &records[i], &made[i]
		secret, since, err := k.unwrapKey(ctx, r, tenantRecords)
		if err != nil {
			return err
		}
		keys.unwrapped = min(keys.unwrapped, since)
		ready.scope, ready.version = keys.scope, r.Version
		if r.Scope.Purpose == DataKey {
			if ready.aead, err = newGCM(secret); err != nil {
				return err
			}
			size := len(domainField) + 14 + len(r.Scope.Tenant) + len(r.Scope.Name)
			ready.prefix = appendAD(slices.Grow(ready.prefix, size), domainField, header{algorithmGCM, r.Version}, r.Scope.Tenant, r.Scope.Name)
		} else {
			ready.secret, ready.macs = secret, new(sync.Pool)
		}
		keys.versions[i] = ready
	}
	return nil
}
