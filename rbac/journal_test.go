package rbac

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/crmguardtest"
)

// Who uses a file has its changes in the journal as those of a store with versions are:
// before and after each, and what somebody edited when it is read.
func TestChangesOfAFileAreInTheJournal(t *testing.T) {
	const text = `
p, role:owner, acme, contacts, view, all, allow
p, role:seller, acme, contacts, view, own, allow
p, role:seller, globex, contacts, view, own, allow
g, u:oleg, role:owner, acme
p, u:anna, acme, contacts, export, own, allow
`
	journal := crmguardtest.NewRecorder()
	o := quiet()
	o.Journal = journal
	path := policyFile(t, text)
	e, err := FromCSV(t.Context(), path, o)
	require.NoError(t, err)
	require.Empty(t, journal.Events(), "what is there at the start was not changed")
	seen := 0
	next := func() []crmguard.Event {
		events := journal.Events()[seen:]
		seen += len(events)
		return events
	}
	private := func(event crmguard.Event) string {
		var b strings.Builder
		for _, p := range event.Private {
			b.WriteString(p.Name + ": " + string(p.Value) + "|")
		}
		return b.String()
	}
	oleg := as(t.Context(), person("oleg"))

	before := e.Version()
	require.NoError(t, e.GrantRole(WithReason(oleg, "new here"), "acme", "anna", "seller"))
	events := next()
	require.Len(t, events, 2)
	require.Equal(t, []any{crmguard.Grant, crmguard.Attempted, "oleg", "grant", before, 1}, []any{events[0].Action, events[0].Outcome, events[0].Subject.ID, events[0].Reason, events[0].Policy, events[0].Count})
	require.Equal(t, crmguard.Resource{Tenant: "acme", Kind: "policy"}, events[0].Resource)
	require.Equal(t, "reason: new here|added: g, u:anna, role:seller, acme\n|", private(events[0]))
	require.Equal(t, []any{events[0].ID, crmguard.Done, e.Version(), ""}, []any{events[1].ID, events[1].Outcome, events[1].Policy, private(events[1])})

	requireDenied(t, e.GrantRole(as(t.Context(), person("anna")), "acme", "boris", "owner"), "lacks-right")
	require.Empty(t, next(), "whoever asked for it tells of a refusal")

	_, err = e.Revoke(t.Context(), "acme", "anna")
	require.NoError(t, err)
	events = next()
	require.Len(t, events, 2)
	require.Equal(t, []any{crmguard.Revoke, "system:policy", 2}, []any{events[0].Action, events[0].Subject.ID, events[0].Count})
	require.Equal(t, "removed: g, u:anna, role:seller, acme\np, u:anna, acme, contacts, export, own, allow\n|", private(events[0]))

	// Deputies.
	require.NoError(t, e.Deputize(crmguard.System(t.Context(), "acme", "hr"), "acme", "vera", "oleg", time.Unix(0, 0), time.Unix(1<<34, 0)))
	require.NoError(t, e.EndDeputy(crmguard.System(t.Context(), "acme", "hr"), "acme", "vera", "oleg"))
	events = next()
	require.Len(t, events, 4)
	require.Equal(t, []any{crmguard.Grant, "deputize", crmguard.Revoke, "revoke"}, []any{events[0].Action, events[0].Reason, events[2].Action, events[2].Reason})
	require.Contains(t, private(events[2]), "removed: p3, u:vera, u:oleg, acme, 1970-01-01T00:00:00Z")

	// Somebody edits the file.
	require.NoError(t, e.Reload(oleg))
	require.Empty(t, next())
	require.NoError(t, os.WriteFile(path, []byte(strings.Replace(text, "acme, contacts, view, own", "acme, contacts, view, all", 1)+"g, u:olga, role:seller, globex\n"), 0o600))
	require.NoError(t, e.Reload(oleg))
	told := map[string]string{}
	for _, event := range next() {
		require.Equal(t, []any{crmguard.Done, "system:policy", "loaded", e.Version()}, []any{event.Outcome, event.Subject.ID, event.Reason, event.Policy})
		told[event.Resource.Tenant] = string(event.Action) + " " + private(event)
	}
	require.Equal(t, map[string]string{
		"acme":   "configure added: p, u:anna, acme, contacts, export, own, allow\np, role:seller, acme, contacts, view, all, allow\n|removed: p, role:seller, acme, contacts, view, own, allow\n|",
		"globex": "grant added: g, u:olga, role:seller, globex\n|",
	}, told)

	// A jammed journal stops what gives and nothing else.
	journal.Fail(errors.New("jammed"))
	require.ErrorContains(t, e.GrantRole(oleg, "acme", "boris", "seller"), "jammed")
	after, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NotContains(t, string(after), "boris")
	requireDenied(t, e.Check(t.Context(), person("boris"), crmguard.View, card), "no-rule")
	_, err = e.Revoke(oleg, "acme", "oleg")
	require.NoError(t, err)
	requireDenied(t, e.Check(t.Context(), person("oleg"), crmguard.View, card), "no-rule")
	journal.Fail(nil)

	// What the file does not take has failed.
	require.NoError(t, os.Remove(path))
	require.NoError(t, os.Mkdir(path, 0o700))
	require.Error(t, e.GrantRole(crmguard.System(t.Context(), "acme", "test"), "acme", "boris", "seller"))
	events = next()
	require.Equal(t, []any{crmguard.Failed, "error", e.Version()}, []any{events[1].Outcome, events[1].Reason, events[1].Policy})
}

// To take away a role that denies is to give, so it waits for the journal as a grant does.
func TestARoleThatDeniesIsNotTakenUnrecorded(t *testing.T) {
	journal := crmguardtest.NewRecorder()
	o := quiet()
	o.Journal = journal
	e, err := FromCSV(t.Context(), policyFile(t, `
p, u:dora, acme, contacts, export, all, allow
p, role:intern, acme, contacts, export, all, deny
g, role:trainee, role:intern, acme
g, u:dora, role:trainee, acme
`), o)
	require.NoError(t, err)
	export := func() error {
		return e.Check(t.Context(), person("dora"), crmguard.Export, crmguard.Resource{Tenant: "acme", Kind: "contacts"})
	}
	job := crmguard.System(t.Context(), "acme", "test")
	journal.Fail(errors.New("jammed"))
	require.ErrorContains(t, e.RevokeRole(job, "acme", "dora", "trainee"), "jammed")
	requireDenied(t, export(), "deny-rule")
	journal.Fail(nil)
	require.NoError(t, e.RevokeRole(job, "acme", "dora", "trainee"))
	require.NoError(t, export())
	require.Len(t, journal.Events(), 2)
}
