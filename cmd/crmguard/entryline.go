package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/crmguard/crmguard/audit"
)

// entryLine is an entry of a journal as JSON. Private values are only named: they are
// sealed, and no command here has the keys.
type entryLine struct {
	Seq        int64     `json:"seq"`
	Recorded   time.Time `json:"recorded"`
	Time       time.Time `json:"time"`
	Tenant     string    `json:"tenant"`
	ID         string    `json:"id"`
	Subject    string    `json:"subject,omitempty"`
	OnBehalfOf string    `json:"on_behalf_of,omitempty"`
	Kind       string    `json:"subject_kind"`
	Session    string    `json:"session,omitempty"`
	Device     string    `json:"device,omitempty"`
	Addr       string    `json:"addr,omitempty"`
	Assurance  string    `json:"assurance"`
	Action     string    `json:"action"`
	Resource   string    `json:"resource_kind"`
	Record     string    `json:"record,omitempty"`
	Field      string    `json:"field,omitempty"`
	Owner      string    `json:"owner,omitempty"`
	Unit       string    `json:"unit,omitempty"`
	Outcome    string    `json:"outcome"`
	Reason     string    `json:"reason,omitempty"`
	Fields     []string  `json:"fields,omitempty"`
	Count      int       `json:"count,omitempty"`
	Request    string    `json:"request,omitempty"`
	Policy     string    `json:"policy,omitempty"`
	Sealed     []sealed  `json:"sealed,omitempty"`
	Cut        bool      `json:"cut,omitempty"` // the event did not fit
}

// sealed names a private value.
type sealed struct {
	Client string `json:"client,omitempty"`
	Name   string `json:"name"`
	Erased bool   `json:"erased,omitempty"` // before the entry was written
}

func lineOf(e *audit.Entry) entryLine {
	ev := &e.Event
	l := entryLine{
		Seq: e.Seq, Recorded: e.Recorded.UTC(), Time: ev.Time.UTC(), Tenant: e.Tenant, ID: ev.ID,
		Subject: ev.Subject.ID, OnBehalfOf: ev.Subject.OnBehalfOf, Kind: ev.Subject.Kind.String(), Session: ev.Subject.Session,
		Device: ev.Subject.Device, Assurance: ev.Subject.Assurance.String(), Action: string(ev.Action),
		Resource: ev.Resource.Kind, Record: ev.Resource.ID, Field: ev.Resource.Field, Owner: ev.Resource.Owner, Unit: ev.Resource.Unit,
		Outcome: ev.Outcome.String(), Reason: ev.Reason, Fields: ev.Fields, Count: ev.Count, Request: ev.Request, Policy: ev.Policy,
		Cut: e.Cut != nil,
	}
	if ev.Subject.Addr.IsValid() {
		l.Addr = ev.Subject.Addr.String()
	}
	for _, s := range e.Sealed {
		l.Sealed = append(l.Sealed, sealed{s.Client, s.Name, s.Erased})
	}
	return l
}

// String is one line for people: number, time, tenant, who, what and how it ended.
func (l *entryLine) String() string {
	who := l.Subject
	if who == "" {
		who = "-"
	}
	what := l.Resource
	if l.Record != "" {
		what += "/" + l.Record
	}
	if l.Field != "" {
		what += "." + l.Field
	}
	parts := []string{fmt.Sprint(l.Seq), l.Time.Format(time.RFC3339), plain(l.Tenant), plain(who), plain(l.Action), plain(what), plain(l.Outcome)}
	add := func(name, value string) {
		if value != "" {
			parts = append(parts, name+"="+plain(value))
		}
	}
	add("for", l.OnBehalfOf)
	add("from", l.Addr)
	add("reason", l.Reason)
	add("fields", strings.Join(l.Fields, ","))
	if l.Count != 0 {
		add("count", fmt.Sprint(l.Count))
	}
	for _, s := range l.Sealed {
		add("sealed", s.Name)
	}
	return strings.Join(parts, "  ")
}
