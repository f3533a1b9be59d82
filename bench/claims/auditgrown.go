package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"slices"

	"github.com/crmguard/crmguard/audit"
)

// grown is a log of any length that takes no room: its entries differ by their
// number alone, and are made again whenever they are read.
type grown struct {
	head     audit.Head
	first    audit.Row
	marks    []tree // every markEvery entries
	note     []byte
	verifier auditVerifier
	reads    int // rows that were asked for one by one
}

const markEvery = 512

// Where the number of an entry and the leaf of the one before stand in its record, as
// docs/formats/audit.md says.
const seqFrom, seqTo, previousFrom, previousTo = 17, 25, 33, 65

// tree is the log up to some entry, computed by what docs/formats/audit.md says.
type tree struct {
	last  [32]byte // leaf
	peaks [][32]byte
}

func (t *tree) clone() tree { return tree{t.last, append(make([][32]byte, 0, 64), t.peaks...)} }

// add makes of a record the next one and returns its hashes.
func (t *tree) add(seq int64, record []byte) [][32]byte {
	binary.BigEndian.PutUint64(record[seqFrom:seqTo], uint64(seq)) // #nosec G115 -- never negative
	copy(record[previousFrom:previousTo], t.last[:])
	leaf := sha256.Sum256(append([]byte{0}, record...))
	t.last = leaf
	hashes := [][32]byte{leaf}
	for range bits.TrailingZeros64(^uint64(seq)) { // #nosec G115 -- never negative
		last := len(t.peaks) - 1
		hashes = append(hashes, node(t.peaks[last], hashes[len(hashes)-1]))
		t.peaks = t.peaks[:last]
	}
	t.peaks = append(t.peaks, hashes[len(hashes)-1])
	return hashes
}

func node(left, right [32]byte) [32]byte {
	return sha256.Sum256(append(append([]byte{1}, left[:]...), right[:]...))
}

func (t *tree) root() [32]byte {
	root := t.peaks[len(t.peaks)-1]
	for i := len(t.peaks) - 2; i >= 0; i-- {
		root = node(t.peaks[i], root)
	}
	return root
}

// newGrown has a log make one entry, and continues it.
func newGrown(ctx context.Context, n int) (*grown, error) {
	store := audit.NewMemory()
	a, err := newAuditor(ctx, store)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(a.Record(ctx, auditEvent()), a.close()); err != nil {
		return nil, err
	}
	rows, err := store.Read(ctx, 0, 1)
	if err != nil {
		return nil, err
	}
	g := &grown{first: rows[0]}
	if g.head, err = store.Head(ctx); err != nil {
		return nil, err
	}
	at := tree{last: sha256.Sum256(append([]byte("crmguard audit chain 1\n"), g.head.Log[:]...))}
	record := bytes.Clone(g.first.Record)
	for seq := range int64(n) {
		if seq%markEvery == 0 {
			g.marks = append(g.marks, tree{at.last, slices.Clone(at.peaks)})
		}
		at.add(seq, record)
	}
	g.head.Size, g.head.Last = int64(n), at.last
	root := at.root()
	text := fmt.Sprintf("%s/%x\n%d\n%s\n", a.signer.Name(), g.head.Log, n, base64.StdEncoding.EncodeToString(root[:]))
	signature, err := a.signer.Sign([]byte(text))
	if err != nil {
		return nil, err
	}
	signature = append(binary.BigEndian.AppendUint32(nil, a.signer.KeyHash()), signature...)
	g.note = fmt.Appendf(nil, "%s\n— %s %s\n", text, a.signer.Name(), base64.StdEncoding.EncodeToString(signature))
	g.verifier = a.verifier
	return g, nil
}

// Head implements [audit.Store].
func (g *grown) Head(context.Context) (audit.Head, error) { return g.head, nil }

// Append implements [audit.Store].
func (g *grown) Append(context.Context, audit.Batch) error { return audit.ErrClosed }

// Find implements [audit.Store].
func (g *grown) Find(context.Context, audit.Query) ([]audit.Row, error) { return nil, nil }

// Checkpoints implements [audit.Store].
func (g *grown) Checkpoints(_ context.Context, after int64, _ int) ([]audit.Checkpoint, error) {
	if after >= g.head.Size {
		return nil, nil
	}
	return []audit.Checkpoint{{Size: g.head.Size, Note: g.note}}, nil
}

// Read implements [audit.Store].
func (g *grown) Read(_ context.Context, from int64, n int) ([]audit.Row, error) {
	to := min(from+int64(n), g.head.Size)
	if from >= to {
		return nil, nil
	}
	if n == 1 {
		g.reads++
	}
	at := g.marks[from/markEvery].clone()
	rows := make([]audit.Row, 0, to-from)
	for seq := from / markEvery * markEvery; seq < to; seq++ {
		row := g.first
		row.Seq, row.Record = seq, bytes.Clone(g.first.Record)
		row.Hashes = at.add(seq, row.Record)
		if seq >= from {
			rows = append(rows, row)
		}
	}
	return rows, nil
}

// openAuditProof counts the hashes that are read to make a proof, beside the entry
// itself, and those that are computed to check it; the most that one of a few hundred
// proofs takes.
func openAuditProof(ctx context.Context, _ *servers) (trial, error) {
	g, err := newGrown(ctx, provenAmong)
	if err != nil {
		return trial{}, err
	}
	return trial{ours: counted(func(ctx context.Context) (float64, error) {
		most := 0
		for seq := int64(0); seq < g.head.Size; seq += max(1, g.head.Size/333) {
			g.reads = 0
			proof, err := audit.ProveStore(ctx, g, g.verifier, seq)
			if err != nil {
				return 0, err
			}
			proven, err := audit.CheckProof(proof, nil, g.verifier)
			if err != nil || proven.Entry.Seq != seq || proven.Size != g.head.Size {
				return 0, fmt.Errorf("the proof of entry %d is one of %d: %w", seq, proven.Entry.Seq, err)
			}
			_, list, _ := bytes.Cut(proof, []byte("\nindex "))
			list, _, _ = bytes.Cut(list, []byte("\n\n"))
			most = max(most, g.reads-1, 1+bytes.Count(list, []byte("\n")))
		}
		return float64(most), nil
	})}, nil
}

// openAuditMemory verifies a log far larger than memory should become, and measures
// how much more memory the process has meanwhile, garbage and all.
func openAuditMemory(ctx context.Context, _ *servers) (trial, error) {
	g, err := newGrown(ctx, rememberedNot)
	if err != nil {
		return trial{}, err
	}
	return trial{ours: counted(func(ctx context.Context) (float64, error) {
		debug.FreeOSMemory()
		before, most := memory(), uint64(0)
		r, err := audit.VerifyStore(ctx, g, g.verifier, &audit.VerifyOptions{
			Progress: func(int64, int64) { most = max(most, memory()) },
		})
		runtime.KeepAlive(g)
		if err == nil && r.Signed != int64(rememberedNot) {
			err = fmt.Errorf("%d entries were signed", r.Signed)
		}
		return float64(max(most, before)-before) / (1 << 20), errors.Join(err, verified(r, err))
	})}, nil
}

// memory is what the program has from the system.
func memory() uint64 {
	samples := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	metrics.Read(samples)
	return samples[0].Value.Uint64() - samples[1].Value.Uint64()
}
