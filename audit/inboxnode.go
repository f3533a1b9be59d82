package audit

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/crmguard/crmguard"
)

// An entry that was removed from the inbox before it was chained leaves no trace
// there. So each process that puts entries into the inbox, a node, counts them: the
// number is sealed with the entry, and heartbeats say, outside the host's
// transactions, which numbers were issued and what became of them. What a node says
// was committed, and never comes, was removed.

const (
	beatVersion = 1
	beatSoon    = 200 * time.Millisecond // after the first number: most transactions are shorter
	beatEvery   = time.Second            // while one is open
	beatIdle    = time.Hour              // so that an idle node is not taken for one that is gone
	maxOpenTx   = time.Hour              // then nobody will say any more what became of it
	maxSpans    = 1000                   // of one kind in a heartbeat
)

// Beat is a heartbeat of a process that puts entries into the inbox.
type Beat struct {
	Node string // random id of the process, 32 hexadecimal digits
	N    int64  // 1, 2, …: each follows the one before
	Body []byte // sealed
}

// outcome is what became of a transaction.
type outcome uint8

const (
	rolledBack outcome = iota
	committed
	unknown
)

// originOf is which number of which node an entry has.
type originOf struct {
	node [16]byte
	n    int64
}

// pulseOf is what a heartbeat says. All sets are of what was settled since the one before.
type pulseOf struct {
	n         int64
	next      int64 // numbers below were issued
	open      bool  // some of them are neither in these sets nor in earlier ones
	closed    bool  // the node has ended
	committed spans
	void      spans // rolled back, or never written
	doubtful  spans // nobody knows
}

func (p *pulseOf) append(b []byte) []byte {
	b = appendNumber(b, p.n)
	b = appendNumber(b, p.next)
	b = append(b, flagByte(p.open), flagByte(p.closed))
	b = appendSpans(b, p.committed)
	b = appendSpans(b, p.void)
	return appendSpans(b, p.doubtful)
}

// node counts what this process puts into the inbox.
type node struct {
	log    *Log
	id     [16]byte
	ledger Ledger
	kick   chan struct{}
	quit   chan struct{}
	ended  chan struct{}
	failed bool // the last heartbeat was not kept, and that was said

	mu     sync.Mutex
	now    pulseOf             // of the next heartbeat
	opened map[int64]time.Time // numbers that are not settled
	said   spoken
}

func newNode(l *Log) *node {
	n := &node{log: l, kick: make(chan struct{}, 1), quit: make(chan struct{}), ended: make(chan struct{}), opened: make(map[int64]time.Time)}
	n.ledger, _ = l.store.(Ledger)
	_, _ = rand.Read(n.id[:]) // never fails
	return n
}

// issue returns the next number.
func (n *node) issue() originOf {
	n.mu.Lock()
	defer n.mu.Unlock()
	o := originOf{n.id, n.now.next}
	n.now.next++
	n.opened[o.n] = time.Now()
	if len(n.opened) == 1 {
		select {
		case n.kick <- struct{}{}:
		default: // one is enough
		}
	}
	return o
}

// busy returns how many numbers were issued, and whether a transaction is open that holds
// one.
func (n *node) busy() (issued int64, open bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.now.next, len(n.opened) > 0
}

// settle says what became of numbers. What is said first counts.
func (n *node) settle(what outcome, numbers ...int64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, number := range numbers {
		if _, open := n.opened[number]; !open {
			continue
		}
		delete(n.opened, number)
		if n.ledger == nil { // nobody asks
			continue
		}
		switch what {
		case committed:
			n.now.committed.add(number, number+1)
		case rolledBack:
			n.now.void.add(number, number+1)
		case unknown:
			n.now.doubtful.add(number, number+1)
		}
	}
}

// take returns what the next heartbeat says, and whether another one should follow.
func (n *node) take(closed bool) (p pulseOf, more bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for number, since := range n.opened {
		if time.Since(since) > maxOpenTx {
			delete(n.opened, number)
			n.now.doubtful.add(number, number+1)
		}
	}
	n.now.n++
	p = n.now
	n.now.committed, p.committed = rest(p.committed)
	n.now.void, p.void = rest(p.void)
	n.now.doubtful, p.doubtful = rest(p.doubtful)
	left := len(n.now.committed)+len(n.now.void)+len(n.now.doubtful) > 0
	p.open, p.closed = len(n.opened) > 0 || left, closed
	return p, left || p.open && !closed
}

// rest splits what is too much for one heartbeat.
func rest(s spans) (later, now spans) {
	if len(s) <= maxSpans {
		return nil, s
	}
	return s[maxSpans:].clone(), s[:maxSpans]
}

func (n *node) start(ctx context.Context) {
	if n.ledger == nil {
		close(n.ended)
		return
	}
	go n.run(ctx)
}

// close sends what is left to be said.
func (n *node) close() {
	close(n.quit)
	<-n.ended
}

// run sends heartbeats while there is something to say.
func (n *node) run(ctx context.Context) {
	defer close(n.ended)
	idle := time.NewTicker(beatIdle)
	defer idle.Stop()
	wait := func(d time.Duration) bool {
		timer := time.NewTimer(d)
		defer timer.Stop()
		select {
		case <-timer.C:
			return true
		case <-n.quit:
			return false
		}
	}
	var look <-chan time.Time // nil: never
	for {
		select {
		case <-n.kick:
		case <-look:
			look = nil
			n.lookAfter(ctx)
			continue
		case <-idle.C:
			if n.silent() {
				continue
			}
		case <-n.quit:
			n.last(ctx)
			return
		}
		pause := beatSoon
		for more := true; more; pause = beatEvery {
			if !wait(pause) {
				n.last(ctx)
				return
			}
			var p pulseOf
			p, more = n.take(false)
			for !n.send(ctx, &p) {
				if !wait(beatEvery) {
					n.send(ctx, &p)
					n.last(ctx)
					return
				}
			}
		}
		if n.log.outbox != nil {
			look = time.After(unheardAfter)
		}
	}
}

// silent reports whether the node never had anything to say.
func (n *node) silent() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.now.next == 0
}

// last says that there will be no more.
func (n *node) last(ctx context.Context) {
	if n.silent() {
		return
	}
	for more := true; more; {
		var p pulseOf
		p, more = n.take(true)
		if !n.send(ctx, &p) {
			return
		}
	}
}

// send keeps a heartbeat. If it fails the same one is sent again: nobody knows whether
// it was kept.
func (n *node) send(ctx context.Context, p *pulseOf) bool {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	b := Beat{Node: hex.EncodeToString(n.id[:]), N: p.n}
	plain := append([]byte{beatVersion}, n.log.id[:]...)
	sealed, err := n.log.keys.Seal(n.log.itself(ctx), beatPlace(n.log.id, b.Node, b.N), p.append(plain))
	if err == nil {
		b.Body = sealed
		err = n.ledger.Beat(ctx, b)
	}
	if err != nil && !n.failed {
		n.log.logger.LogAttrs(ctx, slog.LevelError, "audit: a heartbeat of the inbox was not kept", slog.Any("error", err))
	}
	n.failed = err != nil
	if err == nil {
		n.spoke(p)
	}
	return err == nil
}

func beatPlace(log [16]byte, node string, n int64) crmguard.Place {
	return crmguard.Place{Tenant: ownTenant(log), Kind: "audit-inbox", Record: fmt.Sprintf("%s-%d", node, n), Field: "beat"}
}

// openBeat reads a heartbeat.
func (l *Log) openBeat(ctx context.Context, b *Beat) (node [16]byte, p *pulseOf, err error) {
	id, err := hex.DecodeString(b.Node)
	if err != nil || len(id) != 16 || strings.ToLower(b.Node) != b.Node {
		return node, nil, errMalformed
	}
	plain, err := l.openOwn(ctx, beatPlace(l.id, b.Node, b.N), b.Body)
	if err != nil {
		return node, nil, err
	}
	p, err = parseBeat(l.id, plain)
	if err == nil && p.n != b.N {
		err = errMalformed
	}
	return [16]byte(id), p, err
}

func parseBeat(log [16]byte, plain []byte) (*pulseOf, error) {
	c := cutter{b: plain}
	if c.bytes(1)[0] != beatVersion || c.id() != log {
		return nil, errMalformed
	}
	p := &pulseOf{n: c.number(), next: c.number()}
	flags := c.bytes(2)
	p.open, p.closed = flags[0] == 1, flags[1] == 1
	p.committed, p.void, p.doubtful = c.spans(), c.spans(), c.spans()
	for _, s := range []spans{p.committed, p.void, p.doubtful} {
		c.failed = c.failed || s.top() > p.next
	}
	if c.failed || len(c.b) != 0 || flags[0] > 1 || flags[1] > 1 || p.n < 1 {
		return nil, errMalformed
	}
	return p, nil
}

// afterCommit is what is known after a commit that returned err.
func afterCommit(err error) outcome {
	if err == nil {
		return committed
	}
	if e, ok := errors.AsType[interface {
		error
		SQLState() string // of pgx, lib/pq
	}](err); ok {
		// The server answered that it rolled back: integrity, transaction rollback.
		// 40003 says that it does not know.
		if s := e.SQLState(); strings.HasPrefix(s, "23") || strings.HasPrefix(s, "40") && s != "40003" {
			return rolledBack
		}
	}
	return unknown
}
