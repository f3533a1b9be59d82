package encrypt

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
)

// remembering is what checkBounded needs of a cache.
type remembering interface {
	get(s *Scope) *scopeKeys
	put(keys *scopeKeys) *scopeKeys
	len() int
}

// checkBounded asks for ten times as many clients as the cache may hold.
func checkBounded(c remembering, limit int) error {
	for i := range 10 * limit {
		c.put(&scopeKeys{scope: Scope{"acme", DataKey, fmt.Sprint("c", i)}, state: Active})
		c.put(&scopeKeys{scope: Scope{fmt.Sprint("t", i), DataKey, ""}, state: Destroyed})
		if c.len() > limit {
			return errors.New("the cache outgrew its limit")
		}
	}
	return nil
}

// hoarder is a cache without a limit.
type hoarder map[Scope]*scopeKeys

func (h hoarder) get(s *Scope) *scopeKeys { return h[*s] }
func (h hoarder) put(keys *scopeKeys) *scopeKeys {
	h[keys.scope] = keys
	return keys
}
func (h hoarder) len() int { return len(h) }

func TestCacheIsBounded(t *testing.T) {
	require.NoError(t, checkBounded(newCache(400), 400))
	require.Error(t, checkBounded(hoarder{}, 400), "the check notices a cache without a limit")
	require.NoError(t, checkBounded(newCache(1), cacheWays))
}

func TestCacheKeepsWhatIsUsed(t *testing.T) {
	c := newCache(64)
	tenant := Scope{"acme", TenantKeyset, ""}
	c.put(&scopeKeys{scope: tenant, state: Active})
	for i := range 10_000 {
		require.NotNil(t, c.get(&tenant), "a keyset in use is not pushed out by clients seen once")
		c.put(&scopeKeys{scope: Scope{"acme", DataKey, fmt.Sprint("c", i)}, state: Active})
	}
}

func TestCacheNeverReopens(t *testing.T) {
	c := newCache(64)
	s := Scope{"acme", DataKey, "c1"}
	active, closing, destroyed := &scopeKeys{scope: s, state: Active}, &scopeKeys{scope: s, state: Closing}, &scopeKeys{scope: s, state: Destroyed}
	require.Same(t, active, c.put(active))
	require.Same(t, closing, c.put(closing))
	require.Same(t, closing, c.put(active), "a slow reader that saw it active")
	require.Same(t, closing, c.get(&s))
	require.Same(t, destroyed, c.put(destroyed))
	c.clear()
	require.Nil(t, c.get(&s))
	require.Zero(t, c.len())
}

// Every concurrent reader sees the keys of the scope it asked for.
func TestCacheUnderConcurrency(t *testing.T) {
	c := newCache(32)
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 5000 {
				s := Scope{"acme", DataKey, fmt.Sprint("c", (i*7+g)%100)}
				if keys := c.get(&s); keys != nil && keys.scope != s {
					t.Errorf("%s got another's keys", s.Name)
				}
				c.put(&scopeKeys{scope: s, state: Active})
			}
		})
	}
	wg.Wait()
	require.LessOrEqual(t, c.len(), 32)
}

// A cached scope keeps its name when the caller's memory is used for something else.
func TestCachedNamesAreCopies(t *testing.T) {
	kek, err := OpenKeyFile(t.TempDir()+"/kek.json", "", true)
	require.NoError(t, err)
	k, err := New(kek, NewMemory(), nil)
	require.NoError(t, err)
	for name, keep := range map[string]func(s *Scope) error{
		"read": func(s *Scope) error { _, err := k.keysOf(t.Context(), s, true); return err },
		"erased": func(s *Scope) error {
			ctx := crmguard.System(t.Context(), strings.Clone(s.Tenant), "test")
			_, err := k.Erase(ctx, s.Tenant, s.Name)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			memory := []byte(name + "client-1")
			text := unsafe.String(&memory[0], len(memory))
			s := Scope{text[:len(name)], DataKey, text[len(name):]}
			same := s.clone()
			require.NoError(t, keep(&s))
			copy(memory, "whatever comes next is somebody else's")
			require.NotNil(t, k.cache.get(&same))
			require.Equal(t, same, k.cache.get(&same).scope)
		})
	}
}

// The fast way finds what the slow one finds, and nothing of another scope.
func TestTheFastWayToCachedKeys(t *testing.T) {
	kek, err := OpenKeyFile(t.TempDir()+"/kek.json", "", true)
	require.NoError(t, err)
	k, err := New(kek, NewMemory(), nil)
	require.NoError(t, err)
	defer func() { require.NoError(t, k.Close()) }()
	var scopes []Scope
	for _, tenant := range []string{"acme", "emca", "acm"} { // the first is remembered
		for _, name := range []string{"c1", "c2", ""} {
			scopes = append(scopes, Scope{tenant, DataKey, name}, Scope{tenant, IndexKey, name})
		}
	}
	agree := func(found int) {
		t.Helper()
		for i := range scopes {
			s := Scope{strings.Clone(scopes[i].Tenant), scopes[i].Purpose, strings.Clone(scopes[i].Name)}
			keys := k.cachedOne(&s)
			require.Same(t, k.cached(&s, k.cache.hash(&s)), keys, "%v", s)
			if i < found {
				require.NotNil(t, keys, "%v", s)
				require.Equal(t, s, keys.scope)
			} else {
				require.Nil(t, keys, "%v", s)
			}
		}
	}
	agree(0)
	for i, s := range scopes {
		ctx := crmguard.System(t.Context(), s.Tenant, "test")
		_, err := k.keysOf(ctx, &s, true)
		require.NoError(t, err)
		agree(i + 1)
	}
	// Hashes may be equal.
	for _, s := range scopes {
		for _, other := range scopes {
			if other == s {
				continue
			}
			keys := k.cachedOne(&s)
			require.NotNil(t, keys, "%v %v", s, other)
			hash := k.cache.hash(&other)
			set := &k.cache.sets[k.cache.set(hash)]
			was, tagged := set.slots[0].Swap(keys), set.tags[0].Swap(tag(hash))
			for i := range set.slots[1:] {
				set.tags[i+1].CompareAndSwap(tag(hash), ^tag(hash))
			}
			require.Nil(t, k.cachedOne(&other), "%v for %v", s, other)
			require.Nil(t, k.cached(&other, hash))
			for i := range set.slots[1:] {
				set.tags[i+1].CompareAndSwap(^tag(hash), tag(hash))
			}
			set.slots[0].Store(was)
			set.tags[0].Store(tagged)
		}
	}
	k.Invalidate()
	agree(0)
}
