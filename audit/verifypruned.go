package audit

import (
	"context"
	"errors"

	"golang.org/x/mod/sumdb/tlog"
)

// pruned begins after the entries that were removed by retention: the statement is
// signed by the key, the hashes that are kept lead to what it says, and so do all
// checkpoints from that time.
func (v *verification) pruned(ctx context.Context, p Pruning) (done bool, err error) {
	end, err := p.open(v.verifier, v.at.log)
	if err != nil {
		return true, v.unstated()
	}
	v.Pruned, v.From, v.Entries = p.Size, p.Size, p.Size
	nodes := keptNodes{store: v.store.(Pruner)} //nolint:forcetypeassert // it was asked what it pruned
	at := start(v.at.log)
	for at.size < p.Size {
		if err := ctx.Err(); err != nil {
			return true, err
		}
		inside, above, err := nodes.tile(ctx, at.size)
		if broken, ok := errors.AsType[*BrokenError](err); ok {
			return true, v.broken(broken)
		}
		if err != nil {
			return true, err
		}
		next := at.clone()
		if !next.complete(above) {
			return true, v.fail(Broken, at.size, "a hash of the tree over entries that were pruned was changed")
		}
		if done, err := v.checkpoints(ctx, next.size, func(size int64) (tlog.Hash, bool) {
			switch size {
			case at.size:
				return at.root(), true
			case next.size:
				return next.root(), true
			}
			return within(&at, size, inside, above[0].Hash)
		}); done || err != nil {
			return true, err
		}
		at = next
	}
	if at.root() != end.root() {
		return true, v.fail(Broken, 0, "the hashes that are kept of entries that were pruned are not those that were signed")
	}
	v.at = end
	return false, nil
}

func (v *verification) unstated() error {
	return v.fail(Broken, 0, "entries are missing from the beginning, and no statement of this key says that they were removed")
}
