package encrypt_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/encrypt/encrypttest"
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
		require.NoError(t, f.index.Put(t.Context(), nil, entries))
	}
	_, err = f.contacts.Reindex(job("acme"), "acme", h, nil)
	require.NoError(t, err)
	require.NotContains(t, find(), "c04")
	found, err := f.contacts.Find(job("acme"), "acme", "phone", "phone", "+4930123456")
	require.NoError(t, err)
	require.Equal(t, []string{"c04"}, found)
}

func TestMaintainIndex(t *testing.T) {
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
		report, err := f.contacts.MaintainIndex(job("acme"), "acme", f, &encrypt.JobOptions{Batch: 5})
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
	require.Len(t, entries.Entries, 2)
	require.NoError(t, f.index.Put(t.Context(), nil, encrypt.IndexEntries{Tenant: "acme", Kind: "contacts", Records: []string{late.ID}, Entries: entries.Entries[1:]}))
	require.EqualValues(t, 1, entries.Entries[1].Version)
	f.Put("acme", asRow(late))

	c.Advance(encrypt.ClosingTime)
	require.Equal(t, 1, upkeep().Changed)
	require.Equal(t, []uint32{1, 2}, versions(), "where one came late, another may")
	c.Advance(encrypt.ClosingTime)
	require.Zero(t, upkeep().Rows)
	require.Equal(t, []uint32{2}, versions())
	require.Equal(t, 13, find())
	require.NotEmpty(t, scope)
	require.Zero(t, upkeep().Rows)
}

// A row that somebody took from its client past the index does not keep the keys of the index for ever.
func TestMaintainIndexOverARowWithoutAClient(t *testing.T) {
	c := newClock(t)
	f := newFullTable(t, 3, encrypt.Options{Clock: c.Now, IndexLife: 24 * time.Hour})
	_, err := f.contacts.Reindex(job("acme"), "acme", f, nil)
	require.NoError(t, err)
	r := f.row(t, "c01")
	r.Client = ""
	f.Put("acme", r)
	c.Advance(25 * time.Hour)
	maintain := func() encrypt.Report {
		report, err := f.contacts.MaintainIndex(job("acme"), "acme", f, nil)
		require.NoError(t, err)
		c.Advance(encrypt.ClosingTime)
		return report
	}
	require.Equal(t, 1, maintain().Unreadable, "it is named")
	maintain()
	require.Zero(t, maintain().Rows)
	versions, err := f.store.Load(t.Context(), []encrypt.Scope{encrypt.IndexScope("acme", "contacts", "phone", "phone")})
	require.NoError(t, err)
	require.Len(t, versions, 1)
	found, err := f.contacts.Find(job("acme"), "acme", "phone", "phone", "+79123456789")
	require.NoError(t, err)
	require.Equal(t, []string{"c00", "c02"}, found)
}

// busyRow returns an error if an index key is retired while a row that somebody keeps editing
// has entries under that key alone.
func busyRow(t *testing.T, plant func(h *hooked)) (failed error) {
	synctest.Test(t, func(t *testing.T) { // Maintain comes back to busy rows, with pauses
		c := newClock(t)
		f := newFullTable(t, 12, encrypt.Options{Clock: c.Now, IndexLife: 24 * time.Hour})
		_, err := f.contacts.Reindex(job("acme"), "acme", f, nil)
		require.NoError(t, err)
		c.Advance(25 * time.Hour)
		busy := true
		h := &hooked{Rows: f}
		h.before = func() {
			if r := f.row(t, "c07"); busy { // by a process that leaves the index alone
				r.Sealed["note"] = append(r.Sealed["note"], 'x')
				f.Put("acme", r)
			}
		}
		plant(h)
		maintain := func() (report encrypt.Report) {
			for range 3 { // one makes a version, one begins to wait, one would retire
				report, err = f.contacts.MaintainIndex(job("acme"), "acme", h, nil)
				require.NoError(t, err)
				c.Advance(encrypt.ClosingTime)
			}
			return report
		}
		phoneKey := []encrypt.Scope{{Tenant: "acme", Purpose: encrypt.IndexKey, Name: "phone/8:contacts/phone"}}
		live := func() int {
			versions, err := f.store.Load(t.Context(), phoneKey)
			require.NoError(t, err)
			return len(versions)
		}
		find := func() int {
			found, err := f.contacts.Find(job("acme"), "acme", "phone", "phone", "+79123456789")
			require.NoError(t, err)
			return len(found)
		}
		report := maintain()
		if live() != 2 || find() != 12 {
			failed = fmt.Errorf("%d versions are left, by which %d of 12 rows are found", live(), find())
			return
		}
		require.Equal(t, 1, report.Busy)
		require.Equal(t, "c07", report.Findings[0].Record)
		busy = false
		require.Zero(t, maintain().Busy)
		require.Equal(t, 1, live())
		require.Equal(t, 12, find())
	})
	return failed
}

func TestMaintainKeepsTheKeyThatABusyRowNeeds(t *testing.T) {
	require.NoError(t, busyRow(t, func(*hooked) {}))
	require.Error(t, busyRow(t, func(h *hooked) { h.gone = "c07" }), "the check notices a row that Maintain overlooks")
}

// Two nodes whose clocks differ by minutes, and a transaction that commits late.
func TestMaintainIndexWaitsByItsOwnClock(t *testing.T) {
	clock, store, index := newClock(t), encrypt.NewMemory(), encrypt.NewMemoryIndex()
	rows := encrypttest.NewMemoryRows()
	kek, err := encrypt.OpenKeyFile(t.TempDir()+"/kek.json", "", true)
	require.NoError(t, err)
	node := func(ahead time.Duration) *encrypt.Table[contact] {
		k, err := encrypt.New(kek, store, &encrypt.Options{Index: index, Clock: func() time.Time { return clock.Now().Add(ahead) }})
		require.NoError(t, err)
		table, err := encrypt.NewTable[contact](k, "contacts", nil)
		require.NoError(t, err)
		return table
	}
	writer, other, ahead := node(0), node(0), node(2*time.Minute)
	seal := func(id, phone string) (commit func()) {
		c := &contact{ID: id, Phone: phone}
		entries, err := writer.Seal(job("acme"), "acme", c)
		require.NoError(t, err)
		return func() {
			require.NoError(t, index.Put(t.Context(), nil, entries))
			rows.Put("acme", encrypt.Row{Record: id, Client: id, Sealed: map[string][]byte{"phone": c.PhoneSealed}})
		}
	}
	maintain := func(table *encrypt.Table[contact]) {
		_, err := table.MaintainIndex(job("acme"), "acme", rows, nil)
		require.NoError(t, err)
	}
	versions := func() int {
		records, err := store.Load(t.Context(), []encrypt.Scope{{Tenant: "acme", Purpose: encrypt.IndexKey, Name: "phone/8:contacts/phone"}})
		require.NoError(t, err)
		return len(records)
	}
	seal("c1", "+7 916 123-45-67")()
	clock.Advance(91 * 24 * time.Hour)
	commit := seal("c2", "+7 916 999-99-99")
	lost := seal("c3", "+7 916 777-77-77")
	maintain(other) // makes a version
	clock.Advance(time.Second)
	maintain(ahead)
	require.Equal(t, 2, versions(), "a clock that is ahead removes nothing")
	commit()
	for range 3 {
		clock.Advance(24 * time.Hour)
		maintain(other)
	}
	require.Equal(t, 1, versions())
	lost() // far later than any transaction may last
	find := func(phone string) []string {
		found, err := other.Find(job("acme"), "acme", "phone", "phone", phone)
		require.NoError(t, err)
		return found
	}
	require.Equal(t, []string{"c2"}, find("+7 916 999-99-99"))
	require.Empty(t, find("+7 916 777-77-77"))
	maintain(other)
	require.Equal(t, []string{"c3"}, find("+7 916 777-77-77"), "what came late is repaired")
}

// A field that became unique over rows with the same value: one of them has it, the others are
// named and found, and the key of the index goes on turning.
func TestReindexOverDuplicates(t *testing.T) {
	type loose struct {
		ID         string `encrypt:",record"`
		Mail       string `encrypt:"mail,index=email"`
		MailSealed []byte `encrypt:"mail,sealed"`
	}
	type unique struct {
		ID         string `encrypt:",record"`
		Mail       string `encrypt:"mail,index=email:unique,index=domain"`
		MailSealed []byte `encrypt:"mail,sealed"`
	}
	for _, batch := range []int{1, 3, 100} {
		t.Run(fmt.Sprint(batch), func(t *testing.T) {
			c := newClock(t)
			rows, index, store := encrypttest.NewMemoryRows(), encrypt.NewMemoryIndex(), encrypt.NewMemory()
			k := newKeyring(t, store, &encrypt.Options{Index: index, Clock: c.Now, IndexLife: 24 * time.Hour})
			before, err := encrypt.NewTable[loose](k, "people", nil)
			require.NoError(t, err)
			table, err := encrypt.NewTable[unique](k, "people", nil)
			require.NoError(t, err)
			for i, name := range []string{"a", "b", "a", "c", "a", "b", "d", "e"} {
				r := &loose{ID: fmt.Sprint("p", i), Mail: name + "@example.com"}
				entries, err := before.Seal(job("acme"), "acme", r)
				require.NoError(t, err)
				require.NoError(t, index.Put(t.Context(), nil, entries))
				rows.Put("acme", encrypt.Row{Record: r.ID, Client: r.ID, Sealed: map[string][]byte{"mail": r.MailSealed}})
			}
			find := func(name string) []string {
				found, err := table.Find(job("acme"), "acme", "mail", "email", name+"@example.com")
				require.NoError(t, err)
				return found
			}
			check := func(report encrypt.Report) {
				t.Helper()
				require.Equal(t, 8, report.Changed)
				require.Len(t, report.Findings, 3)
				for _, e := range report.Findings {
					require.ErrorIs(t, e, encrypt.ErrDuplicate)
					require.Contains(t, []string{"p2", "p4", "p5"}, e.Record)
					require.Equal(t, "mail", e.Field)
				}
				require.Equal(t, []string{"p0", "p2", "p4"}, find("a"))
				require.Equal(t, []string{"p6"}, find("d"))
			}
			o := &encrypt.JobOptions{Batch: batch}
			report, err := table.Reindex(job("acme"), "acme", rows, o)
			require.NoError(t, err)
			check(report)
			domain, err := table.Find(job("acme"), "acme", "mail", "domain", "example.com")
			require.NoError(t, err)
			require.Len(t, domain, 8, "another index of a duplicate is none of it")

			taken, err := table.Seal(job("acme"), "acme", &unique{ID: "p9", Mail: "a@example.com"})
			require.NoError(t, err)
			require.ErrorIs(t, index.Put(t.Context(), nil, taken), encrypt.ErrDuplicate)

			c.Advance(25 * time.Hour)
			report, err = table.MaintainIndex(job("acme"), "acme", rows, o)
			require.NoError(t, err)
			require.Len(t, find("a"), 3)
			require.NotEmpty(t, report.Findings)
			for range 2 {
				_, err = table.MaintainIndex(job("acme"), "acme", rows, o)
				require.NoError(t, err)
				c.Advance(encrypt.ClosingTime)
			}
			_, err = table.MaintainIndex(job("acme"), "acme", rows, o)
			require.NoError(t, err)
			keys, err := store.Load(t.Context(), []encrypt.Scope{encrypt.IndexScope("acme", "people", "mail", "email")})
			require.NoError(t, err)
			require.Len(t, keys, 1, "the old key is gone")
			require.EqualValues(t, 2, keys[0].Version)
			require.Len(t, find("a"), 3)
		})
	}
}
