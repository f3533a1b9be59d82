package encrypttest

import (
	"context"
	"math"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/internal/racetest"
)

func TestInventoryNoticesFaults(t *testing.T) {
	requireNoticed(t, slices.Concat(inventoryDuties(), inventoryRaces()), slices.Concat(inventoryFaults, inventoryRaceFaults))
}

var inventoryFaults = []fault[encrypt.Store]{
	storeFault("the list has everything once, by tenant and purpose", "a page begins with the next scope", func(f *faultyStore) {
		f.list = func(ctx context.Context, after encrypt.Record, limit int) ([]encrypt.Record, error) {
			if after.Version > 0 {
				after.Version = math.MaxUint32
			}
			return f.Memory.List(ctx, after, limit)
		}
	}),
	storeFault("a record is replaced as long as it is as it was", "the key alone is compared", func(f *faultyStore) {
		f.replace = func(ctx context.Context, was, now []encrypt.Record) (int, error) {
			was = slices.Clone(was)
			for i := range was {
				for _, r := range f.now(was[i].Scope) {
					if r.Version == was[i].Version {
						was[i].Note, was[i].ClosedAt, was[i].DestroyedAt = r.Note, r.ClosedAt, r.DestroyedAt
					}
				}
			}
			return f.Memory.Replace(ctx, was, now)
		}
	}),
	storeFault("messages count on", "they are replaced, too", func(f *faultyStore) {
		f.replace = func(ctx context.Context, was, now []encrypt.Record) (int, error) {
			n, err := f.Memory.Replace(ctx, was, now)
			for _, r := range now {
				back := r.Messages - f.now(r.Scope)[0].Messages // wraps around
				_, _ = f.Memory.Lease(ctx, []encrypt.Record{r}, back)
			}
			return n, err
		}
	}),
	storeFault("a removed version is gone and does not come back", "it stays", func(f *faultyStore) {
		f.replace = func(ctx context.Context, was, now []encrypt.Record) (int, error) {
			return len(now) - 1, nil
		}
	}),
	storeFault("a closed scope's note can be written, and nothing else comes of it", "it is left alone", func(f *faultyStore) {
		f.replace = func(ctx context.Context, was, now []encrypt.Record) (int, error) {
			if !f.active(was[0].Scope) {
				return 0, nil
			}
			return f.Memory.Replace(ctx, was, now)
		}
	}),
	storeFault("many at once, of several tenants", "the first one's", func(f *faultyStore) {
		f.replace = func(ctx context.Context, was, now []encrypt.Record) (int, error) {
			was = slices.Clone(was)
			for i := range was {
				was[i].Scope.Tenant = was[0].Scope.Tenant
			}
			return f.Memory.Replace(ctx, was, now)
		}
	}),
	storeFault("bytes are not shared with replaced records", "they are kept as they came", func(f *faultyStore) {
		var kept []encrypt.Record
		f.replace = func(ctx context.Context, was, now []encrypt.Record) (int, error) {
			kept = now
			return f.Memory.Replace(ctx, was, now)
		}
		f.list = func(ctx context.Context, after encrypt.Record, limit int) ([]encrypt.Record, error) {
			list, err := f.Memory.List(ctx, after, limit)
			for i := range list {
				list[i].Wrapped = kept[0].Wrapped
			}
			return list, err
		}
	}),
}

var inventoryRaceFaults = []fault[encrypt.Store]{
	storeFault("of many that replace a record one does", "it is compared before", func(f *faultyStore) {
		meet := gathering()
		f.replace = func(ctx context.Context, was, now []encrypt.Record) (int, error) {
			same := string(f.now(was[0].Scope)[0].Wrapped) == string(was[0].Wrapped)
			meet()
			if !same {
				return 0, nil
			}
			_, err := f.Memory.Replace(ctx, f.now(was[0].Scope), now)
			return 1, err
		}
	}),
	storeFault("of many that remove versions the newest is always left", "it goes, too", func(f *faultyStore) {
		var inserted atomic.Int64
		all := newSignal() // keys are made before one is removed
		var removed atomic.Bool
		f.insert = func(ctx context.Context, records []encrypt.Record) ([]encrypt.Record, error) {
			defer func() {
				if inserted.Add(1) == 1+racetest.Racers/2 {
					all.give()
				}
			}()
			return f.Memory.Insert(ctx, records)
		}
		f.load = func(ctx context.Context, scopes []encrypt.Scope) ([]encrypt.Record, error) {
			all.wait()
			if removed.Load() {
				return nil, nil
			}
			return f.Memory.Load(ctx, scopes)
		}
		f.replace = func(_ context.Context, was, _ []encrypt.Record) (int, error) {
			removed.Store(true)
			return len(was), nil
		}
	}),
	storeFault("a record that closes while it is replaced keeps its state and its times", "it is written whole", func(f *faultyStore) {
		looked, closed := newSignal(), newSignal()
		var written atomic.Pointer[encrypt.Record]
		f.replace = func(ctx context.Context, was, now []encrypt.Record) (int, error) {
			if f.active(was[0].Scope) {
				looked.give()
				closed.wait()
				written.Store(&now[0])
			}
			return f.Memory.Replace(ctx, was, now)
		}
		f.advance = func(ctx context.Context, scope encrypt.Scope, to encrypt.State, at time.Time) (encrypt.Record, error) {
			looked.wait()
			defer closed.give()
			return f.Memory.Advance(ctx, scope, to, at)
		}
		f.load = func(ctx context.Context, scopes []encrypt.Scope) ([]encrypt.Record, error) {
			if r := written.Load(); r != nil {
				return []encrypt.Record{*r}, nil
			}
			return f.Memory.Load(ctx, scopes)
		}
	}),
}
