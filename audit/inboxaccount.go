package audit

import (
	"bytes"
	"context"
	"encoding/binary"
	"maps"
	"slices"
	"time"

	"github.com/crmguard/crmguard"
)

// Who chains the inbox keeps account of each node's numbers: what its heartbeats said,
// and what came. The account changes in the step that takes entries out of the inbox,
// and only if nobody changed it meanwhile, so it holds for all processes that chain.

const accountVersion = 1

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
