package encrypt

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
)

// remembering is what checkBounded needs of a cache.
type remembering interface {
	get(s *Scope) *scopeKeys
	put(s *Scope, keys *scopeKeys) *scopeKeys
	len() int
}

// checkBounded asks for ten times as many clients as the cache may hold.
func checkBounded(c remembering, limit int) error {
	for i := range 10 * limit {
		c.put(&Scope{"acme", DataKey, fmt.Sprint("c", i)}, &scopeKeys{state: Active})
		c.put(&Scope{fmt.Sprint("t", i), DataKey, ""}, &scopeKeys{state: Destroyed})
		if c.len() > limit {
			return errors.New("the cache outgrew its limit")
		}
	}
	return nil
}

// hoarder is a cache without a limit.
type hoarder map[Scope]*scopeKeys

func (h hoarder) get(s *Scope) *scopeKeys { return h[*s] }
func (h hoarder) put(s *Scope, keys *scopeKeys) *scopeKeys {
	h[*s] = keys
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
	c.put(&tenant, &scopeKeys{state: Active})
	for i := range 10_000 {
		require.NotNil(t, c.get(&tenant), "a keyset in use is not pushed out by clients seen once")
		c.put(&Scope{"acme", DataKey, fmt.Sprint("c", i)}, &scopeKeys{state: Active})
	}
}

func TestCacheNeverReopens(t *testing.T) {
	c := newCache(64)
	s := Scope{"acme", DataKey, "c1"}
	active, closing, destroyed := &scopeKeys{state: Active}, &scopeKeys{state: Closing}, &scopeKeys{state: Destroyed}
	require.Same(t, active, c.put(&s, active))
	require.Same(t, closing, c.put(&s, closing))
	require.Same(t, closing, c.put(&s, active), "a slow reader that saw it active")
	require.Same(t, closing, c.get(&s))
	require.Same(t, destroyed, c.put(&s, destroyed))
	c.clear()
	require.Nil(t, c.get(&s))
	require.Zero(t, c.len())
}

// Every concurrent reader sees the keys of the scope it asked for.
func TestCacheUnderConcurrency(t *testing.T) {
	c := newCache(32)
	own := make(map[string]*scopeKeys)
	for i := range 100 {
		own[fmt.Sprint("c", i)] = &scopeKeys{state: Active}
	}
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 5000 {
				s := Scope{"acme", DataKey, fmt.Sprint("c", (i*7+g)%100)}
				if keys := c.get(&s); keys != nil && keys != own[s.Name] {
					t.Errorf("%s got another's keys", s.Name)
				}
				c.put(&s, own[s.Name])
			}
		})
	}
	wg.Wait()
	require.LessOrEqual(t, c.len(), 32)
}

// A cached scope keeps its name when the caller's memory is used for something else.
func TestCachedNamesAreCopies(t *testing.T) {
	c := newCache(64)
	memory := []byte("acmeclient-1")
	name := unsafe.String(&memory[0], len(memory))
	s := Scope{Tenant: name[:4], Name: name[4:]}
	keys := &scopeKeys{state: Active}
	c.put(&s, keys)
	copy(memory, "otherperson2")
	require.Same(t, keys, c.get(&Scope{Tenant: "acme", Name: "client-1"}))
	require.Nil(t, c.get(&s))
}
