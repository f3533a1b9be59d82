// Package audit is a journal of who saw, changed, exported and tried what, that
// nobody can rewrite unnoticed.
//
//	store, err := auditsql.New(ctx, db, nil)               // or audit.OpenFile(dir)
//	signer, verifier, err := audit.OpenSigner("crm-keys/journal.key", "crm.example/journal", install) // true once
//	journal, err := audit.New(ctx, store, keys, signer, verifier, nil)
//	defer journal.Close()
//
//	err = journal.Record(ctx, event)                       // nil: durable and chained
//	err = journal.InTx(ctx, db, func(ctx context.Context, tx *sql.Tx, record func(crmguard.Event) error) error {
//		...                                                // the change and its entry, both or neither
//		return record(event)
//	})
//	page, err := journal.Find(ctx, audit.Query{Tenant: tenant, Kind: "contacts", Record: "17"})
//	report, err := journal.Verify(ctx, verifier, nil)      // report.OK(), report.Verdict
//
// A [Log] is one chain. Each record is hashed as it is stored, with the hash of the one
// before in it; the hashes form the Merkle tree of RFC 6962, whose root is signed every minute, every
// 4096 entries and at Close. One goroutine per Log writes: it takes whatever
// waits, appends it in one step and only then acknowledges, so that many writers
// share one flush. Several processes may share one database: an append is a
// compare-and-swap on the head of the log, so the chain never forks.
//
// Record fails while the store does. [NewFailover] puts a recorder before the log that
// then refuses only what must not happen unrecorded.
//
// # Security notes
//
// An entry holds ids. Personal data goes into Event.Private only: it is sealed
// under the client's key before it reaches the store, so that the entry outlives
// the client's data and still verifies. A name or phone number put into another
// field stays readable for ever.
//
// Whoever can write the database or the files, but has no signing key, cannot
// change, remove, reorder or add entries that a checkpoint covers. But checkpoints
// lie in the same store: such a person can remove them from the end, and rewrite
// everything after the oldest one that is left. Without anything outside, the best
// verdict is therefore [Unanchored]. Give the log an [Anchor] in Options.Anchors, which
// gets each checkpoint: [FileAnchor] on another host, auditsql.Anchor in another
// database, [Witness], [Webhook]. What an anchor holds is proved, and the verdict is
// [Intact] while that is fresh. A silent log makes an entry from time to time
// ([ActHeartbeat]), so that freshness is under the signature. Or keep Report.Checkpoint
// elsewhere and give it to the next verification, in [VerifyOptions].Kept.
//
// A tail without checkpoints is not called right, and not signed by [New], if it is
// longer or older than what a log leaves. A checkpoint is begun every
// CheckpointEvery and after 4096 entries; while the signer fails, or several
// processes write, more entries wait for it (Report.Unsigned). More than 16384, or
// some older than CheckpointEvery and ten minutes, make Verify say [CannotVerify];
// New tolerates a week, since a crash leaves a tail, too, and logs that it signs it.
// A forger who keeps a tail short and its times fresh is found by a kept checkpoint
// only. Whoever holds the database and the signing key can rewrite all the same what
// no checkpoint outside covers, and from then on forge the future: what an anchor held
// before is compared with each verification, and a witness refuses the forged log. An
// anchor that the same person can write is none.
//
// Entries that no checkpoint covers yet are covered by a MAC, if the store is a
// database: [Log.Verify], which has the keys, finds them changed, added or removed, and
// New does not go on from them. Somebody who kept a copy of all of it, and puts that
// back, is found by a kept checkpoint only.
//
// An entry in the inbox, between the commit of the host's transaction and the
// sequencer, is not chained. It is sealed as a whole under the tenant's key, so that
// nobody plants or alters one who has no keys; such rows are left and told of. It is
// numbered, and its process says in heartbeats, up to a second later, what became of it: a number
// that was committed and never comes makes an entry [ActMissing], one of which nobody knows
// [ActInDoubt]. On PostgreSQL give the application a role that can only put entries there
// (auditsql.Grants) and have it call [OpenInbox]; then another process signs.
//
// [Log.Prune] removes the oldest entries and states, under the signing key, what was
// removed: what merely disappears is missed. A [Hold] keeps it from doing so. Whoever
// removes entries on purpose with the key is not found by a verification, but by the
// entry that Prune makes, and by its statement.
//
// The verifying key comes from a pinned file or a flag, never from the store.
//
// # Format
//
// docs/formats/audit.md specifies records, chain, checkpoints, segments and tables.
//
// # Compatibility
//
// Records carry a version and stay readable and verifiable; golden files of each
// version are among the tests.
package audit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/crmguard/crmguard"
)

const (
	defaultEvery    = time.Minute
	checkpointEvery = 4096 // entries
	maxBatch        = 256
	queueSize       = 1024
	pollEvery       = time.Second      // for the inbox: entries of crashed or forgetful writers
	storeTimeout    = 30 * time.Second // one step of the store, or one signature

	maxEvery    = time.Hour           // Options.CheckpointEvery
	maxUnsigned = 4 * checkpointEvery // entries; what a log in use leaves for a moment is less
	slack       = 10 * time.Minute    // for a signer that fails for a while
	maxDown     = 7 * 24 * time.Hour  // after a crash, until New signs what it finds

	maxPrivate = 256 // values of an entry: each may need a key of its own
)

// Options of a [Log]. Nil means all defaults.
type Options struct {
	CheckpointEvery time.Duration // 0: a minute; at most an hour; the same in all processes
	Logger          *slog.Logger  // nil: none
	Clock           func() time.Time

	// AcceptUnsigned lets New go on from entries that should have been signed and
	// are not, and sign them. They may be forged: for once, after a look at them.
	AcceptUnsigned bool

	// Anchors get each checkpoint, in the background: one that fails or hangs holds
	// nobody up, and gets the newest when it is back. See [Log.Anchors].
	Anchors []Anchor

	// Findable are names of private values by which entries are found all the same,
	// such as "phone": Query.Private. A value is found as it was written, byte by
	// byte. What finds it are keyed pseudonyms, which Pseudonyms makes and the store
	// keeps beside the log: see [Finder], [Log.Forget] and [Log.Reindex].
	Findable   []string
	Pseudonyms crmguard.Pseudonymizer

	// Heartbeat is after how much silence an entry is made that says nothing but
	// that the log lives: 0: ten minutes; at most an hour, and not more often than
	// CheckpointEvery. So checkpoints of a silent log differ, and their age is
	// covered by the signature.
	Heartbeat time.Duration
}

// Log is a journal. It is a [crmguard.Recorder].
type Log struct {
	store  Store
	inbox  Inbox    // nil: the store has none
	node   *node    // this process, as one that puts entries into the inbox
	id     [16]byte // of the log
	every  time.Duration
	beat   time.Duration
	keys   crmguard.Sealer
	signer note.Signer
	verify note.Verifier // of signer
	logger *slog.Logger
	clock  func() time.Time

	outbox Tx // not nil: this process chains nothing, see OpenInbox
	queue  chan *item
	nudge  chan struct{} // the inbox may hold something
	waking atomic.Bool   // it will be said, see soon

	anchors anchors
	growth  bell // entries were chained, or the log has ended
	passes  passes
	finding findable

	mu       sync.Mutex
	tailKeys map[[32]byte][32]byte // by the digest of what is sealed
	closed   bool
	entering sync.WaitGroup // who puts something into the queue; nobody begins after closed
	quit     chan struct{}
	ended    chan struct{}
	endErr   error // of the last steps; set before ended is closed
}

var _ crmguard.Recorder = (*Log)(nil)

// New opens a log and starts the goroutine that writes it; Close ends it. Signer
// and verifier are of one key, whose name is that of the log. The store and the keys stay the
// caller's to close, after the Log.
//
// New checks that what the store holds continues its last checkpoint, and returns
// a *[BrokenError] if it does not: signing what follows would hide the break. The
// same goes for entries without any checkpoint, and for more, or older, entries
// after the last one than a log leaves unsigned: see [Options].
func New(ctx context.Context, store Store, keys crmguard.Sealer, signer note.Signer, verifier note.Verifier, o *Options) (*Log, error) {
	if store == nil || keys == nil || signer == nil || verifier == nil {
		return nil, errors.New("audit: a store, a sealer, a signer and its verifier are needed")
	}
	if signer.Name() != verifier.Name() || signer.KeyHash() != verifier.KeyHash() {
		return nil, errors.New("audit: signer and verifier are not of one key")
	}
	var opts Options
	if o != nil {
		opts = *o
	}
	if opts.CheckpointEvery <= 0 {
		opts.CheckpointEvery = defaultEvery
	}
	if opts.CheckpointEvery > maxEvery {
		return nil, fmt.Errorf("audit: checkpoints are at most %v apart", maxEvery)
	}
	if opts.Heartbeat <= 0 {
		opts.Heartbeat = defaultHeartbeat
	}
	if opts.Heartbeat > maxEvery {
		return nil, fmt.Errorf("audit: heartbeats are at most %v apart", maxEvery)
	}
	if slices.Contains(opts.Anchors, nil) {
		return nil, errors.New("audit: an anchor is nil")
	}
	l, err := newLog(store, keys, &opts)
	if err != nil {
		return nil, err
	}
	l.every, l.beat, l.signer, l.verify = opts.CheckpointEvery, opts.Heartbeat, signer, verifier
	l.queue = make(chan *item, queueSize)
	l.startAnchors(ctx, opts.Anchors)
	c, err := openCommitter(ctx, l, opts.AcceptUnsigned)
	if err != nil {
		l.anchors.close()
		return nil, err
	}
	l.node.start(context.WithoutCancel(ctx))
	go c.run(context.WithoutCancel(ctx))
	return l, nil
}

// newLog is what a log is that nobody has begun to write.
func newLog(store Store, keys crmguard.Sealer, o *Options) (_ *Log, err error) {
	l := &Log{
		store:  store,
		keys:   keys,
		logger: o.Logger,
		clock:  o.Clock,
		nudge:  make(chan struct{}, 1),
		quit:   make(chan struct{}),
		ended:  make(chan struct{}),
	}
	if l.logger == nil {
		l.logger = slog.New(slog.DiscardHandler)
	}
	if l.clock == nil {
		l.clock = time.Now
	}
	l.inbox, _ = store.(Inbox)
	if l.finding, err = newFindable(store, o); err != nil {
		return nil, err
	}
	l.node = newNode(l)
	return l, nil
}

// Record keeps an event. Nil means that the entry is chained and durable, or that
// one with the same tenant, ID and outcome was there already; if that one says
// something else, the error is a *[ConflictError]. An event without an ID gets one,
// an event without a time the present.
//
// If ctx ends while Record waits, the entry may or may not be written: record it
// again under the same ID.
func (l *Log) Record(ctx context.Context, e crmguard.Event) error {
	if ctx.Value(txKey{}) != nil {
		return ErrOpenTx
	}
	c, body, err := l.prepare(ctx, e)
	if err != nil {
		return err
	}
	return l.put(ctx, c, body)
}

// put has the committer write a prepared entry, and waits until that has happened.
func (l *Log) put(ctx context.Context, c *content, body []byte) error {
	if l.outbox != nil {
		return l.deliver(ctx, c, body)
	}
	it := newItem(c, body)
	it.done = make(chan struct{})
	if err := l.enqueue(ctx, it); err != nil {
		return err
	}
	select {
	case <-it.done:
		return it.err
	case <-ctx.Done():
		return fmt.Errorf("audit: waiting for the store: %w", ctx.Err())
	}
}

func (l *Log) enqueue(ctx context.Context, it *item) error {
	if err := l.enter(); err != nil {
		return err
	}
	defer l.entering.Done()
	select {
	case l.queue <- it: // almost always, and cheaper alone
		return nil
	default:
	}
	select {
	case l.queue <- it:
		return nil
	case <-l.quit:
		return ErrClosed
	case <-ctx.Done():
		return fmt.Errorf("audit: waiting for the queue: %w", ctx.Err())
	}
}

func (l *Log) enter() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return ErrClosed
	}
	l.entering.Add(1)
	return nil
}

// Close writes what waits, signs a last checkpoint, gives the anchors a few seconds
// for it and ends the goroutines. A second call waits for the same and returns the
// same.
func (l *Log) Close() error {
	l.mu.Lock()
	if !l.closed {
		l.closed = true
		close(l.quit)
	}
	l.mu.Unlock()
	<-l.ended
	return l.endErr
}
