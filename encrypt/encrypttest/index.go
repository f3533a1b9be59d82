package encrypttest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/encrypt"
)

// entry is one of a phone's, unless tests say otherwise.
func entry(record, field, value string) encrypt.IndexEntry {
	return encrypt.IndexEntry{
		Tenant: "acme", Client: "client of " + record, Kind: "contacts", Record: record, Field: field, Index: "phone", Version: 1, Value: []byte(value),
	}
}

func of(index string, e encrypt.IndexEntry) encrypt.IndexEntry {
	e.Index = index
	return e
}

func version(v uint32, e encrypt.IndexEntry) encrypt.IndexEntry {
	e.Version = v
	return e
}

func unique(e encrypt.IndexEntry) encrypt.IndexEntry {
	e.Unique = true
	return e
}

// Index runs all checks. Each call of open returns an empty index and what Put
// runs on, nil if the index needs nothing.
func Index(t *testing.T, open func(t *testing.T) (encrypt.Index, encrypt.Execer)) {
	run(t, indexDuties(), func(t *testing.T) indexUnderTest {
		x, tx := open(t)
		return indexUnderTest{x, tx}
	})
}

// indexUnderTest is an index and what its Put runs on.
type indexUnderTest struct {
	encrypt.Index
	tx encrypt.Execer
}

func indexDuties() []duty[indexUnderTest] {
	ctx := context.Background()
	find := func(t require.TestingT, x encrypt.Index, tenant, kind, field string, values ...string) []string {
		var raw [][]byte
		for _, v := range values {
			raw = append(raw, []byte(v))
		}
		records, err := x.Find(ctx, tenant, kind, field, "phone", raw)
		require.NoError(t, err)
		return records
	}

	return []duty[indexUnderTest]{
		{"finds equal values, sorted, and nothing else", func(t require.TestingT, open func() indexUnderTest) {
			x := open()
			require.NoError(t, x.Put(ctx, x.tx, encrypt.IndexEntries{Tenant: "acme", Kind: "contacts", Records: []string{"b", "a", "c"}, Entries: []encrypt.IndexEntry{
				entry("b", "phone", "1"), entry("a", "phone", "1"), entry("c", "phone", "\x00\xff"), entry("c", "email", "1"),
				of("last4", entry("c", "phone", "1")), version(2, entry("a", "phone", "2")),
			}}))
			require.Equal(t, []string{"a"}, find(t, x, "acme", "contacts", "phone", "2"), "another version of the key")
			require.Equal(t, []string{"a", "b"}, find(t, x, "acme", "contacts", "phone", "1"), "duplicates are allowed")
			require.Equal(t, []string{"a", "b", "c"}, find(t, x, "acme", "contacts", "phone", "1", "\x00\xff"), "any of several versions")
			require.Empty(t, find(t, x, "acme", "contacts", "phone", "11"))
			require.Empty(t, find(t, x, "acme", "contacts", "phone"))
			require.Empty(t, find(t, x, "other", "contacts", "phone", "1"))
			require.Empty(t, find(t, x, "acme", "deals", "phone", "1"))
		}},
		{"put replaces the entries of its records", func(t require.TestingT, open func() indexUnderTest) {
			x := open()
			require.NoError(t, x.Put(ctx, x.tx, encrypt.IndexEntries{Tenant: "acme", Kind: "contacts", Records: []string{"a", "b"}, Entries: []encrypt.IndexEntry{
				entry("a", "phone", "1"), entry("a", "email", "2"), entry("b", "phone", "1"),
			}}))
			require.NoError(t, x.Put(ctx, x.tx, encrypt.IndexEntries{Tenant: "acme", Kind: "contacts", Records: []string{"a"}, Entries: []encrypt.IndexEntry{entry("a", "phone", "3")}}))
			require.Equal(t, []string{"b"}, find(t, x, "acme", "contacts", "phone", "1"))
			require.Equal(t, []string{"a"}, find(t, x, "acme", "contacts", "phone", "3"))
			require.Empty(t, find(t, x, "acme", "contacts", "email", "2"))
			require.NoError(t, x.Put(ctx, x.tx, encrypt.IndexEntries{Tenant: "acme", Kind: "contacts", Records: []string{"b"}}))
			require.Empty(t, find(t, x, "acme", "contacts", "phone", "1"))
			require.NoError(t, x.Put(ctx, x.tx, encrypt.IndexEntries{Tenant: "acme", Kind: "contacts"}))
		}},
		{"put of some fields leaves the others", func(t require.TestingT, open func() indexUnderTest) {
			x := open()
			require.NoError(t, x.Put(ctx, x.tx, encrypt.IndexEntries{Tenant: "acme", Kind: "contacts", Records: []string{"a", "b"}, Entries: []encrypt.IndexEntry{
				entry("a", "phone", "1"), entry("a", "email", "2"), entry("a", "inn", "3"), entry("b", "phone", "1"),
			}}))
			require.NoError(t, x.Put(ctx, x.tx, encrypt.IndexEntries{Tenant: "acme", Kind: "contacts", Records: []string{"a"}, Fields: []string{"phone", "inn"}, Entries: []encrypt.IndexEntry{entry("a", "phone", "4")}}))
			require.Equal(t, []string{"b"}, find(t, x, "acme", "contacts", "phone", "1"))
			require.Equal(t, []string{"a"}, find(t, x, "acme", "contacts", "phone", "4"))
			require.Equal(t, []string{"a"}, find(t, x, "acme", "contacts", "email", "2"), "not among the fields")
			require.Empty(t, find(t, x, "acme", "contacts", "inn", "3"), "among them, and without an entry")
			require.Error(t, x.Put(ctx, x.tx, encrypt.IndexEntries{Tenant: "acme", Kind: "contacts", Records: []string{"a"}, Fields: []string{"phone"}, Entries: []encrypt.IndexEntry{entry("a", "email", "5")}}))
		}},
		{"foreign and incomplete entries are refused", func(t require.TestingT, open func() indexUnderTest) {
			x := open()
			for name, spoil := range map[string]func(e *encrypt.IndexEntry){
				"tenant":  func(e *encrypt.IndexEntry) { e.Tenant = "other" },
				"kind":    func(e *encrypt.IndexEntry) { e.Kind = "deals" },
				"record":  func(e *encrypt.IndexEntry) { e.Record = "z" },
				"client":  func(e *encrypt.IndexEntry) { e.Client = "" },
				"value":   func(e *encrypt.IndexEntry) { e.Value = nil },
				"index":   func(e *encrypt.IndexEntry) { e.Index = "" },
				"version": func(e *encrypt.IndexEntry) { e.Version = 0 },
			} {
				e := entry("a", "phone", "1")
				spoil(&e)
				require.Error(t, x.Put(ctx, x.tx, encrypt.IndexEntries{Tenant: "acme", Kind: "contacts", Records: []string{"a"}, Entries: []encrypt.IndexEntry{e}}), name)
			}
			require.Error(t, x.Put(ctx, x.tx, encrypt.IndexEntries{Tenant: "", Kind: "contacts", Records: []string{"a"}}))
			twice := []encrypt.IndexEntry{entry("a", "phone", "1"), entry("a", "phone", "2")}
			require.Error(t, x.Put(ctx, x.tx, encrypt.IndexEntries{Tenant: "acme", Kind: "contacts", Records: []string{"a"}, Entries: twice}), "two values under one version")
		}},
		{"a client's entries are dropped in all kinds, and counted", func(t require.TestingT, open func() indexUnderTest) {
			x := open()
			mine, deal, other := entry("a", "phone", "1"), entry("d", "note", "1"), entry("b", "phone", "1")
			deal.Client, deal.Kind = mine.Client, "deals"
			require.NoError(t, x.Put(ctx, x.tx, encrypt.IndexEntries{Tenant: "acme", Kind: "contacts", Records: []string{"a", "b"}, Entries: []encrypt.IndexEntry{mine, other}}))
			require.NoError(t, x.Put(ctx, x.tx, encrypt.IndexEntries{Tenant: "acme", Kind: "deals", Records: []string{"d"}, Entries: []encrypt.IndexEntry{deal}}))
			for _, want := range []int{2, 0} {
				n, err := x.DropClient(ctx, "acme", mine.Client)
				require.NoError(t, err)
				require.Equal(t, want, n)
			}
			n, err := x.DropClient(ctx, "other", other.Client)
			require.NoError(t, err)
			require.Zero(t, n, "another tenant's client of the same name")
			require.Equal(t, []string{"b"}, find(t, x, "acme", "contacts", "phone", "1"))
			require.Empty(t, find(t, x, "acme", "deals", "note", "1"))
		}},
		{"an import of thousands", func(t require.TestingT, open func() indexUnderTest) {
			x := open()
			var records []string
			var entries []encrypt.IndexEntry
			for i := range 1300 {
				records = append(records, fmt.Sprintf("r%04d", i))
				entries = append(entries, entry(records[i], "phone", "same"), entry(records[i], "email", records[i]))
			}
			for range 2 {
				require.NoError(t, x.Put(ctx, x.tx, encrypt.IndexEntries{Tenant: "acme", Kind: "contacts", Records: records, Entries: entries}))
			}
			require.Equal(t, records, find(t, x, "acme", "contacts", "phone", "same"))
		}},
		{"a unique value has one record", func(t require.TestingT, open func() indexUnderTest) {
			x := open()
			put := func(records []string, entries ...encrypt.IndexEntry) error {
				return x.Put(ctx, x.tx, encrypt.IndexEntries{Tenant: "acme", Kind: "contacts", Records: records, Entries: entries})
			}
			require.NoError(t, put([]string{"a"}, unique(entry("a", "phone", "1")), unique(version(2, entry("a", "phone", "2")))))
			require.NoError(t, put([]string{"a"}, unique(entry("a", "phone", "1")), unique(version(2, entry("a", "phone", "2")))), "its own again")
			for name, e := range map[string]encrypt.IndexEntry{
				"old version": unique(entry("b", "phone", "1")), "new version": unique(version(2, entry("b", "phone", "2"))),
			} {
				err := put([]string{"b"}, unique(entry("b", "email", "7")), e)
				duplicate, ok := errors.AsType[*encrypt.DuplicateError](err)
				require.True(t, ok, "%s: %v", name, err)
				require.ErrorIs(t, err, encrypt.ErrDuplicate)
				require.Equal(t, &encrypt.DuplicateError{Field: "phone", Index: "phone", Record: "b", Other: "a"}, duplicate)
				require.Empty(t, find(t, x, "acme", "contacts", "email", "7"), "nothing was put")
				require.Equal(t, []string{"a"}, find(t, x, "acme", "contacts", "phone", "1", "2"))
			}
			require.NoError(t, put([]string{"b", "c", "d"},
				entry("b", "phone", "1"),                      // not unique
				unique(version(2, entry("c", "phone", "1"))),  // another key made it
				unique(of("exact", entry("c", "phone", "1"))), // another index
				unique(entry("c", "email", "1")),              // another field
				unique(entry("d", "phone", "3")),
			))
			require.ErrorIs(t, put([]string{"e", "f"}, unique(entry("e", "phone", "9")), unique(entry("f", "phone", "9"))), encrypt.ErrDuplicate, "in one call")
			require.NoError(t, put([]string{"a"}))
			require.NoError(t, put([]string{"e"}, unique(entry("e", "phone", "1"))), "the value is free again")
			n, err := x.DropClient(ctx, "acme", "client of e")
			require.NoError(t, err)
			require.Equal(t, 1, n)
			require.NoError(t, put([]string{"f"}, unique(entry("f", "phone", "1"))), "and after an erasure")
		}},
		{"of fifty who put a unique value at once one succeeds", func(t require.TestingT, open func() indexUnderTest) {
			x := open()
			for round := range 4 {
				errs := make([]error, 50)
				var wg sync.WaitGroup
				for i := range errs {
					wg.Go(func() {
						record := fmt.Sprintf("%d-%d", round, i)
						entries := []encrypt.IndexEntry{unique(entry(record, "phone", fmt.Sprint("old", round)))}
						if i%2 == 0 { // half of them know the newer version already
							entries = append([]encrypt.IndexEntry{unique(version(2, entry(record, "phone", fmt.Sprint("new", round))))}, entries...)
						}
						errs[i] = x.Put(ctx, x.tx, encrypt.IndexEntries{Tenant: "acme", Kind: "contacts", Records: []string{record}, Entries: entries})
					})
				}
				wg.Wait()
				won := 0
				for _, err := range errs {
					if err == nil {
						won++
						continue
					}
					require.ErrorIs(t, err, encrypt.ErrDuplicate)
				}
				require.Equal(t, 1, won)
				require.Len(t, find(t, x, "acme", "contacts", "phone", fmt.Sprint("old", round), fmt.Sprint("new", round)), 1)
			}
		}},
		{"duplicates of a client are other clients' records with its exact values", func(t require.TestingT, open func() indexUnderTest) {
			x := open()
			deal := entry("d", "phone", "1")
			deal.Kind = "deals"
			again := entry("again", "phone", "1")
			again.Client = "client of a"
			require.NoError(t, x.Put(ctx, x.tx, encrypt.IndexEntries{Tenant: "acme", Kind: "contacts", Records: []string{"a", "again", "b", "c", "e", "f", "g"}, Entries: []encrypt.IndexEntry{
				entry("a", "phone", "1"), of("email", entry("a", "email", "2")), of("last4", entry("a", "phone", "3")), of("domain", entry("a", "email", "4")),
				of("exact", entry("a", "inn", "5")), version(2, entry("a", "phone", "6")), again,
				of("email", entry("b", "email", "2")), entry("c", "phone", "1"), version(2, entry("c", "phone", "6")), // shares both
				of("last4", entry("e", "phone", "3")), of("domain", entry("e", "email", "4")), // only the ends
				of("exact", entry("f", "inn", "5")), entry("g", "phone", "6"), // the same bytes of another version
			}}))
			require.NoError(t, x.Put(ctx, x.tx, encrypt.IndexEntries{Tenant: "acme", Kind: "deals", Records: []string{"d"}, Entries: []encrypt.IndexEntry{deal}}))
			duplicates := func(tenant, client string) []string {
				records, err := x.Duplicates(ctx, tenant, client)
				require.NoError(t, err)
				return records
			}
			require.Equal(t, []string{"b", "c", "f"}, duplicates("acme", "client of a"))
			require.Equal(t, []string{"a", "again"}, duplicates("acme", "client of c"))
			require.Empty(t, duplicates("acme", "client of e"))
			require.Empty(t, duplicates("other", "client of a"))
			require.Empty(t, duplicates("acme", "nobody"))
		}},
		{"stale records lack the version", func(t require.TestingT, open func() indexUnderTest) {
			x := open()
			var records []string
			var entries []encrypt.IndexEntry
			for i := range 9 {
				record := fmt.Sprintf("r%d", i)
				records = append(records, record)
				entries = append(entries, entry(record, "phone", record), version(1, of("last4", entry(record, "phone", record))))
				if i%3 == 0 {
					entries = append(entries, version(2, entry(record, "phone", "new"+record)))
				}
				entries = append(entries, version(2, entry(record, "email", record)))
			}
			require.NoError(t, x.Put(ctx, x.tx, encrypt.IndexEntries{Tenant: "acme", Kind: "contacts", Records: records, Entries: entries}))
			var pages [][]string
			for after := ""; ; {
				page, err := x.Stale(ctx, "acme", "contacts", "phone", "phone", 2, after, 4)
				require.NoError(t, err)
				if len(page) == 0 {
					break
				}
				pages, after = append(pages, page), page[len(page)-1]
			}
			require.Equal(t, [][]string{{"r1", "r2", "r4", "r5"}, {"r7", "r8"}}, pages)
			for _, none := range [][4]string{{"other", "contacts", "phone", "phone"}, {"acme", "deals", "phone", "phone"}, {"acme", "contacts", "email", "phone"}, {"acme", "contacts", "phone", "email"}} {
				page, err := x.Stale(ctx, none[0], none[1], none[2], none[3], 2, "", 10)
				require.NoError(t, err)
				require.Empty(t, page)
			}
			page, err := x.Stale(ctx, "acme", "contacts", "phone", "last4", 2, "", 100)
			require.NoError(t, err)
			require.Len(t, page, 9)
		}},
	}
}
