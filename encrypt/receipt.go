package encrypt

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/crmguard/crmguard"
)

// Receipt says how far the erasure of a client has come, and until when backups
// may still hold what could be read. As JSON it is a document that [Keyring.CheckReceipt]
// tells from a changed one, for as long as the key store exists.
type Receipt struct {
	Tenant      string    `json:"tenant"`
	Client      string    `json:"client"`
	State       string    `json:"state"` // closing or destroyed
	ClosedAt    time.Time `json:"closed_at"`
	DestroyedAt time.Time `json:"destroyed_at,omitzero"`

	// UnreadableAfter is when no backup holds the key in a form that opens; zero until
	// the key is destroyed. It is the earlier of two times: DestroyedAt plus
	// Options.BackupRetention, which rests on backups of the key store being destroyed
	// at that age; and the time at which the older keys of the KEK were gone after the first
	// [Keyring.Turn] that began at least [Lease] after DestroyedAt.
	UnreadableAfter time.Time `json:"unreadable_after,omitzero"`
	// UnlinkableAfter is when nobody can test any more what index values in old backups of
	// the database stand for; zero likewise. It is the sum of DestroyedAt, Options.IndexLife and
	// BackupRetention: by then every index key of that time is retired, and gone from
	// the backups of the key store. While one of them is not retired, it is not before
	// BackupRetention from when the receipt was read. A Turn that began when none of them was
	// left makes it earlier: the time at which the older keys of the KEK were gone.
	UnlinkableAfter time.Time `json:"unlinkable_after,omitzero"`

	IndexRows  int      `json:"index_rows"`           // deleted so far
	Duplicates []string `json:"duplicates,omitempty"` // other records that had an index value in common with the client's
	Copies     []Copy   `json:"copies,omitempty"`     // outside of the database, as told to Erase

	MAC []byte `json:"mac,omitempty"` // over all of the above; missing while keys are not available
}

// Copy is a place outside of the database that has data of an erased client, such as
// an exported file. No key's destruction reaches it.
type Copy struct {
	What  string    `json:"what"`  // contacts of March
	Where string    `json:"where"` // who holds it, or which path
	At    time.Time `json:"at,omitzero"`
}

// ErrReceipt says that bytes are not a receipt of this key store as it was issued.
var ErrReceipt = errors.New("encrypt: not a receipt of this key store, or changed")

// receiptPlace is what a receipt's MAC is bound to besides its text.
func receiptPlace(tenant, client string) crmguard.Place {
	return crmguard.Place{Tenant: tenant, Client: client, Kind: ownKind, Field: "receipt"}
}

// receiptScope is the one key that is made with a tenant's first and never replaced: receipts
// are checked after many years, and against a restored key store.
func receiptScope(tenant string) Scope {
	at := receiptPlace(tenant, "")
	return fieldScope(MACKey, &at)
}

// text is the receipt's JSON.
func (r Receipt) text() ([]byte, error) {
	b, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("encrypt: receipt: %w", err)
	}
	return b, nil
}

func (k *Keyring) sign(ctx context.Context, r Receipt) (Receipt, error) {
	r.MAC = nil
	text, err := r.text()
	if err != nil {
		return r, err
	}
	r.MAC, err = k.mac(ctx, receiptPlace(r.Tenant, r.Client), text)
	return r, err
}

// CheckReceipt reads a receipt's JSON, byte by byte as [encoding/json] wrote it, but for a
// line break at the end. Any other bytes, even with the same meaning, are [ErrReceipt].
// It says nothing about what has happened since: [Keyring.Receipt] does.
func (k *Keyring) CheckReceipt(ctx context.Context, document []byte) (Receipt, error) {
	r, err := parseReceipt(document)
	if err != nil {
		return Receipt{}, err
	}
	if err := checkSubject(ctx, r.Tenant); err != nil {
		return Receipt{}, err
	}
	return k.verifyReceipt(ctx, r)
}

func parseReceipt(document []byte) (Receipt, error) {
	document = bytes.TrimSuffix(document, []byte("\n"))
	var r Receipt
	decoder := json.NewDecoder(bytes.NewReader(document))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&r); err != nil {
		return Receipt{}, ErrReceipt
	}
	// Only one text is the receipt's: what the decoder lets pass is not that text.
	if text, err := r.text(); err != nil || !bytes.Equal(text, document) {
		return Receipt{}, ErrReceipt
	}
	return r, nil
}

func (k *Keyring) verifyReceipt(ctx context.Context, r Receipt) (Receipt, error) {
	mac := r.MAC
	r.MAC = nil
	text, err := r.text()
	if err != nil {
		return Receipt{}, err
	}
	err = k.verify(ctx, receiptPlace(r.Tenant, r.Client), text, mac)
	r.MAC = mac
	switch {
	case errors.Is(err, crmguard.ErrMAC), errors.Is(err, errTenant), errors.Is(err, errName):
		return Receipt{}, ErrReceipt
	case err != nil:
		return Receipt{}, err
	}
	return r, nil
}

// receiptNote is what a receipt holds besides what the record of the scope says.
type receiptNote struct {
	IndexRows  int      `json:"index_rows,omitempty"`
	Duplicates []string `json:"duplicates,omitempty"`
	Copies     []Copy   `json:"copies,omitempty"`
}

func (n *receiptNote) addDuplicates(records []string) {
	n.Duplicates = append(n.Duplicates, records...)
	slices.Sort(n.Duplicates)
	n.Duplicates = slices.Compact(n.Duplicates)
}

func (n *receiptNote) addCopies(copies []Copy) {
	for _, c := range copies {
		c.At = c.At.UTC().Truncate(time.Microsecond)
		if !slices.Contains(n.Copies, c) {
			n.Copies = append(n.Copies, c)
		}
	}
}

func parseNote[T any](r Record) (note T, err error) {
	if len(r.Note) == 0 {
		return note, nil
	}
	if err := json.Unmarshal(r.Note, &note); err != nil {
		return note, fmt.Errorf("%w: the note of version %d of %q", ErrDamaged, r.Version, r.Scope)
	}
	return note, nil
}

// noteAttempts is how often others may be faster.
const noteAttempts = 20

// note changes what the store keeps for the receipts of a scope, and returns the
// record as it is then. A store that is no [Inventory] forgets it.
func (k *Keyring) note(ctx context.Context, record Record, change func(n *receiptNote)) (Record, error) {
	inventory, durable := k.store.(Inventory)
	for range noteAttempts {
		note, err := parseNote[receiptNote](record)
		if err != nil {
			return record, err
		}
		change(&note)
		next := record
		if next.Note, err = json.Marshal(note); err != nil {
			return record, fmt.Errorf("encrypt: receipt: %w", err)
		}
		if bytes.Equal(next.Note, record.Note) || len(record.Note) == 0 && string(next.Note) == "{}" {
			return record, nil
		}
		if !durable {
			return next, nil
		}
		n, err := inventory.Replace(ctx, []Record{record}, []Record{next})
		if err != nil {
			return record, unavailable("key store", err)
		}
		if n == 1 {
			return next, nil
		}
		records, err := k.stored(ctx, record.Scope)
		if err == nil && len(records) == 0 {
			err = ErrNoKey
		}
		if err != nil {
			return record, err
		}
		record = records[len(records)-1]
	}
	return record, fmt.Errorf("%w: the note of an erasure changes all the time", crmguard.ErrUnavailable)
}

// era is what dates in receipts depend on besides the erasure itself.
type era struct {
	turns      []turn
	oldIndexes []time.Time // when the index keys were made that the tenant has
}

func (k *Keyring) era(ctx context.Context, tenant string) (era, error) {
	var e era
	checks, err := k.stored(ctx, kekCheckScope)
	if err != nil {
		return e, err
	}
	if len(checks) > 0 {
		if e.turns, err = parseNote[[]turn](checks[len(checks)-1]); err != nil {
			return e, err
		}
	}
	inventory, ok := k.store.(Inventory)
	if !ok {
		return e, nil
	}
	for r, err := range inventoryOf(ctx, inventory, tenant, IndexKey) {
		if err != nil {
			return e, err
		}
		e.oldIndexes = append(e.oldIndexes, r.CreatedAt)
	}
	return e, nil
}

// receipt counts from the destruction: until then nobody knows the dates.
func (k *Keyring) receipt(record Record, e era) (Receipt, error) {
	note, err := parseNote[receiptNote](record)
	r := Receipt{
		Tenant: record.Scope.Tenant, Client: record.Scope.Name, State: record.State.String(),
		ClosedAt: record.ClosedAt, DestroyedAt: record.DestroyedAt,
		IndexRows: note.IndexRows, Duplicates: note.Duplicates, Copies: note.Copies,
	}
	if record.State != Destroyed {
		return r, err
	}
	// Clocks of nodes may differ, by less than that.
	after := func(t time.Time) bool { return !t.Before(record.DestroyedAt.Add(Lease)) }
	r.UnreadableAfter = record.DestroyedAt.Add(k.opts.BackupRetention)
	r.UnlinkableAfter = r.UnreadableAfter.Add(k.opts.IndexLife)
	if slices.ContainsFunc(e.oldIndexes, func(made time.Time) bool { return !after(made) }) {
		r.UnlinkableAfter = latest(r.UnlinkableAfter, k.wallClock().Add(k.opts.BackupRetention))
	}
	for _, t := range e.turns {
		if t.EndedAt.IsZero() || !after(t.BeganAt) {
			continue
		}
		r.UnreadableAfter = earliest(r.UnreadableAfter, t.Gone)
		if t.OldestIndex.IsZero() || after(t.OldestIndex) {
			r.UnlinkableAfter = earliest(r.UnlinkableAfter, t.Gone)
		}
	}
	return r, err
}

func earliest(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

func latest(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
