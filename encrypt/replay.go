package encrypt

import (
	"context"
	"errors"
	"fmt"
)

// Replay erases again what an older copy of the key store has brought back: hosts keep
// the JSON of all receipts in a ledger outside of it, and replay them after every
// restore, before anybody else uses the store. Receipts that do not hold are refused,
// each by an error that wraps [ErrReceipt], and the others are carried out all the same.
//
// What was destroyed is destroyed at once, as of now: nothing can be on its way to the
// database under a key that nobody but a backup has had since. What was closing is
// closed and waits for [Keyring.FinishErasures], and so does what may not be destroyed now:
// [ErrMigrating] where the older copy is from the time of a [Table.Migrate], [ErrNoIndex]
// without Options.Index. The new receipts belong in the ledger beside the old ones.
func (k *Keyring) Replay(ctx context.Context, receipts ...[]byte) (replayed []Receipt, err error) {
	if k.closed.Load() {
		return nil, errClosed
	}
	if err := checkHost(ctx); err != nil {
		return nil, err
	}
	var failed []error
	f := newFinisher(k)
	for i, document := range receipts {
		receipt, err := k.replay(ctx, document, f)
		if err != nil {
			failed = append(failed, fmt.Errorf("receipt %d: %w", i, err))
			continue
		}
		replayed = append(replayed, receipt)
	}
	return replayed, errors.Join(failed...)
}

func (k *Keyring) replay(ctx context.Context, document []byte, f *finisher) (Receipt, error) {
	old, err := parseReceipt(document)
	if err != nil {
		return Receipt{}, err
	}
	if old, err = k.verifyReceipt(ctx, old); err != nil {
		return Receipt{}, err
	}
	record, err := k.close(ctx, Scope{old.Tenant, DataKey, old.Client}, old.ClosedAt)
	if err != nil {
		return Receipt{}, err
	}
	record, err = k.dropIndex(ctx, record, func(n *receiptNote) {
		n.IndexRows = max(n.IndexRows, old.IndexRows)
		n.addDuplicates(old.Duplicates)
		n.addCopies(old.Copies)
	})
	if err != nil {
		return Receipt{}, err
	}
	if old.State == Destroyed.String() {
		if record, err = f.destroy(ctx, record, k.wallClock()); err != nil {
			return Receipt{}, err
		}
	}
	return k.issue(ctx, record, f.eras, nil)
}
