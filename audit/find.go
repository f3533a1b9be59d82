package audit

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/crmguard/crmguard"
)

const (
	defaultLimit = 50
	maxLimit     = 500
)

// Entry is one line of the journal.
type Entry struct {
	Seq      int64     // from 0; the index of its leaf in the tree
	Recorded time.Time // when it was chained; Event.Time is when it happened
	Tenant   string    // in whose journal it is
	Event    crmguard.Event
	Sealed   []SealedValue // beside Event.Private, which has the same names without values
	Cut      *Cut          // nil: all of the event is there
}

// Page is a part of an answer, newest first.
type Page struct {
	Entries []Entry
	Next    int64   // Query.Before of the page that follows; 0: there is none
	Damaged []int64 // numbers of entries that were changed or damaged, which are left out: verify the log
}

// Find returns entries of one tenant, newest first. The timeline of a record is a
// query for its Kind and Record, that of a person one for the Subject.
//
// Entries are compared with their own hashes, and with each other where they follow each other:
// that finds what was changed in the store, but not who wrote all that follows anew, too. For
// that there is [Log.Verify].
//
// Pages stay put while entries are added. Find does not ask who wants to know, and
// leaves no trace: it is for the program itself, and [Log.Read] for people.
func (l *Log) Find(ctx context.Context, q Query) (Page, error) {
	pseudonyms, err := l.finding.ask(ctx, &q)
	if err != nil {
		return Page{}, err
	}
	page, damaged, err := find(ctx, l.store, q, pseudonyms)
	for _, b := range damaged { // one entry must not hide those before it
		l.logger.LogAttrs(ctx, slog.LevelError, "audit: an entry cannot be shown: verify the journal", slog.Int64("entry", b.Seq), slog.String("detail", b.Detail))
	}
	return page, err
}

// FindStore is [Log.Find] for a log that need not be in use. If entries cannot be
// shown, the others are returned with a *[BrokenError] that names the newest of them.
func FindStore(ctx context.Context, s Store, q Query) (Page, error) {
	page, damaged, err := find(ctx, s, q, nil)
	if err == nil && len(damaged) > 0 {
		err = damaged[0]
	}
	return page, err
}

func find(ctx context.Context, s Store, q Query, pseudonyms [][]byte) (page Page, damaged []*BrokenError, err error) {
	if err := q.normalise(pseudonyms); err != nil {
		return Page{}, nil, err
	}
	rows, err := s.Find(ctx, q)
	if err != nil {
		return Page{}, nil, fmt.Errorf("audit: find: %w", err)
	}
	page.Entries = make([]Entry, 0, len(rows))
	if len(rows) == q.Limit {
		page.Next = rows[len(rows)-1].Seq
	}
	var after *Row // the one before it in the list, if that is right
	for i := range rows {
		entry, detail := rows[i].shown(&q, after)
		after = nil
		if detail != "" {
			damaged = append(damaged, &BrokenError{Seq: rows[i].Seq, Detail: detail})
			page.Damaged = append(page.Damaged, rows[i].Seq)
			continue
		}
		page.Entries, after = append(page.Entries, entry), &rows[i]
	}
	return page, damaged, nil
}

// shown returns what the record of a row says, or what is wrong with it. After is a newer row that is
// right, or nil.
func (r *Row) shown(q *Query, after *Row) (e Entry, detail string) {
	rec, err := decodeRecord(r.Record)
	if err != nil {
		return e, "its record does not decode"
	}
	// What is shown is what the record says, whatever the row was found by.
	if keys := rec.keys(); rec.seq != r.Seq || !keys.matches(q) || !rec.says(q) {
		return e, "it was found by what its record does not say"
	}
	if tlog.RecordHash(r.Record) != r.leaf() {
		return e, "the record does not have the hash that was stored"
	}
	if after != nil && after.Seq == r.Seq+1 && previousOf(after.Record) != r.leaf() {
		return e, "the entry after it continues another one"
	}
	return rec.entry(), ""
}

// allRows goes through all rows that match a query, newest first, until an error.
func allRows(ctx context.Context, s Store, q Query) iter.Seq2[*Row, error] {
	return func(yield func(*Row, error) bool) {
		q.Limit = maxLimit
		for {
			rows, err := s.Find(ctx, q)
			if err != nil {
				yield(nil, err)
				return
			}
			for i := range rows {
				if !yield(&rows[i], nil) {
					return
				}
			}
			if len(rows) < q.Limit || rows[len(rows)-1].Seq == 0 {
				return
			}
			q.Before = rows[len(rows)-1].Seq
		}
	}
}

// normalise brings a query into the form in which keys are kept, and says under which
// pseudonyms its private value is looked for.
func (q *Query) normalise(pseudonyms [][]byte) error {
	if q.Tenant == "" {
		return errors.New("audit: a query needs a tenant")
	}
	if q.Before < 0 || q.Limit < 0 {
		return errors.New("audit: a query's cursor and limit are not negative")
	}
	if clean(q.Tenant) != q.Tenant || clean(q.Subject) != q.Subject || clean(q.Client) != q.Client {
		return errName
	}
	if q.Limit == 0 {
		q.Limit = defaultLimit
	}
	q.Limit = min(q.Limit, maxLimit)
	if q.Pseudonyms = pseudonyms; q.Private.Name != "" && len(pseudonyms) == 0 {
		return errors.New("audit: private values are found by Log.Find only")
	}
	for _, text := range []*string{&q.Tenant, &q.Event, &q.Subject, &q.Kind, &q.Record, &q.Client} {
		*text = keyText(short(clean(*text)))
	}
	q.Action = crmguard.Action(keyText(short(clean(string(q.Action)))))
	q.Addr = q.Addr.Unmap().WithZone("")
	return nil
}

// holds returns what the log says in the entry with these keys: nil if it holds none, and
// nothing if that cannot be read. It is looked for by what makes it unique, however much
// there is of the same person and kind: everybody who records waits meanwhile.
func (l *Log) holds(ctx context.Context, k *Keys) (*content, error) {
	rows, err := l.store.Find(ctx, Query{Tenant: k.Tenant, Event: k.Event, Outcome: k.Outcome, Limit: 1})
	if err != nil {
		return nil, fmt.Errorf("audit: find the entry that is there: %w", err)
	}
	if len(rows) == 0 {
		return nil, nil //nolint:nilnil // there is none
	}
	rec, err := decodeRecord(rows[0].Record)
	if err != nil {
		return &content{}, nil
	}
	return &rec.content, nil
}

// OpenPrivate opens the private values of an entry through the sealer, so that its
// norms hold, for a Subject of the entry's tenant in ctx. If a client was erased,
// before or after the entry was written, the values of that client are nil and the
// error is one that wraps [crmguard.ErrErased]; the others are open. After any
// other error there are none.
func (l *Log) OpenPrivate(ctx context.Context, e Entry) ([]crmguard.Private, error) {
	subject, _ := crmguard.SubjectFrom(ctx)
	if err := crmguard.CheckTenant(subject, e.Tenant); err != nil {
		return nil, fmt.Errorf("audit: open private values: %w", err)
	}
	if e.Cut != nil {
		return nil, errors.New("audit: the values of an entry that was cut are not kept")
	}
	var values []crmguard.Private
	erased := 0
	for _, s := range e.Sealed {
		v := crmguard.Private{Client: s.Client, Name: s.Name}
		err := crmguard.ErrErased
		if !s.Erased {
			v.Value, err = l.keys.Open(ctx, s.place(e.Tenant, e.Event.ID), s.Sealed)
		}
		switch {
		case errors.Is(err, crmguard.ErrErased):
			v.Value = nil
			erased++
		case err != nil:
			return nil, fmt.Errorf("audit: open a private value: %w", err)
		case v.Value == nil:
			v.Value = []byte{} // nil means erased
		}
		values = append(values, v)
	}
	if erased > 0 {
		return values, fmt.Errorf("audit: %d of %d values: %w", erased, len(values), crmguard.ErrErased)
	}
	return values, nil
}
