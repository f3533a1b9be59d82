package audit

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"math/bits"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// A proof is C2SP's tlog-proof, with the record as its extra data, so that one file
// is all that an auditor needs besides the public key.
//
// https://c2sp.org/tlog-proof

const (
	proofHeader = "c2sp.org/tlog-proof@v1\n"
	maxPath     = 63 // hashes: a number has 63 bits
)

// ErrUnsigned says that an entry is in the log, but no checkpoint covers it yet.
var ErrUnsigned = errors.New("audit: no checkpoint covers the entry yet")

var errProof = errors.New("audit: malformed proof")

// Proven is what a proof says.
type Proven struct {
	Entry      Entry
	Record     []byte // of the entry, as it is stored and hashed
	Size       int64  // number of entries that the checkpoint covers
	Checkpoint string // the signed note; with it two proofs can be compared with each other, or with an anchor
}

// Prove returns a file that proves to whoever has the public key that the log holds
// entry seq: see [ProveStore]. An entry is covered by a checkpoint within
// Options.CheckpointEvery; until then the error is [ErrUnsigned]. Whose entry it is, and
// who may have its proof, is for the caller to check.
func (l *Log) Prove(ctx context.Context, seq int64) ([]byte, error) {
	return ProveStore(ctx, l.store, l.verify, seq)
}

// ProveStore returns the record of entry seq, the newest checkpoint, and the hashes
// that lead from one to the other: at most one for each doubling of the log, 20 for a
// million entries. The file's usual extension is .tlog-proof. It holds the ids in the
// entry in the clear, and the private values sealed.
//
// What does not lead to the signed root is a *[BrokenError].
func ProveStore(ctx context.Context, s Store, v note.Verifier, seq int64) ([]byte, error) {
	if seq < 0 {
		return nil, fmt.Errorf("audit: entry %d: entries are numbered from 0", seq)
	}
	row, err := readOne(ctx, s, seq)
	if err != nil {
		return nil, err
	}
	rec, err := decodeRecord(row.Record)
	if err != nil || rec.seq != seq {
		return nil, &BrokenError{Seq: seq, Detail: "its record does not decode, or is of another entry"}
	}
	tree, last, err := newestTree(ctx, s, v, rec.log)
	if err == nil && tree.N <= seq {
		err = ErrUnsigned
	}
	if err != nil {
		return nil, err
	}
	return proveRow(ctx, s, v, &row, tree, last)
}

// proveRow leads from a row to the root of a checkpoint that is at hand.
func proveRow(ctx context.Context, s Store, v note.Verifier, row *Row, tree tlog.Tree, c *Checkpoint) ([]byte, error) {
	path, err := tlog.ProveRecord(tree.N, row.Seq, hashReader(ctx, s))
	if err == nil && tlog.CheckRecord(path, tree.N, tree.Hash, row.Seq, tlog.RecordHash(row.Record)) != nil {
		err = &BrokenError{Seq: row.Seq, Detail: "the entry, or hashes of the tree beside it, are not those that were signed"}
	}
	if err != nil && wasPruned(ctx, s, v, row) {
		return nil, fmt.Errorf("entry %d: %w", row.Seq, ErrPruned)
	}
	if err != nil {
		return nil, fmt.Errorf("audit: prove entry %d: %w", row.Seq, err)
	}
	p := proofFile{record: row.Record, index: row.Seq, path: path, note: c.Note}
	return p.encode(), nil
}

// wasPruned reports whether a row that was there was removed by retention meanwhile.
func wasPruned(ctx context.Context, s Store, v note.Verifier, row *Row) bool {
	p, err := prunedOf(ctx, s)
	if err != nil || row.Seq >= p.Size {
		return false
	}
	rec, err := decodeRecord(row.Record)
	if err != nil {
		return false
	}
	_, err = p.open(v, rec.log)
	return err == nil
}

// CheckProof checks a file that [Log.Prove] made, without the log: the record is
// entry Proven.Entry.Seq of the log of this key. A record that was kept apart from
// the file goes into record; nil takes the one in the file.
//
// That nobody removed later entries is not what a proof says.
func CheckProof(proof, record []byte, v note.Verifier) (Proven, error) {
	p, err := parseProof(proof)
	if err != nil {
		return Proven{}, err
	}
	if record == nil {
		record = p.record
	}
	if p.record != nil && !bytes.Equal(p.record, record) {
		return Proven{}, errors.New("audit: the proof is of another record")
	}
	rec, err := decodeRecord(record)
	if err != nil {
		return Proven{}, err
	}
	if rec.seq != p.index {
		return Proven{}, fmt.Errorf("audit: the record is that of entry %d, the proof that of entry %d", rec.seq, p.index)
	}
	tree, err := openOutside(p.note, v)
	if err != nil {
		return Proven{}, err
	}
	if tree.origin != origin(v.Name(), rec.log) {
		return Proven{}, errOrigin
	}
	if err := tlog.CheckRecord(p.path, tree.N, tree.Hash, p.index, tlog.RecordHash(record)); err != nil {
		return Proven{}, fmt.Errorf("audit: entry %d is not in the tree that was signed: %w", p.index, err)
	}
	return Proven{Entry: rec.entry(), Record: bytes.Clone(record), Size: tree.N, Checkpoint: string(p.note)}, nil
}

// ProveConsistency returns the hashes of RFC 6962, section 2.1.2, which prove to
// whoever knows the roots of the first from and the first to entries that nothing of
// the former was changed in the latter. From none, and from to to itself, it takes
// none.
func ProveConsistency(ctx context.Context, s Store, from, to int64) ([][32]byte, error) {
	if from < 0 || to < from {
		return nil, fmt.Errorf("audit: nothing leads from %d entries to %d", from, to)
	}
	if from == 0 || from == to {
		return nil, nil
	}
	proof, err := tlog.ProveTree(to, from, hashReader(ctx, s))
	if err != nil {
		return nil, fmt.Errorf("audit: prove consistency: %w", err)
	}
	hashes := make([][32]byte, len(proof))
	for i, h := range proof {
		hashes[i] = h
	}
	return hashes, nil
}

// hashReader reads nodes of the tree from the rows that completed them.
func hashReader(ctx context.Context, s Store) tlog.HashReader {
	return tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		hashes := make([]tlog.Hash, len(indexes))
		for i, index := range indexes {
			level, n := tlog.SplitStoredHashIndex(index)
			node, err := treeNode(ctx, s, level, n)
			if err != nil {
				return nil, err
			}
			hashes[i] = node
		}
		return hashes, nil
	})
}

// proofFile is a parsed proof.
type proofFile struct {
	record []byte // nil: it is kept apart
	index  int64
	path   tlog.RecordProof
	note   []byte
}

func (p *proofFile) encode() []byte {
	var b bytes.Buffer
	b.WriteString(proofHeader)
	if p.record != nil {
		fmt.Fprintf(&b, "extra %s\n", base64.StdEncoding.EncodeToString(p.record))
	}
	fmt.Fprintf(&b, "index %d\n", p.index)
	for _, h := range p.path {
		fmt.Fprintf(&b, "%s\n", base64.StdEncoding.EncodeToString(h[:]))
	}
	b.WriteByte('\n')
	b.Write(p.note)
	return b.Bytes()
}

// parseProof accepts exactly what encode returns.
func parseProof(proof []byte) (*proofFile, error) {
	head, signed, ok := strings.Cut(string(proof), "\n\n")
	if !ok {
		return nil, errProof
	}
	lines := strings.Split(head, "\n")
	if lines[0]+"\n" != proofHeader {
		return nil, errProof
	}
	lines = lines[1:]
	p := &proofFile{note: []byte(signed)}
	if len(lines) > 0 && strings.HasPrefix(lines[0], "extra ") {
		var err error
		if p.record, err = base64.StdEncoding.DecodeString(lines[0][len("extra "):]); err != nil || len(p.record) == 0 || len(p.record) > maxRecord {
			return nil, errProof
		}
		lines = lines[1:]
	}
	if len(lines) == 0 || len(lines)-1 > maxPath {
		return nil, errProof
	}
	number, ok := strings.CutPrefix(lines[0], "index ")
	if !ok {
		return nil, errProof
	}
	var err error
	if p.index, err = strconv.ParseInt(number, 10, 64); err != nil || p.index < 0 || bits.Len64(uint64(p.index)) > maxPath {
		return nil, errProof
	}
	for _, line := range lines[1:] {
		h, err := tlog.ParseHash(line)
		if err != nil {
			return nil, errProof
		}
		p.path = append(p.path, h)
	}
	if !bytes.Equal(p.encode(), proof) {
		return nil, errProof
	}
	return p, nil
}
