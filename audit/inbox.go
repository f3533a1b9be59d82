package audit

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/crmguard/crmguard"
)

// What waits in the inbox is sealed as a whole, so that nobody adds to it who can
// write the database but has no keys: version, id of the log, node and its number, body.
const (
	inboxVersion = 1
	inboxHead    = 1 + 16
	maxOdd       = 4096             // entries that are remembered as not being this log's
	listenEvery  = time.Second / 2  // to heartbeats
	oddAgain     = 10 * time.Second // until such an entry is tried again: the key store may have been down
)

var errNotOurs = errors.New("not sealed for this log, tenant, event and outcome")

func inboxPlace(tenant, event string, outcome crmguard.Outcome) crmguard.Place {
	return crmguard.Place{Tenant: tenant, Kind: "audit-inbox", Record: event, Field: outcome.String()}
}

func (l *Log) sealWaiting(ctx context.Context, c *content, body []byte, of originOf) (Waiting, error) {
	k := c.keys()
	plain := make([]byte, 0, inboxHead+16+8+len(body))
	plain = append(plain, inboxVersion)
	plain = append(plain, l.id[:]...)
	plain = append(plain, of.node[:]...)
	plain = appendNumber(plain, of.n)
	plain = append(plain, body...)
	sealed, err := l.keys.Seal(ctx, inboxPlace(k.Tenant, k.Event, k.Outcome), plain)
	if err != nil {
		return Waiting{}, fmt.Errorf("audit: seal an entry for the inbox: %w", err)
	}
	return Waiting{Tenant: k.Tenant, Event: k.Event, Outcome: k.Outcome, Since: micros(l.clock()), Body: sealed}, nil
}

// opened is what an entry of the inbox says.
type opened struct {
	content *content
	body    []byte
	of      originOf
}

func (l *Log) openWaiting(ctx context.Context, w *Waiting) (*opened, error) {
	if w.Tenant == "" || len(w.Body) == 0 {
		return nil, errNotOurs
	}
	plain, err := l.keys.Open(ctx, inboxPlace(w.Tenant, w.Event, w.Outcome), w.Body)
	if err != nil {
		return nil, err
	}
	head := cutter{b: plain}
	version, log := head.bytes(1)[0], head.id()
	of := originOf{head.id(), head.number()}
	switch {
	case head.failed || log != l.id:
		return nil, errNotOurs
	case version != inboxVersion:
		return nil, fmt.Errorf("of version %d, this program knows %d", version, inboxVersion)
	}
	c, err := decodeBody(head.b)
	if err != nil {
		return nil, err
	}
	if k := c.keys(); k.Tenant != w.Tenant || k.Event != w.Event || k.Outcome != w.Outcome {
		return nil, errNotOurs
	}
	return &opened{c, head.b, of}, nil
}

// oddity is an entry of the inbox that cannot be chained. It stays: it was planted,
// a newer program wrote it, or its key cannot be had at the moment.
type oddity struct {
	again time.Time
	pass  int
}

// sequencer is what the committer remembers of the inbox.
type sequencer struct {
	skip  int // odd entries before the page that comes next
	pass  int // how often the inbox was read to its end
	moved int // how often in a row another process took what this one wanted
	odd   map[[32]byte]oddity
	why   error // of one of them

	account  *account // nil: it has to be read
	highest  int64    // version of the account that was there
	counted  int64    // of the heartbeats of this process, the last that was in it
	tampered []finding
	begun    bool      // a pass has
	listened time.Time // when heartbeats were read
	fresh    bool      // they were before this pass
	heard    map[[16]byte]heard
	judged   time.Time
	suspects map[[16]byte]suspect
}

func oddID(w *Waiting) [32]byte {
	id, body := rowID(w.Tenant, w.Event, w.Outcome), sha256.Sum256(w.Body)
	return sha256.Sum256(append(id[:], body[:]...))
}

// sequence chains one page of the inbox, and reports whether there may be more.
func (c *committer) sequence(ctx context.Context) (more bool, err error) {
	if c.inbox == nil {
		return false, nil
	}
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	s := &c.seq
	c.passes.begins()
	if err := c.listen(ctx); err != nil {
		return false, err
	}
	waiting, err := c.inbox.Waiting(ctx, s.skip, maxBatch)
	if err != nil {
		return false, fmt.Errorf("audit: read the inbox: %w", err)
	}
	items := make([]*item, 0, len(waiting))
	fresh, odd := 0, 0
	leave := func(w *Waiting, why error) {
		odd++
		id := oddID(w)
		if _, known := s.odd[id]; !known {
			if len(s.odd) >= maxOdd {
				return
			}
			fresh++
			s.why = why
		}
		s.odd[id] = oddity{again: time.Now().Add(oddAgain), pass: s.pass}
	}
	for i := range waiting {
		w := &waiting[i]
		if len(s.odd) > 0 {
			id := oddID(w)
			if o := s.odd[id]; time.Now().Before(o.again) {
				s.odd[id] = oddity{again: o.again, pass: s.pass}
				odd++
				continue
			}
		}
		o, err := c.openWaiting(ctx, w)
		if err != nil && ctx.Err() != nil {
			return false, fmt.Errorf("audit: open the inbox: %w", err)
		}
		if err != nil {
			leave(w, err)
			continue
		}
		it := newItem(o.content, o.body)
		it.waiting, it.of = w, o.of
		items = append(items, it)
	}
	err = c.arrive(ctx, items)
	if errors.Is(err, ErrMoved) && s.moved < maxRaces { // another process took them
		s.moved++
		return true, pause(ctx, s.moved)
	}
	s.moved = 0
	if err != nil {
		return false, err
	}
	for _, it := range items {
		if it.err != nil {
			leave(it.waiting, it.err)
		} else if len(s.odd) > 0 {
			delete(s.odd, oddID(it.waiting))
		}
	}
	if fresh > 0 {
		c.logger.LogAttrs(ctx, slog.LevelError, "audit: entries in the inbox are left: they are not this journal's",
			slog.Int("new", fresh), slog.Int("all", len(s.odd)), slog.Any("error", s.why))
	}
	if more = len(waiting) == maxBatch; more {
		s.skip += odd
		return true, nil
	}
	for id, o := range s.odd { // those that are gone
		if o.pass != s.pass {
			delete(s.odd, id)
		}
	}
	s.skip, s.begun = 0, false
	s.pass++
	c.passes.ends()
	if !s.fresh {
		return false, nil
	}
	s.fresh = false
	return false, unlessMoved(c.judge(ctx))
}

// listen reads heartbeats before a pass over the inbox, now and then.
func (c *committer) listen(ctx context.Context) (err error) {
	s := &c.seq
	if c.node.ledger == nil {
		return nil
	}
	if !s.begun {
		s.begun = true
		if s.fresh = time.Since(s.listened) >= listenEvery; s.fresh {
			if err = unlessMoved(c.loadBeats(ctx)); err == nil {
				s.listened = time.Now()
			}
		}
	}
	if err == nil && s.account == nil {
		err = c.loadAccount(ctx)
	}
	if err != nil {
		s.begun, s.account = false, nil
		clear(s.heard) // who could not be heard is not silent
	}
	return err
}

// arrive chains what came through the inbox, and notes that it came.
func (c *committer) arrive(ctx context.Context, items []*item) error {
	if c.node.ledger == nil {
		return c.appendItems(ctx, items, nil, nil)
	}
	a, news := c.seq.account.clone(), false
	for _, it := range items {
		n := spans{{it.of.n, it.of.n + 1}}
		if known := a.nodes[it.of.node]; known != nil && len(n.minus(known.done)) == 0 {
			continue
		}
		news = true
		node := a.of(it.of.node)
		node.done.addAll(n)
		node.seen = micros(c.clock())
	}
	if !news {
		return c.appendItems(ctx, items, nil, nil)
	}
	return c.keepAccount(ctx, a, nil, items, nil)
}

// unlessMoved is nil if another process was faster: it has done the same.
func unlessMoved(err error) error {
	if errors.Is(err, ErrMoved) {
		return nil
	}
	return err
}

// left says at the end that entries stay in the inbox.
func (s *sequencer) left() error {
	if len(s.odd) == 0 {
		return nil
	}
	return fmt.Errorf("audit: %d entries of the inbox are left, the last of them: %w", len(s.odd), s.why)
}
