package auditout_test

import (
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"flag"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/auditout"
)

var update = flag.Bool("update", false, "write golden files")

var formats = map[string]auditout.Format{"json": auditout.JSON, "ocsf": auditout.OCSF, "csv": auditout.CSV}

// samples are a change, a failed sign-in of nobody known, a head, and an entry that
// cannot be read.
func samples() []auditout.Record {
	at := time.Date(2026, 11, 22, 10, 0, 0, 123456000, time.UTC)
	change := auditout.Record{Entry: audit.Entry{
		Seq: 7, Recorded: at.Add(time.Second), Tenant: "acme",
		Event: crmguard.Event{
			ID: "0193-7", Time: at, Action: crmguard.Update, Outcome: crmguard.Done,
			Subject: crmguard.Subject{
				Tenant: "acme", ID: "anna", Kind: crmguard.KindEmployee, Session: "s-1", Device: "d-1", Addr: netip.MustParseAddr("::ffff:192.0.2.7"),
				Assurance: crmguard.AssuranceSecondFactor, AuthenticatedAt: at.Add(-time.Hour), Roles: []string{"seller"},
			},
			Resource: crmguard.Resource{Tenant: "acme", Kind: "contacts", ID: "17", Field: "phone", Owner: "anna", Unit: "sales"},
			Reason:   "asked", Fields: []string{"phone"}, Count: 1, Request: "r-1", Policy: "p-1",
			Private: []crmguard.Private{{Client: "client-17", Name: "old"}, {Client: "client-17", Name: "new"}},
		},
		Sealed: []audit.SealedValue{{Client: "client-17", Name: "old", Sealed: []byte("sealed-bytes")}},
	}}
	signIn := auditout.Record{Entry: audit.Entry{
		Seq: 8, Recorded: at.Add(2 * time.Second), Tenant: "acme",
		Event: crmguard.Event{ID: "0193-8", Time: at, Action: crmguard.SignIn, Outcome: crmguard.Denied, Resource: crmguard.Resource{Tenant: "acme", Kind: "account"}, Reason: "password"},
	}}
	unreadable := auditout.Record{Entry: audit.Entry{Seq: 9, Recorded: at.Add(time.Minute)}, Note: "audit: broken at entry 9: its record does not decode"}
	return []auditout.Record{change, signIn, unreadable}
}

func lines(t testing.TB, f auditout.Format, records ...auditout.Record) []byte {
	t.Helper()
	b := []byte(f.Header())
	for i := range records {
		var err error
		b, err = f.Append(b, &records[i])
		require.NoError(t, err)
	}
	return b
}

func TestGolden(t *testing.T) {
	for name, f := range formats {
		got := lines(t, f, samples()...)
		path := filepath.Join("testdata", "v1."+name)
		if *update {
			require.NoError(t, os.MkdirAll("testdata", 0o750))
			require.NoError(t, os.WriteFile(path, got, 0o600))
		}
		want, err := os.ReadFile(path)
		require.NoError(t, err)
		require.Equal(t, string(want), string(got), name)
		for _, secret := range []string{"sealed-bytes", "client-17"} {
			require.NotContains(t, string(got), secret, name)
		}
	}
}

// nasty is an entry whose every text is an attack.
func nasty(text string) auditout.Record {
	r := samples()[0]
	e := &r.Event
	r.Tenant, e.ID, e.Action, e.Reason, e.Request, e.Policy, e.Fields = text, text, crmguard.Action(text), text, text, text, []string{text}
	e.Subject.ID, e.Subject.Device, e.Subject.Session, e.Subject.OnBehalfOf = text, text, text, text
	e.Resource = crmguard.Resource{Tenant: text, Kind: text, ID: text, Field: text, Owner: text, Unit: text}
	e.Private = []crmguard.Private{{Name: text, Client: "client-17"}}
	r.Note = text
	return r
}

var attacks = []string{
	"=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "a\r\nb", "a\n=cmd|' /C calc'!A0", "\"", `","=1`, "\u2028x", "</script>", "a b", "\x7f\x1b[31m",
	"<13>1 - forged - - - - no", "ü\xff", "x;=1+1", "x|+1", "x\t-1", "＝1+1", `x;"=1&";y`, "\u009b2K\u0085\u202e",
}

func checkLine(t testing.TB, f auditout.Format, text string) {
	t.Helper()
	r := nasty(text)
	b, err := f.Append(nil, &r)
	require.NoError(t, err)
	body, ok := bytes.CutSuffix(b, []byte("\n"))
	require.True(t, ok)
	require.False(t, bytes.ContainsAny(body, "\r\n"), "%q", text)
	if f != auditout.CSV {
		require.True(t, json.Valid(body), "%q", text)
		for _, r := range string(body) {
			require.True(t, unicode.IsPrint(r), "%q", text)
		}
		return
	}
	require.False(t, bytes.ContainsFunc(body, unicode.IsControl), "%q", text)
	for _, separator := range ";|" { // as a spreadsheet of another country reads it, without regard to quotes
		for part := range strings.SplitSeq(string(body), string(separator)) {
			require.Empty(t, formulas([][]string{{strings.TrimLeft(part, `"`)}}), "%q", text)
		}
	}
	rows, err := csv.NewReader(bytes.NewReader(b)).ReadAll()
	require.NoError(t, err, "%q", text)
	require.Len(t, rows, 1)
	require.Empty(t, formulas(rows), "%q", text)
	require.Len(t, rows[0], strings.Count(f.Header(), ",")+1)
}

// formulas are the cells that a spreadsheet would run.
func formulas(rows [][]string) (found []string) {
	for _, row := range rows {
		for _, c := range row {
			if first, size := utf8.DecodeRuneInString(c); size > 0 && strings.ContainsRune("=+-@\t\r＝＋－＠", first) {
				found = append(found, c)
			}
		}
	}
	return found
}

func TestNoTextOfAnEntryBreaksALine(t *testing.T) {
	for _, f := range formats {
		for _, text := range attacks {
			checkLine(t, f, text)
		}
	}
	// The planted fault: cells as encoding/csv writes them.
	var plain bytes.Buffer
	w := csv.NewWriter(&plain)
	require.NoError(t, w.Write(attacks[:6]))
	w.Flush()
	rows, err := csv.NewReader(&plain).ReadAll()
	require.NoError(t, err)
	require.NotEmpty(t, formulas(rows))
}

func FuzzLine(f *testing.F) {
	for _, text := range attacks {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		for _, format := range formats {
			checkLine(t, format, text)
		}
	})
}

// What the schema of OCSF 1.3 requires of the two classes, and of the objects in
// them; of at-least-one constraints one suffices.
var required = map[float64][]string{
	0:    {"activity_id", "category_uid", "class_uid", "metadata.product.vendor_name", "metadata.product.name", "metadata.version", "severity_id", "time", "type_uid"},
	3002: {"user.uid|user.name|user.account", "service.name|dst_endpoint.ip"},
	6003: {"actor.user.uid|actor.session.uid", "api.operation", "src_endpoint.ip|src_endpoint.uid|src_endpoint.name"},
}

// absent are the attributes that an event lacks.
func absent(event map[string]any) (missing []string) {
	class, _ := event["class_uid"].(float64)
	if required[class] == nil {
		return []string{"class_uid"}
	}
next:
	for _, path := range append(append([]string{}, required[0]...), required[class]...) {
		for choice := range strings.SplitSeq(path, "|") {
			var at any = event
			for key := range strings.SplitSeq(choice, ".") {
				object, _ := at.(map[string]any)
				at = object[key]
			}
			if at != nil && at != "" {
				continue next
			}
		}
		missing = append(missing, path)
	}
	return missing
}

func TestOCSFHasWhatTheSchemaRequires(t *testing.T) {
	records := samples()
	for _, action := range []crmguard.Action{"view", "list", "search", "reveal", "unmask", "call", "create", "update", "delete", "import", "export", "access", "sign-in", "grant", "revoke", "erase", "configure", "own"} {
		for outcome := crmguard.Attempted; outcome <= crmguard.Undecided; outcome++ {
			r := samples()[0]
			r.Event.Action, r.Event.Outcome = action, outcome
			bare := r
			bare.Event.Subject = crmguard.Subject{}
			records = append(records, r, bare)
		}
	}
	for i := range records {
		var event map[string]any
		require.NoError(t, json.Unmarshal(lines(t, auditout.OCSF, records[i]), &event))
		require.Empty(t, absent(event), "%v", event)
		require.InDelta(t, event["class_uid"].(float64)*100+event["activity_id"].(float64), event["type_uid"], 0)
		require.InDelta(t, float64(int(event["class_uid"].(float64)/1000)), event["category_uid"], 0)
		if event["activity_id"].(float64) == 99 {
			require.NotEmpty(t, event["activity_name"])
		}
		if records[i].Event.Action == crmguard.SignIn {
			require.InDelta(t, 3002, event["class_uid"], 0)
		}
		// The planted fault: an attribute that is left out is noticed.
		for _, key := range []string{"activity_id", "category_uid", "class_uid", "metadata", "severity_id", "time", "type_uid", "actor", "api", "src_endpoint", "user", "service"} {
			less := maps.Clone(event)
			delete(less, key)
			if _, there := event[key]; there && (key != "src_endpoint" || event["class_uid"].(float64) == 6003) {
				require.NotEmpty(t, absent(less), key)
			}
		}
	}
}

func TestSlog(t *testing.T) {
	var out bytes.Buffer
	sink := auditout.NewSlog(slog.NewJSONHandler(&out, nil))
	require.NoError(t, sink.Send(t.Context(), samples()))
	text := out.String()
	require.Equal(t, 3, strings.Count(text, "\n"))
	require.Contains(t, text, `"level":"INFO","msg":"audit","seq":7,"tenant":"acme","event":"0193-7","subject":"anna","action":"update","kind":"contacts","record":"17"`)
	require.Contains(t, text, `"level":"WARN","msg":"audit","seq":8`)
	for _, personal := range []string{"192.0.2.7", "d-1", "s-1", "client-17", "sealed-bytes"} {
		require.NotContains(t, text, personal)
	}
	out.Reset()
	read := samples()[0]
	read.Event.Action, read.Event.Fields = audit.ActRead, []string{"addr=203.0.113.9", "kind=contacts"}
	require.NoError(t, sink.Send(t.Context(), []auditout.Record{read}))
	require.Contains(t, out.String(), `"fields":["addr","kind=contacts"]`, "an address that somebody asked for is one, too")
	require.Equal(t, "addr=203.0.113.9", read.Event.Fields[0])
	out.Reset()
	sink = auditout.NewSlog(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelWarn}))
	for _, attack := range attacks {
		require.NoError(t, sink.Send(t.Context(), []auditout.Record{nasty(attack)}))
	}
	require.Empty(t, out.String())
	require.Error(t, auditout.NewSlog(failingHandler{}).Send(t.Context(), samples()))
}

type failingHandler struct{ slog.Handler }

func (failingHandler) Enabled(context.Context, slog.Level) bool { return true }

func (failingHandler) Handle(context.Context, slog.Record) error { return os.ErrClosed }

func TestFormatNames(t *testing.T) {
	for name, f := range map[string]auditout.Format{"jsonl": auditout.JSON, "ocsf": auditout.OCSF, "csv": auditout.CSV} {
		got, err := auditout.ParseFormat(name)
		require.NoError(t, err)
		require.Equal(t, f, got)
		require.Equal(t, name, f.String())
	}
	for _, name := range []string{"", "JSON", "xml"} {
		_, err := auditout.ParseFormat(name)
		require.ErrorContains(t, err, "want jsonl, ocsf, csv")
	}
	require.Equal(t, "format 0", auditout.Format(0).String())
	require.Equal(t, "format 9", auditout.Format(9).String())
}
