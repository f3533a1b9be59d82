package audit

import (
	"context"
	"encoding/hex"
	"time"

	"github.com/crmguard/crmguard"
)

// Actions of entries that the log makes by itself about its inbox. Their Fields name
// the node, "node=" and 32 hexadecimal digits, and its numbers, "numbers=" and ranges
// like "3-5,9". Their Count is how many numbers these are.
const (
	// ActMissing is the action of an entry that says that others were removed before
	// they were chained: a node said that their transactions committed, and they are
	// neither in the inbox nor in the log.
	ActMissing crmguard.Action = "audit.missing"

	// ActInDoubt is the action of an entry that says that nobody knows whether there
	// were others: their node ended while transactions were open, or did not learn
	// how a commit ended.
	ActInDoubt crmguard.Action = "audit.in-doubt"
)

const (
	arrival    = 3 * time.Second // between two passes over the inbox; what is in neither is missing
	arrivalOdd = time.Hour       // while something there does not open, which may be what is missed
	silence    = time.Minute     // of a node that has open transactions
	keepClosed = time.Hour       // a node that ended
	keepSilent = 25 * time.Hour  // a node that did not say so
)

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
			found = append(found, finding{ActMissing, id, "entries were removed from the inbox before they were chained", missing})
			a.of(id).done.addAll(missing)
		}
		if doubtful := is.doubtful.both(s.suspects[id].doubtful); len(doubtful) > 0 {
			found = append(found, finding{ActInDoubt, id, reason, doubtful})
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
	if action := row.Keys.Action; action != ActMissing && action != ActInDoubt {
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
		case l.action == ActMissing:
			r.Missing += l.n
		default:
			r.InDoubt += l.n
		}
	}
}
