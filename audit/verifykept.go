package audit

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/mod/sumdb/tlog"
)

// keptCheckpoint is a checkpoint of this log and key that was kept outside.
type keptCheckpoint struct {
	tlog.Tree
	at     time.Time
	resume bool // it says nothing about age
}

// openKept opens what was kept outside, in ascending order of size and time.
func (v *verification) openKept(log [16]byte) {
	list := v.opts.Kept
	if v.opts.Resume != "" {
		list = append(slices.Clone(list), Kept{Note: []byte(v.opts.Resume)})
	}
	for i, k := range list {
		tree, err := openOutside(k.Note, v.verifier)
		switch {
		case err != nil:
			v.doubt(CannotVerify, "a checkpoint that was kept outside is not signed by this key, or damaged")
		case tree.origin != origin(v.verifier.Name(), log):
			v.doubt(Restored, "a checkpoint that was kept outside is of another log")
		default:
			v.kept = append(v.kept, keptCheckpoint{Tree: tree.Tree, at: k.At, resume: i == len(v.opts.Kept)})
		}
	}
	slices.SortFunc(v.kept, func(a, b keptCheckpoint) int { return cmp.Or(cmp.Compare(a.N, b.N), a.at.Compare(b.at)) })
}

// compareKept compares the tree with what was kept of at most size entries.
func (v *verification) compareKept(size int64, at rootAt) (done bool) {
	for len(v.kept) > 0 && v.kept[0].N <= size {
		k := v.kept[0]
		v.kept = v.kept[1:]
		root, ok := at(k.N)
		if !ok {
			v.incomparable(k)
			continue
		}
		if root != k.Hash {
			return v.notKept(k)
		}
		v.fits(k)
	}
	return false
}

func (v *verification) notKept(k keptCheckpoint) (done bool) {
	_ = v.fail(Forked, v.Signed, fmt.Sprintf("the first %d entries are not those of the checkpoint that was kept outside", k.N))
	return true
}

// incomparable is a checkpoint over entries that were pruned, of a size that no
// checkpoint in the store had then.
func (v *verification) incomparable(k keptCheckpoint) {
	v.doubt(CannotVerify, fmt.Sprintf("the checkpoint of %d entries that was kept outside cannot be compared: they were pruned, and the log had no such checkpoint", k.N))
}

func (v *verification) fits(k keptCheckpoint) {
	if !k.resume {
		v.anchored, v.Pinned, v.PinnedAt = true, k.N, k.at
	}
}

// resume goes to where an earlier verification ended.
func (v *verification) resume(ctx context.Context, tree tlog.Tree, head Head) (done bool, err error) {
	if tree.N > head.Size {
		return true, v.fail(Truncated, head.Size, fmt.Sprintf("there were %d entries when it was verified", tree.N))
	}
	p, err := at(ctx, v.store, head.Log, tree.N)
	if broken, ok := errors.AsType[*BrokenError](err); ok {
		return true, v.broken(broken)
	}
	if err != nil {
		return true, err
	}
	v.From = tree.N
	if p.root() != tree.Hash {
		return true, v.fail(Forked, 0, fmt.Sprintf("the first %d entries are not those that were verified", tree.N))
	}
	v.at, v.Signed, v.Checkpoint, v.passed = p, tree.N, v.opts.Resume, tree.N
	return v.before(ctx)
}

// before compares what was kept of fewer entries than are skipped, through the
// hashes that the store keeps.
func (v *verification) before(ctx context.Context) (done bool, err error) {
	for len(v.kept) > 0 && v.kept[0].N < v.at.size {
		k := v.kept[0]
		v.kept = v.kept[1:]
		err := v.consistent(ctx, k.Tree)
		if broken, ok := errors.AsType[*BrokenError](err); ok {
			return true, v.broken(broken)
		}
		if errors.Is(err, errNotConsistent) {
			return v.notKept(k), nil
		}
		if err != nil {
			return true, err
		}
		v.fits(k)
	}
	return false, nil
}

var errNotConsistent = errors.New("audit: the tree is not that of the checkpoint")

// consistent checks that a smaller tree is the beginning of the present one.
func (v *verification) consistent(ctx context.Context, tree tlog.Tree) error {
	if tree.N == 0 {
		none := start(v.at.log)
		if tree.Hash != none.root() {
			return errNotConsistent
		}
		return nil
	}
	proof, err := tlog.ProveTree(v.at.size, tree.N, hashReader(ctx, v.store))
	if err != nil {
		return fmt.Errorf("audit: compare with a checkpoint: %w", err)
	}
	if tlog.CheckTree(proof, v.at.size, v.at.root(), tree.N, tree.Hash) != nil {
		return errNotConsistent
	}
	return nil
}
