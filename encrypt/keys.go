package encrypt

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/tink-crypto/tink-go/v2/tink"

	"github.com/crmguard/crmguard"
)

// scopeKeys are the keys of one scope as last read from the store.
type scopeKeys struct {
	scope      Scope
	state      State
	versions   []*key // oldest first; the last one seals
	loaded     int64  // when the query began
	unwrapped  int64  // when the KEK was asked
	generation uint64
	sought     atomic.Int64 // when a version was looked for that the store did not have
	broken     error        // why the stored keys of this scope alone cannot be used; never cached
}

// key is one version, ready for use.
type key struct {
	scope     Scope
	version   uint32
	aead      cipher.AEAD // of a data key
	secret    []byte      // of an index or MAC key
	macs      *sync.Pool  // of hash.Hash with that secret
	prefix    []byte      // of the associated data, the same for all fields of a scope
	wrap      tink.AEAD   // of a tenant's keyset
	unwrapped int64       // when the KEK was asked for it
	epoch     uint64      // of the Keyring at that time, for a tenant's keyset
	left      atomic.Int64
	scratch   atomic.Pointer[[]byte] // for associated data, see adPool
}

// errScope is never returned as long as the package has no bug.
var errScope = errors.New("encrypt: the keys of another scope came here")

// usable is nil for keys that may be used for a scope.
func (s *scopeKeys) usable(of *Scope) error {
	switch {
	case s == nil:
		return ErrNoKey
	case s.scope != *of:
		return errScope
	case s.broken != nil:
		return s.broken
	case s.state != Active || len(s.versions) == 0:
		return crmguard.ErrErased
	}
	return nil
}

func (s *scopeKeys) newest() *key { return s.versions[len(s.versions)-1] }

func (s *scopeKeys) version(v uint32) *key {
	for _, key := range slices.Backward(s.versions) { // most values are of the newest
		if key.version == v {
			return key
		}
	}
	return nil
}

// valid says whether cached keys may be used now, without asking anybody.
func (k *Keyring) valid(s *scopeKeys, now int64) bool {
	return k.current(s, now) && now-s.unwrapped < int64(k.opts.CacheAge)
}

// current says whether keys may be used now as far as erasures go: no state has changed since they were
// read, as far as a look at the store within the last [Lease] tells.
func (k *Keyring) current(s *scopeKeys, now int64) bool {
	// The end of the lease is read before the generation: a poll sets them in the
	// other order, so keys of an old generation never profit from a new lease.
	leaseEnd := k.leaseEnd.Load()
	return s.generation == k.generation.Load() &&
		s.loaded <= now && // a clock that went back tells nothing
		(now < leaseEnd || now-s.loaded < int64(Lease-slack))
}

// attempts to get keys that are current when they arrive: besides a stall, an erasure
// or a poll that notices one ends the use of whatever is being read.
const attempts = 4

// errStalled is returned after the last of them.
var errStalled = fmt.Errorf("%w: the key store or the KEK takes longer than a lease", ErrUnavailable)

// settled says whether what was read needs no second look: it is current, or says
// something that stays.
func (k *Keyring) settled(s *scopeKeys) bool {
	return s == nil || s.state != Active || k.current(s, k.now())
}

// still returns keys that may be used at this moment: those given or, if they have
// run out while the caller waited for something, the same scope's as they are now.
func (k *Keyring) still(ctx context.Context, s *Scope, keys *scopeKeys) (*scopeKeys, error) {
	if k.current(keys, k.now()) {
		return keys, nil
	}
	keys, err := k.fetch(ctx, *s, false)
	if err != nil {
		return nil, err
	}
	return keys, keys.usable(s)
}

// cached returns keys that may be used, nil when the store must be asked.
func (k *Keyring) cached(s *Scope) *scopeKeys {
	now := k.now()
	if now > k.pollDue.Load() && k.polled.Load() {
		k.pollSoon(now)
	}
	if keys := k.cache.get(s); keys != nil && k.valid(keys, now) {
		return keys
	}
	return nil
}

// keysOf returns the keys of a scope; with create it makes the first one.
func (k *Keyring) keysOf(ctx context.Context, s *Scope, create bool) (*scopeKeys, error) {
	keys := k.cached(s)
	if keys != nil && keys.state == Active && keys.broken == nil && len(keys.versions) > 0 { // the cache compared the scope
		return keys, nil
	}
	if keys == nil {
		var err error
		if keys, err = k.fetch(ctx, *s, create); err != nil {
			return nil, err
		}
	}
	return keys, keys.usable(s)
}

// fetch reads one scope, once for all who ask at the same time.
func (k *Keyring) fetch(ctx context.Context, s Scope, create bool) (*scopeKeys, error) {
	for range attempts { // the first flight may have begun before an Erase that has ended since
		keys, err := share(ctx, k, scopeFlight(s, create), func(ctx context.Context) (*scopeKeys, error) {
			found, err := k.load(ctx, s.Tenant, []Scope{s}, create)
			if err != nil {
				return nil, err
			}
			return found[0], nil
		})
		if err != nil {
			return nil, err
		}
		if k.settled(keys) {
			return keys, nil
		}
	}
	return nil, errStalled
}

// Names of flights are quoted: no two scopes share one, whatever is in their names.
func scopeFlight(s Scope, create bool) string {
	return fmt.Sprintf("scope %d %t %q %q", s.Purpose, create, s.Tenant, s.Name)
}

func keysetFlight(s Scope, version uint32) string {
	return fmt.Sprintf("keyset %d %q", version, s.Tenant)
}

// sharedTimeout ends a flight that all who wait for have left. What comes later
// than a lease could not be used.
const sharedTimeout = Lease - 2*time.Second

// share runs fn once for all concurrent callers with the same name. A caller that
// gives up does not end it for the others.
func share[T any](ctx context.Context, k *Keyring, name string, fn func(ctx context.Context) (T, error)) (T, error) {
	var zero T
	if k.closed.Load() {
		return zero, errClosed
	}
	flight := k.flights.DoChan(name, func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), sharedTimeout)
		defer cancel()
		return fn(ctx)
	})
	select {
	case <-ctx.Done():
		return zero, ctx.Err()
	case result := <-flight:
		if result.Err != nil {
			return zero, result.Err
		}
		return result.Val.(T), nil
	}
}

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
		unique = append(unique, Scope{tenantScope.Tenant, s.Purpose, strings.Clone(s.Name)}) // see Scope.clone
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
	started, generation := k.now(), k.generation.Load()
	exact := k.clock.exact()
	records, err := k.store.Load(ctx, scopes)
	if err != nil {
		return nil, nil, unavailable("key store", err)
	}
	stored := make([][]Record, len(scopes))
	for group := range groups(records) {
		if i, ok := at[group[0].Scope]; ok {
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
		mine, err = k.create(ctx, exact, scopes[0], scopes[1:], byScope)
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
		s := scopes[i]
		keys := &scopeKeys{scope: s, state: records[0].State, loaded: started, unwrapped: started, generation: generation}
		if keys.state == Active {
			err := k.unwrapAll(ctx, keys, records, keysets)
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
// other's. It returns the scopes whose newest key is this node's. byScope was read at
// the time started.
func (k *Keyring) create(ctx context.Context, started int64, tenantScope Scope, scopes []Scope, byScope map[Scope][]Record) (map[Scope]bool, error) {
	var missing []Scope
	for _, s := range scopes {
		if len(byScope[s]) == 0 {
			missing = append(missing, s)
		}
	}
	if len(missing) == 0 {
		return nil, nil
	}
	if len(byScope[tenantScope]) == 0 {
		started = k.clock.exact()
		if err := k.createTenant(ctx, tenantScope, byScope); err != nil {
			return nil, err
		}
		// Every backup that holds a client's key shall hold the key of receipts too:
		// see Replay.
		if receipts := receiptScope(tenantScope.Tenant); !slices.Contains(missing, receipts) {
			missing = append(missing, receipts)
		}
	}
	tenantRecords := byScope[tenantScope]
	wrapping, err := k.tenantKey(ctx, tenantRecords, tenantRecords[len(tenantRecords)-1].Version)
	if err != nil {
		return nil, err
	}
	fresh := make([]Record, 0, len(missing))
	for _, s := range missing {
		record, err := k.newRecord(s, 1, wrapping)
		if err != nil {
			return nil, err
		}
		fresh = append(fresh, record)
	}
	return k.insertWrapped(ctx, started, wrapping, fresh, byScope)
}

// newRecord makes a random key.
func (k *Keyring) newRecord(s Scope, version uint32, wrapping *key) (Record, error) {
	secret := make([]byte, keySize)
	if _, err := rand.Read(secret); err != nil {
		return Record{}, err
	}
	wrapped, err := wrapKey(wrapping, s, version, secret)
	if err != nil {
		return Record{}, err
	}
	return Record{
		Scope: s, Version: version, State: Active, Wrapped: wrapped, CreatedAt: k.wallClock(),
		Messages: uint64(leaseSize(s)), //nolint:gosec // never negative
	}, nil
}

// insert stores fresh records and puts what the store holds then into byScope. It
// returns the scopes whose record won.
func (k *Keyring) insert(ctx context.Context, fresh []Record, byScope map[Scope][]Record) (map[Scope]bool, error) {
	stored, err := k.store.Insert(ctx, fresh)
	if err != nil {
		return nil, unavailable("key store", err)
	}
	maps.Copy(byScope, groupRecords(stored))
	mine := make(map[Scope]bool, len(fresh))
	for _, r := range fresh {
		records := byScope[r.Scope]
		if len(records) == 0 {
			return nil, fmt.Errorf("%w: the key store did not keep a new key", ErrUnavailable)
		}
		newest := records[len(records)-1]
		mine[r.Scope] = newest.Version == r.Version && bytes.Equal(newest.Wrapped, r.Wrapped)
	}
	return mine, nil
}

// unwrapAll makes records of one scope ready for use.
func (k *Keyring) unwrapAll(ctx context.Context, keys *scopeKeys, records, tenantRecords []Record) error {
	if len(records) == 1 { // as most scopes have
		one := new(struct {
			made     [1]key
			versions [1]*key
		})
		keys.versions = one.versions[:]
		return k.unwrapInto(ctx, keys, one.made[:], records, tenantRecords)
	}
	keys.versions = make([]*key, len(records))
	return k.unwrapInto(ctx, keys, make([]key, len(records)), records, tenantRecords)
}

func (k *Keyring) unwrapInto(ctx context.Context, keys *scopeKeys, made []key, records, tenantRecords []Record) error {
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
			ready.prefix = appendAD(make([]byte, 0, len(domainField)+14+len(r.Scope.Tenant)+len(r.Scope.Name)), domainField, header{algorithmGCM, r.Version}, r.Scope.Tenant, r.Scope.Name)
		} else {
			ready.secret, ready.macs = secret, new(sync.Pool)
		}
		keys.versions[i] = ready
	}
	return nil
}

func newGCM(secret []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(secret)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

// maxName keeps names in the limits of index entries of all databases.
const maxName = 512

func checkName(names ...string) error {
	for _, name := range names {
		if len(name) > maxName || !utf8.ValidString(name) || strings.IndexByte(name, 0) >= 0 {
			return errName
		}
	}
	return nil
}
