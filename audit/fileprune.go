package audit

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// What was pruned is in a file of its own, which is replaced whole: from that moment
// on the entries are gone for every reader. Then the file of entries in which the cut
// lies is written anew without its beginning, and older ones are removed; a crash in
// between leaves that to the next one who writes.
const (
	prunedName = "pruned"
	prunedHead = "crmguard audit pruned 1\n"
	nodeBytes  = 8 + 1 + 32
	maxNodes   = 1024 // in a frame
)

// loadPruned reads the file; one that is damaged is damage of the store.
func (f *File) loadPruned() error {
	content, err := os.ReadFile(filepath.Join(f.dir, prunedName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	log, p, nodes, ok := parsePruned(content)
	if !ok {
		f.damaged(0, "the file of what was pruned is damaged")
		return nil
	}
	f.log, f.pruned, f.nodes = log, p, nodes
	return nil
}

func formatPruned(log [16]byte, p Pruning, nodes []Node) []byte {
	b := appendFrame(nil, frameFile, []byte(prunedHead), log[:])
	b = append(b, appendSigned(nil, Checkpoint(p))...)
	for list := range slices.Chunk(nodes, maxNodes) {
		data := make([]byte, 0, len(list)*nodeBytes)
		for _, n := range list {
			data = binary.BigEndian.AppendUint64(data, uint64(n.Seq)) //nolint:gosec // never negative
			data = append(data, byte(n.Level))                        //nolint:gosec // at most 62
			data = append(data, n.Hash[:]...)
		}
		b = appendFrame(b, frameNodes, data)
	}
	return b
}

func parsePruned(content []byte) (log [16]byte, p Pruning, nodes []Node, ok bool) {
	kind, payload, n, state := readFrame(content, 0)
	if state != frameOK || kind != frameFile || len(payload) != len(prunedHead)+16 || string(payload[:len(prunedHead)]) != prunedHead {
		return log, p, nil, false
	}
	log = [16]byte(payload[len(prunedHead):])
	at := n
	kind, payload, n, state = readFrame(content, at)
	c, ok := parseSigned(kind, payload)
	if state != frameOK || !ok || c.Size <= 0 {
		return log, p, nil, false
	}
	p = Pruning(c)
	for at += n; at < len(content); at += n {
		kind, payload, n, state = readFrame(content, at)
		if state != frameOK || kind != frameNodes || len(payload)%nodeBytes != 0 {
			return log, p, nil, false
		}
		for ; len(payload) > 0; payload = payload[nodeBytes:] {
			node := Node{Seq: int64(binary.BigEndian.Uint64(payload)), Level: int(payload[8]), Hash: [32]byte(payload[9:])} //nolint:gosec // checked
			if len(nodes) > 0 && compareNodes(nodes[len(nodes)-1], node) >= 0 || node.Seq < 0 || node.Seq >= p.Size {
				return log, p, nil, false
			}
			nodes = append(nodes, node)
		}
	}
	return log, p, nodes, true
}

func compareNodes(a, b Node) int {
	return cmp.Or(cmp.Compare(a.Seq, b.Seq), cmp.Compare(a.Level, b.Level))
}

// mergeNodes adds nodes to those that are there, which come first.
func mergeNodes(there, added []Node) []Node {
	all := append(slices.Clone(there), added...)
	slices.SortStableFunc(all, compareNodes)
	return slices.CompactFunc(all, func(a, b Node) bool { return compareNodes(a, b) == 0 })
}

func nodesFrom(list []Node, seq int64, level, n int) []Node {
	i, _ := slices.BinarySearchFunc(list, Node{Seq: seq, Level: level}, compareNodes)
	return slices.Clone(list[i:min(i+n, len(list))])
}

// Pruned implements [Pruner].
func (f *File) Pruned(context.Context) (Pruning, error) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.pruned.clone(), nil
}

// Nodes implements [Pruner].
func (f *File) Nodes(_ context.Context, seq int64, level, n int) ([]Node, error) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return nodesFrom(f.nodes, seq, level, n), nil
}

// Prune implements [Pruner]. Whole files of entries are removed, and the one in
// which the cut lies is written anew.
func (f *File) Prune(ctx context.Context, p Pruning, nodes []Node) error {
	f.mu.RLock()
	from, to := f.pruned.Size, min(p.Size, f.size)
	f.mu.RUnlock()
	var gone [][32]byte // ids of what is removed
	for seq := from; seq < to; {
		rows, err := f.Read(ctx, seq, min(pageSize, int(to-seq)))
		if err != nil {
			return err
		}
		if len(rows) == 0 {
			break
		}
		for i := range rows {
			gone = append(gone, rows[i].Keys.id())
		}
		seq = rows[len(rows)-1].Seq + 1
	}

	f.mu.Lock()
	defer f.mu.Unlock()
	switch err := errors.Join(f.poison, f.damage, f.unsigned); {
	case err != nil:
		return err
	case p.Size <= f.pruned.Size:
		return nil
	case p.Size >= f.size:
		return fmt.Errorf("audit: %d entries cannot be pruned: there are %d", p.Size, f.size)
	}
	if err := f.untouched(); err != nil {
		return err
	}
	all := mergeNodes(f.nodes, nodes)
	content := formatPruned(f.log, p, all)
	t, err := f.createFile(f.dir, prunedName, content)
	if t.file != nil {
		err = errors.Join(err, t.file.Close())
	}
	if err != nil {
		if there, errRead := os.ReadFile(filepath.Join(f.dir, prunedName)); errRead != nil || string(there) == string(content) {
			f.poison = ErrPoisoned // it is there now, and after a power cut perhaps not
			return fmt.Errorf("audit: prune: %w: %w", ErrPoisoned, err)
		}
		return fmt.Errorf("audit: prune: %w", err)
	}
	f.pruned, f.nodes = p.clone(), all
	for _, id := range gone {
		delete(f.known, id)
	}
	if err := f.sweep(); err != nil {
		return fmt.Errorf("audit: prune: the entries are gone, their space is not: %w", err)
	}
	return nil
}

// sweep gives back the space of what was pruned. It may be done again.
func (f *File) sweep() error {
	for len(f.segments) > 1 && f.segments[1].first <= f.pruned.Size {
		f.leftover = append(f.leftover, f.segments[0].file.Name())
		_ = f.segments[0].file.Close() // readers look again
		f.segments = f.segments[1:]
	}
	if s := f.segments[0]; s.first < f.pruned.Size && f.pruned.Size < f.size {
		rest, err := f.cutSegment(s, f.pruned.Size)
		if err != nil {
			return err
		}
		f.leftover = append(f.leftover, s.file.Name())
		_ = s.file.Close()
		f.segments[0] = rest
	}
	for len(f.leftover) > 0 {
		if err := f.remove(f.leftover[0]); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		f.leftover = f.leftover[1:]
	}
	return f.syncDir(f.dir)
}

// cutSegment writes the entries from first on into a file of their own.
func (f *File) cutSegment(s *segment, first int64) (*segment, error) {
	from := int64(s.offsets[first-s.first])
	head := segmentHead(f.log, first)
	data := make([]byte, int64(len(head))+s.size-from)
	copy(data, head)
	if _, err := s.file.ReadAt(data[len(head):], from); err != nil {
		return nil, err
	}
	t, err := f.createFile(f.dir, segmentName(first), data)
	if err != nil {
		return nil, err
	}
	rest := &segment{tail: t, first: first}
	for _, offset := range s.offsets[first-s.first:] {
		rest.offsets = append(rest.offsets, offset-uint32(from)+uint32(len(head))) //nolint:gosec // segments are small
	}
	return rest, nil
}
