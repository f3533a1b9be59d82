package encrypt_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/encrypt"
)

func TestReaderBesideMigrateReadsAgain(t *testing.T) {
	c := newClock(t)
	p := newPlainTable(t, 3, encrypt.NewMemory(), nil, nil)
	p.begin(t)
	read := asGrown(p.row(t, "c01")) // SELECT
	_, err := p.contacts.Migrate(job("acme"), "acme", p, nil)
	require.NoError(t, err)
	err = p.contacts.Open(acting("acme"), "acme", read)
	require.ErrorIs(t, err, encrypt.ErrReadAgain)
	require.ErrorIs(t, err, encrypt.ErrPlaintext)
	_, err = p.open(t, "c01")
	require.NoError(t, err)

	c.Advance(encrypt.ClosingTime) // nobody holds such a row any more
	planted := p.row(t, "c01")
	planted.Sealed["phone"], planted.Plain["phone"] = nil, []byte("planted")
	p.Put("acme", planted)
	_, err = p.open(t, "c01")
	require.ErrorIs(t, err, encrypt.ErrPlaintext)
	require.NotErrorIs(t, err, encrypt.ErrReadAgain)
}

func TestNoKeyIsDestroyedDuringAMigration(t *testing.T) {
	clock := newClock(t)
	p := newPlainTable(t, 3, encrypt.NewMemory(), nil, nil)
	var err error
	p.keys = newKeyring(t, p.store, &encrypt.Options{Index: p.index, Clock: clock.Now})
	p.contacts, err = encrypt.NewTable[grown](p.keys, "contacts", nil)
	require.NoError(t, err)
	p.begin(t)
	_, err = p.keys.Erase(job("acme"), "acme", "c01")
	require.NoError(t, err)
	_, err = p.keys.Erase(job("other"), "other", "c01")
	require.NoError(t, err)
	clock.Advance(2 * encrypt.ClosingTime)
	receipts, err := p.keys.FinishErasures(t.Context())
	require.ErrorIs(t, err, encrypt.ErrMigrating)
	require.ErrorContains(t, err, `of "contacts" in tenant "acme"`)
	require.Len(t, receipts, 1)
	require.Equal(t, "other", receipts[0].Tenant, "of other tenants it is")
	receipt, err := p.keys.Receipt(job("acme"), "acme", "c01")
	require.NoError(t, err)
	require.Equal(t, "closing", receipt.State)

	report, err := p.contacts.Migrate(job("acme"), "acme", p, nil)
	require.NoError(t, err)
	require.Equal(t, 3, report.Erased)
	require.Nil(t, p.row(t, "c01").Plain["phone"])
	receipts, err = p.keys.FinishErasures(t.Context())
	require.NoError(t, err)
	require.Len(t, receipts, 1)
	require.Equal(t, "destroyed", receipts[0].State)
}

func TestPlaintextIsAcceptedOfOneClientOnly(t *testing.T) {
	p := newPlainTable(t, 3, encrypt.NewMemory(), nil, nil)
	p.begin(t)
	moved := p.row(t, "c01")
	moved.Client = "c02"
	p.Put("acme", moved)
	_, err := p.open(t, "c00")
	require.NoError(t, err)
	g := asGrown(p.row(t, "c01"))
	type owned struct {
		ID          string  `encrypt:",record"`
		Client      string  `encrypt:",client"`
		Phone       string  `encrypt:"phone"`
		PhonePlain  *string `encrypt:"phone,plain"`
		PhoneSealed []byte  `encrypt:"phone,sealed"`
	}
	table, err := encrypt.NewTable[owned](p.keys, "contacts", nil)
	require.NoError(t, err)
	o := &owned{ID: "c01", Client: "c02", PhonePlain: g.PhonePlain}
	require.ErrorIs(t, table.Open(acting("acme"), "acme", o), encrypt.ErrPlaintext)
	o.Client = "c01"
	require.NoError(t, table.Open(acting("acme"), "acme", o))

	report, err := p.contacts.Migrate(job("acme"), "acme", p, nil)
	require.NoError(t, err)
	require.Equal(t, 3, report.Plaintext)
	require.Nil(t, p.row(t, "c01").Sealed["phone"], "nor is it sealed for another one")
	require.Zero(t, p.left(t))
}

// A record whose MAC key is there but whose proof is for another record, field or tenant.
func TestProofsAreOfOnePlace(t *testing.T) {
	store := encrypt.NewMemory()
	p := newPlainTable(t, 2, store, nil, nil)
	p.begin(t)
	ctx := crmguard.System(t.Context(), "acme", "attack")
	phone := encrypt.PendingField{Tenant: "acme", Kind: "contacts", Field: "phone"}
	note := encrypt.PendingField{Tenant: "acme", Kind: "contacts", Field: "note"}
	_, found, err := store.HasPending(ctx, note, []string{"c00"})
	require.NoError(t, err)
	_, other, err := store.HasPending(ctx, phone, []string{"c01"})
	require.NoError(t, err)
	for _, mac := range [][]byte{found[0].MAC, other[0].MAC, nil, {}} {
		require.NoError(t, store.AddPending(ctx, phone, []encrypt.PendingRecord{{Record: "c00", MAC: mac}}))
		_, err = p.open(t, "c00")
		require.ErrorIs(t, err, encrypt.ErrPlaintext)
	}
	p.begin(t) // while it collects, it proves all anew
	_, err = p.open(t, "c00")
	require.NoError(t, err)
}
