package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/auditout"
)

// formatUsage is of the formats in which entries are printed, the first one usually.
const formatUsage = "`format` of the entries: text for people, jsonl, ocsf or csv for programs"

// printer is a sink that prints entries: in a format of package auditout, or as lines for people.
func printer(w io.Writer, format string) (auditout.Sink, error) {
	if format == "text" {
		return people{w}, nil
	}
	f, err := auditout.ParseFormat(format)
	if err != nil {
		return nil, fmt.Errorf("-format %s: want text, jsonl, ocsf or csv", plain(format))
	}
	return auditout.NewWriter(w, f)
}

// print hands entries to a sink.
func (c *call) print(to auditout.Sink, entries ...audit.Entry) error {
	if len(entries) == 0 {
		return nil
	}
	records := make([]auditout.Record, len(entries))
	for i := range entries {
		records[i].Entry = entries[i]
	}
	return to.Send(c, records)
}

// people is a sink of lines for people.
type people struct{ w io.Writer }

func (p people) Send(_ context.Context, records []auditout.Record) error {
	for i := range records {
		if _, err := fmt.Fprintln(p.w, lineOf(&records[i].Entry)); err != nil {
			return err
		}
	}
	return nil
}

// jsonOf is an entry as JSON. Private values are only named: they are sealed, and no command here has
// the keys.
func jsonOf(e *audit.Entry) (json.RawMessage, error) {
	line, err := auditout.JSON.Append(nil, &auditout.Record{Entry: *e})
	return bytes.TrimSuffix(line, []byte("\n")), err
}

// lineOf is one line for people: number, time, tenant, who, what and how it ended.
func lineOf(e *audit.Entry) string {
	ev := &e.Event
	who := ev.Subject.ID
	if who == "" {
		who = "-"
	}
	what := ev.Resource.Kind
	if ev.Resource.ID != "" {
		what += "/" + ev.Resource.ID
	}
	if ev.Resource.Field != "" {
		what += "." + ev.Resource.Field
	}
	parts := []string{fmt.Sprint(e.Seq), ev.Time.UTC().Format(time.RFC3339), column(e.Tenant), column(who), column(string(ev.Action)), column(what), ev.Outcome.String()}
	add := func(name, value string) {
		if value != "" {
			parts = append(parts, name+"="+column(value))
		}
	}
	add("for", ev.Subject.OnBehalfOf)
	if ev.Subject.Addr.IsValid() {
		add("from", ev.Subject.Addr.String())
	}
	add("reason", ev.Reason)
	add("fields", strings.Join(ev.Fields, ","))
	if ev.Count != 0 {
		add("count", fmt.Sprint(ev.Count))
	}
	for _, s := range e.Sealed {
		add("sealed", s.Name)
	}
	return strings.Join(parts, "  ")
}

// column quotes what could write to a terminal, or be taken for two columns.
func column(text string) string {
	if !strings.Contains(text, "  ") {
		return plain(text)
	}
	return strings.ReplaceAll(strconv.Quote(text), "  ", ` \x20`)
}
