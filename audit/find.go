package audit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

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
}

// Page is a part of an answer, newest first.
type Page struct {
	Entries []Entry
	Next    int64 // Query.Before of the page that follows; 0: there is none
}

// Find returns entries of one tenant, newest first. The timeline of a record is a
// query for its Kind and Record, that of a person one for the Subject.
//
// Pages stay put while entries are added. Find does not ask who wants to know:
// that is for the caller to check, before.
func (l *Log) Find(ctx context.Context, q Query) (Page, error) {
	if q.Tenant == "" {
		return Page{}, errors.New("audit: a query needs a tenant")
	}
	if q.Before < 0 || q.Limit < 0 {
		return Page{}, errors.New("audit: a query's cursor and limit are not negative")
	}
	if q.Limit == 0 {
		q.Limit = defaultLimit
	}
	q.Limit = min(q.Limit, maxLimit)
	for _, text := range []*string{&q.Tenant, &q.Subject, &q.Kind, &q.Record, &q.Client} {
		*text = keyText(clean(*text))
	}
	q.Action = crmguard.Action(keyText(clean(string(q.Action))))

	rows, err := l.store.Find(ctx, q)
	if err != nil {
		return Page{}, fmt.Errorf("audit: find: %w", err)
	}
	page := Page{Entries: make([]Entry, 0, len(rows))}
	if len(rows) == q.Limit {
		page.Next = rows[len(rows)-1].Seq
	}
	for i := range rows {
		rec, err := decodeRecord(rows[i].Record)
		if err != nil {
			l.logger.LogAttrs(ctx, slog.LevelError, "audit: an entry does not decode: verify the journal", slog.Int64("entry", rows[i].Seq))
			continue // one entry must not hide those before it
		}
		// What is shown is what the record says, whatever the row was found by.
		if keys := rec.keys(); rec.seq != rows[i].Seq || !keys.matches(&q) {
			l.logger.LogAttrs(ctx, slog.LevelError, "audit: an entry was found by what it does not say: verify the journal", slog.Int64("entry", rows[i].Seq))
			continue
		}
		page.Entries = append(page.Entries, rec.entry())
	}
	return page, nil
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
