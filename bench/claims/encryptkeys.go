package main

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/internal/uptime"
)

// encryptKeysClaims count how often the KEK and the key store are asked.
func encryptKeysClaims() []claim {
	return []claim{
		{name: "encrypt.kms-calls", unit: "", direction: atMost, limit: 1, open: openCalls((*traffic).kekCalls)},
		{name: "encrypt.key-reads", unit: "", direction: atMost, limit: 1.1, open: openCalls((*traffic).keyReads)},
		{name: "encrypt.turn", unit: "", direction: atMost, limit: 1.01, open: openTurn},
	}
}

// countingKEK counts what a KMS would be paid for.
type countingKEK struct {
	encrypt.RotatingKEK
	calls atomic.Int64
}

func (k *countingKEK) EncryptWithContext(ctx context.Context, plaintext, associatedData []byte) ([]byte, error) {
	k.calls.Add(1)
	return k.RotatingKEK.EncryptWithContext(ctx, plaintext, associatedData)
}

func (k *countingKEK) DecryptWithContext(ctx context.Context, ciphertext, associatedData []byte) ([]byte, error) {
	k.calls.Add(1)
	return k.RotatingKEK.DecryptWithContext(ctx, ciphertext, associatedData)
}

// countingStore counts queries for keys.
type countingStore struct {
	*encrypt.Memory
	reads atomic.Int64
}

func (s *countingStore) Load(ctx context.Context, scopes []encrypt.Scope) ([]encrypt.Record, error) {
	s.reads.Add(1)
	return s.Memory.Load(ctx, scopes)
}

// Sizes that claims are about. Tests, which only see that everything runs, take less.
var (
	manyClients = 100_000
	manyTenants = 1_000
	manyCached  = 10_000
	manyCalls   = 1_000_000
	coldPages   = 300    // of fifty clients: less than a cache holds by default
	reencrypted = 10_000 // rows
)

// population is a key store with the keys of many clients of many tenants, one value
// each.
type population struct {
	kek    *countingKEK
	store  *countingStore
	places []crmguard.Place
	sealed [][]byte
	close  func() error
}

func populate(ctx context.Context) (*population, error) {
	p, err := newPair(ctx)
	if err != nil {
		return nil, err
	}
	many := &population{kek: &countingKEK{RotatingKEK: p.kek}, store: &countingStore{Memory: encrypt.NewMemory()}, close: p.close}
	keys, err := encrypt.New(many.kek, many.store, nil)
	if err != nil {
		return nil, errors.Join(err, p.close())
	}
	for t := range manyTenants {
		tenant := fmt.Sprintf("t-%d", t)
		cells := make([]encrypt.Cell, manyClients/manyTenants)
		for i := range cells {
			cells[i] = encrypt.Cell{Plaintext: shortText, Place: phonePlace}
			cells[i].Place.Tenant, cells[i].Place.Client = tenant, "c-"+strconv.Itoa(i)
		}
		if err := keys.SealAll(crmguard.System(ctx, tenant, "claims"), tenant, cells); err != nil {
			return nil, errors.Join(err, keys.Close(), p.close())
		}
		for _, c := range cells {
			many.places, many.sealed = append(many.places, c.Place), append(many.sealed, c.Sealed)
		}
	}
	return many, keys.Close()
}

// traffic is what a million openings have asked for, of clients as Zipf spreads them
// over a company's tenants, and what they could not do without.
type traffic struct {
	calls, reads      int64
	tenants, coldKeys int64 // that were met; that a cache which forgets the least recently used would have read
}

func (t *traffic) kekCalls() (ours, peer int64) { return t.calls, t.tenants }
func (t *traffic) keyReads() (ours, peer int64) { return t.reads, t.coldKeys }

func run1M(ctx context.Context, many *population) (t *traffic, err error) {
	keys, err := encrypt.New(many.kek, many.store, &encrypt.Options{CacheEntries: manyCached})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, keys.Close()) }()
	contexts := make(map[string]context.Context)
	random := rand.New(rand.NewPCG(1, 2))                       // #nosec G404 -- the same clients each time
	zipf := rand.NewZipf(random, 1.1, 1, uint64(manyClients-1)) // #nosec G115 -- never negative
	spread := random.Perm(manyClients)                          // the busiest clients belong to many tenants
	many.kek.calls.Store(0)
	many.store.reads.Store(0)
	t = &traffic{}
	model := newLRU(manyCached)
	for range manyCalls {
		i := spread[zipf.Uint64()]
		tenant := many.places[i].Tenant
		if contexts[tenant] == nil {
			contexts[tenant] = crmguard.System(ctx, tenant, "claims")
			t.tenants++
		}
		if !model.get(i) {
			t.coldKeys++
		}
		if _, err := keys.Open(contexts[tenant], many.places[i], many.sealed[i]); err != nil {
			return nil, err
		}
	}
	t.calls, t.reads = many.kek.calls.Load(), many.store.reads.Load()
	return t, nil
}

// openCalls has both sides of a claim from one run.
func openCalls(of func(*traffic) (ours, peer int64)) func(ctx context.Context, _ *servers) (trial, error) {
	return func(ctx context.Context, _ *servers) (trial, error) {
		many, err := populate(ctx)
		if err != nil {
			return trial{}, err
		}
		var counted *traffic
		side := func(choose func(ours, peer int64) int64) measurement {
			return func(ctx context.Context) (float64, error) {
				if counted == nil {
					if counted, err = run1M(ctx, many); err != nil {
						return 0, err
					}
				}
				return float64(choose(of(counted))), nil
			}
		}
		return trial{
			ours:  side(func(ours, _ int64) int64 { return ours }),
			peer:  side(func(_, peer int64) int64 { return peer }),
			close: many.close,
		}, nil
	}
}

// openTurn counts the calls of the KEK that a Turn of all keys takes, with the tenants'
// keysets in the cache as they are in a CRM at work; the peer is one a tenant. Time is
// moved on: a Turn waits until no other process can hold old keys.
func openTurn(ctx context.Context, _ *servers) (trial, error) {
	many, err := populate(ctx)
	if err != nil {
		return trial{}, err
	}
	return trial{
		ours: counted(func(ctx context.Context) (calls float64, err error) {
			start := time.Now()
			defer uptime.Move(func() time.Duration { return time.Hour + 60*time.Since(start) })()
			keys, err := encrypt.New(many.kek, many.store, nil)
			if err != nil {
				return 0, err
			}
			defer func() { err = errors.Join(err, keys.Close()) }()
			for i := 0; i < manyClients; i += manyClients / manyTenants {
				tenant := many.places[i].Tenant
				if _, err := keys.Open(crmguard.System(ctx, tenant, "claims"), many.places[i], many.sealed[i]); err != nil {
					return 0, err
				}
			}
			many.kek.calls.Store(0)
			turned, err := keys.Turn(ctx, nil)
			if err == nil && (turned.Tenants != manyTenants || turned.Keys < manyClients) {
				err = fmt.Errorf("turned %d tenants and %d keys", turned.Tenants, turned.Keys)
			}
			return float64(many.kek.calls.Load()), err
		}),
		peer:  counted(func(context.Context) (float64, error) { return float64(manyTenants), nil }),
		close: many.close,
	}, nil
}

// lru is the slow model of a cache: it forgets what was not used for longest.
type lru struct {
	limit int
	order *list.List
	known map[int]*list.Element
}

func newLRU(limit int) *lru { return &lru{limit, list.New(), make(map[int]*list.Element)} }

// get says whether a key was there, and remembers it.
func (l *lru) get(key int) bool {
	if e, ok := l.known[key]; ok {
		l.order.MoveToFront(e)
		return true
	}
	l.known[key] = l.order.PushFront(key)
	if l.order.Len() > l.limit {
		last := l.order.Back()
		l.order.Remove(last)
		delete(l.known, last.Value.(int)) //nolint:forcetypeassert // only ints are put
	}
	return false
}
