package encrypt

import (
	"errors"
	"slices"
	"sync"

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

// grouping is the memory that cells of a tenant need while they are sealed or opened.
type grouping struct {
	groups []group
	ad     []byte // of one cell after the other
}

var groupings = sync.Pool{New: func() any { return new(grouping) }}

func borrowGrouping() *grouping { return groupings.Get().(*grouping) }

// release leaves no names, which are pieces of requests, in memory that waits for the next batch.
func (p *grouping) release() {
	clear(p.groups)
	p.groups = p.groups[:0]
	if cap(p.groups) <= maxScratch && cap(p.ad) <= maxAD {
		groupings.Put(p)
	}
}

// add adds the next cell, in most cases to the group of the one before. The version is 0 for
// one that is not sealed yet.
func (p *grouping) add(cells []Cell, i int, version uint32) {
	place := &cells[i].Place
	if n := len(p.groups); n > 0 && p.groups[n-1].scope.Name == place.Client {
		g := &p.groups[n-1]
		g.end = i + 1
		g.messages++
		g.newest = max(g.newest, version)
		return
	}
	p.groups = append(p.groups, group{first: i, end: i + 1, messages: 1, newest: version})
	s := &p.groups[len(p.groups)-1].scope // a literal of all would be put together elsewhere and copied
	s.Tenant, s.Purpose, s.Name = place.Tenant, DataKey, place.Client
}

// addScopes adds groups without cells, which get keys.
func (p *grouping) addScopes(scopes []Scope) {
	for i := range scopes {
		p.groups = append(p.groups, group{scope: scopes[i]})
	}
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
	return &RowError{Row: i, Record: c.Place.Record, Field: c.Place.Field, Err: err}
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
