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
	messages int64  // cells that are not NULL
	newest   uint32 // version that any of them was sealed with
	keys     *scopeKeys
}

// groupsFor returns few, or as much memory as the cells' groups may need.
func groupsFor(cells []Cell, few []group) []group {
	runs := 0
	for i := range cells {
		if i == 0 || cells[i].Place.Client != cells[i-1].Place.Client {
			runs++
		}
	}
	if runs <= cap(few) {
		return few
	}
	return make([]group, 0, runs)
}

// addToGroup adds the next cell, in most cases to the group of the one before. The version is 0
// for one that is not sealed yet.
func addToGroup(groups []group, cells []Cell, i int, version uint32) []group {
	place := &cells[i].Place
	if n := len(groups); n > 0 && groups[n-1].scope.Name == place.Client {
		g := &groups[n-1]
		g.end = i + 1
		g.messages++
		g.newest = max(g.newest, version)
		return groups
	}
	return append(groups, group{scope: Scope{place.Tenant, DataKey, place.Client}, first: i, end: i + 1, messages: 1, newest: version})
}

// keysOfGroups gives groups their keys, and returns those of more scopes. Keys that do
// not exist are nil.
func (k *Keyring) keysOfGroups(ctx context.Context, tenant string, groups []group, more []Scope, create bool) ([]*scopeKeys, error) {
	if len(more) == 0 && k.cachedGroups(groups) {
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

// cachedGroups gives groups their keys if those of all are cached.
func (k *Keyring) cachedGroups(groups []group) bool {
	for i := range groups {
		g := &groups[i]
		if g.keys = k.cached(&g.scope, k.cache.hash(&g.scope)); g.keys == nil {
			return false
		}
	}
	return true
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

var errPad = errors.New("encrypt: a length is hidden up to a multiple of at most 64 KiB")

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
