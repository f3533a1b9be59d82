package encrypt_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/encrypt/encrypttest"
)

// What the tags of people were, and what they became.
type (
	bothIndexed struct {
		ID          string `encrypt:",record"`
		Phone       string `encrypt:"phone,index=phone,index=last4"`
		PhoneSealed []byte `encrypt:"phone,sealed"`
		Mail        string `encrypt:"mail,index=email:unique"`
		MailSealed  []byte `encrypt:"mail,sealed"`
	}
	oneOfTwoIndexes struct {
		ID          string `encrypt:",record"`
		Phone       string `encrypt:"phone,index=last4"`
		PhoneSealed []byte `encrypt:"phone,sealed"`
		Mail        string `encrypt:"mail,index=email:unique"`
		MailSealed  []byte `encrypt:"mail,sealed"`
	}
	mailIndexed struct {
		ID          string `encrypt:",record"`
		Phone       string `encrypt:"phone"`
		PhoneSealed []byte `encrypt:"phone,sealed"`
		Mail        string `encrypt:"mail,index=email:unique"`
		MailSealed  []byte `encrypt:"mail,sealed"`
	}
	mailAlone struct {
		ID         string `encrypt:",record"`
		Mail       string `encrypt:"mail,index=email:unique"`
		MailSealed []byte `encrypt:"mail,sealed"`
	}
	nothingIndexed struct {
		ID         string `encrypt:",record"`
		Mail       string `encrypt:"mail"`
		MailSealed []byte `encrypt:"mail,sealed"`
	}
)

// formerIndexes is a table that was indexed once, and a later release of its program.
type formerIndexes struct {
	*clock
	store *encrypt.Memory
	index *encrypt.MemoryIndex
	rows  *encrypttest.MemoryRows
	keys  *encrypt.Keyring
	first *encrypt.Table[bothIndexed]
}

func newFormerIndexes(t *testing.T, life time.Duration) *formerIndexes {
	f := &formerIndexes{clock: newClock(t), store: encrypt.NewMemory(), index: encrypt.NewMemoryIndex(), rows: encrypttest.NewMemoryRows()}
	f.keys = newKeyring(t, f.store, &encrypt.Options{Index: f.index, Clock: f.Now, IndexLife: life})
	f.first = tableOf[bothIndexed](t, f)
	for i := range 7 {
		p := &bothIndexed{ID: fmt.Sprint("p", i), Phone: fmt.Sprint("+7 912 345-67-8", i), Mail: fmt.Sprint("p", i, "@example.com")}
		entries, err := f.first.Seal(job("acme"), "acme", p)
		require.NoError(t, err)
		require.NoError(t, f.index.Put(t.Context(), nil, entries))
		f.rows.Put("acme", encrypt.Row{Record: p.ID, Client: p.ID, Sealed: map[string][]byte{"phone": p.PhoneSealed, "mail": p.MailSealed}})
	}
	return f
}

func tableOf[T any](t *testing.T, f *formerIndexes) *encrypt.Table[T] {
	table, err := encrypt.NewTable[T](f.keys, "people", nil)
	require.NoError(t, err)
	return table
}

// entries counts what an index holds, whatever the version.
func (f *formerIndexes) entries(t *testing.T, field, index string) int {
	stale, err := f.index.Stale(t.Context(), "acme", "people", field, index, 1_000_000, "", 100)
	require.NoError(t, err)
	return len(stale)
}

// oldest is the version of an index key that an old backup's entries would be tested with.
func (f *formerIndexes) oldest(t *testing.T, field, index string) uint32 {
	records, err := f.store.Load(t.Context(), []encrypt.Scope{encrypt.IndexScope("acme", "people", field, index)})
	require.NoError(t, err)
	return records[0].Version
}

func maintain[T any](t *testing.T, f *formerIndexes, table *encrypt.Table[T]) {
	report, err := table.MaintainIndex(job("acme"), "acme", f.rows, &encrypt.JobOptions{Batch: 3})
	require.NoError(t, err)
	require.True(t, report.OK(), "%+v", report)
}

// hourly runs for some days as a host does.
func hourly[T any](t *testing.T, f *formerIndexes, table *encrypt.Table[T], days int) {
	for range 24 * days {
		f.Advance(time.Hour)
		maintain(t, f, table)
	}
}

// An index that the tags name no more: its entries go, and its key reaches the end of its life.
func TestAnIndexThatTheTagsNameNoMore(t *testing.T) {
	for name, test := range map[string]struct {
		later func(t *testing.T, f *formerIndexes, days int)
		gone  [][2]string
		stay  [][2]string
	}{
		"one of a field's": {func(t *testing.T, f *formerIndexes, days int) { hourly(t, f, tableOf[oneOfTwoIndexes](t, f), days) },
			[][2]string{{"phone", "phone"}}, [][2]string{{"phone", "last4"}, {"mail", "email"}}},
		"a field's last": {func(t *testing.T, f *formerIndexes, days int) { hourly(t, f, tableOf[mailIndexed](t, f), days) },
			[][2]string{{"phone", "phone"}, {"phone", "last4"}}, [][2]string{{"mail", "email"}}},
		"that of a field that is gone": {func(t *testing.T, f *formerIndexes, days int) { hourly(t, f, tableOf[mailAlone](t, f), days) },
			[][2]string{{"phone", "phone"}, {"phone", "last4"}}, [][2]string{{"mail", "email"}}},
		"a table's last": {func(t *testing.T, f *formerIndexes, days int) { hourly(t, f, tableOf[nothingIndexed](t, f), days) },
			[][2]string{{"phone", "phone"}, {"phone", "last4"}, {"mail", "email"}}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFormerIndexes(t, 0)
			test.later(t, f, 89)
			for _, x := range append(test.gone, test.stay...) {
				require.Equal(t, 7, f.entries(t, x[0], x[1]), "an old release may still run")
			}
			test.later(t, f, 2) // no longer than receipts say
			for _, x := range test.gone {
				require.Zero(t, f.entries(t, x[0], x[1]), x)
				require.EqualValues(t, 2, f.oldest(t, x[0], x[1]), x)
			}
			for _, x := range test.stay {
				require.Equal(t, 7, f.entries(t, x[0], x[1]), x)
				require.EqualValues(t, 2, f.oldest(t, x[0], x[1]), x)
			}
		})
	}
}

// A short life, and hosts that end in another way.
func TestTheEndOfAnIndexThatTheTagsNameNoMore(t *testing.T) {
	f := newFormerIndexes(t, 48*time.Hour)
	hourly(t, f, tableOf[nothingIndexed](t, f), 4)
	require.Zero(t, f.entries(t, "phone", "phone"))
	require.Greater(t, f.oldest(t, "phone", "phone"), uint32(1))

	f = newFormerIndexes(t, 0)
	none, err := encrypt.NewTable[nothingIndexed](newKeyring(t, f.store, nil), "people", nil)
	require.NoError(t, err)
	_, err = none.MaintainIndex(job("acme"), "acme", f.rows, nil)
	require.ErrorIs(t, err, encrypt.ErrNoIndex)

	other, err := encrypt.NewTable[nothingIndexed](f.keys, "people/phone", nil)
	require.NoError(t, err)
	hourly(t, f, other, 100)
	require.EqualValues(t, 1, f.oldest(t, "phone", "phone"), "another kind")
}

// A release without an index, beside one that has it and maintains it, takes nothing away.
func TestReleasesWithAndWithoutAnIndex(t *testing.T) {
	f := newFormerIndexes(t, 0)
	without := tableOf[nothingIndexed](t, f)
	for range 200 {
		hourly(t, f, without, 1)
		maintain(t, f, f.first)
	}
	require.EqualValues(t, 3, f.oldest(t, "phone", "phone"), "keys live no longer for it")
	for i := range 7 {
		found, err := f.first.Find(job("acme"), "acme", "phone", "phone", fmt.Sprint("+7 912 345-67-8", i))
		require.NoError(t, err)
		require.Equal(t, []string{fmt.Sprint("p", i)}, found)
		taken, err := f.first.Seal(job("acme"), "acme", &bothIndexed{ID: "other", Mail: fmt.Sprint("p", i, "@example.com")})
		require.NoError(t, err)
		require.ErrorIs(t, f.index.Put(t.Context(), nil, taken), encrypt.ErrDuplicate)
	}
}

// Reindex leaves of a table's fields what the tags name, at once.
func TestReindexDropsWhatTheTagsNameNoMore(t *testing.T) {
	f := newFormerIndexes(t, 0)
	report, err := tableOf[mailIndexed](t, f).Reindex(job("acme"), "acme", f.rows, nil)
	require.NoError(t, err)
	require.Equal(t, 7, report.Changed)
	require.Zero(t, f.entries(t, "phone", "phone"))
	require.Zero(t, f.entries(t, "phone", "last4"))
	require.Equal(t, 7, f.entries(t, "mail", "email"))
	_, err = tableOf[nothingIndexed](t, f).Reindex(job("acme"), "acme", f.rows, nil)
	require.NoError(t, err)
	require.Zero(t, f.entries(t, "mail", "email"))
}

// A struct of some of a kind's fields, such as the row of one UPDATE, leaves the entries of the others alone.
func TestSealingSomeFieldsKeepsTheEntriesOfOthers(t *testing.T) {
	f := newFormerIndexes(t, 0)
	entries, err := tableOf[mailAlone](t, f).Seal(job("acme"), "acme", &mailAlone{ID: "p3", Mail: "new@example.com"})
	require.NoError(t, err)
	require.NoError(t, f.index.Put(t.Context(), nil, entries))
	found, err := f.first.Find(job("acme"), "acme", "phone", "phone", "+7 912 345-67-83")
	require.NoError(t, err)
	require.Equal(t, []string{"p3"}, found)
	found, err = f.first.Find(job("acme"), "acme", "mail", "email", "p3@example.com")
	require.NoError(t, err)
	require.Empty(t, found)
	entries, err = tableOf[mailIndexed](t, f).Seal(job("acme"), "acme", &mailIndexed{ID: "p3", Mail: "new@example.com"})
	require.NoError(t, err)
	require.NoError(t, f.index.Put(t.Context(), nil, entries))
	require.Equal(t, 6, f.entries(t, "phone", "phone"), "a field that is sealed and has no index any more")
}
