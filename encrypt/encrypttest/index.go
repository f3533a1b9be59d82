package encrypttest

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/encrypt"
)

func entry(record, field, value string) encrypt.IndexEntry {
	return encrypt.IndexEntry{Tenant: "acme", Client: "client of " + record, Kind: "contacts", Record: record, Field: field, Version: 1, Value: []byte(value)}
}

// Index runs all checks. Each call of open returns an empty index and what Put
// runs on, nil if the index needs nothing.
func Index(t *testing.T, open func(t *testing.T) (encrypt.Index, encrypt.Execer)) {
	ctx := t.Context()
	find := func(t *testing.T, x encrypt.Index, tenant, kind, field string, values ...string) []string {
		t.Helper()
		var raw [][]byte
		for _, v := range values {
			raw = append(raw, []byte(v))
		}
		records, err := x.Find(ctx, tenant, kind, field, raw)
		require.NoError(t, err)
		return records
	}

	t.Run("finds equal values, sorted, and nothing else", func(t *testing.T) {
		x, tx := open(t)
		require.NoError(t, x.Put(ctx, tx, "acme", "contacts", []string{"b", "a", "c"}, []encrypt.IndexEntry{
			entry("b", "phone", "1"), entry("a", "phone", "1"), entry("c", "phone", "\x00\xff"), entry("c", "email", "1"),
		}))
		require.Equal(t, []string{"a", "b"}, find(t, x, "acme", "contacts", "phone", "1"), "duplicates are allowed")
		require.Equal(t, []string{"a", "b", "c"}, find(t, x, "acme", "contacts", "phone", "1", "\x00\xff"), "any of several versions")
		require.Empty(t, find(t, x, "acme", "contacts", "phone", "11"))
		require.Empty(t, find(t, x, "acme", "contacts", "phone"))
		require.Empty(t, find(t, x, "other", "contacts", "phone", "1"))
		require.Empty(t, find(t, x, "acme", "deals", "phone", "1"))
	})
	t.Run("put replaces the entries of its records", func(t *testing.T) {
		x, tx := open(t)
		require.NoError(t, x.Put(ctx, tx, "acme", "contacts", []string{"a", "b"}, []encrypt.IndexEntry{
			entry("a", "phone", "1"), entry("a", "email", "2"), entry("b", "phone", "1"),
		}))
		require.NoError(t, x.Put(ctx, tx, "acme", "contacts", []string{"a"}, []encrypt.IndexEntry{entry("a", "phone", "3")}))
		require.Equal(t, []string{"b"}, find(t, x, "acme", "contacts", "phone", "1"))
		require.Equal(t, []string{"a"}, find(t, x, "acme", "contacts", "phone", "3"))
		require.Empty(t, find(t, x, "acme", "contacts", "email", "2"))
		require.NoError(t, x.Put(ctx, tx, "acme", "contacts", []string{"b"}, nil))
		require.Empty(t, find(t, x, "acme", "contacts", "phone", "1"))
		require.NoError(t, x.Put(ctx, tx, "acme", "contacts", nil, nil))
	})
	t.Run("foreign and incomplete entries are refused", func(t *testing.T) {
		x, tx := open(t)
		for name, spoil := range map[string]func(e *encrypt.IndexEntry){
			"tenant": func(e *encrypt.IndexEntry) { e.Tenant = "other" },
			"kind":   func(e *encrypt.IndexEntry) { e.Kind = "deals" },
			"record": func(e *encrypt.IndexEntry) { e.Record = "z" },
			"client": func(e *encrypt.IndexEntry) { e.Client = "" },
			"value":  func(e *encrypt.IndexEntry) { e.Value = nil },
		} {
			e := entry("a", "phone", "1")
			spoil(&e)
			require.Error(t, x.Put(ctx, tx, "acme", "contacts", []string{"a"}, []encrypt.IndexEntry{e}), name)
		}
		require.Error(t, x.Put(ctx, tx, "", "contacts", []string{"a"}, nil))
	})
	t.Run("a client's entries are dropped in all kinds, and counted", func(t *testing.T) {
		x, tx := open(t)
		mine, deal, other := entry("a", "phone", "1"), entry("d", "note", "1"), entry("b", "phone", "1")
		deal.Client, deal.Kind = mine.Client, "deals"
		require.NoError(t, x.Put(ctx, tx, "acme", "contacts", []string{"a", "b"}, []encrypt.IndexEntry{mine, other}))
		require.NoError(t, x.Put(ctx, tx, "acme", "deals", []string{"d"}, []encrypt.IndexEntry{deal}))
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
	})
	t.Run("an import of thousands", func(t *testing.T) {
		x, tx := open(t)
		var records []string
		var entries []encrypt.IndexEntry
		for i := range 1300 {
			records = append(records, fmt.Sprintf("r%04d", i))
			entries = append(entries, entry(records[i], "phone", "same"), entry(records[i], "email", records[i]))
		}
		for range 2 {
			require.NoError(t, x.Put(ctx, tx, "acme", "contacts", records, entries))
		}
		require.Equal(t, records, find(t, x, "acme", "contacts", "phone", "same"))
	})
}
