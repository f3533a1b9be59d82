package audit

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/crmguard/crmguard"
)

// Who chains the inbox keeps account of each node's numbers: what its heartbeats said,
// and what came. The account changes in the step that takes entries out of the inbox,
// and only if nobody changed it meanwhile, so it holds for all processes that chain.

// Actions of entries that the log makes by itself about its inbox. Their Fields name
// the node, "node=" and 32 hexadecimal digits, and its numbers, "numbers=" and ranges
// like "3-5,9". Their Count is how many numbers these are.
const (
	// Missing is the action of an entry that says that others were removed before
	// they were chained: a node said that their transactions committed, and they are
	// neither in the inbox nor in the log.
	Missing crmguard.Action = "audit.missing"

	// InDoubt is the action of an entry that says that nobody knows whether there
	// were others: their node ended while transactions were open, or did not learn
	// how a commit ended.
	InDoubt crmguard.Action = "audit.in-doubt"
)

const (
	accountVersion = 1
	arrival        = 3 * time.Second // between two passes over the inbox; what is in neither is missing
	arrivalOdd     = time.Hour       // while something there does not open, which may be what is missed
	silence        = time.Minute     // of a node that has open transactions
	keepClosed     = time.Hour       // a node that ended
	keepSilent     = 25 * time.Hour  // a node that did not say so
)

// Account is what an [Inbox] keeps for those who chain it.
type Account struct {
	Version int64 // grows with each change; 0: there is none yet
	Body    []byte
}

// AccountChange replaces the account if it has the version After.
type AccountChange struct {
	After int64
	Account
}

// Ledger is what an [Inbox] offers besides, so that it is noticed if somebody removes
// entries before they are chained. Without it nothing is.
type Ledger interface {
	// Beat keeps a heartbeat durably, outside any transaction of the host's. One of
	// the same node and number is left alone.
	Beat(ctx context.Context, b Beat) error

	// Beats returns at most n heartbeats, those of each node in their order. It takes
	// none out: Append does.
	Beats(ctx context.Context, n int) ([]Beat, error)

	// Account returns what the last [Batch] that had an account left.
	Account(ctx context.Context) (Account, error)
}

// nodeAccount is what is known of one node.
type nodeAccount struct {
	beat      int64 // the last heartbeat
	next      int64 // it said that numbers below were issued
	seen      int64 // when it came, microseconds since 1970
	open      bool  // it said so
	closed    bool
	committed spans // as it said
	done      spans // chained, rolled back, or told to be missing
	doubtful  spans // nobody knows, and that was not told yet
	told      spans // nobody knows, and that was told
}

// missing were committed, and did not come.
func (a *nodeAccount) missing() spans { return a.committed.minus(a.done) }

// unsettled is what a node that is gone leaves: what it never said the end of.
func (a *nodeAccount) unsettled() spans {
	top := max(a.next, a.done.top())
	if top == 0 {
		return nil
	}
	return spans{{0, top}}.minus(a.done).minus(a.committed).minus(a.told)
}

// talks reports whether more heartbeats are to come, if the node lives.
func (a *nodeAccount) talks() bool {
	return !a.closed && (a.open || a.done.top() > a.next)
}

func (a *nodeAccount) take(p *pulseOf, now time.Time) {
	a.beat, a.next, a.open, a.closed, a.seen = p.n, max(a.next, p.next), p.open, p.closed, micros(now)
	a.committed.addAll(p.committed)
	a.done.addAll(p.void)
	a.doubtful.addAll(p.doubtful)
}

func (a *nodeAccount) clone() *nodeAccount {
	c := *a
	c.committed, c.done, c.doubtful, c.told = a.committed.clone(), a.done.clone(), a.doubtful.clone(), a.told.clone()
	return &c
}

// account is that of all nodes.
type account struct {
	version int64
	after   int64 // what the store calls it
	nodes   map[[16]byte]*nodeAccount
}

func (a *account) clone() *account {
	c := &account{version: a.version, after: a.after, nodes: make(map[[16]byte]*nodeAccount, len(a.nodes))}
	maps.Copy(c.nodes, a.nodes)
	return c
}

// of returns a copy of what is known of a node, for changing it.
func (a *account) of(node [16]byte) *nodeAccount {
	n := &nodeAccount{open: true} // until its heartbeat says something else
	if known := a.nodes[node]; known != nil {
		n = known.clone()
	}
	a.nodes[node] = n
	return n
}

func (a *account) order() [][16]byte {
	return slices.SortedFunc(maps.Keys(a.nodes), func(x, y [16]byte) int { return bytes.Compare(x[:], y[:]) })
}

func appendNumber(b []byte, n int64) []byte {
	return binary.BigEndian.AppendUint64(b, uint64(n)) //nolint:gosec // never negative
}

func flagByte(v bool) byte {
	if v {
		return 1
	}
	return 0
}

func (a *account) append(b []byte, log [16]byte) []byte {
	b = append(append(b, accountVersion), log[:]...)
	b = appendNumber(b, a.version)
	b = appendNumber(b, int64(len(a.nodes)))
	for _, id := range a.order() {
		n := a.nodes[id]
		b = append(b, id[:]...)
		b = appendNumber(appendNumber(appendNumber(b, n.beat), n.next), n.seen)
		b = append(b, flagByte(n.open), flagByte(n.closed))
		for _, s := range []spans{n.committed, n.done, n.doubtful, n.told} {
			b = appendSpans(b, s)
		}
	}
	return b
}

func parseAccount(log [16]byte, plain []byte) (*account, error) {
	c := cutter{b: plain}
	if c.bytes(1)[0] != accountVersion || c.id() != log {
		return nil, errMalformed
	}
	a := &account{version: c.number(), nodes: make(map[[16]byte]*nodeAccount)}
	for range c.number() {
		id := c.id()
		n := &nodeAccount{beat: c.number(), next: c.number(), seen: c.number()}
		flags := c.bytes(2)
		n.open, n.closed = flags[0] == 1, flags[1] == 1
		n.committed, n.done, n.doubtful, n.told = c.spans(), c.spans(), c.spans(), c.spans()
		if c.failed || a.nodes[id] != nil || flags[0] > 1 || flags[1] > 1 {
			return nil, errMalformed
		}
		a.nodes[id] = n
	}
	if c.failed || len(c.b) != 0 {
		return nil, errMalformed
	}
	a.after = a.version
	return a, nil
}

func accountPlace(log [16]byte) crmguard.Place {
	return crmguard.Place{Tenant: ownTenant(log), Kind: "audit-inbox", Record: "account", Field: "nodes"}
}

// sealAccount returns the next version of the account, as a change of the store.
func (c *committer) sealAccount(ctx context.Context, a *account) (*AccountChange, error) {
	a.version = max(a.version, c.seq.highest) + 1
	sealed, err := c.keys.Seal(c.itself(ctx), accountPlace(c.id), a.append(nil, c.id))
	if err != nil {
		return nil, fmt.Errorf("audit: seal the account of the inbox: %w", err)
	}
	return &AccountChange{After: a.after, Account: Account{Version: a.version, Body: sealed}}, nil
}

// loadAccount reads the account, if somebody else changed it. One that was removed,
// changed or put back is told of and begun anew.
func (c *committer) loadAccount(ctx context.Context) error {
	s := &c.seq
	stored, err := c.node.ledger.Account(ctx)
	if err != nil {
		return fmt.Errorf("audit: read the account of the inbox: %w", err)
	}
	if s.account != nil && stored.Version == s.account.after {
		return nil
	}
	a := &account{after: stored.Version, nodes: make(map[[16]byte]*nodeAccount)}
	s.tampered = nil
	wrong := "was removed"
	if stored.Version != 0 {
		plain, err := c.keys.Open(c.itself(ctx), accountPlace(c.id), stored.Body)
		if err == nil {
			if a, err = parseAccount(c.id, plain); err == nil && a.version != stored.Version {
				err = errMalformed
			}
		}
		if err != nil {
			if err := c.sealerWorks(ctx); err != nil {
				return err
			}
			a, wrong = &account{after: stored.Version, nodes: make(map[[16]byte]*nodeAccount)}, "was changed"
		} else if wrong = ""; a.version < s.highest {
			wrong = "was put back"
		}
	}
	if wrong != "" && (s.highest > 0 || stored.Version != 0) {
		c.logger.LogAttrs(ctx, slog.LevelError, "audit: the account of the inbox is not what was stored: somebody writes the database", slog.String("it", wrong))
		s.tampered = []finding{{action: Missing, reason: "the account of the inbox " + wrong}}
	}
	s.account, s.highest = a, max(s.highest, a.version)
	return nil
}

// loadBeats reads what the nodes said, before the pass over the inbox that judges it,
// and then the account: what others took in meanwhile is known to it.
func (c *committer) loadBeats(ctx context.Context) error {
	s, said := &c.seq, c.node.spoken()
	list, err := c.node.ledger.Beats(ctx, maxBatch)
	if err != nil {
		return fmt.Errorf("audit: read the heartbeats of the inbox: %w", err)
	}
	if err := c.loadAccount(ctx); err != nil {
		return err
	}
	a, found := s.account.clone(), s.tampered
	for i := range list {
		b := &list[i]
		node, p, err := c.openBeat(ctx, b)
		if err != nil {
			if err := c.sealerWorks(ctx); err != nil {
				return err
			}
			c.logger.LogAttrs(ctx, slog.LevelError, "audit: a heartbeat of the inbox was forged or changed", slog.String("node", b.Node), slog.Int64("number", b.N))
			continue
		}
		n := a.of(node)
		if p.n <= n.beat { // put back: it says nothing new
			continue
		}
		if p.n != n.beat+1 {
			found = append(found, finding{Missing, node, fmt.Sprintf("heartbeats %d to %d were removed", n.beat+1, p.n-1), nil})
			n.doubt(p.next) // what they said is not known
		}
		n.take(p, c.clock())
		s.heard[node] = heard{p.n, c.clock()}
	}
	found = append(found, c.unheard(a, said, len(list))...)
	if len(list)+len(found) == 0 {
		return nil
	}
	if err := c.keepAccount(ctx, a, found, nil, list); err != nil {
		return err
	}
	s.tampered = nil
	return nil
}

// keepAccount stores an account, in one step with entries that say what was found and
// with what this account is about.
func (c *committer) keepAccount(ctx context.Context, a *account, found []finding, items []*item, beats []Beat) error {
	s := &c.seq
	change, err := c.sealAccount(ctx, a)
	if err != nil {
		return err
	}
	for i := range found {
		items = append(items, c.own(found[i].event()))
	}
	if err := c.appendItems(ctx, items, change, beats); err != nil {
		s.account = nil // what is stored now is not known
		return err
	}
	s.settled(a)
	for _, f := range found {
		c.logger.LogAttrs(ctx, slog.LevelError, "audit: entries of the inbox are missing or in doubt", slog.String("action", string(f.action)), slog.String("reason", f.reason),
			slog.String("node", hex.EncodeToString(f.node[:])), slog.String("numbers", f.what.String()))
	}
	return nil
}

// settled takes over an account that was stored.
func (s *sequencer) settled(a *account) {
	a.after = a.version
	s.account, s.highest = a, max(s.highest, a.version)
}

// heard is when this process came across the newest heartbeat of a node.
type heard struct {
	beat int64
	at   time.Time
}

// finding is something to be said in the log.
type finding struct {
	action crmguard.Action
	node   [16]byte
	reason string
	what   spans
}

func (f *finding) event() crmguard.Event {
	e := crmguard.Event{Action: f.action, Reason: f.reason, Count: int(max(f.what.count(), 1))}
	if f.node != ([16]byte{}) {
		e.Fields = append(e.Fields, "node="+hex.EncodeToString(f.node[:]))
	}
	if len(f.what) > 0 {
		e.Fields = append(e.Fields, "numbers="+f.what.String())
	}
	return e
}

// judge runs at the end of a pass over the whole inbox that began after the heartbeats
// were read. What they say was committed was in the inbox then, or another process has
// taken it out and changed the account, without which nothing is reported.
func (c *committer) judge(ctx context.Context) error {
	s, now := &c.seq, c.clock()
	bound := arrival
	if len(s.odd) > 0 {
		bound = arrivalOdd
	}
	if now.Sub(s.judged) < bound {
		return nil
	}
	a := s.account.clone()
	var found []finding
	suspects := make(map[[16]byte]suspect, len(a.nodes))
	for _, id := range a.order() {
		n := a.nodes[id]
		is := suspect{missing: n.missing(), doubtful: n.doubtful.minus(n.done)}
		reason := "it is not known whether transactions committed"
		if c.gone(id, n, now) {
			is.doubtful.addAll(n.unsettled())
			reason = "a process ended while transactions were open"
		}
		if len(is.missing)+len(is.doubtful) == 0 {
			c.forget(a, id, n, now)
			continue
		}
		suspects[id] = is
		if missing := is.missing.both(s.suspects[id].missing); len(missing) > 0 {
			found = append(found, finding{Missing, id, "entries were removed from the inbox before they were chained", missing})
			a.of(id).done.addAll(missing)
		}
		if doubtful := is.doubtful.both(s.suspects[id].doubtful); len(doubtful) > 0 {
			found = append(found, finding{InDoubt, id, reason, doubtful})
			n := a.of(id)
			n.told.addAll(doubtful)
			n.doubtful = n.doubtful.minus(doubtful)
		}
	}
	if len(found) > 0 || len(a.nodes) != len(s.account.nodes) {
		if err := c.keepAccount(ctx, a, found, nil, nil); err != nil {
			return err
		}
	}
	s.judged, s.suspects = now, suspects
	return nil
}

// suspect is what would have to be told of a node, if it is still so after another
// pass over the inbox.
type suspect struct{ missing, doubtful spans }

// gone reports whether a node will not say any more what became of its transactions.
func (c *committer) gone(id [16]byte, n *nodeAccount, now time.Time) bool {
	if n.closed {
		return true
	}
	if !n.talks() {
		return false
	}
	h, ok := c.seq.heard[id]
	if !ok || h.beat != n.beat {
		c.seq.heard[id] = heard{n.beat, now}
		return false
	}
	return now.Sub(h.at) >= silence
}

// forget drops a node of which nothing more is to come.
func (c *committer) forget(a *account, id [16]byte, n *nodeAccount, now time.Time) {
	keep := keepSilent
	if n.closed {
		keep = keepClosed
	}
	if n.seen != 0 && now.Sub(time.UnixMicro(n.seen)) > keep {
		delete(a.nodes, id)
		delete(c.seq.heard, id)
	}
}

// lost is an entry that tells of others which never came.
type lost struct {
	seq    int64
	action crmguard.Action
	n      int64
}

// appendLost looks whether a row, which is right, is one.
func appendLost(list []lost, row *Row) []lost {
	if action := row.Keys.Action; action != Missing && action != InDoubt {
		return list
	}
	rec, err := decodeRecord(row.Record)
	if err != nil || rec.tenant != ownTenant(rec.log) {
		return list
	}
	return append(list, lost{rec.seq, rec.event.Action, int64(rec.event.Count)})
}

// lose adds up what the entries before size tell.
func (r *Report) lose(list []lost, size int64) {
	for _, l := range list {
		switch {
		case l.seq >= size:
		case l.action == Missing:
			r.Missing += l.n
		default:
			r.InDoubt += l.n
		}
	}
}
