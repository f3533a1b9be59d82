package audit

import (
	"sync"

	"github.com/crmguard/crmguard"
)

// Policy says what becomes of an event that the log cannot take. The zero value
// refuses.
type Policy uint8

// The policies.
const (
	Block       Policy = iota // the caller gets the error, and does not act
	Spool                     // kept on this machine's disk and recorded later, in order
	DropCounted               // counted; the journal says later how many there were
)

var policyNames = [...]string{"block", "spool", "drop"}

// String returns a lower-case word.
func (p Policy) String() string {
	if int(p) < len(policyNames) {
		return policyNames[p]
	}
	return policyNames[Block]
}

// policies are those of crmguard's actions; all others block.
var policies = map[crmguard.Action]Policy{
	crmguard.View:   DropCounted,
	crmguard.List:   DropCounted,
	crmguard.Search: DropCounted,

	crmguard.SignIn: Spool,
	crmguard.Revoke: Spool, // ends sessions and rights: sign-out, dismissal, lockdown
	crmguard.Access: Spool, // opens no client's data; leads to the pages where access is ended
}

// PolicyOf is the policy of an event by its action: View, List and Search are
// dropped and counted; SignIn, Revoke and Access are spooled; whatever changes,
// reveals, takes out or gives, and every action that is not crmguard's, blocks.
func PolicyOf(e crmguard.Event) Policy { return policies[e.Action] }

// policyFor is what Options say, except that what ends access is never blocked and
// never lost, and that an act whose beginning is in the journal is done already:
// its end must not be lost either.
func (f *Failover) policyFor(e crmguard.Event) Policy {
	p := f.policy(e)
	switch {
	case e.Action == crmguard.Revoke:
		return Spool
	case p == DropCounted || p == Spool:
		return p
	case e.Outcome != crmguard.Attempted && f.begun.has(&e):
		return Spool
	}
	return Block
}

// must reports whether an event is one for which the spool keeps room: what it tells of
// is done whether it is recorded or not.
func (f *Failover) must(e *crmguard.Event) bool {
	return e.Action == crmguard.Revoke || e.Outcome != crmguard.Attempted && f.begun.has(e)
}

// maxBegun is how many acts may be under way until the oldest is forgotten; its end
// then blocks, as if it had no beginning.
const maxBegun = 8192

// begun remembers acts whose Attempted is in the journal and whose end is not.
type begun struct {
	mu    sync.Mutex
	ids   map[[32]byte]struct{}
	order [][32]byte
	next  int
}

func begunID(e *crmguard.Event) [32]byte {
	return rowID(keyText(e.Subject.Tenant), keyText(e.ID), crmguard.Attempted)
}

func (b *begun) has(e *crmguard.Event) bool {
	if e.ID == "" {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	_, ok := b.ids[begunID(e)]
	return ok
}

// note is told of each event that was recorded.
func (b *begun) note(e *crmguard.Event) {
	if e.ID == "" {
		return
	}
	id := begunID(e)
	b.mu.Lock()
	defer b.mu.Unlock()
	if e.Outcome != crmguard.Attempted {
		delete(b.ids, id)
		return
	}
	if _, known := b.ids[id]; known {
		return
	}
	if b.ids == nil {
		b.ids = make(map[[32]byte]struct{})
	}
	if len(b.order) < maxBegun {
		b.order = append(b.order, id)
	} else {
		delete(b.ids, b.order[b.next])
		b.order[b.next] = id
		b.next = (b.next + 1) % maxBegun
	}
	b.ids[id] = struct{}{}
}
