package encrypt_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/encrypt"
)

func TestReindex(t *testing.T) {
	f := newFullTable(t, 12, encrypt.Options{})
	find := func() []string {
		found, err := f.contacts.Find(job("acme"), "acme", "phone", "phone", "+79123456789")
		require.NoError(t, err)
		return found
	}
	require.Empty(t, find(), "as after a restore")
	_, err := f.keys.Erase(job("acme"), "acme", "c03")
	require.NoError(t, err)
	report, err := f.contacts.Reindex(job("acme"), "acme", f, &encrypt.JobOptions{Batch: 5})
	require.NoError(t, err)
	require.Equal(t, 12, report.Changed)
	require.Equal(t, 1, report.Erased)
	require.Len(t, find(), 11)
	require.NotContains(t, find(), "c03")

	// An edit between reading and writing keeps its own entries.
	h := &hooked{Rows: f}
	edited := false
	h.before = func() {
		if edited {
			return
		}
		edited = true
		c := page(5)[4]
		c.Phone = "+49 30 123456"
		entries, err := f.contacts.Seal(job("acme"), "acme", c)
		require.NoError(t, err)
		f.Put("acme", asRow(c))
		require.NoError(t, f.index.Put(t.Context(), nil, "acme", "contacts", []string{"c04"}, nil, entries))
	}
	_, err = f.contacts.Reindex(job("acme"), "acme", h, nil)
	require.NoError(t, err)
	require.NotContains(t, find(), "c04")
	found, err := f.contacts.Find(job("acme"), "acme", "phone", "phone", "+4930123456")
	require.NoError(t, err)
	require.Equal(t, []string{"c04"}, found)
}

func TestMaintain(t *testing.T) {
	c := newClock(t)
	f := newFullTable(t, 12, encrypt.Options{Clock: c.Now, IndexLife: 24 * time.Hour})
	scope := encrypt.Scope{}
	versions := func() (live []uint32) {
		list, err := f.store.List(t.Context(), encrypt.Record{}, 1000)
		require.NoError(t, err)
		for _, r := range list {
			if r.Scope.Purpose == encrypt.IndexKey {
				scope = r.Scope
				live = append(live, r.Version)
			}
		}
		return live
	}
	upkeep := func() encrypt.Report {
		report, err := f.contacts.Maintain(job("acme"), "acme", f, &encrypt.JobOptions{Batch: 5})
		require.NoError(t, err)
		return report
	}
	find := func() int {
		found, err := f.contacts.Find(job("acme"), "acme", "phone", "phone", "+79123456789")
		require.NoError(t, err)
		return len(found)
	}
	_, err := f.contacts.Reindex(job("acme"), "acme", f, nil)
	require.NoError(t, err)
	require.Equal(t, []uint32{1}, versions())
	require.Zero(t, upkeep().Rows, "young keys are left alone")

	c.Advance(25 * time.Hour)
	require.Equal(t, 12, upkeep().Changed)
	require.Equal(t, []uint32{1, 2}, versions(), "others may still write under the old version alone")
	require.Equal(t, 12, find())
	stale, err := f.index.Stale(t.Context(), "acme", "contacts", "phone", "phone", 2, "", 100)
	require.NoError(t, err)
	require.Empty(t, stale)

	require.Zero(t, upkeep().Changed)
	require.Equal(t, []uint32{1, 2}, versions(), "not before the closing time is over")
	// A process that knew the old version only writes late.
	late := page(13)[12]
	entries, err := f.contacts.Seal(job("acme"), "acme", late)
	require.NoError(t, err)
	require.Len(t, entries, 2)
	require.NoError(t, f.index.Put(t.Context(), nil, "acme", "contacts", []string{late.ID}, nil, entries[1:]))
	require.EqualValues(t, 1, entries[1].Version)
	f.Put("acme", asRow(late))

	c.Advance(encrypt.ClosingTime)
	require.Equal(t, 1, upkeep().Changed)
	require.Equal(t, []uint32{2}, versions())
	require.Equal(t, 13, find())
	require.NotEmpty(t, scope)
	require.Zero(t, upkeep().Rows)
}
