package encrypttest

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/crmguard/crmguard/encrypt"
)

// faultyPending is a Memory some of whose methods are another's.
type faultyPending struct {
	*encrypt.Memory
	add       func(ctx context.Context, f encrypt.PendingField, records []encrypt.PendingRecord) error
	has       func(ctx context.Context, f encrypt.PendingField, records []string) (encrypt.PendingState, []encrypt.PendingRecord, error)
	next      func(ctx context.Context, f encrypt.PendingField, after string, limit int) ([]encrypt.PendingRecord, error)
	remove    func(ctx context.Context, f encrypt.PendingField, records []string) (int, error)
	count     func(ctx context.Context, f encrypt.PendingField) (encrypt.PendingState, int, error)
	migrating func(ctx context.Context, tenant string) ([]encrypt.PendingField, error)
}

func (p *faultyPending) AddPending(ctx context.Context, f encrypt.PendingField, records []encrypt.PendingRecord) error {
	return p.add(ctx, f, records)
}

func (p *faultyPending) HasPending(ctx context.Context, f encrypt.PendingField, records []string) (encrypt.PendingState, []encrypt.PendingRecord, error) {
	return p.has(ctx, f, records)
}

func (p *faultyPending) NextPending(ctx context.Context, f encrypt.PendingField, after string, limit int) ([]encrypt.PendingRecord, error) {
	return p.next(ctx, f, after, limit)
}

func (p *faultyPending) RemovePending(ctx context.Context, f encrypt.PendingField, records []string) (int, error) {
	return p.remove(ctx, f, records)
}

func (p *faultyPending) CountPending(ctx context.Context, f encrypt.PendingField) (encrypt.PendingState, int, error) {
	return p.count(ctx, f)
}

func (p *faultyPending) Migrating(ctx context.Context, tenant string) ([]encrypt.PendingField, error) {
	return p.migrating(ctx, tenant)
}

func pendingFault(duty, name string, plant func(p *faultyPending)) fault[encrypt.Pending] {
	return fault[encrypt.Pending]{duty, name, func() encrypt.Pending {
		m := encrypt.NewMemory()
		p := &faultyPending{m, m.AddPending, m.HasPending, m.NextPending, m.RemovePending, m.CountPending, m.Migrating}
		plant(p)
		return p
	}}
}

func TestPendingNoticesFaults(t *testing.T) { requireNoticed(t, pendingDuties(), pendingFaults) }

var pendingFaults = []fault[encrypt.Pending]{
	pendingFault("without a beginning nothing is in the set", "it is empty, and so strict", func(p *faultyPending) {
		p.count = func(ctx context.Context, f encrypt.PendingField) (encrypt.PendingState, int, error) {
			state, n, err := p.Memory.CountPending(ctx, f)
			if n == 0 {
				state = encrypt.PendingStrict
			}
			return state, n, err
		}
	}),
	pendingFault("records are collected, each once", "the older proof stays", func(p *faultyPending) {
		p.add = func(ctx context.Context, f encrypt.PendingField, records []encrypt.PendingRecord) error {
			return p.Memory.AddPending(ctx, f, slices.DeleteFunc(slices.Clone(records), func(r encrypt.PendingRecord) bool {
				_, found, _ := p.Memory.HasPending(ctx, f, []string{r.Record})
				return len(found) > 0
			}))
		}
	}),
	pendingFault("records are collected, each once", "the one behind a border is skipped", func(p *faultyPending) {
		p.next = func(ctx context.Context, f encrypt.PendingField, after string, limit int) ([]encrypt.PendingRecord, error) {
			next, err := p.Memory.NextPending(ctx, f, after, limit)
			if after != "" && len(next) > 1 {
				next = next[1:]
			}
			return next, err
		}
	}),
	pendingFault("fields, kinds and tenants are apart", "kinds are not", func(p *faultyPending) {
		p.has = func(ctx context.Context, f encrypt.PendingField, records []string) (encrypt.PendingState, []encrypt.PendingRecord, error) {
			f.Kind = "contacts"
			return p.Memory.HasPending(ctx, f, records)
		}
	}),
	pendingFault("once it shrinks nothing is added", "and nobody is told", silentlyCutOff),
	pendingFault("at zero it is strict for ever", "it shrinks on", func(p *faultyPending) {
		p.count = func(ctx context.Context, f encrypt.PendingField) (encrypt.PendingState, int, error) {
			state, n, err := p.Memory.CountPending(ctx, f)
			return min(state, encrypt.PendingShrinking), n, err
		}
	}),
	pendingFault("the fields of a tenant that are between its beginning and its end are named", "with other tenants'", func(p *faultyPending) {
		p.migrating = func(ctx context.Context, tenant string) ([]encrypt.PendingField, error) {
			ours, err := p.Memory.Migrating(ctx, tenant)
			theirs, _ := p.Memory.Migrating(ctx, "other")
			return slices.Concat(ours, theirs), err
		}
	}),
	pendingFault("a field that never had plaintext can be made strict", "nothing is stored of it", func(p *faultyPending) {
		p.remove = func(ctx context.Context, f encrypt.PendingField, records []string) (int, error) {
			if state, _, err := p.Memory.CountPending(ctx, f); err != nil || state == encrypt.PendingNever {
				return 0, err
			}
			return p.Memory.RemovePending(ctx, f, records)
		}
	}),
	pendingFault("of many that remove at once the last one finds zero, and it is strict", "what is left is counted afterwards", func(p *faultyPending) {
		meet := gathering()
		p.remove = func(ctx context.Context, f encrypt.PendingField, records []string) (int, error) {
			if _, err := p.Memory.RemovePending(ctx, f, records); err != nil {
				return 0, err
			}
			meet()
			_, n, err := p.Memory.CountPending(ctx, f)
			return n, err
		}
	}),
	pendingFault("what is added while the set closes is in it, or refused", "and nobody is told", func(p *faultyPending) {
		silentlyCutOff(p)
		closed := newSignal()
		var adds atomic.Int64
		add := p.add
		p.add = func(ctx context.Context, f encrypt.PendingField, records []encrypt.PendingRecord) error {
			if adds.Add(1) > 1 {
				closed.wait()
			}
			return add(ctx, f, records)
		}
		p.remove = func(ctx context.Context, f encrypt.PendingField, records []string) (int, error) {
			defer closed.give()
			return p.Memory.RemovePending(ctx, f, records)
		}
	}),
}

// silentlyCutOff accepts what it does not add.
func silentlyCutOff(p *faultyPending) {
	p.add = func(ctx context.Context, f encrypt.PendingField, records []encrypt.PendingRecord) error {
		if err := p.Memory.AddPending(ctx, f, records); !errors.Is(err, encrypt.ErrCutOff) {
			return err
		}
		return nil
	}
}
