package audittest

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/internal/racetest"
)

// memory is a store that does all duties, as package audit's does, and keeps a tail besides;
// faulty ones neglect one each.
type memory struct {
	*audit.Memory
	mu   sync.Mutex
	tail []byte
}

func (m *memory) Append(ctx context.Context, b audit.Batch) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	err := m.Memory.Append(ctx, b)
	if err == nil && len(b.Rows) > 0 {
		m.tail = bytes.Clone(b.Tail)
	}
	return err
}

func (m *memory) Tail(context.Context) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return bytes.Clone(m.tail), nil
}

// altered is a store of which some methods do something else.
type altered struct {
	*memory
	head        func(audit.Head) audit.Head
	append      func(ctx context.Context, b audit.Batch) error
	read        func([]audit.Row, int) []audit.Row
	find        func(audit.Query) audit.Query
	found       func([]audit.Row) []audit.Row
	checkpoints func(after int64, n int) (int64, int)
	kept        func([]audit.Checkpoint) []audit.Checkpoint
	tailOf      func([]byte) []byte
	drop        func() bool
	prune       func(audit.Pruning, []audit.Node) (audit.Pruning, []audit.Node)
	pruned      func(audit.Pruning) audit.Pruning
}

func (a *altered) Head(ctx context.Context) (audit.Head, error) {
	h, err := a.memory.Head(ctx)
	if a.head != nil {
		h = a.head(h)
	}
	return h, err
}

func (a *altered) Append(ctx context.Context, b audit.Batch) error {
	if a.append != nil {
		return a.append(ctx, b)
	}
	return a.memory.Append(ctx, b)
}

func (a *altered) Read(ctx context.Context, from int64, n int) ([]audit.Row, error) {
	rows, err := a.memory.Read(ctx, from, n)
	if a.read != nil {
		rows = a.read(rows, n)
	}
	return rows, err
}

func (a *altered) Find(ctx context.Context, q audit.Query) ([]audit.Row, error) {
	if a.find != nil {
		q = a.find(q)
	}
	rows, err := a.memory.Find(ctx, q)
	if a.found != nil {
		rows = a.found(rows)
	}
	return rows, err
}

func (a *altered) Checkpoints(ctx context.Context, after int64, n int) ([]audit.Checkpoint, error) {
	if a.checkpoints != nil {
		after, n = a.checkpoints(after, n)
	}
	list, err := a.memory.Checkpoints(ctx, after, n)
	if a.kept != nil {
		list = a.kept(list)
	}
	return list, err
}

func (a *altered) Tail(ctx context.Context) ([]byte, error) {
	tail, err := a.memory.Tail(ctx)
	if a.tailOf != nil {
		tail = a.tailOf(tail)
	}
	return tail, err
}

func (a *altered) DropPseudonyms(ctx context.Context, tenant, client string) (int64, error) {
	if a.drop != nil && !a.drop() {
		return 0, nil
	}
	return a.memory.DropPseudonyms(ctx, tenant, client)
}

func (a *altered) Prune(ctx context.Context, p audit.Pruning, nodes []audit.Node) error {
	if a.prune != nil {
		p, nodes = a.prune(p, nodes)
	}
	return a.memory.Prune(ctx, p, nodes)
}

func (a *altered) Pruned(ctx context.Context) (audit.Pruning, error) {
	p, err := a.memory.Pruned(ctx)
	if a.pruned != nil {
		p = a.pruned(p)
	}
	return p, err
}

// anywhere appends wherever the log stands by now, so all who race win.
func anywhere(a *altered) {
	a.append = func(ctx context.Context, b audit.Batch) error {
		for {
			var err error
			if b.After, err = a.memory.Head(ctx); err != nil {
				return err
			}
			for i := range b.Rows {
				b.Rows[i].Seq = b.After.Size + int64(i)
			}
			if err = a.memory.Append(ctx, b); !errors.Is(err, audit.ErrMoved) {
				return err
			}
		}
	}
}

var storeFaults = map[string][]func(a *altered){
	"an empty log has an id and nothing else": {
		func(a *altered) { a.head = func(h audit.Head) audit.Head { h.Log = [16]byte{}; return h } },
		func(a *altered) { a.head = func(h audit.Head) audit.Head { _, _ = rand.Read(h.Log[:]); return h } },
	},
	"rows are read back as they were appended": {
		func(a *altered) { a.read = func(rows []audit.Row, _ int) []audit.Row { return rows[:len(rows)/2] } },
		func(a *altered) {
			a.read = func(rows []audit.Row, _ int) []audit.Row {
				for i := range rows {
					rows[i].Hashes = rows[i].Hashes[:1]
				}
				return rows
			}
		},
		func(a *altered) { a.head = func(h audit.Head) audit.Head { h.Last = [32]byte{}; return h } },
	},
	"an append that does not continue the head is refused whole": {
		anywhere,
		func(a *altered) { // what is refused leaves its checkpoint
			a.append = func(ctx context.Context, b audit.Batch) error {
				err := a.memory.Append(ctx, b)
				if err != nil && b.Checkpoint != nil {
					_ = a.memory.Append(ctx, audit.Batch{After: b.After, Checkpoint: b.Checkpoint})
				}
				return err
			}
		},
	},
	"of many appends at the same place one succeeds": {anywhere},
	"an event and outcome are kept once per tenant": {
		func(a *altered) {
			a.append = func(ctx context.Context, b audit.Batch) error {
				err := a.memory.Append(ctx, b)
				if _, ok := errors.AsType[*audit.DuplicateError](err); !ok {
					return err
				}
				for i := range b.Rows {
					var id [8]byte
					_, _ = rand.Read(id[:])
					b.Rows[i].Keys.Event = hex.EncodeToString(id[:])
				}
				return a.memory.Append(ctx, b)
			}
		},
	},
	"find answers newest first, page by page": {
		func(a *altered) { a.found = func(rows []audit.Row) []audit.Row { slices.Reverse(rows); return rows } },
		func(a *altered) { a.find = func(q audit.Query) audit.Query { q.Tenant = "acme"; return q } },
		func(a *altered) { a.find = func(q audit.Query) audit.Query { q.Client = ""; return q } },
		func(a *altered) { a.find = func(q audit.Query) audit.Query { q.Before -= min(q.Before, 1); return q } },
	},
	"checkpoints are kept once a size, in order": {
		func(a *altered) { a.checkpoints = func(after int64, n int) (int64, int) { return after + 1, n } },
		func(a *altered) { a.checkpoints = func(after int64, n int) (int64, int) { return after, n + 1 } },
		func(a *altered) {
			a.kept = func(list []audit.Checkpoint) []audit.Checkpoint { slices.Reverse(list); return list }
		},
	},
	"what is returned is the caller's": {
		func(a *altered) {
			var cached []audit.Row
			a.read = func(rows []audit.Row, _ int) []audit.Row {
				if cached == nil {
					cached = rows
				}
				return cached
			}
		},
	},
	"what the newest batch with rows left is there": {
		func(a *altered) { // of refused batches, too
			a.append = func(ctx context.Context, b audit.Batch) error {
				err := a.memory.Append(ctx, b)
				if b.Tail != nil {
					a.tail = b.Tail
				}
				return err
			}
		},
		func(a *altered) { // of checkpoints, too
			a.append = func(ctx context.Context, b audit.Batch) error {
				err := a.memory.Append(ctx, b)
				if err == nil {
					a.tail = bytes.Clone(b.Tail)
				}
				return err
			}
		},
		func(a *altered) { a.tailOf = func(b []byte) []byte { return b[:min(len(b), 1000)] } },
		func(a *altered) {
			var first []byte
			a.tailOf = func(b []byte) []byte {
				if first == nil {
					first = b
				}
				return first
			}
		},
	},
	"pseudonyms find rows until they are dropped": {
		func(a *altered) { a.drop = func() bool { return false } },
		func(a *altered) {
			a.find = func(q audit.Query) audit.Query { q.Pseudonyms = q.Pseudonyms[:1]; return q }
		},
		func(a *altered) {
			a.find = func(q audit.Query) audit.Query { q.Private = crmguard.Private{Name: "phone"}; return q }
		},
	},
	"logs on the store verify": {
		func(a *altered) {
			a.append = func(ctx context.Context, b audit.Batch) error {
				for i := range b.Rows {
					if b.Rows[i].Seq == 7 {
						b.Rows[i].Record[100] ^= 1
					}
				}
				return a.memory.Append(ctx, b)
			}
		},
	},
	"old rows are removed and what is left stands": {
		func(a *altered) {
			a.prune = func(p audit.Pruning, _ []audit.Node) (audit.Pruning, []audit.Node) { return p, nil }
		},
		func(a *altered) {
			a.prune = func(p audit.Pruning, n []audit.Node) (audit.Pruning, []audit.Node) { p.Size--; return p, n }
		},
		func(a *altered) { a.pruned = func(audit.Pruning) audit.Pruning { return audit.Pruning{} } },
	},
}

// A sound store passes, and each duty notices the faults that are planted against it.
func TestStoreFaults(t *testing.T) {
	Run(t, func(*testing.T) audit.Store { return &altered{memory: &memory{Memory: audit.NewMemory()}} })
	for _, d := range storeDuties {
		require.NotEmpty(t, storeFaults[d.name], d.name)
		for i, plant := range storeFaults[d.name] {
			faulty := &altered{memory: &memory{Memory: audit.NewMemory()}}
			plant(faulty)
			require.False(t, racetest.Passes(func(tt require.TestingT) { d.check(tt, t.Context(), faulty) }), "%s: fault %d", d.name, i)
		}
	}
	require.Len(t, storeFaults, len(storeDuties))
}
