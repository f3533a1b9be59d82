package encrypt_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"

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
	planted.Sealed["phone"], planted.Legacy["phone"] = nil, []byte("planted")
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
	require.Nil(t, p.row(t, "c01").Legacy["phone"])
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
		PhoneLegacy *string `encrypt:"phone,legacy"`
		PhoneSealed []byte  `encrypt:"phone,sealed"`
	}
	table, err := encrypt.NewTable[owned](p.keys, "contacts", nil)
	require.NoError(t, err)
	o := &owned{ID: "c01", Client: "c02", PhoneLegacy: g.PhoneLegacy}
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

type onlyPhone struct {
	ID     string  `encrypt:",record"`
	Phone  string  `encrypt:"phone,index=phone:unique"`
	Legacy *string `encrypt:"phone,legacy"`
	Sealed []byte  `encrypt:"phone,sealed"`
}

// countSwaps counts what is written.
type countSwaps struct {
	encrypt.Rows
	swaps, rows int
	before      func()
}

func (c *countSwaps) Swap(ctx context.Context, tenant string, changes []encrypt.Change, then func(encrypt.Execer, []string) error) ([]string, error) {
	c.swaps++
	c.rows += len(changes)
	if c.before != nil {
		c.before()
	}
	return c.Rows.Swap(ctx, tenant, changes, then)
}

func TestMigrateManyDuplicates(t *testing.T) {
	const n = 256
	for name, phone := range map[string]func(i int) string{
		"of each other":         func(int) string { return "+7 916 123-45-67" },
		"of other records":      func(i int) string { return fmt.Sprintf("+7 916 123-%04d", i) },
		"of some, now and then": func(i int) string { return fmt.Sprintf("+7 916 12%d-%04d", min(i%8, 4), i) },
	} {
		t.Run(name, func(t *testing.T) {
			clock := newClock(t)
			p := newPlainTable(t, 0, encrypt.NewMemory(), nil, nil)
			table, err := encrypt.NewTable[onlyPhone](p.keys, "uniq", nil)
			require.NoError(t, err)
			for i := range n {
				id := fmt.Sprintf("c%03d", i)
				p.Put("acme", encrypt.Row{Record: id, Client: id, Sealed: map[string][]byte{}, Legacy: map[string][]byte{"phone": []byte(phone(i))}})
				other := &onlyPhone{ID: fmt.Sprintf("other%03d", i), Phone: fmt.Sprintf("+7 916 123-%04d", i)}
				entries, err := table.Seal(job("acme"), "acme", other)
				require.NoError(t, err)
				require.NoError(t, p.index.Put(t.Context(), nil, entries))
			}
			_, err = table.Collect(job("acme"), "acme", p, nil)
			require.NoError(t, err)
			swaps := &countSwaps{Rows: p}
			report, err := table.Migrate(job("acme"), "acme", swaps, &encrypt.JobOptions{Batch: n})
			require.NoError(t, err)
			left, err := table.Pending(job("acme"), "acme")
			require.NoError(t, err)
			require.Equal(t, report.Unreadable, left)
			require.Equal(t, n, report.Changed+left)
			require.LessOrEqual(t, swaps.rows, 10*n, "each row is not written again for each duplicate")
			require.LessOrEqual(t, swaps.swaps, 2*n+1)

			// What was sealed longer ago than a lease is sealed anew.
			swaps = &countSwaps{Rows: p, before: func() { clock.Advance(encrypt.Lease) }}
			report, err = table.Migrate(job("acme"), "acme", swaps, &encrypt.JobOptions{Batch: n})
			require.NoError(t, err)
			require.LessOrEqual(t, swaps.swaps, 10)
			require.Equal(t, left, report.Unreadable+report.Busy)
		})
	}
}

// A migration that stands still between sealing and storing, until the index key that it has used is
// gone, makes the entries anew.
func TestMigrateStoresNoEntryOfAKeyThatIsGone(t *testing.T) {
	c := newClock(t)
	var p *plainTable
	stalled := false
	p = newPlainTable(t, 3, encrypt.NewMemory(), &encrypt.TableOptions{DecodeLegacy: func(_ context.Context, at crmguard.Place, stored []byte) ([]byte, error) {
		if at.Record == "c02" && at.Field == "phone" && !stalled { // which comes last: it is sealed already
			stalled = true
			c.Advance(encrypt.ClosingTime)
			scope := encrypt.IndexScope("acme", "contacts", "phone", "phone")
			version, err := p.keys.Rotate(job("acme"), scope)
			require.NoError(t, err)
			_, err = p.keys.Retire(job("acme"), scope, version)
			require.NoError(t, err)
		}
		return stored, nil
	}}, nil)
	p.begin(t)
	both := p.row(t, "c02")
	sealed := &grown{ID: "c02", Phone: "+7 912 345-67-02"}
	_, err := p.contacts.Seal(job("acme"), "acme", sealed)
	require.NoError(t, err)
	both.Sealed["phone"] = sealed.PhoneSealed
	p.Put("acme", both)

	report, err := p.contacts.Migrate(job("acme"), "acme", p, nil)
	require.NoError(t, err)
	require.True(t, stalled)
	require.True(t, report.OK(), "%+v", report)
	for i := range 2 {
		found, err := p.contacts.Find(job("acme"), "acme", "phone", "phone", fmt.Sprintf("+7 912 345-67-%02d", i))
		require.NoError(t, err)
		require.Equal(t, []string{fmt.Sprintf("c%02d", i)}, found)
	}
}

// Who reads NULL as an empty string stores one where Seal has emptied the column: that is no plaintext.
func TestAnEmptyStringWhereNULLWasMeant(t *testing.T) {
	p := newPlainTable(t, 3, encrypt.NewMemory(), nil, nil)
	never := p.row(t, "c02")
	never.Legacy["note"] = []byte{}
	p.Put("acme", never)
	p.begin(t)
	g, err := p.open(t, "c01")
	require.NoError(t, err)
	_, err = p.contacts.Seal(job("acme"), "acme", g)
	require.NoError(t, err)
	p.Put("acme", encrypt.Row{Record: "c01", Client: "c01", Sealed: map[string][]byte{"phone": g.PhoneSealed, "note": g.NoteSealed, "born": g.BornSealed},
		Legacy: map[string][]byte{"note": []byte(g.NoteLegacy)}})
	report, err := p.contacts.Migrate(job("acme"), "acme", p, nil)
	require.NoError(t, err)
	require.True(t, report.OK(), "%+v", report)
	g, err = p.open(t, "c02")
	require.NoError(t, err)
	require.Nil(t, g.Note, "as it was before")
}

// What is sealed between reading a row and asking whether its plaintext is accepted is no finding;
// what was planted meanwhile is.
func TestScanBesideMigrate(t *testing.T) {
	p := newPlainTable(t, 3, encrypt.NewMemory(), nil, nil)
	p.begin(t)
	migrated := false
	h := &hooked{Rows: p, page: func(_ string, rows []encrypt.Row) []encrypt.Row {
		if !migrated {
			migrated = true
			_, err := p.contacts.Migrate(job("acme"), "acme", p, nil)
			require.NoError(t, err)
			planted := plainRow(2)
			p.Put("acme", planted)
		}
		return rows
	}}
	report, err := p.contacts.Scan(job("acme"), "acme", h, nil)
	require.NoError(t, err)
	require.Equal(t, 3, report.Rows)
	require.Equal(t, 3, report.Plaintext, "%+v", report)
	for _, e := range report.Findings {
		require.Equal(t, "c02", e.Record)
	}
}

// A row that others change each time stays in the set, and can be read, until the next run seals it.
func TestMigrateKeepsTheProofThatABusyRowNeeds(t *testing.T) {
	p := newPlainTable(t, 3, encrypt.NewMemory(), nil, nil)
	p.begin(t)
	edit := 0
	h := &hooked{Rows: p, before: func() {
		edit++
		row := p.row(t, "c01")
		row.Legacy["note"] = fmt.Append(nil, "edit ", edit)
		p.Put("acme", row)
	}}
	synctest.Test(t, func(t *testing.T) {
		report, err := p.contacts.Migrate(job("acme"), "acme", h, nil)
		require.NoError(t, err)
		require.NotZero(t, report.Busy)
	})
	g, err := p.open(t, "c01")
	require.NoError(t, err)
	require.NotNil(t, g.Note)
	require.Equal(t, fmt.Sprint("edit ", edit), *g.Note)
	report, err := p.contacts.Migrate(job("acme"), "acme", p, nil)
	require.NoError(t, err)
	require.True(t, report.OK(), "%+v", report)
}

// A program that does not seal may write the old column of a row that was sealed meanwhile.
func TestWhatIsSealedCounts(t *testing.T) {
	p := newPlainTable(t, 2, encrypt.NewMemory(), nil, nil)
	p.begin(t)
	g := asGrown(p.row(t, "c01"))
	g.Phone = "sealed"
	_, err := p.contacts.Seal(acting("acme"), "acme", g)
	require.NoError(t, err)
	both := p.row(t, "c01")
	both.Sealed["phone"] = g.PhoneSealed
	p.Put("acme", both)
	require.NotNil(t, p.row(t, "c01").Legacy["phone"])
	opened, err := p.open(t, "c01")
	require.NoError(t, err)
	require.Equal(t, "sealed", opened.Phone)
}

// rememberingPending answers with records that it had once, whatever state the field is in.
type rememberingPending struct {
	*encrypt.Memory
	found []encrypt.PendingRecord
}

func (r *rememberingPending) HasPending(ctx context.Context, f encrypt.PendingField, records []string) (encrypt.PendingState, []encrypt.PendingRecord, error) {
	state, found, err := r.Memory.HasPending(ctx, f, records)
	if len(found) > 0 {
		r.found = found
	}
	return state, r.found, err
}

func TestAStrictFieldHasNoRecords(t *testing.T) {
	store := &rememberingPending{Memory: encrypt.NewMemory()}
	p := newPlainTable(t, 1, store, nil, nil)
	p.begin(t)
	waiting := p.row(t, "c00")
	waiting.Legacy = map[string][]byte{"phone": waiting.Legacy["phone"]}
	p.Put("acme", waiting)
	_, err := p.open(t, "c00")
	require.NoError(t, err)
	_, err = p.contacts.Migrate(job("acme"), "acme", p, nil)
	require.NoError(t, err)
	require.Zero(t, p.left(t))
	p.Put("acme", waiting)
	_, err = p.open(t, "c00")
	require.ErrorIs(t, err, encrypt.ErrPlaintext)
}

// A row that is deleted after it was read needs no second run, and nobody is left in the set who could
// bring back plaintext under its id.
func TestMigrateBesideADelete(t *testing.T) {
	p := newPlainTable(t, 3, encrypt.NewMemory(), nil, nil)
	p.begin(t)
	h := &hooked{Rows: p}
	h.before = func() {
		if h.gone == "" {
			h.gone = "c01"
			p.Put("acme", encrypt.Row{Record: "c01", Client: "deleted"})
		}
	}
	report, err := p.contacts.Migrate(job("acme"), "acme", h, nil)
	require.NoError(t, err)
	require.True(t, report.OK(), "%+v", report)
	require.Zero(t, p.left(t))
	p.Put("acme", plainRow(1))
	_, err = p.open(t, "c01")
	require.ErrorIs(t, err, encrypt.ErrPlaintext)
}
