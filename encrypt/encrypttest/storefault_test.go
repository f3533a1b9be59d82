package encrypttest

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/crmguard/crmguard/encrypt"
)

// faultyStore is a Memory some of whose methods are another's.
type faultyStore struct {
	*encrypt.Memory
	load    func(ctx context.Context, scopes []encrypt.Scope) ([]encrypt.Record, error)
	insert  func(ctx context.Context, records []encrypt.Record) ([]encrypt.Record, error)
	advance func(ctx context.Context, scope encrypt.Scope, to encrypt.State, at time.Time) (encrypt.Record, error)
	lease   func(ctx context.Context, keys []encrypt.Record, n uint64) ([]encrypt.Record, error)
	closing func(ctx context.Context) (int64, []encrypt.Record, error)
	list    func(ctx context.Context, after encrypt.Record, limit int) ([]encrypt.Record, error)
	replace func(ctx context.Context, was, now []encrypt.Record) (int, error)
}

func (f *faultyStore) Load(ctx context.Context, scopes []encrypt.Scope) ([]encrypt.Record, error) {
	return f.load(ctx, scopes)
}

func (f *faultyStore) Insert(ctx context.Context, records []encrypt.Record) ([]encrypt.Record, error) {
	return f.insert(ctx, records)
}

func (f *faultyStore) Advance(ctx context.Context, scope encrypt.Scope, to encrypt.State, at time.Time) (encrypt.Record, error) {
	return f.advance(ctx, scope, to, at)
}

func (f *faultyStore) Lease(ctx context.Context, keys []encrypt.Record, n uint64) ([]encrypt.Record, error) {
	return f.lease(ctx, keys, n)
}

func (f *faultyStore) Closing(ctx context.Context) (int64, []encrypt.Record, error) {
	return f.closing(ctx)
}

func (f *faultyStore) List(ctx context.Context, after encrypt.Record, limit int) ([]encrypt.Record, error) {
	return f.list(ctx, after, limit)
}

func (f *faultyStore) Replace(ctx context.Context, was, now []encrypt.Record) (int, error) {
	return f.replace(ctx, was, now)
}

// now is what the store holds of a scope.
func (f *faultyStore) now(s encrypt.Scope) []encrypt.Record {
	records, _ := f.Memory.Load(context.Background(), []encrypt.Scope{s}) // a Memory does not fail
	return records
}

func (f *faultyStore) active(s encrypt.Scope) bool {
	records := f.now(s)
	return len(records) == 0 || records[0].State == encrypt.Active
}

// late says whether a newer key wraps than the one that wrapped a record.
func (f *faultyStore) late(r encrypt.Record) bool {
	wrapping := f.now(r.Scope.Wrapping())
	return len(r.Under) > 0 && (len(wrapping) == 0 || !bytes.Equal(wrapping[len(wrapping)-1].Wrapped, r.Under))
}

func unfenced(records []encrypt.Record) []encrypt.Record {
	records = slices.Clone(records)
	for i := range records {
		records[i].Under = nil
	}
	return records
}

func storeFault(duty, name string, plant func(f *faultyStore)) fault[encrypt.Store] {
	return fault[encrypt.Store]{duty, name, func() encrypt.Store {
		m := encrypt.NewMemory()
		f := &faultyStore{m, m.Load, m.Insert, m.Advance, m.Lease, m.Closing, m.List, m.Replace}
		plant(f)
		return f
	}}
}

func TestStoreNoticesFaults(t *testing.T) {
	requireNoticed(t, slices.Concat(storeDuties(), fenceDuties(), storeRaces()), slices.Concat(storeFaults, fenceFaults, storeRaceFaults))
}

var storeFaults = []fault[encrypt.Store]{
	storeFault("a record comes back as it was stored", "case is ignored", func(f *faultyStore) {
		f.insert = func(ctx context.Context, records []encrypt.Record) ([]encrypt.Record, error) {
			for _, r := range records {
				same := r.Scope
				same.Name = strings.ToLower(same.Name)
				if found := f.now(same); len(found) > 0 {
					return found, nil
				}
			}
			return f.Memory.Insert(ctx, records)
		}
	}),
	storeFault("nothing is no error", "an unknown scope is one", func(f *faultyStore) {
		f.load = func(ctx context.Context, scopes []encrypt.Scope) ([]encrypt.Record, error) {
			found, err := f.Memory.Load(ctx, scopes)
			if err == nil && len(found) == 0 && len(scopes) > 0 {
				err = errors.New("not found")
			}
			return found, err
		}
	}),
	storeFault("many scopes at once", "a statement takes a thousand", func(f *faultyStore) {
		f.load = func(ctx context.Context, scopes []encrypt.Scope) ([]encrypt.Record, error) {
			return f.Memory.Load(ctx, scopes[:min(len(scopes), 1000)])
		}
	}),
	storeFault("insert keeps what exists", "whoever comes is told that he has won", func(f *faultyStore) {
		f.insert = func(ctx context.Context, records []encrypt.Record) ([]encrypt.Record, error) {
			_, err := f.Memory.Insert(ctx, records)
			return records, err
		}
	}),
	storeFault("versions come in order and without gaps", "as text", func(f *faultyStore) {
		f.load = func(ctx context.Context, scopes []encrypt.Scope) ([]encrypt.Record, error) {
			found, err := f.Memory.Load(ctx, scopes)
			slices.SortStableFunc(found, func(a, b encrypt.Record) int {
				return cmp.Compare(strconv.Itoa(int(a.Version)), strconv.Itoa(int(b.Version)))
			})
			return found, err
		}
	}),
	storeFault("versions come in order and without gaps", "gaps are filled", func(f *faultyStore) {
		f.insert = func(ctx context.Context, records []encrypt.Record) (stored []encrypt.Record, err error) {
			for _, r := range records {
				for v := uint32(1); v <= r.Version; v++ {
					filled := r
					filled.Version = v
					if stored, err = f.Memory.Insert(ctx, []encrypt.Record{filled}); err != nil {
						return nil, err
					}
				}
			}
			return stored, nil
		}
	}),
	storeFault("bytes are not shared", "what was read is read again", func(f *faultyStore) {
		known := make(map[encrypt.Scope][]encrypt.Record)
		f.load = func(ctx context.Context, scopes []encrypt.Scope) (found []encrypt.Record, err error) {
			for _, s := range scopes {
				if known[s] == nil {
					known[s] = f.now(s)
				}
				found = append(found, known[s]...)
			}
			return found, nil
		}
	}),
	storeFault("states go one way", "the last time counts", func(f *faultyStore) {
		f.advance = func(ctx context.Context, scope encrypt.Scope, to encrypt.State, at time.Time) (encrypt.Record, error) {
			r, err := f.Memory.Advance(ctx, scope, to, at)
			if to == encrypt.Closing {
				r.ClosedAt = at
			}
			return r, err
		}
	}),
	storeFault("states go one way", "destroyed keys are still there", func(f *faultyStore) {
		kept := make(map[encrypt.Scope][]byte)
		f.insert = func(ctx context.Context, records []encrypt.Record) ([]encrypt.Record, error) {
			for _, r := range records {
				kept[r.Scope] = bytes.Clone(r.Wrapped)
			}
			return f.Memory.Insert(ctx, records)
		}
		f.load = func(ctx context.Context, scopes []encrypt.Scope) ([]encrypt.Record, error) {
			found, err := f.Memory.Load(ctx, scopes)
			for i := range found {
				found[i].Wrapped = kept[found[i].Scope]
			}
			return found, err
		}
	}),
	storeFault("an unknown scope can be closed, so that it never comes to be", "nothing is stored of it", func(f *faultyStore) {
		f.advance = func(ctx context.Context, scope encrypt.Scope, to encrypt.State, at time.Time) (encrypt.Record, error) {
			if len(f.now(scope)) == 0 {
				return encrypt.Record{Scope: scope, Version: 1, State: to, ClosedAt: at}, nil
			}
			return f.Memory.Advance(ctx, scope, to, at)
		}
	}),
	storeFault("closing scopes are listed, and each change moves the revision", "it stays", func(f *faultyStore) {
		f.closing = func(ctx context.Context) (int64, []encrypt.Record, error) {
			_, closing, err := f.Memory.Closing(ctx)
			return 7, closing, err
		}
	}),
	storeFault("closing scopes are listed, and each change moves the revision", "destroyed ones are listed, too", func(f *faultyStore) {
		var closed []encrypt.Record
		f.advance = func(ctx context.Context, scope encrypt.Scope, to encrypt.State, at time.Time) (encrypt.Record, error) {
			r, err := f.Memory.Advance(ctx, scope, to, at)
			closed = []encrypt.Record{r}
			return r, err
		}
		f.closing = func(ctx context.Context) (int64, []encrypt.Record, error) {
			revision, _, err := f.Memory.Closing(ctx)
			return revision, closed, err
		}
	}),
	storeFault("leases add up", "in all versions", func(f *faultyStore) {
		f.lease = func(ctx context.Context, keys []encrypt.Record, n uint64) ([]encrypt.Record, error) {
			for _, key := range keys {
				for _, r := range f.now(key.Scope) {
					if r.Version != key.Version {
						_, _ = f.Memory.Lease(ctx, []encrypt.Record{r}, n)
					}
				}
			}
			return f.Memory.Lease(ctx, keys, n)
		}
	}),
}

var fenceFaults = []fault[encrypt.Store]{
	storeFault("a key is added only under the newest of what wraps it", "there is no fence", noFence),
	storeFault("a keyset is added only under the newest of what wraps it", "there is no fence", noFence),
	storeFault("each record has a fence of its own", "one for all", func(f *faultyStore) {
		f.insert = func(ctx context.Context, records []encrypt.Record) ([]encrypt.Record, error) {
			if slices.ContainsFunc(records, f.late) {
				return nil, nil
			}
			return f.Memory.Insert(ctx, records)
		}
	}),
	storeFault("nothing appears under an older keyset once there is a newer one", "it is looked for before the transaction", func(f *faultyStore) {
		looked, turned := newSignal(), newSignal()
		f.insert = func(ctx context.Context, records []encrypt.Record) ([]encrypt.Record, error) {
			r := records[0]
			switch {
			case r.Scope.Purpose == encrypt.TenantKeyset && r.Version > 1:
				looked.wait()
			case r.Scope.Purpose == encrypt.DataKey && !f.late(r):
				looked.give()
				turned.wait()
				records = unfenced(records)
			}
			return f.Memory.Insert(ctx, records)
		}
		f.load = func(ctx context.Context, scopes []encrypt.Scope) ([]encrypt.Record, error) {
			defer turned.give()
			return f.Memory.Load(ctx, scopes)
		}
	}),
}

func noFence(f *faultyStore) {
	f.insert = func(ctx context.Context, records []encrypt.Record) ([]encrypt.Record, error) {
		return f.Memory.Insert(ctx, unfenced(records))
	}
}

var storeRaceFaults = []fault[encrypt.Store]{
	storeFault("of many concurrent inserts one wins, and all are told which", "who saw nothing has won", func(f *faultyStore) {
		meet := gathering()
		f.insert = func(ctx context.Context, records []encrypt.Record) ([]encrypt.Record, error) {
			free := len(f.now(records[0].Scope)) == 0
			meet()
			stored, err := f.Memory.Insert(ctx, records)
			if free {
				stored = records
			}
			return stored, err
		}
	}),
	storeFault("of many concurrent leases each gets its own total", "it is read and written", func(f *faultyStore) {
		meet := gathering()
		f.lease = func(ctx context.Context, keys []encrypt.Record, n uint64) ([]encrypt.Record, error) {
			before := f.now(keys[0].Scope)
			meet()
			_, err := f.Memory.Lease(ctx, keys, n)
			before[0].Messages += n
			return before, err
		}
	}),
	storeFault("keys that are made while the scope closes close with it", "the state is looked at before", func(f *faultyStore) {
		looked, closed := newSignal(), newSignal()
		var mu sync.Mutex
		var late []encrypt.Record
		f.insert = func(ctx context.Context, records []encrypt.Record) ([]encrypt.Record, error) {
			if records[0].Version == 2 && f.active(records[0].Scope) {
				looked.give()
				closed.wait()
				mu.Lock()
				defer mu.Unlock()
				late = append(late, records[0])
			}
			return f.Memory.Insert(ctx, records)
		}
		f.advance = func(ctx context.Context, scope encrypt.Scope, to encrypt.State, at time.Time) (encrypt.Record, error) {
			looked.wait()
			defer closed.give()
			return f.Memory.Advance(ctx, scope, to, at)
		}
		f.load = func(ctx context.Context, scopes []encrypt.Scope) ([]encrypt.Record, error) {
			found, err := f.Memory.Load(ctx, scopes)
			return append(found, late...), err
		}
	}),
	storeFault("of many that close, all get the first time", "who saw it open gets his own", ownTime(func(r *encrypt.Record, at time.Time) { r.ClosedAt = at })),
	storeFault("of many that destroy, all that succeed get the first time", "who saw it closing gets his own", ownTime(func(r *encrypt.Record, at time.Time) {
		if r.State == encrypt.Destroyed {
			r.DestroyedAt = at
		}
	})),
}

func ownTime(set func(r *encrypt.Record, at time.Time)) func(f *faultyStore) {
	return func(f *faultyStore) {
		f.advance = func(ctx context.Context, scope encrypt.Scope, to encrypt.State, at time.Time) (encrypt.Record, error) {
			r, err := f.Memory.Advance(ctx, scope, to, at)
			set(&r, at)
			return r, err
		}
	}
}
