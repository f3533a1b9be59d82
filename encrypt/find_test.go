package encrypt_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/encrypt"
)

type person struct {
	ID          string `encrypt:",record"`
	Phone       string `encrypt:"phone,index=phone,index=last4"`
	PhoneSealed []byte `encrypt:"phone,sealed"`
	Email       string `encrypt:"email,index=domain,index=email:unique"`
	EmailSealed []byte `encrypt:"email,sealed"`
	INN         string `encrypt:"inn,index=exact"`
	INNSealed   []byte `encrypt:"inn,sealed"`
}

func ExampleTable_Find() {
	keys, index, done := openExample()
	defer done()
	ctx := acting("acme")
	people, err := encrypt.NewTable[person](keys, "people", &encrypt.TableOptions{Region: "RU"})
	if err != nil {
		fmt.Println(err)
	}
	entries, err := people.Seal(ctx, "acme", &person{ID: "p1", Phone: "8 (912) 345-67-89", Email: "Anna@Example.com"})
	if err != nil {
		fmt.Println(err)
	}
	err = index.Put(ctx, nil, entries) // in the transaction that inserts the row
	fmt.Println(err)

	fmt.Println(people.Find(ctx, "acme", "phone", "phone", "+7 912 3456789"))
	fmt.Println(people.Find(ctx, "acme", "phone", "last4", "67-89"))
	fmt.Println(people.Find(ctx, "acme", "email", "domain", "example.com"))

	entries, err = people.Seal(ctx, "acme", &person{ID: "p2", Email: "anna@example.com"})
	fmt.Println(err)
	fmt.Println(index.Put(ctx, nil, entries))
	// Output:
	// <nil>
	// [p1] <nil>
	// [p1] <nil>
	// [p1] <nil>
	// <nil>
	// encrypt: another record has this value: field "email", record "p2", other "p1"
}

func TestFind(t *testing.T) {
	index := encrypt.NewMemoryIndex()
	k := newKeyring(t, encrypt.NewMemory(), &encrypt.Options{Index: index})
	table, err := encrypt.NewTable[person](k, "people", &encrypt.TableOptions{Region: "ru"})
	require.NoError(t, err)
	ctx := acting("acme")
	found, err := table.Find(ctx, "acme", "phone", "phone", "89123456789")
	require.NoError(t, err)
	require.Empty(t, found, "before anything was indexed")
	rows := []*person{
		{ID: "p1", Phone: "8 (912) 345-67-89", Email: " Anna@Example.COM ", INN: "7707083893"},
		{ID: "p2", Phone: "+7 912 3456789", Email: "BJO\u0308RN@example.com.", INN: "Ab c"},
		{ID: "p3", Phone: "доб. 123", Email: "", INN: "ab c"},
		{ID: "p4", Phone: "нет телефона", Email: "@"},
		{ID: "p5", Phone: "+7 495 000-67-89", Email: "иван@ПОЧТА.РФ"},
	}
	entries, err := table.Seal(ctx, "acme", rows...)
	require.NoError(t, err)
	require.NoError(t, index.Put(ctx, nil, entries))
	for _, test := range []struct {
		field, index, value string
		want                []string
	}{
		{"phone", "phone", "89123456789", []string{"p1", "p2"}},
		{"phone", "phone", "+7 (912) 345 67 89", []string{"p1", "p2"}},
		{"phone", "phone", "123", []string{"p3"}},
		{"phone", "phone", "без номера", nil},
		{"phone", "phone", "", nil},
		{"phone", "phone", "9123456788", nil},
		{"phone", "last4", "6789", []string{"p1", "p2", "p5"}},
		{"phone", "last4", "67-89", []string{"p1", "p2", "p5"}},
		{"phone", "last4", "8 912 345-67-89", []string{"p1", "p2", "p5"}},
		{"phone", "last4", "789", nil},
		{"phone", "last4", "", nil},
		{"email", "email", "anna@example.com", []string{"p1"}},
		{"email", "email", "bj\u00f6rn@EXAMPLE.com.", []string{"p2"}},
		{"email", "email", "", nil},
		{"email", "domain", "example.com", []string{"p1", "p2"}},
		{"email", "domain", "@EXAMPLE.com", []string{"p1", "p2"}},
		{"email", "domain", "somebody@example.com", []string{"p1", "p2"}},
		{"email", "domain", "почта。рф", []string{"p5"}},
		{"email", "domain", "com", nil},
		{"email", "domain", "@", nil},
		{"inn", "exact", " 7707083893", []string{"p1"}},
		{"inn", "exact", "AB C", nil},
		{"inn", "exact", "ab c", []string{"p3"}},
		{"inn", "exact", "anna@example.com", nil},
	} {
		found, err := table.Find(ctx, "acme", test.field, test.index, test.value)
		require.NoError(t, err)
		require.Equal(t, test.want, found, fmt.Sprint(test))
	}
	found, err = table.Find(acting("other"), "other", "phone", "phone", "89123456789")
	require.NoError(t, err)
	require.Empty(t, found, "another tenant has another key")
}

func TestUniqueTags(t *testing.T) {
	k := newKeyring(t, encrypt.NewMemory(), &encrypt.Options{Index: encrypt.NewMemoryIndex()})
	refused := map[string]error{}
	_, refused["last4 is no whole value"] = encrypt.NewTable[struct {
		ID string `encrypt:",record"`
		A  string `encrypt:"a,index=last4:unique"`
		B  []byte `encrypt:"a,sealed"`
	}](k, "x", nil)
	_, refused["unknown word"] = encrypt.NewTable[struct {
		ID string `encrypt:",record"`
		A  string `encrypt:"a,index=phone:once"`
		B  []byte `encrypt:"a,sealed"`
	}](k, "x", nil)
	_, refused["empty word"] = encrypt.NewTable[struct {
		ID string `encrypt:",record"`
		A  string `encrypt:"a,index=phone:"`
		B  []byte `encrypt:"a,sealed"`
	}](k, "x", nil)
	_, refused["the same index twice"] = encrypt.NewTable[struct {
		ID string `encrypt:",record"`
		A  string `encrypt:"a,index=phone,index=phone:unique"`
		B  []byte `encrypt:"a,sealed"`
	}](k, "x", nil)
	for name, err := range refused {
		require.Error(t, err, name)
	}
}

// emailKey is the key of an index of people in its store.
var emailKey = encrypt.Scope{Tenant: "acme", Purpose: encrypt.IndexKey, Name: "email/6:people/email"}

// newestOnly is an Index that forgets, or does not look for, all but the newest version.
type newestOnly struct {
	encrypt.Index
	put, find bool
}

func (x newestOnly) Put(ctx context.Context, tx encrypt.Execer, entries encrypt.IndexEntries) error {
	if x.put {
		newest := make(map[[3]string]encrypt.IndexEntry)
		for _, e := range entries.Entries {
			at := [3]string{e.Record, e.Field, e.Index}
			if known, ok := newest[at]; !ok || e.Version > known.Version {
				newest[at] = e
			}
		}
		entries.Entries = nil
		for _, e := range newest {
			entries.Entries = append(entries.Entries, e)
		}
	}
	return x.Index.Put(ctx, tx, entries)
}

func (x newestOnly) Find(ctx context.Context, tenant, kind, field, index string, values [][]byte) ([]string, error) {
	if x.find {
		values = values[:min(1, len(values))]
	}
	return x.Index.Find(ctx, tenant, kind, field, index, values)
}

// rotateUnder writes records while the index key is rotated by another process, and returns
// what went wrong.
func rotateUnder(t *testing.T, index encrypt.Index) (faults []string) {
	store := encrypt.NewMemory()
	kek, err := encrypt.OpenKeyFile(t.TempDir()+"/kek.json", "", true)
	require.NoError(t, err)
	ctx := acting("acme")
	var nodes []*encrypt.Table[person]
	var rings []*encrypt.Keyring
	for range 2 {
		k, err := encrypt.New(kek, store, &encrypt.Options{Index: index})
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, k.Close()) })
		table, err := encrypt.NewTable[person](k, "people", nil)
		require.NoError(t, err)
		nodes, rings = append(nodes, table), append(rings, k)
	}
	put := func(node int, id, email string) error {
		entries, err := nodes[node].Seal(ctx, "acme", &person{ID: id, Email: email})
		require.NoError(t, err)
		return index.Put(ctx, nil, entries)
	}
	expect := func(node int, index, value string, want ...string) {
		found, err := nodes[node].Find(ctx, "acme", "email", index, value)
		require.NoError(t, err)
		if fmt.Sprint(found) != fmt.Sprint(want) {
			faults = append(faults, fmt.Sprintf("node %d finds %v by %s, wants %v", node, found, value, want))
		}
	}
	require.NoError(t, put(0, "before", "a@example.com"))
	expect(1, "email", "a@example.com", "before")
	_, err = rings[1].Rotate(ctx, emailKey) // node 0 does not know yet
	require.NoError(t, err)
	require.NoError(t, put(1, "after", "b@example.com"))
	require.NoError(t, put(0, "late", "c@example.com"))
	for node := range nodes {
		expect(node, "email", "a@example.com", "before")
		expect(node, "email", "b@example.com", "after")
		expect(node, "email", "c@example.com", "late")
		expect(node, "domain", "example.com", "after", "before", "late")
		for _, taken := range []string{"a@example.com", "b@example.com", "c@example.com"} {
			if err := put(node, "other", taken); err == nil {
				faults = append(faults, fmt.Sprintf("node %d could put %s twice", node, taken))
				require.NoError(t, put(node, "other", "free@example.com"))
			} else {
				require.ErrorIs(t, err, encrypt.ErrDuplicate)
			}
		}
	}
	return faults
}

func TestRotationOfAnIndexMissesNothing(t *testing.T) {
	require.Empty(t, rotateUnder(t, encrypt.NewMemoryIndex()))
}

// TestIndexOfOneVersionOnlyIsNoticed plants the faults.
func TestIndexOfOneVersionOnlyIsNoticed(t *testing.T) {
	require.NotEmpty(t, rotateUnder(t, newestOnly{Index: encrypt.NewMemoryIndex(), put: true}))
	require.NotEmpty(t, rotateUnder(t, newestOnly{Index: encrypt.NewMemoryIndex(), find: true}))
}

// TestStaleEndsWithAReindex: what rotation leaves behind is listed until it is put again.
func TestStaleEndsWithAReindex(t *testing.T) {
	index := encrypt.NewMemoryIndex()
	k := newKeyring(t, encrypt.NewMemory(), &encrypt.Options{Index: index})
	table, err := encrypt.NewTable[person](k, "people", nil)
	require.NoError(t, err)
	ctx := acting("acme")
	row := &person{ID: "p1", Email: "a@example.com"}
	put := func() {
		entries, err := table.Seal(ctx, "acme", row)
		require.NoError(t, err)
		require.NoError(t, index.Put(ctx, nil, entries))
	}
	stale := func(version uint32) []string {
		records, err := index.Stale(ctx, "acme", "people", "email", "email", version, "", 10)
		require.NoError(t, err)
		return records
	}
	put()
	require.Empty(t, stale(1))
	_, err = k.Rotate(ctx, emailKey)
	require.NoError(t, err)
	require.Equal(t, []string{"p1"}, stale(2))
	put()
	require.Empty(t, stale(2))
}
