// Package encrypt seals fields of records, so that whoever takes the database
// reads nothing, and erases a client by destroying the client's key.
//
// The recommended path: a KEK outside the data folder, a key store of its own,
// and struct tags on the rows.
//
//	kek, err := encrypt.OpenKeyFile("crm-keys/kek.json", "crm-data", false)
//	store, err := encryptsql.OpenSQLite(ctx, "crm-keys/keys.db", false)
//	index, err := encryptsql.NewIndex(ctx, db, nil)
//	keys, err := encrypt.New(kek, store, &encrypt.Options{Index: index, OnOpen: norms.OnOpen})
//	contacts, err := encrypt.NewTable[Contact](keys, "contacts", nil)
//
//	entries, err := contacts.Seal(ctx, tenant, &row)  // before BEGIN; then INSERT row.PhoneSealed
//	err = index.Put(ctx, tx, entries)
//	err = contacts.Open(ctx, tenant, rows...)         // after SELECT, a page at once
//
// Only an installation passes create=true: later, a volume of keys that was not
// mounted must be an error, and not become a new, empty key store.
//
// Journals, sessions and the like use the [Keyring] itself, as a
// [crmguard.Sealer], [crmguard.Pseudonymizer] and [crmguard.Authenticator].
//
// # Keys
//
// The KEK (a KMS or a file) wraps one Tink AES256-GCM keyset per tenant; that
// keyset wraps one random AES-256 key per client, and the keys of indexes and
// MACs. A page of clients that were not seen before costs one query to the key
// store and at most one call to the KEK. All keys are random, none is derived,
// so a destroyed key cannot be made again.
//
// # Erasing
//
// [Keyring.Erase] closes a client: this process refuses at once, others within
// [Lease]. After [ClosingTime] the host's [Keyring.FinishErasures] destroys the
// key. Until when backups still hold it is in the [Receipt] from then on. The id is
// never used again: everything about it is [crmguard.ErrErased] from then on.
//
// # Tables that are full
//
// [Table.Reencrypt] seals anew what lies under older keys, [Table.Collect] and
// [Table.Migrate] move a column of plaintext into a sealed one, [Table.Reindex] and
// [Table.MaintainIndex] write index entries and keep their keys young, and [Table.Scan]
// finds what is not as it should be. They see the host's table as [Rows], go on while it
// is read and written, and where they were cut off.
//
// # Security notes
//
//   - A sealed value is bound to tenant, client, kind, record and field. It opens
//     nowhere else, and a value that does not open is an error, never shown as is.
//   - Opening data of a client needs a [crmguard.Subject] of the same tenant in
//     the context, and asks Options.OnOpen first, once per client and act (more often
//     only when one act opens the same client several times at the same moment).
//   - Finding, searching, erasing, rotating and retiring need such a subject too, and jobs
//     that walk a table the tenant's [crmguard.System]. What acts on the keys of all tenants
//     ([Keyring.Turn], [Keyring.FinishErasures], [Keyring.Replay]) is for the host itself:
//     without a subject, or as a System. Who calls as anybody else gets [ErrSubject].
//   - Sealing, MACs and pseudonyms need no subject, nor does opening at a place without a
//     client: sessions are verified before it is known who acts. Another tenant's subject is
//     ErrSubject.
//   - AES-GCM does not commit to its key; nothing here lets a caller choose keys.
//   - Lengths are not hidden, unless a field is padded: a sealed value is 36 bytes longer
//     than the plain one.
//   - Equal values of one field have equal index values. Whoever holds an index
//     key can test all phone numbers; so index rows belong in no dump, and are
//     deleted with the client.
//   - The package runs under GODEBUG=fips140=only: AES-256-GCM with nonces that the
//     module chooses, and HMAC-SHA-256. There a KEK file must be a keyset of AES-GCM,
//     and a passphrase file one that was made in FIPS 140-3 mode; others are [ErrFIPS].
//     Package encrypt/document does not run there.
//   - Deleting from PostgreSQL leaves copies in its heap until VACUUM, in its WAL
//     and in backups. Options.BackupRetention must cover the longest of them.
//
// # Format and compatibility
//
// docs/formats/encrypt.md specifies every stored byte; testdata holds golden
// files. Logical names (kinds, fields) are bound to what was sealed under them:
// columns may be renamed, they may not.
package encrypt

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tink-crypto/tink-go/v2/tink"
	"golang.org/x/sync/singleflight"

	"github.com/crmguard/crmguard"
)

const (
	// Lease is how long a process may go on with keys after another process has
	// closed their client.
	Lease = 10 * time.Second
	// LongestTransaction is how long a host's transaction may take from sealing to
	// COMMIT.
	LongestTransaction = 60 * time.Second
	// ClosingTime is how long a client stays Closing before its key is destroyed.
	ClosingTime = Lease + LongestTransaction

	defaultEntries   = 16_000
	defaultAge       = 15 * time.Minute
	defaultRetention = 30 * 24 * time.Hour
	defaultIndexLife = 90 * 24 * time.Hour
)

var (
	// ErrMalformed says that bytes are not in the package's format.
	ErrMalformed = errors.New("encrypt: not a sealed value")
	// ErrForeign says that bytes were sealed for another place, or were changed.
	ErrForeign = errors.New("encrypt: sealed for another place, or changed")
	// ErrNoKey says that the key store has never had the key, or not this version of it: the
	// store may be older than the data, or another's, or the value names another version than
	// it was sealed under.
	ErrNoKey = errors.New("encrypt: the key store has no such key")
	// ErrRetired says that a value was sealed, or a MAC made, under a version of the key
	// that [Keyring.Retire] has removed since.
	ErrRetired = errors.New("encrypt: under a version of the key that was retired")
	// ErrDamaged says that a stored key does not unwrap, or not as what it is stored
	// as: the key store was damaged or changed.
	ErrDamaged = errors.New("encrypt: a key in the key store is damaged")
	// ErrWrongKEK says that the KEK is not the one that wrapped the stored keys, which are not
	// available then: it is also a [crmguard.ErrUnavailable]. KEKs that can tell say so, such as
	// key files and those of contrib; see [Keyring.Check].
	ErrWrongKEK = fmt.Errorf("encrypt: the key-encryption key does not fit the key store: %w", crmguard.ErrUnavailable)

	// ErrNotErased says that nobody has ordered the erasure of a client.
	ErrNotErased = errors.New("encrypt: no erasure was ordered")

	// ErrSubject says that the context has no subject, or one that may not do this: another
	// tenant's, or a person where the host itself is meant. See the package's security notes.
	ErrSubject = errors.New("encrypt: not for the subject in the context")

	errNoSubject = fmt.Errorf("%w: one of the same tenant is needed", ErrSubject)
	errSystem    = fmt.Errorf("%w: jobs run for a tenant as its system: see crmguard.System", ErrSubject)
	errHost      = fmt.Errorf("%w: the keys of all tenants are the host's own business: without a subject, or as crmguard.System", ErrSubject)
	errTenant    = errors.New("encrypt: empty tenant")
	errName      = errors.New("encrypt: names are valid UTF-8 without zero bytes, at most 512 bytes long")
	errClosed    = errors.New("encrypt: the keyring is closed")
)

// Options of a [Keyring]. Nil means the defaults.
type Options struct {
	// Index finds records by value; nil: NewTable refuses fields with an index.
	Index Index

	// OnOpen may refuse that data of these clients is opened. It is called before
	// anything is decrypted, once per batch, with the clients that were not yet
	// opened in the context's act; with all of them where no act was declared. Calls of
	// one act that run at the same time may each ask for the same client. Nil: nothing
	// is counted.
	OnOpen func(ctx context.Context, tenant string, clients []string) error

	CacheEntries int           // 0: 16,000 clients, little more than 1 kB each, and as many tenants
	CacheAge     time.Duration // 0: 15 minutes after the KEK was asked for a tenant it is asked again

	// BackupRetention is the age at which the last backup of the key store is
	// destroyed, with the database's own logs; 0: 30 days.
	BackupRetention time.Duration
	// IndexLife is the age at which [Table.MaintainIndex] replaces an index key, and the one at
	// which the last backup that holds index rows is destroyed; 0: 90 days.
	// Receipt.UnlinkableAfter rests on the latter.
	IndexLife time.Duration

	Logger *slog.Logger     // nil: nothing is logged
	Clock  func() time.Time // for the times in records and receipts only; nil: time.Now
}

// Keyring holds the keys of all tenants of a process. It is safe for concurrent
// use.
type Keyring struct {
	// What looking up a cached key needs lies side by side: on a busy machine each line of
	// memory that is not in the processor's nearest cache is waited for.
	clock      coarseClock
	cache      *cache
	generation atomic.Uint64 // grows when the store's revision has changed
	leaseEnd   atomic.Int64  // until when cached keys of this generation hold
	pollDue    atomic.Int64
	polled     atomic.Bool // at least once, before any key was read
	changed    changes

	opts    Options
	kek     tink.AEADWithContext
	store   Store
	tenants *cache // their keysets, which clients would push out: each is worth a call to the KEK
	flights singleflight.Group

	epoch      atomic.Uint64 // grows with Invalidate
	revision   int64         // of the last poll, guarded by pollMu
	pollMu     sync.Mutex
	background sync.WaitGroup

	seen   firsts[Scope] // closing
	gone   gone
	strict firsts[PendingField]
	even   firsts[indexVersion]

	receipts sync.Map // the scopes of receipts whose key is in the store

	closeMu sync.Mutex // no poll starts once closed is set under it
	closed  atomic.Bool
}

var (
	_ crmguard.Sealer        = (*Keyring)(nil)
	_ crmguard.Pseudonymizer = (*Keyring)(nil)
	_ crmguard.Authenticator = (*Keyring)(nil)
)

// New returns a Keyring over a KEK, such as [OpenKeyFile]'s or a KMS client's,
// and a key store. It asks neither; [Keyring.Check] does.
func New(kek tink.AEADWithContext, store Store, o *Options) (*Keyring, error) {
	if kek == nil || store == nil {
		return nil, errors.New("encrypt: a KEK and a key store are needed")
	}
	k := &Keyring{kek: kek, store: store}
	if o != nil {
		k.opts = *o
	}
	if k.opts.CacheEntries < 0 || min(k.opts.CacheAge, k.opts.BackupRetention, k.opts.IndexLife) < 0 {
		return nil, errors.New("encrypt: negative option")
	}
	setDefault(&k.opts.CacheEntries, defaultEntries)
	setDefault(&k.opts.CacheAge, defaultAge)
	setDefault(&k.opts.BackupRetention, defaultRetention)
	setDefault(&k.opts.IndexLife, defaultIndexLife)
	if k.opts.Logger == nil {
		k.opts.Logger = slog.New(slog.DiscardHandler)
	}
	k.cache, k.tenants = newCache(k.opts.CacheEntries), newCache(k.opts.CacheEntries)
	return k, nil
}

func setDefault[T comparable](value *T, otherwise T) {
	var zero T
	if *value == zero {
		*value = otherwise
	}
}

// now is the time that leases run on: never Options.Clock, which somebody may set.
func (k *Keyring) now() int64 { return k.clock.now() }

// wallClock is the time for receipts and records.
func (k *Keyring) wallClock() time.Time {
	now := time.Now
	if k.opts.Clock != nil {
		now = k.opts.Clock
	}
	return now().UTC().Truncate(time.Microsecond)
}

// Check asks the key store and the KEK, for health pages and at start. Its errors
// are [crmguard.ErrUnavailable], [ErrDamaged] and [ErrWrongKEK]. A KEK that does not tell a wrong
// key from an outage is seen as crmguard.ErrUnavailable, with its error in it.
func (k *Keyring) Check(ctx context.Context) error {
	if k.closed.Load() {
		return errClosed
	}
	if _, _, err := k.closing(ctx); err != nil {
		return err
	}
	_, err := k.checkKEK(ctx)
	return err
}

// Invalidate forgets all keys, those of tenants too: whatever is sealed or opened from
// now on asks the key store, and the KEK, anew. Calls that are under way end as they
// would have.
func (k *Keyring) Invalidate() {
	k.epoch.Add(1)
	k.generation.Add(1)
	k.cache.clear()
	k.tenants.clear()
}

// Close forgets all keys. Calls that are under way end as they would have, later
// ones fail. It does not close the store.
func (k *Keyring) Close() error {
	k.closeMu.Lock()
	k.closed.Store(true)
	k.closeMu.Unlock()
	k.generation.Add(1)
	k.background.Wait()
	k.cache.clear()
	k.tenants.clear()
	return nil
}

// String shows nothing of the keys.
func (k *Keyring) String() string { return "encrypt.Keyring[redacted]" }

// GoString shows nothing of the keys.
func (k *Keyring) GoString() string { return k.String() }

func unavailable(what string, err error) error {
	if errors.Is(err, ErrWrongKEK) { // which says so itself
		return fmt.Errorf("encrypt: %s: %w", what, err)
	}
	return fmt.Errorf("%w: %s: %w", crmguard.ErrUnavailable, what, err)
}
