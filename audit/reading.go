package audit

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"

	"github.com/crmguard/crmguard"
)

// ActRead is the action of entries that tell who read the journal: [Log.Read] and
// [Log.Watch] make them.
const ActRead crmguard.Action = "audit.read"

// readKind is the kind of resource of such entries.
const readKind = "journal"

// Read is [Log.Find] for a person: the subject of ctx, who must be of the query's
// tenant. That they read is an entry itself, which is durable before they see
// anything; if it cannot be made, they see nothing. Whether they may read is for the
// caller to check, before.
//
// The entry has the action [ActRead], the number of entries seen as its Count, and in
// Fields what was asked for: the name of each part of the query, and with it the
// value if entries were found, because then the value stands in them already. What
// somebody typed who found nothing may be anything, such as a client's name, and is
// not kept; nor is a private value that was looked for.
//
// One call makes one entry. Find and Follow make none, so that the program's own
// reading, Read's included, does not make the journal grow.
func (l *Log) Read(ctx context.Context, q Query) (Page, error) {
	subject, err := whoReads(ctx, &q)
	if err != nil {
		return Page{}, err
	}
	page, err := l.Find(ctx, q)
	if err != nil {
		return Page{}, err
	}
	if err := l.Record(ctx, reading(subject, shape(&q, len(page.Entries) > 0), len(page.Entries))); err != nil {
		return Page{}, fmt.Errorf("audit: nobody reads what cannot be recorded: %w", err)
	}
	return page, nil
}

// Watch is [Log.Follow] for a person, as [Log.Read] is Find for one. One call makes
// one entry, whose Fields end with "live".
func (l *Log) Watch(ctx context.Context, q Query, after int64) (iter.Seq2[Entry, error], error) {
	subject, err := whoReads(ctx, &q)
	if err != nil {
		return nil, err
	}
	asked := q
	if err := q.normalise(nil); err != nil {
		return nil, err
	}
	if err := l.Record(ctx, reading(subject, append(shape(&asked, false), "live"), 0)); err != nil {
		return nil, fmt.Errorf("audit: nobody reads what cannot be recorded: %w", err)
	}
	return l.follow(ctx, &q, after), nil
}

func whoReads(ctx context.Context, q *Query) (crmguard.Subject, error) {
	if q.Tenant == "" {
		return crmguard.Subject{}, errors.New("audit: a query needs a tenant")
	}
	subject, _ := crmguard.SubjectFrom(ctx)
	if err := crmguard.CheckTenant(subject, q.Tenant); err != nil {
		return subject, fmt.Errorf("audit: read: %w", err)
	}
	return subject, nil
}

func reading(subject crmguard.Subject, fields []string, count int) crmguard.Event {
	return crmguard.Event{
		Subject:  subject,
		Action:   ActRead,
		Resource: crmguard.Resource{Tenant: subject.Tenant, Kind: readKind},
		Outcome:  crmguard.Done,
		Fields:   fields,
		Count:    count,
	}
}

// shape names the parts of a query, with their values if those are known to stand in
// entries.
func shape(q *Query, known bool) []string {
	var fields []string
	add := func(name, value string) {
		switch {
		case value == "":
		case known:
			fields = append(fields, name+"="+value)
		default:
			fields = append(fields, name)
		}
	}
	add("event", q.Event)
	add("subject", q.Subject)
	add("kind", q.Kind)
	add("record", q.Record)
	add("client", q.Client)
	add("action", string(q.Action))
	if q.Outcome != 0 {
		add("outcome", q.Outcome.String())
	}
	add("addr", addrText(q.Addr))
	if q.Private.Name != "" {
		fields = append(fields, "private:"+q.Private.Name)
	}
	for name, asked := range map[string]bool{"from": !q.From.IsZero(), "to": !q.To.IsZero(), "page": q.Before > 0} {
		if asked {
			fields = append(fields, name)
		}
	}
	slices.Sort(fields)
	return fields
}
