package encrypt_test

import (
	"bytes"
	"context"
	"encoding/json"
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
			require.ErrorIs(t, err, encrypt.ErrReceipt)
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
	require.ErrorIs(t, err, crmguard.ErrUnavailable)
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

// Without the KEK a client is erased all the same; only the receipt waits.
func TestErasureWithoutTheKEK(t *testing.T) {
	kek, store, clock := newKEK(t), encrypt.NewMemory(), newClock(t)
	ctx := acting("acme")
	_, err := openKeyring(t, kek, store, nil).Seal(ctx, home, nil)
	require.NoError(t, err)
	k := openKeyring(t, kek, store, &encrypt.Options{Clock: clock.Now})
	kek.down.Store(true)
	receipt, err := k.Erase(ctx, "acme", "c1", encrypt.Copy{What: "export"})
	require.ErrorIs(t, err, crmguard.ErrUnavailable)
	require.Equal(t, "closing", receipt.State)
	require.Empty(t, receipt.MAC)
	clock.Advance(encrypt.ClosingTime)
	finished, err := k.FinishErasures(job("acme"))
	require.ErrorIs(t, err, crmguard.ErrUnavailable)
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
