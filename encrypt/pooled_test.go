package encrypt

import (
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
)

// secretRow has a field of text, one that becomes JSON, and one that may refuse to.
type secretRow struct {
	ID         string  `encrypt:",record"`
	Name       string  `encrypt:"name"`
	NameSealed []byte  `encrypt:"name,sealed"`
	Tags       []label `encrypt:"tags"`
	TagsSealed []byte  `encrypt:"tags,sealed"`
}

type label string

func (l label) MarshalText() ([]byte, error) {
	if l == "bad" {
		return nil, errors.New("refused")
	}
	return []byte(l), nil
}

func (l *label) UnmarshalText(text []byte) error {
	*l = label(text)
	return nil
}

// checkScratches returns an error unless nothing is left in memory that waits for the next
// batch, nor behind its end.
func checkScratches(all []*scratch) error {
	for _, b := range all {
		if strings.Trim(string(b.texts[:cap(b.texts)]), "\x00") != "" {
			return errors.New("text is left")
		}
		for _, c := range b.cells[:cap(b.cells)] {
			if c.Place != (crmguard.Place{}) || c.Plaintext != nil || c.Sealed != nil || c.Err != nil {
				return errors.New("a cell is left")
			}
		}
	}
	return nil
}

func checkGroupings(all []*grouping) error {
	for _, p := range all {
		for _, g := range p.groups[:cap(p.groups)] {
			if g != (group{}) {
				return errors.New("a group is left")
			}
		}
	}
	return nil
}

func TestWhatWasSealedAndOpenedDoesNotWaitInPools(t *testing.T) {
	var all []*scratch
	scratches = sync.Pool{New: func() any {
		b := &scratch{}
		all = append(all, b)
		return b
	}}
	t.Cleanup(func() { scratches = sync.Pool{New: func() any { return new(scratch) }} })
	var grouped []*grouping
	groupings = sync.Pool{New: func() any {
		p := new(grouping)
		grouped = append(grouped, p)
		return p
	}}
	t.Cleanup(func() { groupings = sync.Pool{New: func() any { return new(grouping) }} })
	kek, err := OpenKeyFile(t.TempDir()+"/kek.json", "", true)
	require.NoError(t, err)
	k, err := New(kek, NewMemory(), nil)
	require.NoError(t, err)
	defer func() { require.NoError(t, k.Close()) }()
	table, err := NewTable[secretRow](k, "people", nil)
	require.NoError(t, err)
	ctx := crmguard.System(t.Context(), "acme", "test")
	batch := func(n int) (rows []*secretRow) {
		for i := range n {
			rows = append(rows, &secretRow{ID: "c" + strings.Repeat("1", i+1), Name: strings.Repeat("Anna ", 3*n), Tags: []label{"vip"}})
		}
		return rows
	}
	for _, n := range []int{40, 3, 7} { // large ones leave room behind the small ones
		rows := batch(n)
		_, err := table.Seal(ctx, "acme", rows...)
		require.NoError(t, err)
		require.NoError(t, checkScratches(all), "sealed")
		rows[1].NameSealed[20] ^= 1
		require.Error(t, table.Open(ctx, "acme", rows...))
		require.NoError(t, checkScratches(all), "opened")

		bad := batch(n)
		bad[n-1].Tags = []label{"bad"}
		_, err = table.Seal(ctx, "acme", bad...)
		require.Error(t, err)
		require.NoError(t, checkScratches(all), "refused")
		_, err = table.Seal(t.Context(), "", bad...)
		require.Error(t, err)
		require.NoError(t, table.Open(ctx, "acme", rows[2:]...))
		require.NoError(t, checkScratches(all))
	}
	require.NotEmpty(t, all)
	require.NotEmpty(t, grouped)
	require.NotNil(t, grouped[0].groups)
	require.NoError(t, checkGroupings(grouped))
	for name, left := range map[string]*scratch{
		"text behind the end":   {texts: []byte("Anna")[:0]},
		"a cell behind the end": {cells: []Cell{{Plaintext: []byte("Anna")}}[:0]},
	} {
		require.Error(t, checkScratches([]*scratch{left}), "the check notices %s", name)
	}
	for name, left := range map[string]*grouping{
		"a group": {groups: []group{{scope: ClientScope("acme", "anna")}}[:0]},
	} {
		require.Error(t, checkGroupings([]*grouping{left}), "the check notices %s", name)
	}
}
