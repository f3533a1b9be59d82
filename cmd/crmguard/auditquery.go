package main

import (
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/audit"
)

// queryFlags say which entries are asked for.
type queryFlags struct {
	q       audit.Query
	kind    string
	outcome string
	addr    string
}

func (c *call) queryFlags() *queryFlags {
	f := &queryFlags{}
	c.flags.StringVar(&f.q.Tenant, "tenant", "", "`tenant` whose journal it is")
	c.flags.StringVar(&f.q.Subject, "person", "", "`id` of who acted")
	c.flags.StringVar(&f.kind, "record", "", "`KIND/ID` of what was acted on, or KIND alone")
	c.flags.StringVar(&f.q.Client, "client", "", "`id` of a client about whom something is sealed in the entry")
	c.flags.StringVar((*string)(&f.q.Action), "action", "", "`action`, such as export")
	c.flags.StringVar(&f.outcome, "outcome", "", "`outcome`: done, denied, failed, attempted or undecided")
	c.flags.StringVar(&f.addr, "addr", "", "`address` from which somebody acted")
	c.flags.Var(&moment{&f.q.From}, "from", "`time`, such as 2026-01-31 or 2026-01-31T12:00:00Z: not before it")
	c.flags.Var(&moment{&f.q.To}, "to", "`time`: before it")
	return f
}

func (f *queryFlags) query() (audit.Query, error) {
	q := f.q
	if q.Tenant == "" {
		return q, errors.New("-tenant is needed")
	}
	q.Kind, q.Record = cutRecord(f.kind)
	for o := crmguard.Attempted; f.outcome != "" && q.Outcome == 0; o++ {
		switch {
		case o > crmguard.Undecided:
			return q, fmt.Errorf("-outcome %s: want done, denied, failed, attempted or undecided", plain(f.outcome))
		case o.String() == f.outcome:
			q.Outcome = o
		}
	}
	if f.addr != "" {
		var err error
		if q.Addr, err = netip.ParseAddr(f.addr); err != nil {
			return q, fmt.Errorf("-addr %s is no address", plain(f.addr))
		}
	}
	return q, nil
}

// cutRecord reads KIND/ID. An id may hold strokes itself.
func cutRecord(text string) (kind, record string) {
	kind, record, _ = strings.Cut(text, "/")
	return kind, record
}

// moment is a time or a day, of UTC, on the command line.
type moment struct{ at *time.Time }

var _ flag.Value = (*moment)(nil)

func (m *moment) String() string {
	if m.at == nil || m.at.IsZero() {
		return ""
	}
	return m.at.Format(time.RFC3339)
}

// Set reads a time.
func (m *moment) Set(text string) (err error) {
	for _, layout := range []string{time.DateOnly, time.RFC3339} {
		if *m.at, err = time.Parse(layout, text); err == nil {
			return nil
		}
	}
	return errors.New("want 2026-01-31 or 2026-01-31T12:00:00Z")
}
