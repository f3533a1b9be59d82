// Package auditout takes the journal out to where others watch: SIEMs, log servers,
// files, webhooks.
//
//	cursor, err := auditout.NewFileCursor("/var/lib/crm/siem.cursor")
//	sink, err := auditout.NewSyslog("siem.example:6514", tlsConfig, auditout.OCSF)
//	pump, err := auditout.New(journal, []auditout.Feed{{Name: "siem", Sink: sink, Cursor: cursor}}, nil)
//	go pump.Run(ctx)                    // until ctx or the journal ends
//	...
//	for _, s := range pump.Status(ctx) { ... } // for a page of health
//
// A feed reads what is chained and durable, behind those who record: however slow or
// dead a receiver is, no entry waits for it, and no other feed. What it has not taken
// waits in the journal.
//
// Each entry is delivered at least once: the cursor moves after the receiver has
// taken a batch, and it is on the disk before the next one is sent. After a crash
// some entries come twice; seq, or the event's id with its outcome, tells. Run each
// feed in one process.
//
// An entry that cannot be read, or that the receiver refuses, holds up nothing: its
// head goes out in its place, with a note that says why.
//
// # Security notes
//
// Private values never leave, not even sealed: of them only the names do. What else
// leaves are ids, and the addresses from which people work, which a SIEM needs;
// [Slog] leaves these out as well.
//
// No text of an entry can begin a line, a message or a formula of its own: JSON and
// CSV escape, and syslog messages are counted (RFC 6587).
//
// A cursor is kept outside the journal. So a pump notices a journal that has become
// shorter, or another one: Status says so, and nothing is skipped.
//
// # Format
//
// docs/formats/audit.md says what lines and messages hold.
package auditout

import (
	"context"
	"errors"
	"iter"
	"time"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/audit"
)

// Source is what a pump reads: *[audit.Log], or for tools something with
// [audit.FollowStore].
type Source interface {
	// FollowAll returns all entries after one, and then each new one.
	FollowAll(ctx context.Context, after int64) iter.Seq2[audit.Entry, error]

	// Head returns where the journal stands.
	Head(ctx context.Context) (audit.Head, error)
}

// Record is an entry on its way out.
type Record struct {
	audit.Entry

	// Note, if not empty, says why there is only a head: number, tenant, and of the
	// event who did what to which record when. Of an entry that cannot be read there
	// is the number only, and Recorded is when that was noticed.
	Note string
}

// Sink is a receiver.
type Sink interface {
	// Send delivers records, of which there is at least one. Nil means that the
	// receiver has all of them. An error that wraps [ErrRefused] means that it will
	// never take them as they are. After any other error they are sent again, and
	// the receiver may have some of them already. Only one Send runs at a time.
	Send(ctx context.Context, records []Record) error
}

// ErrRefused says that a receiver is there, and will not take this.
var ErrRefused = errors.New("auditout: refused")

// Cursor remembers how far a feed has come.
type Cursor interface {
	// Load returns what Save was given last; a zero log and -1 if that never was.
	Load(ctx context.Context) (log [16]byte, seq int64, err error)

	// Save keeps the id of the log and the number of the last entry delivered,
	// durably.
	Save(ctx context.Context, log [16]byte, seq int64) error
}

// Feed is one way out.
type Feed struct {
	Name   string // for Status and the logger
	Sink   Sink
	Cursor Cursor // of this feed alone
}

// Status is how a feed does.
type Status struct {
	Name         string
	Sent         int64         // number of the last entry that was delivered; -1: none
	Behind       int64         // entries that were not yet
	Lag          time.Duration // how long the oldest of them has been in the journal, as far as known
	FailingSince time.Time     // zero: it does not fail
	Err          error         // of the last attempt; nil: it succeeded
	Noted        int64         // entries of which only the head went out, since the start
	Skipped      int64         // entries of which the receiver refused the head, too
}

// head is what goes out in place of an entry.
func (r *Record) head(note string) Record {
	e := &r.Event
	return Record{Note: note, Entry: audit.Entry{
		Seq: r.Seq, Recorded: r.Recorded, Tenant: r.Tenant,
		Event: crmguard.Event{
			ID: e.ID, Time: e.Time, Action: e.Action, Outcome: e.Outcome,
			Subject:  crmguard.Subject{Tenant: e.Subject.Tenant, ID: e.Subject.ID, Kind: e.Subject.Kind},
			Resource: crmguard.Resource{Tenant: e.Resource.Tenant, Kind: e.Resource.Kind, ID: e.Resource.ID},
		},
	}}
}
