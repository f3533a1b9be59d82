package encrypt_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/encrypt"
)

const day = 24 * time.Hour

// erased is a key store with one erased client and the receipt of that.
type erased struct {
	clock   *clock
	kek     *turningKEK
	store   *encrypt.Memory
	index   *encrypt.MemoryIndex
	k       *encrypt.Keyring
	sealed  []byte
	receipt encrypt.Receipt
}

func erase(tb testing.TB) *erased {
	tb.Helper()
	e := &erased{clock: newClock(tb), kek: newTurningKEK(tb), store: encrypt.NewMemory(), index: encrypt.NewMemoryIndex()}
	e.kek.now = e.clock.Now
	ctx := acting("acme")
	e.k = openKeyring(tb, e.kek, e.store, &encrypt.Options{Clock: e.clock.Now, Index: e.index})
	table, err := encrypt.NewTable[contact](e.k, "contacts", nil)
	require.NoError(tb, err)
	rows := []*contact{{ID: "c1", Phone: "+79123456789"}, {ID: "c2", Phone: "+79123456789"}, {ID: "c3", Phone: "+79123456780"}}
	entries, err := table.Seal(ctx, "acme", rows...)
	require.NoError(tb, err)
	require.NoError(tb, e.index.Put(ctx, nil, entries))
	e.sealed, err = e.k.Seal(ctx, home, []byte("x"))
	require.NoError(tb, err)
	export := encrypt.Copy{What: "контакты <март> & co", Where: "usb stick of p7", At: e.clock.Now().Add(-time.Hour)}
	_, err = e.k.Erase(ctx, "acme", "c1", export)
	require.NoError(tb, err)
	_, err = e.k.Erase(ctx, "acme", "c1", export, encrypt.Copy{What: "mail to the supplier", Where: "supplier.example"})
	require.NoError(tb, err)
	e.clock.Advance(encrypt.ClosingTime)
	finished, err := e.k.FinishErasures(job("acme"))
	require.NoError(tb, err)
	require.Len(tb, finished, 1)
	e.receipt = finished[0]
	return e
}

func document(tb testing.TB, r encrypt.Receipt) []byte {
	tb.Helper()
	text, err := json.Marshal(r)
	require.NoError(tb, err)
	return text
}

func TestReceiptsSurviveARestart(t *testing.T) {
	e := erase(t)
	require.Equal(t, []string{"c2"}, e.receipt.Duplicates)
	require.Len(t, e.receipt.Copies, 2, "each once")
	require.Equal(t, 1, e.receipt.IndexRows)
	fresh := openKeyring(t, openTurningKEK(t, e.kek.path), e.store, &encrypt.Options{Clock: e.clock.Now})
	again, err := fresh.Receipt(acting("acme"), "acme", "c1")
	require.NoError(t, err)
	require.Equal(t, document(t, e.receipt), document(t, again))
	text := document(t, again)
	for _, document := range [][]byte{text, append(bytes.Clone(text), '\n')} {
		checked, err := fresh.CheckReceipt(acting("acme"), document)
		require.NoError(t, err)
		require.Equal(t, text, []byte(string(must(json.Marshal(checked)))))
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// flips checks every document that differs in one bit, and returns how many pass.
func flips(document []byte, check func([]byte) error) (passed int) {
	for i := range document {
		for bit := range 8 {
			changed := bytes.Clone(document)
			changed[i] ^= 1 << bit
			if check(changed) == nil {
				passed++
			}
		}
	}
	return passed
}

func TestEveryFlippedBitOfAReceiptIsRefused(t *testing.T) {
	e := erase(t)
	text := append(document(t, e.receipt), '\n')
	check := func(document []byte) error {
		_, err := e.k.CheckReceipt(acting("acme"), document)
		return err
	}
	require.NoError(t, check(text))
	require.Zero(t, flips(text, check))
	require.NotZero(t, flips(text, func(document []byte) error { return json.Unmarshal(document, new(encrypt.Receipt)) }),
		"the test notices a check without the MAC")
}

func TestCheckReceiptRefuses(t *testing.T) {
	e := erase(t)
	text := document(t, e.receipt)
	unsigned := e.receipt
	unsigned.MAC = nil
	moved := e.receipt
	moved.Client = "c2"
	sooner := e.receipt
	sooner.UnreadableAfter = sooner.DestroyedAt
	other := e.receipt
	other.Tenant = "other"
	var indented bytes.Buffer
	require.NoError(t, json.Indent(&indented, text, "", " "))
	for name, document := range map[string][]byte{
		"empty": nil, "null": []byte("null"), "no JSON": []byte("receipt"), "array": []byte("[]"), "twice": append(bytes.Clone(text), text...),
		"indented": indented.Bytes(), "space": append([]byte(" "), text...), "two line breaks": append(bytes.Clone(text), "\n\n"...),
		"unknown field": append([]byte(`{"x":1,`), text[1:]...), "case": bytes.Replace(text, []byte(`"client"`), []byte(`"Client"`), 1),
		"no MAC": document(t, unsigned), "other client": document(t, moved), "other date": document(t, sooner),
	} {
		t.Run(name, func(t *testing.T) {
			_, err := e.k.CheckReceipt(acting("acme"), document)
			require.Error(t, err)
			if name != "empty" {
				require.ErrorIs(t, err, encrypt.ErrReceipt)
			}
		})
	}
	_, err := e.k.CheckReceipt(acting("other"), document(t, other))
	require.ErrorIs(t, err, encrypt.ErrReceipt, "another tenant's key")
	_, err = e.k.CheckReceipt(acting("other"), text)
	require.Error(t, err)
	require.NotErrorIs(t, err, encrypt.ErrReceipt, "not for another tenant's eyes")
	elsewhere := newKeyring(t, encrypt.NewMemory(), nil)
	_, err = elsewhere.CheckReceipt(acting("acme"), text)
	require.ErrorIs(t, err, encrypt.ErrReceipt)
	down := openKeyring(t, e.kek, &brokenStoreDown{}, nil)
	_, err = down.CheckReceipt(acting("acme"), text)
	require.ErrorIs(t, err, encrypt.ErrUnavailable)
	require.NotErrorIs(t, err, encrypt.ErrReceipt, "nobody knows")
}

// brokenStoreDown never answers.
type brokenStoreDown struct{ encrypt.Store }

func (brokenStoreDown) Closing(context.Context) (int64, []encrypt.Record, error) {
	return 0, nil, errDown
}

func FuzzReceipt(f *testing.F) {
	e := erase(f)
	text := document(f, e.receipt)
	f.Add(text)
	f.Add([]byte(`{"tenant":"acme","client":"c1","state":"closing","closed_at":"2026-03-01T12:00:00Z","index_rows":0}`))
	f.Add([]byte(`{"tenant":"\u0000","client":"","state":"","closed_at":"0001-01-01T00:00:00Z","index_rows":0,"mac":"Y2cBAgAAAAE="}`))
	f.Fuzz(func(t *testing.T, document []byte) {
		_, err := e.k.CheckReceipt(acting("acme"), document)
		if err == nil && !bytes.Equal(bytes.TrimSuffix(document, []byte("\n")), text) {
			t.Errorf("passed: %s", document)
		}
		if _, err := e.k.Replay(t.Context(), document); err == nil && !bytes.Equal(bytes.TrimSuffix(document, []byte("\n")), text) {
			t.Errorf("replayed: %s", document)
		}
	})
}

// A Turn that began after a destruction makes the dates earlier, from when the old keys
// of the KEK are gone.
func TestATurnMakesTheDatesEarlier(t *testing.T) {
	e := erase(t)
	ctx := acting("acme")
	destroyed := e.receipt.DestroyedAt
	require.Equal(t, destroyed.Add(30*day), e.receipt.UnreadableAfter)
	require.Equal(t, destroyed.Add(120*day), e.receipt.UnlinkableAfter)
	read := func() encrypt.Receipt {
		t.Helper()
		r, err := e.k.Receipt(ctx, "acme", "c1")
		require.NoError(t, err)
		_, err = e.k.CheckReceipt(ctx, document(t, r))
		require.NoError(t, err)
		return r
	}
	e.clock.Advance(encrypt.Lease)
	var first encrypt.Turned
	var err error
	running(e.clock, func() { first, err = e.k.Turn(job("acme"), nil) })
	require.NoError(t, err)
	require.Equal(t, first.Gone, read().UnreadableAfter)
	require.Equal(t, destroyed.Add(120*day), read().UnlinkableAfter, "the index key has turned with it")

	e.clock.Advance(90 * day)
	indexKey := indexKeyOf(t, e.store)
	version, err := e.k.Rotate(ctx, indexKey)
	require.NoError(t, err)
	_, err = e.k.Retire(ctx, indexKey, version)
	require.NoError(t, err)
	var second encrypt.Turned
	running(e.clock, func() { second, err = e.k.Turn(job("acme"), nil) })
	require.NoError(t, err)
	require.Equal(t, first.Gone, read().UnreadableAfter, "the first Turn counts")
	require.Equal(t, second.Gone, read().UnlinkableAfter, "the first without an index key of that time")
	running(e.clock, func() { _, err = e.k.Turn(job("acme"), nil) })
	require.NoError(t, err)
	require.Equal(t, second.Gone, read().UnlinkableAfter)
	checked, err := e.k.CheckReceipt(ctx, document(t, e.receipt))
	require.NoError(t, err, "old receipts hold")
	require.Equal(t, destroyed.Add(30*day), checked.UnreadableAfter)
}

func indexKeyOf(tb testing.TB, s encrypt.Inventory) encrypt.Scope {
	tb.Helper()
	for _, r := range listRecords(tb, s) {
		if r.Scope.Purpose == encrypt.IndexKey {
			return r.Scope
		}
	}
	tb.Fatal("no index key")
	return encrypt.Scope{}
}

// A Turn that began before, or whose clock may be wrong by a lease, promises nothing.
func TestATurnThatBeganBeforePromisesNothing(t *testing.T) {
	e := erase(t)
	ctx := acting("acme")
	_, err := e.k.Erase(ctx, "acme", "c2")
	require.NoError(t, err)
	running(e.clock, func() { _, err = e.k.Turn(job("acme"), nil) })
	require.NoError(t, err)
	e.clock.Advance(encrypt.ClosingTime)
	_, err = e.k.FinishErasures(job("acme"))
	require.NoError(t, err)
	for _, client := range []string{"c1", "c2"} {
		r, err := e.k.Receipt(ctx, "acme", client)
		require.NoError(t, err)
		require.Equal(t, r.DestroyedAt.Add(30*day), r.UnreadableAfter, client)
		require.Equal(t, r.DestroyedAt.Add(120*day), r.UnlinkableAfter, client)
	}
}

// An index key that is older than an erasure and was not retired in time puts the date
// off.
func TestAnIndexKeyPastItsLifePutsTheDateOff(t *testing.T) {
	e := erase(t)
	ctx := acting("acme")
	e.clock.Advance(200 * day)
	r, err := e.k.Receipt(ctx, "acme", "c1")
	require.NoError(t, err)
	require.Equal(t, r.DestroyedAt.Add(30*day), r.UnreadableAfter)
	require.Equal(t, e.clock.Now().Add(30*day), r.UnlinkableAfter)
	indexKey := indexKeyOf(t, e.store)
	version, err := e.k.Rotate(ctx, indexKey)
	require.NoError(t, err)
	_, err = e.k.Retire(ctx, indexKey, version)
	require.NoError(t, err)
	r, err = e.k.Receipt(ctx, "acme", "c1")
	require.NoError(t, err)
	require.Equal(t, r.DestroyedAt.Add(120*day), r.UnlinkableAfter)
}

// Without the KEK a client is erased all the same; only the receipt waits.
func TestErasureWithoutTheKEK(t *testing.T) {
	kek, store, clock := newKEK(t), encrypt.NewMemory(), newClock(t)
	ctx := acting("acme")
	_, err := openKeyring(t, kek, store, nil).Seal(ctx, home, nil)
	require.NoError(t, err)
	k := openKeyring(t, kek, store, &encrypt.Options{Clock: clock.Now})
	kek.down.Store(true)
	receipt, err := k.Erase(ctx, "acme", "c1", encrypt.Copy{What: "export"})
	require.ErrorIs(t, err, encrypt.ErrUnavailable)
	require.Equal(t, "closing", receipt.State)
	require.Empty(t, receipt.MAC)
	clock.Advance(encrypt.ClosingTime)
	finished, err := k.FinishErasures(job("acme"))
	require.ErrorIs(t, err, encrypt.ErrUnavailable)
	require.Len(t, finished, 1)
	require.Equal(t, "destroyed", finished[0].State)
	kek.down.Store(false)
	receipt, err = k.Receipt(ctx, "acme", "c1")
	require.NoError(t, err)
	require.Len(t, receipt.Copies, 1)
	_, err = k.CheckReceipt(ctx, document(t, receipt))
	require.NoError(t, err)
}

func TestEraseRefusesCopiesThatNoReceiptCanName(t *testing.T) {
	k := newKeyring(t, encrypt.NewMemory(), nil)
	for _, c := range []encrypt.Copy{{What: "\xff"}, {Where: "a\x00b"}, {What: string(make([]byte, 600))}} {
		_, err := k.Erase(acting("acme"), "acme", "c1", c)
		require.Error(t, err)
	}
	_, err := k.Seal(acting("acme"), home, nil)
	require.NoError(t, err, "nothing was erased")
}

// After a restore the ledger makes the key store forget again.
func TestReplay(t *testing.T) {
	clock, kek, store := newClock(t), newTurningKEK(t), encrypt.NewMemory()
	ctx := acting("acme")
	options := &encrypt.Options{Clock: clock.Now, Index: encrypt.NewMemoryIndex()}
	k := openKeyring(t, kek, store, options)
	sealed := make(map[string][]byte)
	for _, at := range []crmguard.Place{client(1), client(2), client(3)} {
		var err error
		sealed[at.Client], err = k.Seal(ctx, at, []byte("x"))
		require.NoError(t, err)
	}
	backup := copyOf(t, store)
	_, err := k.Erase(ctx, "acme", "c1", encrypt.Copy{What: "export"})
	require.NoError(t, err)
	clock.Advance(encrypt.ClosingTime)
	finished, err := k.FinishErasures(job("acme"))
	require.NoError(t, err)
	ordered, err := k.Erase(ctx, "acme", "c2")
	require.NoError(t, err)

	clock.Advance(day)
	restored := openKeyring(t, kek, backup, options)
	open := func(at crmguard.Place) error { _, err := restored.Open(ctx, at, sealed[at.Client]); return err }
	require.NoError(t, open(client(1)), "the backup brings it back")
	forged := finished[0]
	forged.Client = "c3"
	replayed, err := restored.Replay(t.Context(), document(t, finished[0]), document(t, forged), []byte("{}"), document(t, ordered))
	require.ErrorIs(t, err, encrypt.ErrReceipt)
	require.Len(t, replayed, 2, "what does not hold is refused, the rest is done")
	require.ErrorIs(t, open(client(1)), crmguard.ErrErased)
	require.ErrorIs(t, open(client(2)), crmguard.ErrErased)
	require.NoError(t, open(client(3)))
	_, err = restored.Seal(ctx, client(1), nil)
	require.ErrorIs(t, err, crmguard.ErrErased, "its id is never used again")

	require.Equal(t, []string{"destroyed", "closing"}, []string{replayed[0].State, replayed[1].State})
	require.Equal(t, finished[0].ClosedAt, replayed[0].ClosedAt)
	require.Equal(t, clock.Now(), replayed[0].DestroyedAt)
	require.Equal(t, finished[0].Copies, replayed[0].Copies)
	for _, r := range replayed {
		_, err = k.CheckReceipt(ctx, document(t, r))
		require.NoError(t, err)
	}
	for _, r := range listRecords(t, backup) {
		if r.Scope.Name == "c1" {
			require.Empty(t, r.Wrapped)
		}
	}
	again, err := restored.Replay(t.Context(), document(t, finished[0]), document(t, replayed[0]))
	require.NoError(t, err)
	require.Equal(t, document(t, replayed[0]), document(t, again[0]), "once more changes nothing")
	clock.Advance(encrypt.ClosingTime)
	finished, err = restored.FinishErasures(job("acme"))
	require.NoError(t, err)
	require.Len(t, finished, 1)
	require.Equal(t, "c2", finished[0].Client)
}

func TestSweep(t *testing.T) {
	clock, store := newClock(t), encrypt.NewMemory()
	k := newKeyring(t, store, &encrypt.Options{Clock: clock.Now})
	ctx := acting("acme")
	seal := func(k *encrypt.Keyring, tenant, name string) {
		t.Helper()
		_, err := k.Seal(acting(tenant), crmguard.Place{Tenant: tenant, Client: name, Kind: "contacts"}, nil)
		require.NoError(t, err)
	}
	for _, name := range []string{"", "kept", "rolled back", "rotated"} {
		seal(k, "acme", name)
	}
	seal(k, "other", "rolled back")
	_, err := k.Erase(ctx, "acme", "erased")
	require.NoError(t, err)
	clock.Advance(23 * time.Hour)
	exist := func(_ context.Context, clients []string) ([]string, error) {
		require.NotContains(t, clients, "", "the tenant's own key is nobody's")
		require.NotContains(t, clients, "erased")
		return []string{"kept", "rotated", "stranger"}, nil
	}
	swept, err := k.Sweep(ctx, "acme", exist)
	require.NoError(t, err)
	require.Zero(t, swept, "too young")
	clock.Advance(time.Hour)
	seal(k, "acme", "young")
	_, err = k.Rotate(ctx, encrypt.Scope{Tenant: "acme", Purpose: encrypt.DataKey, Name: "rotated"})
	require.NoError(t, err)
	swept, err = k.Sweep(ctx, "acme", exist)
	require.NoError(t, err)
	require.Equal(t, 1, swept)
	_, err = k.Seal(ctx, crmguard.Place{Tenant: "acme", Client: "rolled back"}, nil)
	require.ErrorIs(t, err, crmguard.ErrErased)
	for _, name := range []string{"", "kept", "young", "rotated"} {
		seal(k, "acme", name)
	}
	seal(k, "other", "rolled back")
	clock.Advance(encrypt.ClosingTime)
	finished, err := k.FinishErasures(job("acme"))
	require.NoError(t, err)
	require.Len(t, finished, 2)
	swept, err = k.Sweep(ctx, "acme", exist)
	require.NoError(t, err)
	require.Zero(t, swept)
}

func TestSweepRefuses(t *testing.T) {
	clock, store := newClock(t), encrypt.NewMemory()
	k := newKeyring(t, store, &encrypt.Options{Clock: clock.Now})
	ctx := acting("acme")
	for i := range 4 {
		_, err := k.Seal(ctx, client(i), nil)
		require.NoError(t, err)
	}
	clock.Advance(day)
	nobody := func(context.Context, []string) ([]string, error) { return nil, nil }
	_, err := k.Sweep(ctx, "acme", nobody)
	require.ErrorIs(t, err, encrypt.ErrSweep, "a wrong database knows nobody")
	_, err = k.Sweep(ctx, "acme", func(context.Context, []string) ([]string, error) { return []string{"c1"}, errDown })
	require.ErrorIs(t, err, errDown)
	_, err = k.Sweep(ctx, "", nobody)
	require.Error(t, err)
	_, err = k.Sweep(acting("other"), "acme", nobody)
	require.Error(t, err)
	_, err = newKeyring(t, &counting{Store: store}, nil).Sweep(ctx, "acme", nobody)
	require.ErrorContains(t, err, "Inventory")
	for i := range 4 {
		_, err := k.Seal(ctx, client(i), nil)
		require.NoError(t, err, "nobody was swept")
	}
}

// Whoever deletes rows in the host's database destroys next to nothing by it, so that a
// backup brings the clients back.
func TestSweepAfterSomebodyHasDeletedRows(t *testing.T) {
	for _, c := range []struct {
		age              time.Duration
		clients, missing int
		swept            int
		refused          bool
	}{
		{365 * day, 200, 199, 0, false},
		{7 * day, 200, 1, 0, false},
		{7*day - time.Second, 200, 1, 1, false},
		{2 * day, 200, 199, 0, true},
		{2 * day, 200, 21, 0, true},
		{2 * day, 200, 20, 20, false},
		{2 * day, 11, 4, 0, true},
		{2 * day, 3, 3, 3, false},
		{2 * day, 10_020, 1001, 0, true},
	} {
		t.Run(fmt.Sprint(c.age, " ", c.missing, " of ", c.clients), func(t *testing.T) {
			clock, store := newClock(t), encrypt.NewMemory()
			k := newKeyring(t, store, &encrypt.Options{Clock: clock.Now})
			ctx := acting("acme")
			cells, missing := make([]encrypt.Cell, c.clients), make(map[string]bool)
			for i := range cells {
				cells[i] = encrypt.Cell{Place: client(i), Plaintext: []byte("x")}
				missing[cells[i].Place.Client] = i < c.missing
			}
			require.NoError(t, k.SealAll(ctx, "acme", cells))
			clock.Advance(c.age)
			swept, err := k.Sweep(ctx, "acme", func(_ context.Context, clients []string) ([]string, error) {
				return slices.DeleteFunc(slices.Clone(clients), func(c string) bool { return missing[c] }), nil
			})
			if c.refused {
				require.ErrorIs(t, err, encrypt.ErrSweep)
			} else {
				require.NoError(t, err)
			}
			require.Equal(t, c.swept, swept)
			_, closing, err := store.Closing(ctx)
			require.NoError(t, err)
			require.Len(t, closing, c.swept)
		})
	}
}
