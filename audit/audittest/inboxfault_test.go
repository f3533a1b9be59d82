package audittest

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/auditsql"
	"github.com/crmguard/crmguard/internal/racetest"
	"github.com/crmguard/crmguard/internal/sqldb/sqldbtest"
)

// amiss is the store of package auditsql, of which some methods do something else.
type amiss struct {
	*auditsql.Store
	put     func(ctx context.Context, tx audit.Tx, w audit.Waiting) error
	append  func(ctx context.Context, b audit.Batch) error
	waiting func([]audit.Waiting) []audit.Waiting
	begin   func() error
	held    func(context.Context, audit.Tx, audit.Waiting) ([]byte, error)
	direct  audit.Tx
	beat    func(ctx context.Context, b audit.Beat) error
	beats   func([]audit.Beat, int) []audit.Beat
	account func(audit.Account) audit.Account
	pseudos func(ctx context.Context, list []audit.Pseudonym) error
}

func (a *amiss) Put(ctx context.Context, tx audit.Tx, w audit.Waiting) error {
	if a.put != nil {
		return a.put(ctx, tx, w)
	}
	return a.Store.Put(ctx, tx, w)
}

func (a *amiss) Append(ctx context.Context, b audit.Batch) error {
	if a.append != nil {
		return a.append(ctx, b)
	}
	return a.Store.Append(ctx, b)
}

func (a *amiss) Waiting(ctx context.Context, skip, n int) ([]audit.Waiting, error) {
	list, err := a.Store.Waiting(ctx, skip, n)
	if a.waiting != nil {
		list = a.waiting(list)
	}
	return list, err
}

func (a *amiss) Begin(ctx context.Context, tx audit.Tx) error {
	if a.begin != nil {
		return a.begin()
	}
	return a.Store.Begin(ctx, tx)
}

func (a *amiss) Held(ctx context.Context, tx audit.Tx, w audit.Waiting) ([]byte, error) {
	if a.held != nil {
		return a.held(ctx, tx, w)
	}
	return a.Store.Held(ctx, tx, w)
}

func (a *amiss) Direct() audit.Tx {
	if a.direct != nil {
		return a.direct
	}
	return a.Store.Direct()
}

func (a *amiss) Beat(ctx context.Context, b audit.Beat) error {
	if a.beat != nil {
		return a.beat(ctx, b)
	}
	return a.Store.Beat(ctx, b)
}

func (a *amiss) Beats(ctx context.Context, n int) ([]audit.Beat, error) {
	if a.beats != nil {
		list, err := a.Store.Beats(ctx, 1000)
		return a.beats(list, n), err
	}
	return a.Store.Beats(ctx, n)
}

func (a *amiss) Account(ctx context.Context) (audit.Account, error) {
	account, err := a.Store.Account(ctx)
	if a.account != nil {
		account = a.account(account)
	}
	return account, err
}

func (a *amiss) PutPseudonyms(ctx context.Context, tx audit.Tx, list []audit.Pseudonym) error {
	if a.pseudos != nil {
		return a.pseudos(ctx, list)
	}
	return a.Store.PutPseudonyms(ctx, tx, list)
}

// without leaves parts of each batch out.
func without(a *amiss, parts ...func(*audit.Batch)) {
	a.append = func(ctx context.Context, b audit.Batch) error {
		for _, part := range parts {
			part(&b)
		}
		return a.Store.Append(ctx, b)
	}
}

// apart does one part of each batch by itself, before the rest.
func apart(a *amiss, part func(b audit.Batch) audit.Batch) {
	a.append = func(ctx context.Context, b audit.Batch) error {
		first := part(b)
		var err error
		if first.After, err = a.Head(ctx); err != nil {
			return err
		}
		if err := a.Store.Append(ctx, first); err != nil {
			return err
		}
		b.Taken, b.Beats, b.Account = nil, nil, nil
		return a.Store.Append(ctx, b)
	}
}

func taking(b audit.Batch) audit.Batch { return audit.Batch{Taken: b.Taken} }

var inboxFaults = map[string][]func(t testing.TB, a *amiss){
	"an entry waits if and only if its transaction commits": {
		func(t testing.TB, a *amiss) { // after the transaction, whatever became of it
			var late []audit.Waiting
			a.put = func(_ context.Context, _ audit.Tx, w audit.Waiting) error { late = append(late, w); return nil }
			a.waiting = func([]audit.Waiting) []audit.Waiting { return late }
		},
		func(_ testing.TB, a *amiss) {
			a.put = func(context.Context, audit.Tx, audit.Waiting) error { return nil }
		},
	},
	"an entry waits once per tenant, event and outcome": {
		func(_ testing.TB, a *amiss) {
			a.put = func(ctx context.Context, tx audit.Tx, w audit.Waiting) error {
				w.Tenant = "acme"
				return a.Store.Put(ctx, tx, w)
			}
		},
		func(_ testing.TB, a *amiss) {
			a.put = func(ctx context.Context, tx audit.Tx, w audit.Waiting) error {
				if held, err := a.Store.Held(ctx, tx, w); err != nil || held != nil {
					return errors.Join(err, errors.New("it is there already"))
				}
				return a.Store.Put(ctx, tx, w)
			}
		},
	},
	"entries wait in the order of their times, page by page": {
		func(_ testing.TB, a *amiss) {
			a.waiting = func(list []audit.Waiting) []audit.Waiting { slices.Reverse(list); return list }
		},
	},
	"what is taken is gone with the append, or still there": {
		func(_ testing.TB, a *amiss) { apart(a, taking) },
		func(_ testing.TB, a *amiss) { without(a, func(b *audit.Batch) { b.Taken = nil }) },
	},
	"what is taken twice is refused whole": {
		func(_ testing.TB, a *amiss) { without(a, func(b *audit.Batch) { b.Taken = b.Taken[:1] }) },
	},
	"what is held is seen from inside the transaction": {
		func(_ testing.TB, a *amiss) {
			a.held = func(context.Context, audit.Tx, audit.Waiting) ([]byte, error) { return nil, nil }
		},
		func(_ testing.TB, a *amiss) { // any outcome
			a.held = func(ctx context.Context, tx audit.Tx, w audit.Waiting) ([]byte, error) {
				w.Outcome = entry("", 0).Outcome
				return a.Store.Held(ctx, tx, w)
			}
		},
	},
	"a transaction that has begun writes after it has read": {
		func(_ testing.TB, a *amiss) { a.begin = func() error { return nil } },
	},
	"a direct statement is a transaction of its own": {
		func(t testing.TB, a *amiss) { // one that nobody commits
			tx, err := sqldbtest.SQLite(t).Begin()
			require.NoError(t, err)
			t.Cleanup(func() { require.NoError(t, tx.Rollback()) })
			a.direct = tx
		},
	},
	"pseudonyms are part of the transaction": {
		func(_ testing.TB, a *amiss) {
			a.pseudos = func(ctx context.Context, list []audit.Pseudonym) error {
				return a.SetPseudonyms(ctx, list[0].Tenant, list[0].Event, list[0].Outcome, list)
			}
		},
		func(_ testing.TB, a *amiss) {
			a.pseudos = func(context.Context, []audit.Pseudonym) error { return nil }
		},
	},
	"a heartbeat is kept once per node and number": {
		func(_ testing.TB, a *amiss) { // the last one counts
			a.beat = func(ctx context.Context, b audit.Beat) error {
				h, err := a.Head(ctx)
				return errors.Join(err, a.Store.Append(ctx, audit.Batch{After: h, Beats: []audit.Beat{b}}), a.Store.Beat(ctx, b))
			}
		},
		func(_ testing.TB, a *amiss) {
			var list []audit.Beat
			a.beat = func(_ context.Context, b audit.Beat) error { list = append(list, b); return nil }
			a.beats = func([]audit.Beat, int) []audit.Beat { return list }
		},
	},
	"heartbeats of a node come in their order": {
		func(_ testing.TB, a *amiss) {
			a.beats = func(list []audit.Beat, n int) []audit.Beat { slices.Reverse(list); return list[:min(n, len(list))] }
		},
		func(_ testing.TB, a *amiss) { a.beats = func(list []audit.Beat, _ int) []audit.Beat { return list } },
	},
	"heartbeats are taken out with the append, or still there": {
		func(_ testing.TB, a *amiss) {
			apart(a, func(b audit.Batch) audit.Batch { return audit.Batch{Beats: b.Beats} })
		},
		func(_ testing.TB, a *amiss) { without(a, func(b *audit.Batch) { b.Beats = nil }) },
		func(_ testing.TB, a *amiss) { without(a, func(b *audit.Batch) { b.Beats = b.Beats[:1] }) },
	},
	"the account changes from the version that was read": {
		func(_ testing.TB, a *amiss) {
			apart(a, func(b audit.Batch) audit.Batch { return audit.Batch{Account: b.Account, Rows: b.Rows} })
		},
		func(_ testing.TB, a *amiss) { without(a, func(b *audit.Batch) { b.Account = nil }) },
		func(_ testing.TB, a *amiss) {
			a.account = func(got audit.Account) audit.Account { return audit.Account{Version: got.Version} }
		},
		func(_ testing.TB, a *amiss) { whatever(a) },
	},
	"of many changes of the account one is made": {
		func(_ testing.TB, a *amiss) { whatever(a) },
	},
}

// whatever changes the account, whatever version it has.
func whatever(a *amiss) {
	a.append = func(ctx context.Context, b audit.Batch) error {
		if b.Account != nil {
			there, err := a.Store.Account(ctx)
			if err != nil {
				return err
			}
			b.Account.After = there.Version
		}
		err := a.Store.Append(ctx, b)
		for errors.Is(err, audit.ErrMoved) && b.Account != nil { // somebody else was quicker
			there, _ := a.Store.Account(ctx)
			b.Account.After = there.Version
			err = a.Store.Append(ctx, b)
		}
		return err
	}
}

// The sound store is tested in its own package, on both databases. Each duty notices
// the faults that are planted against it.
func TestInboxFaults(t *testing.T) {
	for _, d := range inboxDuties {
		require.NotEmpty(t, inboxFaults[d.name], d.name)
		for i, plant := range inboxFaults[d.name] {
			db := sqldbtest.SQLite(t)
			store, err := auditsql.New(t.Context(), db, nil)
			require.NoError(t, err)
			faulty := &amiss{Store: store}
			require.True(t, i > 0 || racetest.Passes(func(tt require.TestingT) { d.check(tt, t.Context(), faulty, db) }), d.name)
			db = sqldbtest.SQLite(t)
			faulty.Store, err = auditsql.New(t.Context(), db, nil)
			require.NoError(t, err)
			plant(t, faulty)
			require.False(t, racetest.Passes(func(tt require.TestingT) { d.check(tt, t.Context(), faulty, db) }), "%s: fault %d", d.name, i)
		}
	}
	require.Len(t, inboxFaults, len(inboxDuties))
}

var _ interface {
	beginner
	holder
	directer
	putter
	audit.Ledger
	audit.Tail
} = (*amiss)(nil) // or the duties would hold it to nothing

var _ InboxStore = (*amiss)(nil)
