package audit

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/mod/sumdb/tlog"
)

// prunePlan is what is going to be removed.
type prunePlan struct {
	Removed
	at    position // the log up to To
	nodes []Node
	seen  int64 // entries whose holds are known
	sizes int   // how many checkpoints there are of fewer entries than To, and more than From
}

var errPrunedMeanwhile = errors.New("somebody else removed entries meanwhile: try again")

// planPrune verifies the journal, collects all holds and then goes through what is
// old enough, tile by tile.
func (l *Log) planPrune(ctx context.Context, before time.Time) (*prunePlan, error) {
	holds := make(holdSet)
	young := int64(-1) // the first entry that is too young
	own := ownTenant(l.id)
	r, err := l.verifySound(ctx, func(row *Row, recorded int64) {
		if young < 0 && recorded >= micros(before) {
			young = row.Seq
		}
		if row.Keys.Tenant == own {
			holds.see(row)
		}
	})
	if err != nil {
		return nil, err
	}
	end := r.Signed - 1 // the newest checkpoint needs the entry before it
	if young >= 0 {
		end = min(end, young)
	}
	plan := &prunePlan{Removed: Removed{From: r.Pruned, To: r.Pruned}, seen: r.Entries}
	if plan.at, err = l.prunedPosition(ctx); err != nil {
		return nil, err
	}
	if plan.at.size != plan.From {
		return nil, errPrunedMeanwhile
	}
	sizes := checkpointSizes{store: l.store, after: plan.From}
	for plan.To+tileSize <= end && plan.Held == nil {
		if err := l.planTile(ctx, plan, holds, &sizes); err != nil {
			if at, errAt := l.prunedPosition(ctx); errAt == nil && at.size > plan.From {
				err = errPrunedMeanwhile
			}
			return nil, err
		}
	}
	if plan.From == plan.To {
		return plan, nil
	}
	// What was read again is what was verified before.
	newest, _, err := newestTree(ctx, l.store, l.verify, l.id)
	if err != nil {
		return nil, err
	}
	proof, err := tlog.ProveTree(newest.N, plan.To, hashReader(ctx, l.store))
	if err != nil {
		return nil, err
	}
	return plan, tlog.CheckTree(proof, newest.N, newest.Hash, plan.To, plan.at.root())
}

// prunedPosition is where the rows that are left begin.
func (l *Log) prunedPosition(ctx context.Context) (position, error) {
	pruned, err := prunedOf(ctx, l.store)
	if err != nil || pruned.Size == 0 {
		return start(l.id), err
	}
	return pruned.open(l.verify, l.id)
}

// planTile adds the next tile, unless a hold keeps it.
func (l *Log) planTile(ctx context.Context, plan *prunePlan, holds holdSet, sizes *checkpointSizes) error {
	t := tile{first: plan.To}
	next := plan.at
	for next.size < t.first+tileSize {
		rows, err := l.store.Read(ctx, next.size, int(t.first+tileSize-next.size))
		if err != nil {
			return err
		}
		if len(rows) == 0 {
			return &BrokenError{Seq: next.size, Detail: "the entry is missing"}
		}
		if err := next.accept(rows); err != nil {
			return err
		}
		for i := range rows {
			if held := holds.keeps(&rows[i]); held != nil {
				plan.Held, plan.HeldAt = held, rows[i].Seq
				return nil
			}
			t.hashes = append(t.hashes, rows[i].Hashes)
		}
	}
	for {
		size, err := sizes.next(ctx, next.size)
		if err != nil {
			return err
		}
		if size == 0 {
			break
		}
		if err := t.need(size); err != nil {
			return err
		}
		plan.sizes++
	}
	plan.nodes = append(plan.nodes, t.nodes()...)
	plan.at, plan.To = next, next.size
	return nil
}

// signedMeanwhile says whether there is a checkpoint that the plan does not know: hashes
// that lead to it would be removed.
func (l *Log) signedMeanwhile(ctx context.Context, plan *prunePlan) (bool, error) {
	sizes := checkpointSizes{store: l.store, after: plan.From}
	for n := 0; ; n++ {
		size, err := sizes.next(ctx, plan.To)
		if err != nil || size == 0 {
			return n != plan.sizes, err
		}
	}
}

// checkpointSizes goes through the sizes of all checkpoints.
type checkpointSizes struct {
	store Store
	after int64
	list  []Checkpoint
}

// next returns the next size below limit, 0 if there is none.
func (c *checkpointSizes) next(ctx context.Context, limit int64) (_ int64, err error) {
	if len(c.list) == 0 {
		if c.list, err = c.store.Checkpoints(ctx, c.after, maxBatch); err != nil {
			return 0, fmt.Errorf("read checkpoints: %w", err)
		}
	}
	if len(c.list) == 0 || c.list[0].Size >= limit {
		return 0, nil
	}
	c.after = c.list[0].Size
	c.list = c.list[1:]
	return c.after, nil
}
