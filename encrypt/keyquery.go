package encrypt

import (
	"math/bits"
	"strings"
)

// keyQuery is what the key store is asked for at once: a tenant's keyset, and then scopes of that tenant,
// each once.
type keyQuery struct {
	scopes []Scope
	hashes []uint64     // of the cache
	table  []int32      // finds scopes by their hash, with open addressing: the index, plus one
	places []queryPlace // of all who wait for keys
	wrong  bool         // a scope of another tenant was added
}

// queryPlace says which group keys of a scope belong to.
type queryPlace struct{ scope, group int32 }

func newKeyQuery(tenant string, n int) *keyQuery {
	q := &keyQuery{
		scopes: make([]Scope, 1, 1+n),
		hashes: make([]uint64, 1, 1+n),
		table:  make([]int32, 1<<bits.Len(uint(2*n))), //nolint:gosec // positive
		places: make([]queryPlace, 0, n),
	}
	q.scopes[0] = Scope{Tenant: strings.Clone(tenant), Purpose: TenantKeyset}
	return q
}

// add says which group keys of a scope belong to. Scopes may repeat.
func (q *keyQuery) add(group int, s *Scope, hash uint64) {
	slot := q.slot(s, hash)
	if *slot == 0 {
		tenant := q.scopes[0].Tenant
		q.wrong = q.wrong || s.Tenant != tenant
		q.scopes, q.hashes = append(q.scopes, Scope{tenant, s.Purpose, s.Name}), append(q.hashes, hash)
		*slot = int32(len(q.scopes)) //nolint:gosec // pages fit into memory
	}
	q.places = append(q.places, queryPlace{*slot - 1, int32(group)}) //nolint:gosec // pages fit into memory
}

// slot is where the table has a scope, or room for it: half of it stays free.
func (q *keyQuery) slot(s *Scope, hash uint64) *int32 {
	mask := uint64(len(q.table) - 1) //nolint:gosec // positive
	for i := hash & mask; ; i = (i + 1) & mask {
		slot := &q.table[i]
		if *slot == 0 || q.hashes[*slot-1] == hash && q.scopes[*slot-1].is(s) {
			return slot
		}
	}
}

func (q *keyQuery) check() error {
	if q.wrong {
		return errScope
	}
	if err := checkName(q.scopes[0].Tenant); err != nil {
		return err
	}
	for i := range q.scopes {
		if err := checkName(q.scopes[i].Name); err != nil {
			return err
		}
	}
	return nil
}

// sort returns the records of each scope, in the query's order; others are left out.
func (q *keyQuery) sort(records []Record, c *cache) [][]Record {
	sorted := make([][]Record, len(q.scopes))
	next := 0
	for group := range groups(records) {
		scope := &group[0].Scope
		i := next // most stores keep the order
		if i >= len(q.scopes) || !q.scopes[i].is(scope) {
			i = q.index(scope, c)
		}
		next = i + 1
		switch {
		case i < 0:
		case sorted[i] == nil:
			sorted[i] = group
		default:
			sorted[i] = append(sorted[i], group...)
		}
	}
	return sorted
}

// index is -1 for what was not asked for.
func (q *keyQuery) index(s *Scope, c *cache) int {
	if q.scopes[0].is(s) {
		return 0
	}
	return int(*q.slot(s, c.hash(s))) - 1
}
