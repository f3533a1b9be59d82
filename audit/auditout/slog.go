package auditout

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/audit"
)

// Slog is a [Sink] that makes a record of log/slog of each entry: message "audit",
// time of the event, level Info, or Warn for what was refused, failed or cannot be
// read. There is nothing personal in it: ids, but no addresses, devices or sessions,
// and of private values not even the clients.
type Slog struct{ handler slog.Handler }

var _ Sink = (*Slog)(nil)

// NewSlog returns a sink that hands records to h.
func NewSlog(h slog.Handler) *Slog { return &Slog{handler: h} }

// Send implements [Sink]. A level that the handler does not want counts as delivered.
func (s *Slog) Send(ctx context.Context, records []Record) error {
	for i := range records {
		record := slogOf(&records[i])
		if !s.handler.Enabled(ctx, record.Level) {
			continue
		}
		if err := s.handler.Handle(ctx, record); err != nil {
			return fmt.Errorf("auditout: slog: %w", err)
		}
	}
	return nil
}

func slogOf(r *Record) slog.Record {
	e := &r.Event
	level, at := slog.LevelInfo, e.Time
	if e.Outcome >= crmguard.Denied || e.Outcome == 0 {
		level = slog.LevelWarn
	}
	if at.IsZero() {
		at = r.Recorded
	}
	record := slog.NewRecord(at, level, "audit", 0)
	record.AddAttrs(slog.Int64("seq", r.Seq))
	for _, a := range []struct{ name, value string }{
		{"tenant", r.Tenant}, {"event", e.ID}, {"subject", e.Subject.ID}, {"action", string(e.Action)},
		{"kind", e.Resource.Kind}, {"record", e.Resource.ID}, {"field", e.Resource.Field},
		{"reason", e.Reason}, {"request", e.Request}, {"policy", e.Policy}, {"note", r.Note},
	} {
		if a.value != "" {
			record.AddAttrs(slog.String(a.name, a.value))
		}
	}
	if e.Outcome != 0 {
		record.AddAttrs(slog.String("outcome", e.Outcome.String()))
	}
	if e.Count > 0 {
		record.AddAttrs(slog.Int("count", e.Count))
	}
	if len(e.Fields) > 0 {
		record.AddAttrs(slog.Any("fields", withoutAddr(e)))
	}
	if list := names(e); len(list) > 0 {
		record.AddAttrs(slog.Any("private", list))
	}
	return record
}

// withoutAddr are the fields of an entry without the address that somebody asked for
// who read the journal.
func withoutAddr(e *crmguard.Event) []string {
	if e.Action != audit.ActRead {
		return e.Fields
	}
	fields := slices.Clone(e.Fields)
	for i, field := range fields {
		if strings.HasPrefix(field, "addr=") {
			fields[i] = "addr"
		}
	}
	return fields
}
