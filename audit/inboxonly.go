package audit

import (
	"context"
	"errors"
	"fmt"

	"github.com/crmguard/crmguard"
)

// direct is what an [Inbox] offers besides for a log that does not chain: a Tx of
// which each statement is a transaction of its own.
type direct interface{ Direct() Tx }

// OpenInbox opens a log for a process that has no signing key and, on PostgreSQL, no
// right to write the log: one whose host may be taken over. All its entries go through the
// inbox. Another process, with another role of the database, chains and signs them:
// one that calls [New] and waits, such as crmguard audit sequence.
//
// Record returns nil when the entry is durable in the inbox. It is chained, and found
// by Find and Verify, moments later, or when the other process runs again. Whether the
// log holds another event with the same ID is found out only then, and logged there.
// Prove, Extract and Prune are for the other process, which has the key.
// Of the options, Logger, Clock, Findable and
// Pseudonyms are used.
func OpenInbox(ctx context.Context, store Store, keys crmguard.Sealer, o *Options) (*Log, error) {
	if store == nil || keys == nil {
		return nil, errors.New("audit: a store and a sealer are needed")
	}
	if _, ok := store.(Inbox); !ok {
		return nil, ErrNoInbox
	}
	d, ok := store.(direct)
	if !ok {
		return nil, errors.New("audit: this store takes entries inside transactions only")
	}
	head, err := store.Head(ctx)
	if err != nil {
		return nil, fmt.Errorf("audit: read the head: %w", err)
	}
	var opts Options
	if o != nil {
		opts = *o
	}
	l, err := newLog(store, keys, &opts)
	if err != nil {
		return nil, err
	}
	l.outbox, l.id, l.every = d.Direct(), head.Log, defaultEvery
	l.node.start(context.WithoutCancel(ctx))
	go func() {
		<-l.quit
		l.entering.Wait()
		l.node.close()
		close(l.ended)
	}()
	return l, nil
}

// deliver puts a prepared entry into the inbox by itself.
func (l *Log) deliver(ctx context.Context, c *content, body []byte) error {
	if err := l.enter(); err != nil {
		return err
	}
	defer l.entering.Done()
	in := &inTx{}
	if err := l.putTx(ctx, l.outbox, c, body, in, unknown); err != nil {
		return err
	}
	l.node.settle(committed, in.numbers...)
	return nil
}
