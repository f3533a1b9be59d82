package auditout

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/internal/jsontext"
)

// Format is how an entry is written: as one line, whatever its texts hold.
type Format uint8

// The formats.
const (
	JSON Format = iota + 1 // JSON Lines with the journal's own names
	OCSF                   // JSON Lines of the Open Cybersecurity Schema Framework
	CSV                    // for spreadsheets, which run nothing that stands in it
)

var formatNames = []string{JSON: "jsonl", OCSF: "ocsf", CSV: "csv"}

// ParseFormat returns the format of a name: jsonl, ocsf or csv.
func ParseFormat(name string) (Format, error) {
	for f := JSON; f <= CSV; f++ {
		if formatNames[f] == name {
			return f, nil
		}
	}
	return 0, fmt.Errorf("auditout: there is no format %q: want %s", name, strings.Join(formatNames[JSON:], ", "))
}

// String returns the name of a format.
func (f Format) String() string {
	if f.check() != nil {
		return fmt.Sprintf("format %d", uint8(f))
	}
	return formatNames[f]
}

func (f Format) check() error {
	if f < JSON || f > CSV {
		return fmt.Errorf("auditout: there is no format %d", uint8(f))
	}
	return nil
}

// media is the type of a message of several lines.
func (f Format) media() string {
	if f == CSV {
		return "text/csv; charset=utf-8"
	}
	return "application/x-ndjson"
}

// Header is the line before the first entry, with its end; empty if there is none.
func (f Format) Header() string {
	if f == CSV {
		return strings.Join(csvColumns, ",") + "\n"
	}
	return ""
}

// Append adds the line of r, with its end.
func (f Format) Append(b []byte, r *Record) ([]byte, error) {
	var line []byte
	var err error
	switch f {
	case JSON:
		line, err = json.Marshal(jsonOf(r))
	case OCSF:
		line, err = json.Marshal(ocsfOf(r))
	case CSV:
		return appendCSV(b, r)
	default:
		err = f.check()
	}
	if err != nil {
		return b, fmt.Errorf("auditout: entry %d: %w", r.Seq, err)
	}
	return append(append(b, jsontext.Printable(line)...), '\n'), nil
}

// appendAll adds the lines of all records.
func (f Format) appendAll(b []byte, records []Record) ([]byte, error) {
	var err error
	for i := range records {
		if b, err = f.Append(b, &records[i]); err != nil {
			return nil, err
		}
	}
	return b, nil
}

type jsonRecord struct {
	Seq      int64         `json:"seq"`
	Recorded time.Time     `json:"recorded,omitzero"`
	Tenant   string        `json:"tenant,omitempty"`
	ID       string        `json:"id,omitempty"`
	Time     time.Time     `json:"time,omitzero"`
	Outcome  string        `json:"outcome,omitempty"`
	Action   string        `json:"action,omitempty"`
	Subject  *jsonSubject  `json:"subject,omitempty"`
	Resource *jsonResource `json:"resource,omitempty"`
	Reason   string        `json:"reason,omitempty"`
	Fields   []string      `json:"fields,omitempty"`
	Count    int           `json:"count,omitempty"`
	Request  string        `json:"request,omitempty"`
	Policy   string        `json:"policy,omitempty"`
	Private  []string      `json:"private,omitempty"` // names
	Cut      bool          `json:"cut,omitempty"`
	Note     string        `json:"note,omitempty"`
}

type jsonSubject struct {
	Tenant          string    `json:"tenant,omitempty"`
	ID              string    `json:"id,omitempty"`
	Kind            string    `json:"kind,omitempty"`
	OnBehalfOf      string    `json:"on_behalf_of,omitempty"`
	Session         string    `json:"session,omitempty"`
	Device          string    `json:"device,omitempty"`
	Addr            string    `json:"addr,omitempty"`
	Assurance       string    `json:"assurance,omitempty"`
	AuthenticatedAt time.Time `json:"authenticated_at,omitzero"`
	Roles           []string  `json:"roles,omitempty"`
	Units           []string  `json:"units,omitempty"`
	Scopes          []string  `json:"scopes,omitempty"`
}

type jsonResource struct {
	Tenant string `json:"tenant,omitempty"`
	Kind   string `json:"kind,omitempty"`
	ID     string `json:"id,omitempty"`
	Field  string `json:"field,omitempty"`
	Owner  string `json:"owner,omitempty"`
	Unit   string `json:"unit,omitempty"`
	Shared bool   `json:"shared,omitempty"`
}

func jsonOf(r *Record) *jsonRecord {
	e := &r.Event
	j := &jsonRecord{Seq: r.Seq, Recorded: r.Recorded, Tenant: r.Tenant, Note: r.Note, Cut: r.Cut != nil}
	if e.ID == "" { // an entry that cannot be read
		return j
	}
	s := &e.Subject
	j.ID, j.Time, j.Outcome, j.Action = e.ID, e.Time, e.Outcome.String(), string(e.Action)
	j.Subject = &jsonSubject{
		Tenant: s.Tenant, ID: s.ID, Kind: kindOf(s), OnBehalfOf: s.OnBehalfOf, Session: s.Session, Device: s.Device,
		Addr: addrOf(s), AuthenticatedAt: s.AuthenticatedAt, Roles: s.Roles, Units: s.Units, Scopes: s.Scopes,
	}
	if s.Assurance != 0 {
		j.Subject.Assurance = s.Assurance.String()
	}
	resource := jsonResource(e.Resource)
	j.Resource = &resource
	j.Reason, j.Fields, j.Count, j.Request, j.Policy, j.Private = e.Reason, e.Fields, e.Count, e.Request, e.Policy, names(e)
	return j
}

func kindOf(s *crmguard.Subject) string {
	if s.Kind == 0 {
		return ""
	}
	return s.Kind.String()
}

func addrOf(s *crmguard.Subject) string {
	if !s.Addr.IsValid() {
		return ""
	}
	return s.Addr.Unmap().String()
}

// names are all that leaves of private values.
func names(e *crmguard.Event) []string {
	list := make([]string, len(e.Private))
	for i, p := range e.Private {
		list[i] = p.Name
	}
	return list
}

var csvColumns = []string{
	"seq", "recorded", "time", "tenant", "event", "outcome", "action", "subject", "subject_kind", "on_behalf_of", "addr", "device", "session",
	"kind", "record", "field", "owner", "unit", "reason", "fields", "count", "request", "policy", "private", "note",
}

func appendCSV(b []byte, r *Record) ([]byte, error) {
	e := &r.Event
	s, o := &e.Subject, &e.Resource
	outcome := ""
	if e.Outcome != 0 {
		outcome = e.Outcome.String()
	}
	row := []string{
		strconv.FormatInt(r.Seq, 10), stamp(r.Recorded), stamp(e.Time), r.Tenant, e.ID, outcome, string(e.Action),
		s.ID, kindOf(s), s.OnBehalfOf, addrOf(s), s.Device, s.Session,
		o.Kind, o.ID, o.Field, o.Owner, o.Unit, e.Reason, strings.Join(e.Fields, " "), strconv.Itoa(e.Count), e.Request, e.Policy,
		strings.Join(names(e), " "), r.Note,
	}
	for i := range row {
		row[i] = cell(row[i])
	}
	var line strings.Builder
	w := csv.NewWriter(&line)
	if err := w.Write(row); err != nil {
		return b, fmt.Errorf("auditout: entry %d: %w", r.Seq, err)
	}
	w.Flush()
	return append(b, line.String()...), nil
}

// formulaSigns begin what a spreadsheet takes for a formula; some take the full-width
// ones for the same. cellEnds are after what another cell may begin: a spreadsheet
// takes the separator of its country for one, where the quotes of a cell do not hold.
const (
	formulaSigns = "=+-@\t\r＝＋－＠"
	cellEnds     = ",;|\t\"\r\n"
)

// cell makes a text one that a spreadsheet shows and does not run, in one line and
// without commands to a terminal.
func cell(s string) string {
	var out strings.Builder
	begins := true
	for i, r := range s {
		if begins && strings.ContainsRune(formulaSigns, r) {
			out.WriteByte('\'')
		}
		begins = strings.ContainsRune(cellEnds, r)
		switch {
		case r == '\r' && strings.HasPrefix(s[i:], "\r\n"):
		case unicode.IsControl(r) || r == '\u2028' || r == '\u2029':
			out.WriteByte(' ')
		default:
			out.WriteRune(r)
		}
	}
	return out.String()
}

func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339Nano)
}
