package audit_test

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/mod/sumdb/note"
	"pgregory.net/rapid"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/internal/journaltest"
)

// life is a log, and beside it the list of what it should hold.
type life struct {
	slow
	test     context.Context
	fault    fault
	signer   note.Signer
	verifier note.Verifier
	keys     *journaltest.Sealer
	memory   *audit.Memory
	dir      string // of the file; empty: it is in memory
	file     *audit.File
	log      *audit.Log
	now      time.Time
	cursors  map[string]*cursor
	live     chan []int64 // what somebody saw who followed all while the log was open
	since    int          // where that began
}

// cursor is how far a reader has come.
type cursor struct {
	query *audit.Query // nil: everything
	after int64
}

func begin(r *rapid.T, t testing.TB, f fault) *life {
	l := &life{test: t.Context(), fault: f, keys: journaltest.NewSealer(), memory: audit.NewMemory(), now: noon.AddDate(0, 0, 1)}
	l.slow.erased, l.deaf = make(map[[2]string]bool), f.deaf
	l.signer, l.verifier = journaltest.Signer(t)
	if rapid.Bool().Draw(r, "file") {
		dir, err := os.MkdirTemp(t.TempDir(), "")
		require.NoError(r, err)
		l.dir = dir
	}
	l.cursors = map[string]*cursor{
		"all": {nil, -1}, "acme": {&audit.Query{Tenant: "acme"}, -1},
		"anna": {&audit.Query{Tenant: "acme", Subject: "anna"}, -1}, "client": {&audit.Query{Tenant: "acme", Client: "c1"}, -1},
	}
	l.open(r)
	l.many(r, 270) // so that there is something to remove
	l.night(r)
	return l
}

func (l *life) open(r *rapid.T) {
	var store audit.Store = l.memory
	var err error
	if l.dir != "" {
		l.file, err = audit.OpenFile(l.dir)
		require.NoError(r, err)
		audit.SetMaxSegment(l.file, 30_000)
		audit.SetRoom(l.file, 5_000)
		audit.SetSync(l.file, func(*os.File) error { return nil })
		store = l.file
	}
	if l.fault.store != nil {
		store = l.fault.store(store)
	}
	l.log, err = audit.New(l.test, store, l.keys, l.signer, l.verifier, &audit.Options{Clock: func() time.Time { return l.now }, Heartbeat: time.Hour})
	require.NoError(r, err)
	live, log, after := make(chan []int64, 1), l.log, int64(len(l.entries)-1)
	l.live, l.since = live, len(l.entries)
	go func() {
		var seen []int64
		for e, err := range log.FollowAll(l.test, after) {
			if err != nil {
				seen = append(seen, -1)
				break
			}
			seen = append(seen, e.Seq)
		}
		live <- seen
	}()
}

// close closes the log, of which all is signed then. Who followed it has seen all.
func (l *life) close(r require.TestingT) {
	require.NoError(r, l.log.Close())
	seen := <-l.live
	if l.file != nil {
		require.NoError(r, l.file.Close())
	}
	next := int64(l.since)
	for _, seq := range seen {
		if seq != next { // what was removed before the reader came to it
			require.LessOrEqual(r, seq, int64(l.pruned))
			require.Greater(r, seq, next)
		}
		next = seq + 1
	}
	require.EqualValues(r, len(l.entries), next)
}

// abandon closes what a life that ended early left open.
func (l *life) abandon() {
	_ = l.log.Close()
	if l.file != nil {
		_ = l.file.Close()
	}
}

func (l *life) reopen(r *rapid.T) {
	l.close(r)
	l.open(r)
}

// night passes. Nobody signs while the log is closed.
func (l *life) night(r *rapid.T) {
	l.close(r)
	l.now = l.now.AddDate(0, 0, 1)
	l.open(r)
}

func (l *life) many(r *rapid.T, n int) {
	for range n {
		l.record(r, plainEvent(len(l.entries)))
	}
}

// as is a context of somebody who looks after the journal of a tenant.
func (l *life) as(tenant string) context.Context { return crmguard.System(l.test, tenant, "model") }

func (l *life) add(tenant string, e crmguard.Event, hold *audit.Hold) {
	l.entries = append(l.entries, slowEntry{tenant: tenant, event: e, recorded: l.now, hold: hold})
}

func (l *life) record(r *rapid.T, e crmguard.Event) {
	err := l.log.Record(l.test, e)
	i := l.place(e.Subject.Tenant, &e)
	switch {
	case i < 0:
		require.NoError(r, err)
		l.add(e.Subject.Tenant, e, nil)
	case says(&l.entries[i].event, &e):
		require.NoError(r, err)
	default:
		_, conflict := errors.AsType[*audit.ConflictError](err)
		require.True(r, conflict, "%v", err)
	}
}

// shows compares an entry with the list, its private values too.
func (l *life) shows(r *rapid.T, e audit.Entry) {
	want := &l.entries[e.Seq]
	if want.event.ID != "" { // what the log makes by itself has an id that nobody chose
		require.Equal(r, want.event.ID, e.Event.ID)
		require.Equal(r, want.event.Resource, e.Event.Resource)
	}
	require.Equal(r, want.event.Action, e.Event.Action)
	require.True(r, want.recorded.Equal(e.Recorded))
	values, err := l.log.OpenPrivate(l.as(e.Tenant), e)
	require.Len(r, values, len(want.event.Private))
	gone := false
	for i, p := range want.event.Private {
		if l.erased[[2]string{want.tenant, p.Client}] {
			gone = true
			require.Nil(r, values[i].Value)
		} else {
			require.Equal(r, p.Value, values[i].Value)
		}
	}
	require.Equal(r, gone, errors.Is(err, crmguard.ErrErased), "%v", err)
}

func (l *life) find(r *rapid.T) {
	q := randomQuery(r)
	if n := len(l.entries); n > 0 && rapid.Bool().Draw(r, "q page") {
		q.Before = int64(rapid.IntRange(0, n).Draw(r, "q before"))
	}
	want := l.slow.find(q)
	var got []int64
	for {
		page, err := l.log.Find(l.test, q)
		require.NoError(r, err)
		for _, e := range page.Entries {
			got = append(got, e.Seq)
			l.shows(r, e)
		}
		if page.Next == 0 {
			break
		}
		q.Before = page.Next
	}
	require.Equal(r, want, got, "%+v", q)
}

// follow reads on from where a reader stopped, as far as it likes.
func (l *life) follow(r *rapid.T) {
	name := rapid.SampledFrom([]string{"all", "acme", "anna", "client"}).Draw(r, "cursor")
	c := l.cursors[name]
	tail := l.log.FollowAll(l.test, c.after)
	if c.query != nil && rapid.Bool().Draw(r, "watch") {
		ctx := l.as(c.query.Tenant)
		var err error
		tail, err = l.log.Watch(ctx, *c.query, c.after)
		require.NoError(r, err)
		subject, _ := crmguard.SubjectFrom(ctx)
		l.add(c.query.Tenant, crmguard.Event{
			Subject: subject, Action: audit.ActRead, Time: l.now, Outcome: crmguard.Done, Resource: crmguard.Resource{Tenant: c.query.Tenant, Kind: "journal"},
		}, nil)
	} else if c.query != nil {
		tail = l.log.Follow(l.test, *c.query, c.after)
	}
	want := l.after(c.query, c.after)
	want = want[:rapid.IntRange(0, len(want)).Draw(r, "n")]
	if len(want) == 0 {
		return
	}
	var got []int64
	for e, err := range tail {
		require.NoError(r, err)
		l.shows(r, e)
		got, c.after = append(got, e.Seq), e.Seq
		if len(got) == len(want) {
			break
		}
	}
	require.Equal(r, want, got, name)
}

// hold places or releases one of a few holds.
func (l *life) hold(r *rapid.T) {
	hold := rapid.SampledFrom([]audit.Hold{
		{ID: "client", Tenant: "acme", Client: "c2"}, {ID: "person", Tenant: "acme", Subject: "boris"},
		{ID: "record", Tenant: "acme", Kind: "deals", Record: "2"}, {ID: "record", Tenant: "other", Kind: "deals", Record: "2"}, {ID: "all", Tenant: "other"},
	}).Draw(r, "hold")
	placed := func(act crmguard.Action) bool {
		for _, e := range l.entries[l.pruned:] {
			if e.hold != nil && *e.hold == hold && e.event.Action == act {
				return true
			}
		}
		return false
	}
	ctx := l.as(hold.Tenant)
	act, done := audit.ActHold, placed(audit.ActHold)
	var err error
	if rapid.Bool().Draw(r, "release") {
		act = audit.ActRelease
		err = l.log.Release(ctx, hold.ID, "")
		if !done {
			require.Error(r, err, "there is none")
			return
		}
		done = placed(audit.ActRelease)
	} else {
		err = l.log.Hold(ctx, hold)
		if placed(audit.ActRelease) {
			require.Error(r, err, "it was released")
			return
		}
	}
	require.NoError(r, err)
	if !done {
		l.add("own", crmguard.Event{Action: act}, &hold)
	}
	holds, err := l.log.Holds(l.test)
	require.NoError(r, err)
	require.ElementsMatch(r, l.holds(), holds)
}

func (l *life) prune(r *rapid.T) {
	l.reopen(r) // so that all is signed
	before := l.now.AddDate(0, 0, -rapid.IntRange(0, 2).Draw(r, "days"))
	to, heldAt := l.prunable(before)
	removed, err := l.log.Prune(l.as("acme"), before)
	require.NoError(r, err)
	require.EqualValues(r, l.pruned, removed.From)
	require.EqualValues(r, to, removed.To)
	if require.Equal(r, heldAt >= 0, removed.Held != nil); heldAt >= 0 {
		require.EqualValues(r, heldAt, removed.HeldAt)
	}
	if to == l.pruned {
		return
	}
	l.add("own", crmguard.Event{Action: audit.ActPrune}, nil)
	l.pruned = to
	l.add("own", crmguard.Event{Action: audit.ActPrune}, nil)
}

func (l *life) verify(r *rapid.T) {
	report, err := l.log.Verify(l.test, l.verifier, nil)
	require.NoError(r, err)
	require.True(r, report.OK(), report.Detail)
	require.EqualValues(r, len(l.entries), report.Entries)
	require.EqualValues(r, l.pruned, report.Pruned)
}

// live tries everything that becomes of a log, in any order.
func live(r *rapid.T, t testing.TB, f fault) {
	l := begin(r, t, f)
	defer l.abandon()
	r.Repeat(map[string]func(*rapid.T){
		"record": func(r *rapid.T) {
			for range rapid.IntRange(1, 12).Draw(r, "n") {
				l.record(r, randomEvent(r))
			}
		},
		"many": func(r *rapid.T) { l.many(r, rapid.IntRange(50, 200).Draw(r, "n")) },
		"erase": func(r *rapid.T) {
			tenant, client := rapid.SampledFrom([]string{"acme", "other"}).Draw(r, "tenant"), rapid.SampledFrom([]string{"c1", "c2"}).Draw(r, "client")
			if !f.remembers {
				l.keys.Erase(tenant, client)
			}
			l.erased[[2]string{tenant, client}] = true
		},
		"find": func(r *rapid.T) {
			for range 5 {
				l.find(r)
			}
		},
		"follow":  l.follow,
		"hold":    l.hold,
		"prune":   l.prune,
		"night":   l.night,
		"restart": l.reopen,
		"verify":  l.verify,
	})
	l.close(r)
}

// Random events, queries, readers, holds, erasures, retention and restarts against a
// list that is searched from end to end.
func TestModel(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) { live(r, t, fault{}) })
}
