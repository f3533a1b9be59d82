package audit

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/crmguard/crmguard"
)

// Store keeps one log: its rows, which are only ever added, and its checkpoints.
// A store does not judge what it keeps; [Log] and [VerifyStore] do.
//
// All methods are safe for concurrent use.
type Store interface {
	// Head returns where the log stands. A store that finds its own data
	// damaged returns a *[BrokenError].
	Head(ctx context.Context) (Head, error)

	// Append adds b.Rows, takes b.Taken out of the inbox and keeps b.Checkpoint:
	// all of it durably, or nothing. It is atomic across all processes that share
	// the store. It returns
	//
	//   - [ErrMoved] if the log does not stand at b.After, an entry of b.Taken is no
	//     longer in the inbox, or the account is not the one that b.Account replaces
	//     (never for a batch of a checkpoint alone);
	//   - a *[DuplicateError] if it holds a row with the same tenant, event and
	//     outcome as one of b.Rows.
	//
	// A checkpoint of a size that the store has one for already is ignored.
	// After any other error it is unknown whether the batch was added.
	Append(ctx context.Context, b Batch) error

	// Read returns at most n rows in ascending order, starting with the first
	// whose number is at least from. No rows mean the end. Rows that are there
	// but damaged are a *[BrokenError] that names the first of them; the rows
	// before it are returned first, by a call of their own.
	Read(ctx context.Context, from int64, n int) ([]Row, error)

	// Find returns at most q.Limit rows that match q, newest first.
	Find(ctx context.Context, q Query) ([]Row, error)

	// Checkpoints returns at most n checkpoints of more than after entries, in
	// ascending order of size; a negative after returns all from the first.
	Checkpoints(ctx context.Context, after int64, n int) ([]Checkpoint, error)
}

// Inbox is what a store offers besides that lives in the host's database: a place
// where an entry waits that was written in the host's transaction, until a [Log]
// moves it into the chain. It may also have methods Begin(ctx, tx) error, which
// [Log.InTx] calls before anything else is done in the transaction, and Held(ctx, tx,
// w) (body []byte, err error), which reads what is there in place of w; without it
// an entry that is there already is taken for another one. See also [Ledger].
type Inbox interface {
	// Put adds an entry inside tx. One with the same tenant, event and outcome
	// is left alone.
	Put(ctx context.Context, tx Tx, w Waiting) error

	// Waiting returns at most n entries, oldest first, without the first skip. It
	// takes none out: Append does, in the step that chains them. An entry that Put
	// did not write, or a body of an excessive length, is returned without a body:
	// what somebody planted keeps nobody from reading the others.
	Waiting(ctx context.Context, skip, n int) ([]Waiting, error)
}

// Tx is the host's open transaction: *[sql.Tx], or whatever wraps it.
type Tx interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
}

// Head is where a log stands.
type Head struct {
	Log  [16]byte // random, made with the log
	Size int64    // number of entries
	Last [32]byte // leaf of the last entry; all zero for an empty log
}

// Row is one entry as it is stored.
type Row struct {
	Seq    int64
	Record []byte     // what is hashed, with the leaf of the entry before; see docs/formats/audit.md
	Hashes [][32]byte // the leaf, and roots of the tree
	Keys   Keys       // for finding; the record alone is evidence
}

// Keys are what rows are found by. Each follows from the record. Texts of more
// than 200 bytes are replaced by a digest, so that every index can hold them.
type Keys struct {
	Tenant  string
	Event   string
	Outcome crmguard.Outcome
	Subject string
	Kind    string
	Record  string
	Action  crmguard.Action
	Addr    string   // without a zone, and IPv4 as such; empty: unknown
	Clients []string // sorted, each once
	Time    int64    // microseconds since 1970
}

// Batch is one step of a log.
type Batch struct {
	After      Head
	Rows       []Row
	Taken      []Waiting
	Tail       []byte // see Tail; nil: it stays as it is
	Checkpoint *Checkpoint
	Account    *AccountChange // see Ledger
	Beats      []Beat         // to be taken out; some may be gone
	Pseudonyms []Pseudonym    // see Finder
}

// Waiting is an entry in the inbox: encoded and sealed, without its number.
type Waiting struct {
	Tenant  string
	Event   string
	Outcome crmguard.Outcome
	Since   int64 // microseconds since 1970
	Body    []byte
}

// Checkpoint is a signed statement of what the log held.
type Checkpoint struct {
	Size int64
	Note []byte // a signed note, see golang.org/x/mod/sumdb/note
}

// Query says which entries to find. An empty field matches all. As JSON it says what an
// extract is of.
type Query struct {
	Tenant  string           `json:"tenant"`            // required
	Event   string           `json:"event,omitempty"`   // id of the event: what was attempted and what came of it share one
	Subject string           `json:"subject,omitempty"` // who acted
	Kind    string           `json:"kind,omitempty"`    // of the resource
	Record  string           `json:"record,omitempty"`  // id of the resource
	Client  string           `json:"client,omitempty"`  // whose private values the entry holds
	Action  crmguard.Action  `json:"action,omitempty"`
	Outcome crmguard.Outcome `json:"outcome,omitempty"`
	Addr    netip.Addr       `json:"addr,omitzero"` // from where; the zero value matches all
	Private crmguard.Private `json:"-"`             // with this value under this name, which is one of Options.Findable; its Client has no meaning here
	From    time.Time        `json:"from,omitzero"` // not before
	To      time.Time        `json:"to,omitzero"`   // before
	Before  int64            `json:"-"`             // entries with a smaller number only: Next of the page before; 0: from the newest
	Limit   int              `json:"-"`             // 0: 50; at most 500

	Pseudonyms [][]byte `json:"-"` // of Private; what a caller puts here does not count, it is for stores
}

var (
	// ErrMoved says that a log does not stand where the caller thought.
	ErrMoved = errors.New("audit: the log has moved on")

	// ErrClosed says that the log or store was closed.
	ErrClosed = errors.New("audit: closed")

	// ErrNoInbox says that the store does not live in the host's database, so
	// that no entry can be part of the host's transaction.
	ErrNoInbox = errors.New("audit: this store has no inbox: entries in a transaction need auditsql on the same database")

	// ErrOpenTx is what Record returns in a context of [WithTx].
	ErrOpenTx = errors.New("audit: a transaction is open: use RecordTx, or record before it begins or after it ends")

	// ErrPoisoned says that a write or its flush failed, so that what the disk
	// holds is unknown. Open the store again and verify it.
	ErrPoisoned = errors.New("audit: an earlier write failed: open the store again")
)

// DuplicateError says which rows of a batch the store holds already.
type DuplicateError struct{ Index []int }

// Error gives their number.
func (e *DuplicateError) Error() string {
	return fmt.Sprintf("audit: %d entries are there already", len(e.Index))
}

// ConflictError says that an event was not recorded, because another one with the
// same tenant, ID and outcome, which says something else, was there first.
type ConflictError struct {
	Tenant, ID string
	Outcome    crmguard.Outcome
}

// Error names the event.
func (e *ConflictError) Error() string {
	return fmt.Sprintf("audit: event %q (%v) is there already and says something else", e.ID, e.Outcome)
}

// BrokenError says that a log is not what was written.
type BrokenError struct {
	Seq    int64 // first entry that is wrong
	Detail string
}

// Error names the entry.
func (e *BrokenError) Error() string {
	return fmt.Sprintf("audit: broken at entry %d: %s", e.Seq, e.Detail)
}

// addrText is the one form in which an address is looked for.
func addrText(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.Unmap().WithZone("").String()
}

// matches reports whether rows with these keys belong into the answer, as far as
// the number of the row is not concerned.
func (k *Keys) matches(q *Query) bool {
	if k.Tenant != q.Tenant ||
		q.Event != "" && k.Event != q.Event ||
		q.Subject != "" && k.Subject != q.Subject ||
		q.Kind != "" && k.Kind != q.Kind ||
		q.Record != "" && k.Record != q.Record ||
		q.Action != "" && k.Action != q.Action ||
		q.Outcome != 0 && k.Outcome != q.Outcome ||
		q.Addr.IsValid() && k.Addr != addrText(q.Addr) ||
		!q.From.IsZero() && k.Time < q.From.UnixMicro() ||
		!q.To.IsZero() && k.Time >= q.To.UnixMicro() {
		return false
	}
	return q.Client == "" || slices.Contains(k.Clients, q.Client)
}
