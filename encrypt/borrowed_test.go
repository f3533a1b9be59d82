package encrypt_test

import (
	"context"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/encrypt/encrypttest"
)

// borrowed are strings as some frameworks hand them out: the next request overwrites them.
type borrowed struct{ memory [][]byte }

func (b *borrowed) string(s string) string {
	if s == "" {
		return ""
	}
	memory := []byte(s)
	b.memory = append(b.memory, memory)
	return unsafe.String(&memory[0], len(memory))
}

func (b *borrowed) overwrite() {
	for _, memory := range b.memory {
		for i := range memory {
			memory[i] = 'z'
		}
	}
	b.memory = nil
}

// Nothing that outlives a call lies in the memory of its strings: all methods do the same
// whether that is used again or not.
func TestNothingIsKeptInTheMemoryOfCallers(t *testing.T) {
	var b borrowed
	want, _ := allMethods(t, strings.Clone, func() {})
	got, called := allMethods(t, b.string, b.overwrite)
	require.Equal(t, want, got)
	for _, of := range []reflect.Type{reflect.TypeFor[*encrypt.Keyring](), reflect.TypeFor[*encrypt.Table[grown]](),
		reflect.TypeFor[*encrypt.Memory](), reflect.TypeFor[*encrypt.MemoryIndex]()} {
		for method := range of.Methods() {
			switch name := method.Name; name {
			case "String", "GoString", "Check", "Close", "Invalidate", "Turn": // take no strings
			case "Cached", "Unwrap", "WaitForPoll": // are for tests
			default:
				require.True(t, called[name], "%v.%s is not called", of, name)
			}
		}
	}
}

// allMethods calls all methods with strings that say makes, which end with each call. It returns what
// they did.
func allMethods(t *testing.T, say func(string) string, end func()) (did []string, called map[string]bool) {
	t.Helper()
	clock, kek, memory, index := newClock(t), newKEK(t), encrypt.NewMemory(), encrypt.NewMemoryIndex()
	k := openKeyring(t, kek, memory, &encrypt.Options{Clock: clock.Now, Index: index})
	table, err := encrypt.NewTable[grown](k, say("contacts"), nil)
	require.NoError(t, err)
	rows := encrypttest.NewMemoryRows()
	end()
	called = make(map[string]bool)
	do := func(name string, call func() (any, error)) {
		t.Helper()
		result, err := call()
		did = append(did, fmt.Sprintf("%s: %+v, %v", name, result, err))
		called[name] = true
		end()
	}
	place := func(client, field string) crmguard.Place {
		return crmguard.Place{Tenant: say("acme"), Client: say(client), Kind: say("deals"), Record: say("r1"), Field: say(field)}
	}
	var sealed, mac, pseudonym []byte
	open := func() {
		do("Open", func() (any, error) {
			x, err := k.Open(acting(say("acme")), place("c1", "note"), sealed)
			return string(x), err
		})
	}
	sealAndMAC := func() {
		do("Seal", func() (_ any, err error) {
			sealed, err = k.Seal(acting(say("acme")), place("c1", "note"), []byte("one"))
			return nil, err
		})
		open()
		do("MAC", func() (_ any, err error) { mac, err = k.MAC(t.Context(), place("c1", "mac"), nil); return nil, err })
		do("Verify", func() (any, error) { return nil, k.Verify(t.Context(), place("c1", "mac"), nil, mac) })
		do("Pseudonyms", func() (any, error) {
			all, err := k.Pseudonyms(t.Context(), place("c1", "name"), nil)
			same := pseudonym == nil || string(pseudonym) == string(all[0])
			pseudonym = all[0]
			return same, err
		})
		cells := []encrypt.Cell{{Plaintext: []byte("two")}}
		do("SealAll", func() (any, error) {
			cells[0].Place = place("c2", "note")
			return nil, k.SealAll(acting(say("acme")), say("acme"), cells)
		})
		do("OpenAll", func() (any, error) {
			cells[0].Place = place("c2", "note")
			err := k.OpenAll(acting(say("acme")), say("acme"), cells)
			return string(cells[0].Plaintext), err
		})
	}
	sealAndMAC()
	sealAndMAC()

	// A table and its jobs.
	find := func() {
		do("Find", func() (any, error) {
			return table.Find(acting(say("acme")), say("acme"), say("phone"), say("phone"), say("+7 912 345-67-01"))
		})
	}
	search := func() {
		do("Search", func() (any, error) {
			all, err := rows.Page(t.Context(), "acme", "", 10)
			require.NoError(t, err)
			var page []*grown
			for _, r := range all {
				page = append(page, asGrown(r))
			}
			found, err := table.Search(acting(say("acme")), say("acme"), encrypt.Query{Text: say("note"), Fields: []string{say("note")}, Limit: 9},
				func(_ context.Context, after *grown) ([]*grown, error) {
					if after != nil {
						return nil, nil
					}
					return page, nil
				})
			return len(found.Rows), err
		})
	}
	for i := range 3 {
		rows.Put(say("acme"), plainRow(i))
	}
	openRow := func(planted bool) {
		do("Open", func() (any, error) {
			all, err := rows.Get(t.Context(), "acme", []string{"c01"})
			require.NoError(t, err)
			g := asGrown(all[0])
			if planted {
				g.PhoneSealed, g.PhoneLegacy = nil, new(say("+7 999"))
			}
			g.ID = say(g.ID)
			err = table.Open(acting(say("acme")), say("acme"), g)
			return strings.Clone(g.Phone), err
		})
	}
	run := func(name string, method func(context.Context, string, encrypt.Rows, *encrypt.JobOptions) (encrypt.Report, error)) {
		do(name, func() (any, error) { return method(job(say("acme")), say("acme"), rows, nil) })
	}
	pending := func() {
		do("Pending", func() (any, error) { return table.Pending(acting(say("acme")), say("acme")) })
	}
	run("Collect", table.Collect)
	pending()
	openRow(false)
	run("Migrate", table.Migrate)
	pending()
	openRow(false)
	openRow(true) // is ErrReadAgain, and no longer when it has been known for long
	clock.Advance(encrypt.ClosingTime)
	openRow(true)
	find()
	search()
	do("Seal", func() (any, error) {
		note := say("note 7")
		entries, err := table.Seal(acting(say("acme")), say("acme"), &grown{ID: say("c07"), Phone: say("+7 912 345-67-01"), Note: &note})
		if err == nil {
			err = index.Put(t.Context(), nil, entries)
		}
		called["Put"] = true
		return len(entries.Entries), err
	})
	find()
	for range 2 {
		run("Reencrypt", table.Reencrypt)
		run("Reindex", table.Reindex)
		do("Scan", func() (any, error) {
			return k.Scan(job(say("acme")), say("acme"), say("contacts"), []string{say("phone")}, rows, nil)
		})
	}
	clock.Advance(91 * day)
	for range 3 { // rotates, and retires when it has been even for long
		run("MaintainIndex", table.MaintainIndex)
		clock.Advance(encrypt.ClosingTime)
	}
	find()
	do("Duplicates", func() (any, error) { return index.Duplicates(t.Context(), say("acme"), say("c01")) })
	do("Stale", func() (any, error) {
		return index.Stale(t.Context(), say("acme"), say("contacts"), say("phone"), say("phone"), 9, say("c"), 9)
	})
	do("DropClient", func() (any, error) { return index.DropClient(t.Context(), say("acme"), say("c01")) })
	find()

	// Keys.
	scope := func() encrypt.Scope { return encrypt.ClientScope(say("acme"), say("c1")) }
	do("Rotate", func() (any, error) { return k.Rotate(acting(say("acme")), scope()) })
	open()
	do("RotateClients", func() (any, error) {
		return k.RotateClients(acting(say("acme")), say("acme"), clock.Now().Add(-time.Hour), nil)
	})
	do("Retire", func() (any, error) { return k.Retire(acting(say("acme")), scope(), 2) })
	open()
	sealAndMAC()
	do("Sweep", func() (any, error) {
		return k.Sweep(acting(say("acme")), say("acme"), func(_ context.Context, all []string) ([]string, error) { return all, nil })
	})
	var receiptText []byte
	do("Erase", func() (any, error) {
		r, err := k.Erase(acting(say("acme")), say("acme"), say("c1"), encrypt.Copy{What: say("export"), Where: say("disk")})
		receiptText = document(t, r)
		r.MAC = nil
		return r, err
	})
	receipt := func() {
		do("Receipt", func() (any, error) {
			r, err := k.Receipt(acting(say("acme")), say("acme"), say("c1"))
			r.MAC = nil
			return r, err
		})
	}
	receipt()
	open()
	clock.Advance(encrypt.ClosingTime)
	do("FinishErasures", func() (any, error) {
		all, err := k.FinishErasures(t.Context())
		return len(all), err
	})
	receipt()
	do("CheckReceipt", func() (any, error) {
		r, err := k.CheckReceipt(acting(say("acme")), receiptText)
		r.MAC = nil
		return r, err
	})
	do("Replay", func() (any, error) { all, err := k.Replay(t.Context(), receiptText); return len(all), err })
	storeMethods(t, say, do)
	return did, called
}

func storeMethods(t *testing.T, say func(string) string, do func(name string, call func() (any, error))) {
	t.Helper()
	m := encrypt.NewMemory()
	at := time.Unix(1, 0).UTC()
	record := func(version uint32) encrypt.Record {
		return encrypt.Record{Scope: encrypt.ClientScope(say("acme"), say("c1")), Version: version, State: encrypt.Active, Wrapped: []byte{1}, CreatedAt: at}
	}
	one := func() []encrypt.Record { return []encrypt.Record{record(1)} }
	look := func() {
		do("Load", func() (any, error) {
			all, err := m.Load(t.Context(), []encrypt.Scope{record(1).Scope})
			return fmt.Sprint(all), err
		})
		do("List", func() (any, error) { all, err := m.List(t.Context(), encrypt.Record{}, 9); return fmt.Sprint(all), err })
		do("Closing", func() (any, error) { n, all, err := m.Closing(t.Context()); return fmt.Sprint(n, all), err })
	}
	do("Insert", func() (any, error) { all, err := m.Insert(t.Context(), one()); return fmt.Sprint(all), err })
	look()
	do("Insert", func() (any, error) {
		all, err := m.Insert(t.Context(), []encrypt.Record{record(2)})
		return fmt.Sprint(all), err
	})
	look()
	do("Lease", func() (any, error) { all, err := m.Lease(t.Context(), one(), 7); return fmt.Sprint(all), err })
	do("Replace", func() (any, error) {
		now := one()
		now[0].Note = []byte("{}")
		return m.Replace(t.Context(), one(), now)
	})
	look()
	for _, client := range []string{"c1", "unknown"} {
		for _, to := range []encrypt.State{encrypt.Closing, encrypt.Destroyed} {
			do("Advance", func() (any, error) {
				r, err := m.Advance(t.Context(), encrypt.ClientScope(say("acme"), say(client)), to, at)
				return fmt.Sprint(r), err
			})
			look()
		}
	}
	field := func() encrypt.PendingField {
		return encrypt.PendingField{Tenant: say("acme"), Kind: say("deals"), Field: say("note")}
	}
	records := func() []string { return []string{say("r1"), say("r2")} }
	pending := func() {
		do("HasPending", func() (any, error) {
			n, all, err := m.HasPending(t.Context(), field(), records())
			return fmt.Sprint(n, all), err
		})
		do("NextPending", func() (any, error) {
			all, err := m.NextPending(t.Context(), field(), say("r"), 9)
			return fmt.Sprint(all), err
		})
		do("CountPending", func() (any, error) {
			n, left, err := m.CountPending(t.Context(), field())
			return fmt.Sprint(n, left), err
		})
		do("Migrating", func() (any, error) { all, err := m.Migrating(t.Context(), say("acme")); return fmt.Sprint(all), err })
	}
	for range 2 {
		do("AddPending", func() (any, error) {
			return nil, m.AddPending(t.Context(), field(), []encrypt.PendingRecord{{Record: say("r1"), MAC: []byte{1}}, {Record: say("r2")}, {Record: say("r3")}})
		})
		pending()
	}
	do("RemovePending", func() (any, error) { return m.RemovePending(t.Context(), field(), records()) })
	pending()
	do("RemovePending", func() (any, error) { return m.RemovePending(t.Context(), field(), []string{say("r3")}) })
	pending()
}
