package audit

import (
	"context"
	"encoding/hex"
	"fmt"
	"log/slog"
	"time"
)

// Of a node nobody has heard if each of its heartbeats is removed at once, by a
// trigger in the database, say. But the process itself knows what it said.

const unheardAfter = 2 * time.Second // until a process that does not chain looks

// spoken is the newest heartbeat that the store took.
type spoken struct {
	beat int64
	next int64 // it said that numbers below were issued
}

func (n *node) spoke(p *pulseOf) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.said = spoken{p.n, p.next}
}

func (n *node) spoken() spoken {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.said
}

// unheard looks for heartbeats of this process that neither wait, being among those
// that were read after it knew what it said, nor were counted, and takes it that they
// said nothing: what has not come of what they told is in doubt.
func (c *committer) unheard(a *account, said spoken, read int) []finding {
	s := &c.seq
	if known := a.nodes[c.node.id]; known != nil { // an idle node may be forgotten later
		s.counted = max(s.counted, known.beat)
	}
	if said.beat <= s.counted || read == maxBatch { // there may be more to be read
		return nil
	}
	n := a.of(c.node.id)
	n.doubt(said.next)
	n.beat, n.next, n.seen = said.beat, max(n.next, said.next), micros(c.clock())
	return []finding{{ActMissing, c.node.id, fmt.Sprintf("heartbeats %d to %d were removed", s.counted+1, said.beat), nil}}
}

// doubt is what is known of numbers below next after heartbeats that nobody read.
func (a *nodeAccount) doubt(next int64) {
	a.doubtful.addAll(spans{{0, max(next, 1)}}.minus(a.done).minus(a.committed).minus(a.told))
}

// lookAfter is the same for a process that does not chain. It has no other place to
// say so than its own logger.
func (n *node) lookAfter(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	said := n.spoken()
	list, err := n.ledger.Beats(ctx, maxBatch)
	if err != nil || len(list) == maxBatch {
		return
	}
	for i := range list {
		if list[i].Node == hex.EncodeToString(n.id[:]) && list[i].N == said.beat {
			return
		}
	}
	stored, err := n.ledger.Account(ctx) // after them: what was taken out is counted
	if err != nil {
		return
	}
	if stored.Version != 0 {
		plain, err := n.log.keys.Open(n.log.itself(ctx), accountPlace(n.log.id), stored.Body)
		if err != nil {
			return // who chains tells
		}
		a, err := parseAccount(n.log.id, plain)
		if err != nil || a.nodes[n.id] != nil && a.nodes[n.id].beat >= said.beat {
			return
		}
	}
	n.log.logger.LogAttrs(ctx, slog.LevelError, "audit: heartbeats of the inbox vanish, and entries may: somebody writes the database",
		slog.String("node", hex.EncodeToString(n.id[:])), slog.Int64("heartbeat", said.beat))
}
