package audit_test

import (
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/audit"
)

// table returns the rows of the table in docs/design.md that begins with this cell.
func table(t *testing.T, first string) (head []string, rows [][]string) {
	t.Helper()
	text, err := os.ReadFile("../docs/design.md")
	require.NoError(t, err)
	_, after, ok := strings.Cut(string(text), "\n| "+first+" |")
	require.True(t, ok, "docs/design.md has no table %q", first)
	for i, line := range strings.Split("| "+first+" |"+after, "\n") {
		if !strings.HasPrefix(line, "|") {
			break
		}
		var cells []string
		for cell := range strings.SplitSeq(strings.Trim(line, "|"), "|") {
			cells = append(cells, strings.TrimSpace(cell))
		}
		switch i {
		case 0:
			head = cells
		case 1: // dashes
		default:
			rows = append(rows, cells)
		}
	}
	require.NotEmpty(t, rows)
	return head, rows
}

// Each action is of the class that the document says.
func TestDocumentedClasses(t *testing.T) {
	_, rows := table(t, "actions")
	seen := map[string]bool{}
	for _, row := range rows {
		for name := range strings.SplitSeq(row[0], ", ") {
			seen[name] = true
			if name == "any other" {
				name = "something that a host made up"
			}
			require.Equal(t, row[1], audit.PolicyOf(crmguard.Event{Action: crmguard.Action(name)}).String(), name)
		}
	}
	for _, a := range []crmguard.Action{
		crmguard.View, crmguard.List, crmguard.Search, crmguard.Reveal, crmguard.Unmask, crmguard.Call, crmguard.Create, crmguard.Update,
		crmguard.Delete, crmguard.Import, crmguard.Export, crmguard.Access, crmguard.SignIn, crmguard.Grant, crmguard.Revoke, crmguard.Erase, crmguard.Configure, "any other",
	} {
		require.True(t, seen[string(a)], "the document leaves %s out", a)
	}
	require.Equal(t, "block", audit.Policy(77).String())
}

// outages put the rig of a test into the state of a row.
var outages = map[string]func(t *testing.T, r *rig){
	"nothing":                           func(*testing.T, *rig) {},
	"store fails":                       storeFails,
	"store hangs":                       func(t *testing.T, r *rig) { r.goOn = r.store.hang(t) },
	"log closed":                        func(t *testing.T, r *rig) { require.NoError(t, r.log.Close()) },
	"keys fail":                         keysFail,
	"keys fail, private values":         keysFail,
	"keys hang, private values":         func(t *testing.T, r *rig) { r.keys.hang(t) },
	"store and keys fail":               func(t *testing.T, r *rig) { storeFails(t, r); keysFail(t, r) },
	"store fails, spool full":           storeFails,
	"store fails, spool's disk full":    func(t *testing.T, r *rig) { storeFails(t, r); diskFull(r) },
	"store fails, spool's flush fails":  func(t *testing.T, r *rig) { storeFails(t, r); flushFails(r) },
	"spool's flush fails":               func(_ *testing.T, r *rig) { flushFails(r) },
	"a transaction of the host is open": func(*testing.T, *rig) {},
}

func storeFails(_ *testing.T, r *rig) { r.store.set(errDown, nil) }
func keysFail(_ *testing.T, r *rig)   { r.keys.set(errors.New("the KMS is down"), nil) }

func diskFull(r *rig) {
	full := error(syscall.ENOSPC)
	r.disk.Store(&full)
}

func flushFails(r *rig) {
	broken := error(syscall.EIO)
	r.flush.Store(&broken)
}

// Each class of action does, with each part down, what the document says.
func TestDocumentedOutages(t *testing.T) {
	head, rows := table(t, "part of the journal that is down")
	require.Len(t, rows, len(outages))
	for _, row := range rows {
		for i, want := range row[1:] {
			t.Run(row[0]+"/"+head[i+1], func(t *testing.T) {
				require.Equal(t, want, tried(t, row[0], head[i+1], nil))
			})
		}
	}
}

// tried records one event of a class while a part is down, and says what became of it.
func tried(t *testing.T, part, class string, policy func(crmguard.Event) audit.Policy) string {
	t.Helper()
	o := audit.FailoverOptions{Policy: policy}
	if strings.HasSuffix(part, "spool full") {
		o.SpoolLimit = 100
	}
	r := newRig(t, o)
	e := act(map[string]crmguard.Action{
		"block": crmguard.Export, "end of a begun act": crmguard.Export, "spool": crmguard.SignIn, "drop": crmguard.View,
	}[class], "e")
	require.NotEmpty(t, e.Action, "a class that is not known: %s", class)
	if class == "end of a begun act" {
		begun := e
		begun.Outcome = crmguard.Attempted
		require.NoError(t, r.Record(t.Context(), begun))
	}
	if strings.HasSuffix(part, "private values") {
		e = private(e)
	}
	require.Contains(t, outages, part)
	outages[part](t, r)
	ctx := t.Context()
	if part == "a transaction of the host is open" {
		ctx = audit.WithTx(ctx)
	}
	if err := r.Record(ctx, e); err != nil {
		require.Zero(t, r.Status().Dropped+r.Status().Spooled)
		return "refused"
	}
	events := r.events(t)
	for _, there := range events {
		if there.ID == "e" && there.Outcome == crmguard.Done {
			return "recorded"
		}
		if gap, ok := audit.GapOf(there); ok && gap.Count == 1 {
			return "counted"
		}
	}
	if r.Status().Dropped == 1 {
		return "counted"
	}
	// What was counted may be in the spool, too, as a gap: what comes out tells.
	if part == "log closed" {
		require.NoError(t, r.Failover.Close())
		r.reopenLog(t)
		r.open(t, audit.FailoverOptions{})
	}
	mended(r)
	r.until(t, func() bool { return r.Status().OK() })
	for _, there := range r.events(t) {
		if there.ID == "e" && there.Outcome == crmguard.Done {
			return "spooled"
		}
		if gap, ok := audit.GapOf(there); ok && gap.Count == 1 {
			return "counted"
		}
	}
	return "lost"
}

func mended(r *rig) {
	if r.goOn != nil {
		r.goOn()
	}
	r.store.set(nil, nil)
	r.keys.set(nil, nil)
}

// Planted faults: recorders with another policy do not do what the document says.
func TestDocumentedOutagesAreChecked(t *testing.T) {
	_, rows := table(t, "part of the journal that is down")
	for _, row := range rows {
		if row[0] == "store fails" {
			always := func(p audit.Policy) func(crmguard.Event) audit.Policy {
				return func(crmguard.Event) audit.Policy { return p }
			}
			require.NotEqual(t, row[1], tried(t, row[0], "block", always(audit.Spool)))
			require.NotEqual(t, row[3], tried(t, row[0], "spool", always(audit.DropCounted)))
			require.NotEqual(t, row[4], tried(t, row[0], "drop", always(audit.Block)))
			return
		}
	}
	t.Fatal("no such row")
}
