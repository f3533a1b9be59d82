package audit

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"

	"github.com/crmguard/crmguard"
)

// Entries after the newest checkpoint are chained, and nothing else: whoever writes the
// store can compute the chain anew. So each batch leaves a MAC over where the log
// stands. Each process has a key of its own for that, random, kept in the store beside
// the MAC, sealed; after each checkpoint it takes a new one and forgets the old.
//
// Keys are sealed in the background: while no key can be had, the one before goes on.

const (
	tailVersion = 1
	tailHead    = 1 + 8 + 8 + 32
	tailDomain  = "crmguard audit tail 1\n"
	maxTailKeys = 64 // that are remembered
)

// Tail is what a [Store] offers besides, so that it is noticed if somebody changes,
// adds or removes entries that no checkpoint covers yet.
type Tail interface {
	// Tail returns what the last [Batch] with rows left, nil if there was none. What
	// is returned is not older than the rows that were read before.
	Tail(ctx context.Context) ([]byte, error)
}

type tailKey struct {
	key    [32]byte
	sealed []byte
}

func (k *tailKey) mac(log [16]byte, size, account int64, last [32]byte) []byte {
	h := hmac.New(sha256.New, k.key[:])
	b := append([]byte(tailDomain), log[:]...)
	b = appendNumber(appendNumber(b, size), account)
	h.Write(append(b, last[:]...))
	return h.Sum(nil)
}

func tailPlace(log [16]byte) crmguard.Place {
	return crmguard.Place{Tenant: ownTenant(log), Kind: "audit-tail", Record: "key", Field: "mac"}
}

// tailing is what the committer remembers of the MAC.
type tailing struct {
	store   Tail // nil: it keeps none
	lenient bool // what does not fit is told of and signed
	key     *tailKey
	next    chan *tailKey // nil: none is being made
	cancel  context.CancelFunc
}

// tailMark is what a MAC says of a log.
type tailMark struct {
	log     [16]byte
	size    int64
	account int64 // the account of the inbox has at least this version
	mac     [32]byte
	key     tailKey
	wrong   string // why it says nothing
}

// covers reports whether a log that was right up to size entries ended so.
func (m *tailMark) covers(p *position) bool {
	return m.wrong == "" && m.size == p.size && hmac.Equal(m.mac[:], m.key.mac(m.log, m.size, m.account, p.last))
}

// tailMark reads the MAC, nil if the store keeps none. If the keys cannot be had at the
// moment, that is an error.
func (l *Log) tailMark(ctx context.Context) (*tailMark, error) {
	store, ok := l.store.(Tail)
	if !ok {
		return nil, nil //nolint:nilnil // there is none
	}
	b, err := store.Tail(ctx)
	if err != nil {
		return nil, fmt.Errorf("audit: read the MAC of the newest entries: %w", err)
	}
	m := &tailMark{log: l.id}
	if b == nil {
		m.wrong = "there is no MAC of the newest entries"
		return m, nil
	}
	c := cutter{b: b}
	version := c.bytes(1)[0]
	m.size, m.account, m.mac, m.key.sealed = c.number(), c.number(), [32]byte(c.bytes(32)), c.b
	if c.failed || version != tailVersion {
		m.wrong = "the MAC of the newest entries is malformed"
		return m, nil
	}
	if m.key.key, ok = l.knownTail(m.key.sealed); ok {
		return m, nil
	}
	plain, err := l.openOwn(ctx, tailPlace(l.id), m.key.sealed)
	switch {
	case err == nil && len(plain) == 32:
		m.key.key = [32]byte(plain)
		l.knowTail(&m.key)
	case err == nil || errors.Is(err, errChanged):
		m.wrong = "the MAC of the newest entries was made by somebody else"
	default:
		return nil, err
	}
	return m, nil
}

func (l *Log) knownTail(sealed []byte) ([32]byte, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	key, ok := l.tailKeys[sha256.Sum256(sealed)]
	return key, ok
}

func (l *Log) knowTail(k *tailKey) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.tailKeys == nil || len(l.tailKeys) >= maxTailKeys {
		l.tailKeys = make(map[[32]byte][32]byte)
	}
	l.tailKeys[sha256.Sum256(k.sealed)] = k.key
}

// begin makes the first key.
func (t *tailing) begin(ctx context.Context, l *Log) (err error) {
	if t.store, _ = l.store.(Tail); t.store != nil {
		t.key, err = l.newTailKey(ctx)
	}
	return err
}

func (l *Log) newTailKey(ctx context.Context) (*tailKey, error) {
	k := &tailKey{}
	_, _ = rand.Read(k.key[:]) // never fails
	sealed, err := l.keys.Seal(l.itself(ctx), tailPlace(l.id), k.key[:])
	if err != nil {
		return nil, fmt.Errorf("audit: seal the key of the newest entries: %w", err)
	}
	k.sealed = sealed
	return k, nil
}

// rekey has a new key made: a checkpoint covers what the one before was for.
func (c *committer) rekey(ctx context.Context) {
	t := &c.tail
	if t.store == nil || t.next != nil {
		return
	}
	next := make(chan *tailKey, 1)                                                // buffered: it ends even if nobody waits any more
	ctx, t.cancel = context.WithTimeout(context.WithoutCancel(ctx), storeTimeout) // of what called
	t.next = next
	go func() {
		k, err := c.newTailKey(ctx)
		if err != nil && !errors.Is(err, context.Canceled) {
			c.logger.LogAttrs(ctx, slog.LevelWarn, "audit: the key of the newest entries is used longer than it should be", slog.Any("error", err))
		}
		next <- k
	}()
}

// close waits for a key that is being made.
func (t *tailing) close() {
	if t.next != nil {
		t.cancel()
		<-t.next
	}
}

// seal is what a batch leaves that ends at p.
func (t *tailing) seal(p *position, account int64) []byte {
	if t.store == nil {
		return nil
	}
	select {
	case k := <-t.next:
		t.cancel()
		if t.next = nil; k != nil {
			t.key = k
		}
	default:
	}
	b := make([]byte, 0, tailHead+len(t.key.sealed))
	b = appendNumber(appendNumber(append(b, tailVersion), p.size), account)
	b = append(b, t.key.mac(p.log, p.size, account, p.last)...)
	return append(b, t.key.sealed...)
}

// vouched checks that the MAC covers a log that was read up to p. It wants more rows if
// the MAC is of more entries.
func (c *committer) vouched(ctx context.Context, p *position, wanted int64) (more int64, err error) {
	m, err := c.tailMark(ctx)
	if m == nil || err != nil || p.size == 0 && m.wrong != "" && m.size == 0 {
		return 0, err
	}
	broken := func(detail string) error { return &BrokenError{Seq: min(c.sig.signed, p.size), Detail: detail} }
	switch {
	case m.wrong != "":
		err = broken(m.wrong)
	case m.size > p.size && wanted <= p.size:
		return m.size, nil
	case m.size > p.size:
		err = &BrokenError{Seq: p.size, Detail: fmt.Sprintf("there were %d entries", m.size)}
	case !m.covers(p):
		err = broken("the newest entries were changed or added by somebody who has no keys")
	default:
		c.seq.highest = max(c.seq.highest, m.account)
	}
	if err != nil && c.tail.lenient {
		c.logger.LogAttrs(ctx, slog.LevelWarn, "audit: entries are signed that may be forged", slog.Any("error", err))
		return 0, nil
	}
	return 0, err
}

// tailed compares the log with its MAC, where that was made.
func (v *verification) tailed(from, to int64, at func(int64) position) (done bool) {
	m := v.tail
	if m == nil || m.wrong != "" || m.size < from || m.size > to {
		return false
	}
	p := at(m.size)
	if v.Tail = m.covers(&p); !v.Tail {
		_ = v.fail(Forked, v.Signed, "the newest entries are not those that were written: somebody without keys chained them anew")
	}
	return !v.Tail
}

// tailEnd says what the MAC does not cover.
func (v *verification) tailEnd() (done bool) {
	m := v.tail
	switch {
	case m == nil || v.Tail && m.size == v.at.size:
	case m.wrong != "" && v.at.size > 0:
		v.At = v.Signed
		v.doubt(CannotVerify, m.wrong)
	case m.wrong != "":
	case m.size > v.at.size:
		_ = v.fail(Truncated, v.at.size, fmt.Sprintf("there were %d entries", m.size))
		return true
	case v.at.size > m.size:
		v.Tail = false
		_ = v.fail(Forked, m.size, "the newest entries were added by somebody who has no keys")
		return true
	}
	return false
}
