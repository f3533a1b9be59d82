// Package audittest checks that a store keeps what package audit asks of it.
//
//	func TestStore(t *testing.T) {
//		audittest.Run(t, func(t *testing.T) audit.Store { return newStore(t) })
//	}
package audittest

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/internal/journaltest"
	"github.com/crmguard/crmguard/internal/racetest"
)

// Run tests a store. Open returns an empty one; it must stay usable until the end
// of the test that it is opened for.
func Run(t *testing.T, open func(t *testing.T) audit.Store) {
	for _, d := range storeDuties {
		t.Run(d.name, func(t *testing.T) { d.check(t, t.Context(), open(t)) })
	}
}

type storeDuty struct {
	name  string
	check func(t require.TestingT, ctx context.Context, s audit.Store)
}

var storeDuties = []storeDuty{
	{"an empty log has an id and nothing else", emptyLog},
	{"rows are read back as they were appended", readsBack},
	{"an append that does not continue the head is refused whole", compareAndSwap},
	{"of many appends at the same place one succeeds", oneWins},
	{"an event and outcome are kept once per tenant", keptOnce},
	{"find answers newest first, page by page", findsPages},
	{"checkpoints are kept once a size, in order", keepsCheckpoints},
	{"what is returned is the caller's", returnsCopies},
	{"what the newest batch with rows left is there", keepsTail},
	{"pseudonyms find rows until they are dropped", findsPseudonyms},
	{"logs on the store verify", logsVerify},
	{"old rows are removed and what is left stands", prunes},
}

// rows returns valid rows of some log, and where it stood before row i.
func rows(t require.TestingT, ctx context.Context, n int) []audit.Row {
	m := audit.NewMemory()
	record(t, ctx, m, n)
	rows, err := m.Read(ctx, 0, n)
	require.NoError(t, err)
	return rows
}

func record(t require.TestingT, ctx context.Context, s audit.Store, n int) *journaltest.Sealer {
	signer, verifier := journaltest.Signer(t)
	sealer := journaltest.NewSealer()
	log, err := audit.New(ctx, s, sealer, signer, verifier, nil)
	require.NoError(t, err)
	for i := range n {
		require.NoError(t, log.Record(ctx, journaltest.Event(i)))
	}
	require.NoError(t, log.Close())
	report, err := audit.VerifyStore(ctx, s, verifier, nil)
	require.NoError(t, err)
	require.Equal(t, audit.Unanchored, report.Verdict, report.Detail)
	require.EqualValues(t, n, report.Entries)
	require.EqualValues(t, n, report.Signed)
	return sealer
}

func head(t require.TestingT, ctx context.Context, s audit.Store) audit.Head {
	h, err := s.Head(ctx)
	require.NoError(t, err)
	return h
}

func add(t require.TestingT, ctx context.Context, s audit.Store, rows ...audit.Row) {
	require.NoError(t, s.Append(ctx, audit.Batch{After: head(t, ctx, s), Rows: rows}))
}

func emptyLog(t require.TestingT, ctx context.Context, s audit.Store) {
	h := head(t, ctx, s)
	require.NotZero(t, h.Log, "the id is random")
	require.Equal(t, audit.Head{Log: h.Log}, h)
	require.Equal(t, h, head(t, ctx, s), "the id stays")
	got, err := s.Read(ctx, 0, 10)
	require.NoError(t, err)
	require.Empty(t, got)
	checkpoints, err := s.Checkpoints(ctx, -1, 10)
	require.NoError(t, err)
	require.Empty(t, checkpoints)
	found, err := s.Find(ctx, audit.Query{Tenant: "acme", Limit: 10})
	require.NoError(t, err)
	require.Empty(t, found)
}

func readsBack(t require.TestingT, ctx context.Context, s audit.Store) {
	all := rows(t, ctx, 150)
	add(t, ctx, s, all[:1]...)
	add(t, ctx, s, all[1:]...)
	require.Equal(t, audit.Head{Log: head(t, ctx, s).Log, Size: 150, Last: all[149].Hashes[0]}, head(t, ctx, s))
	for _, from := range []int64{0, 1, 149, 150, 1000} {
		got, err := s.Read(ctx, from, 40)
		require.NoError(t, err)
		want := all[min(from, 150):min(from+40, 150)]
		require.Len(t, got, len(want), "from %d", from)
		for i := range want {
			require.Equal(t, want[i], got[i])
		}
	}
}

func compareAndSwap(t require.TestingT, ctx context.Context, s audit.Store) {
	all := rows(t, ctx, 6)
	empty := head(t, ctx, s)
	add(t, ctx, s, all[:3]...)
	after := head(t, ctx, s)
	wrong := after
	wrong.Last[0] ^= 1
	foreign := after
	foreign.Log[0] ^= 1
	for name, b := range map[string]audit.Batch{
		"behind":          {After: empty, Rows: all[:1]},
		"behind, later":   {After: empty, Rows: all[3:4]},
		"other chain":     {After: wrong, Rows: all[3:4]},
		"other log":       {After: foreign, Rows: all[3:4]},
		"ahead":           {After: audit.Head{Log: after.Log, Size: 4, Last: all[3].Hashes[0]}, Rows: all[4:5]},
		"checkpoint also": {After: wrong, Rows: all[3:4], Checkpoint: &audit.Checkpoint{Size: 4, Note: []byte("x")}},
	} {
		require.ErrorIs(t, s.Append(ctx, b), audit.ErrMoved, name)
		require.Equal(t, after, head(t, ctx, s), name)
	}
	checkpoints, err := s.Checkpoints(ctx, -1, 10)
	require.NoError(t, err)
	require.Empty(t, checkpoints, "nothing of a refused batch is kept")
	add(t, ctx, s, all[3:]...)
}

func oneWins(t require.TestingT, ctx context.Context, s audit.Store) {
	at := head(t, ctx, s)
	all := rows(t, ctx, racetest.Racers)
	require.Equal(t, 1, racetest.Winners(t, func(i int) (bool, error) {
		row := all[i] // each wants its own event to be the first entry
		row.Seq, row.Hashes = 0, row.Hashes[:1]
		err := s.Append(ctx, audit.Batch{After: at, Rows: []audit.Row{row}})
		if errors.Is(err, audit.ErrMoved) {
			return false, nil
		}
		return err == nil, err
	}))
	require.EqualValues(t, 1, head(t, ctx, s).Size)
}

func keptOnce(t require.TestingT, ctx context.Context, s audit.Store) {
	all := rows(t, ctx, 4)
	add(t, ctx, s, all[:2]...)
	again := all[2]
	again.Keys = all[0].Keys
	err := s.Append(ctx, audit.Batch{After: head(t, ctx, s), Rows: []audit.Row{again, all[3]}})
	dup, ok := errors.AsType[*audit.DuplicateError](err)
	require.True(t, ok, "%v", err)
	require.Equal(t, []int{0}, dup.Index)
	require.EqualValues(t, 2, head(t, ctx, s).Size, "nothing was appended")
	for _, change := range []func(*audit.Keys){
		func(k *audit.Keys) { k.Tenant = "other" },
		func(k *audit.Keys) { k.Outcome++ },
	} {
		row := all[head(t, ctx, s).Size]
		row.Keys = all[0].Keys
		change(&row.Keys)
		add(t, ctx, s, row)
	}
}

func findsPages(t require.TestingT, ctx context.Context, s audit.Store) {
	all := rows(t, ctx, 40)
	add(t, ctx, s, all...)
	k := all[7].Keys
	at := k.Time
	for name, c := range map[string]struct {
		q       audit.Query
		matches func(audit.Row) bool
	}{
		"tenant":  {audit.Query{}, func(audit.Row) bool { return true }},
		"event":   {audit.Query{Event: k.Event}, func(r audit.Row) bool { return r.Keys.Event == k.Event }},
		"subject": {audit.Query{Subject: k.Subject}, func(r audit.Row) bool { return r.Keys.Subject == k.Subject }},
		"record":  {audit.Query{Kind: k.Kind, Record: k.Record}, func(r audit.Row) bool { return r.Keys.Record == k.Record }},
		"client":  {audit.Query{Client: k.Clients[0]}, func(r audit.Row) bool { return slices.Contains(r.Keys.Clients, k.Clients[0]) }},
		"action":  {audit.Query{Action: k.Action, Outcome: k.Outcome}, func(r audit.Row) bool { return r.Keys.Action == k.Action }},
		"address": {audit.Query{Addr: netip.MustParseAddr(k.Addr)}, func(r audit.Row) bool { return r.Keys.Addr == k.Addr }},
		"nothing": {audit.Query{Outcome: k.Outcome + 1}, func(audit.Row) bool { return false }},
		"time":    {audit.Query{From: micros(at), To: micros(at + 5e6)}, func(r audit.Row) bool { return r.Keys.Time >= at && r.Keys.Time < at+5e6 }},
		"several": {audit.Query{Client: k.Clients[0], Action: k.Action, Kind: k.Kind}, func(r audit.Row) bool {
			return slices.Contains(r.Keys.Clients, k.Clients[0]) && r.Keys.Action == k.Action
		}},
	} {
		var want, got []int64
		for _, r := range slices.Backward(all) {
			if c.matches(r) {
				want = append(want, r.Seq)
			}
		}
		c.q.Tenant, c.q.Limit = "acme", 3
		for {
			page, err := s.Find(ctx, c.q)
			require.NoError(t, err)
			for _, r := range page {
				require.True(t, len(got) == 0 || r.Seq < got[len(got)-1], "%s: entry %d after %v", name, r.Seq, got)
				require.Equal(t, all[r.Seq].Record, r.Record, name)
				got = append(got, r.Seq)
			}
			if len(page) < c.q.Limit || page[len(page)-1].Seq == 0 {
				break
			}
			c.q.Before = page[len(page)-1].Seq
		}
		require.Equal(t, want, got, name)
		c.q.Tenant, c.q.Before = "other", 0
		page, err := s.Find(ctx, c.q)
		require.NoError(t, err)
		require.Empty(t, page, "%s of another tenant", name)
	}
}

func keepsCheckpoints(t require.TestingT, ctx context.Context, s audit.Store) {
	put := func(size int64, text string) {
		c := audit.Checkpoint{Size: size, Note: []byte(text)}
		require.NoError(t, s.Append(ctx, audit.Batch{After: head(t, ctx, s), Checkpoint: &c}))
	}
	put(0, "zero")
	put(7, "seven")
	put(3, "three")
	put(7, "another seven")
	for _, c := range []struct {
		after int64
		n     int
		want  []string
	}{
		{-1, 10, []string{"zero", "three", "seven"}}, {-1, 2, []string{"zero", "three"}}, {0, 10, []string{"three", "seven"}},
		{3, 10, []string{"seven"}}, {4, 10, []string{"seven"}}, {7, 10, nil},
	} {
		got, err := s.Checkpoints(ctx, c.after, c.n)
		require.NoError(t, err)
		var notes []string
		for _, g := range got {
			notes = append(notes, string(g.Note))
		}
		require.Equal(t, c.want, notes, "after %d", c.after)
	}
}

func returnsCopies(t require.TestingT, ctx context.Context, s audit.Store) {
	all := rows(t, ctx, 2)
	want := rows(t, ctx, 2)
	for i := range all { // sealed anew each time
		want[i].Record = slices.Clone(all[i].Record)
		want[i].Hashes = slices.Clone(all[i].Hashes)
	}
	spoil := func(list []audit.Row) {
		for i := range list {
			list[i].Seq = 99
			list[i].Record[40] ^= 1
			list[i].Hashes[0][0] ^= 1
			list[i].Keys.Clients[0] = "nobody"
		}
	}
	checkpoint := audit.Checkpoint{Size: 2, Note: []byte("note")}
	require.NoError(t, s.Append(ctx, audit.Batch{After: head(t, ctx, s), Rows: all, Checkpoint: &checkpoint}))
	spoil(all)
	checkpoint.Note[0] = 'x'
	for range 2 {
		got, err := s.Read(ctx, 0, 2)
		require.NoError(t, err)
		require.Equal(t, want, got)
		spoil(got)
		found, err := s.Find(ctx, audit.Query{Tenant: "acme", Limit: 2})
		require.NoError(t, err)
		require.Len(t, found, 2)
		require.Equal(t, want[1].Record, found[0].Record)
		for i := range found {
			found[i].Record[40] ^= 1
		}
		checkpoints, err := s.Checkpoints(ctx, -1, 2)
		require.NoError(t, err)
		require.Equal(t, []audit.Checkpoint{{Size: 2, Note: []byte("note")}}, checkpoints)
		checkpoints[0].Note[0] = 'x'
	}
}

func logsVerify(t require.TestingT, ctx context.Context, s audit.Store) { record(t, ctx, s, 20) }

func micros(n int64) time.Time { return time.UnixMicro(n).UTC() }
