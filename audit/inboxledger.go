package audit

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
)

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
		plain, err := c.openOwn(ctx, accountPlace(c.id), stored.Body)
		if err == nil {
			if a, err = parseAccount(c.id, plain); err == nil && a.version != stored.Version {
				err = errMalformed
			}
		}
		if err != nil {
			if !errors.Is(err, errChanged) && !errors.Is(err, errMalformed) {
				return err
			}
			a, wrong = &account{after: stored.Version, nodes: make(map[[16]byte]*nodeAccount)}, "was changed"
		} else if wrong = ""; a.version < s.highest {
			wrong = "was put back"
		}
	}
	if wrong != "" && (s.highest > 0 || stored.Version != 0) {
		c.logger.LogAttrs(ctx, slog.LevelError, "audit: the account of the inbox is not what was stored: somebody writes the database", slog.String("it", wrong))
		s.tampered = []finding{{action: ActMissing, reason: "the account of the inbox " + wrong}}
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
			if !errors.Is(err, errChanged) && !errors.Is(err, errMalformed) {
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
			found = append(found, finding{ActMissing, node, fmt.Sprintf("heartbeats %d to %d were removed", n.beat+1, p.n-1), nil})
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
