package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/tink"

	"github.com/crmguard/crmguard/encrypt"
)

// openCold says what a client costs that is opened for the first time beyond the second: its key. The time
// that the store takes is left out on both sides: it is the same for both, and in a database many times
// all the rest.
func openCold(ctx context.Context, _ *servers) (trial, error) {
	return coldTrial(ctx, func(open openPages) (nanoseconds int64, err error) {
		first, inStore, err := open()
		if err != nil {
			return 0, err
		}
		second, _, err := open()
		return first - inStore - second, err
	})
}

// openColdPage says what a client costs whoever opens a page for the first time: the store and the
// decryption are in it.
func openColdPage(ctx context.Context, _ *servers) (trial, error) {
	return coldTrial(ctx, func(open openPages) (nanoseconds int64, err error) {
		nanoseconds, _, err = open()
		return nanoseconds, err
	})
}

// openPages opens a batch of pages, and says how long that took, and how much of it the store.
type openPages func() (nanoseconds, inStore int64, err error)

// coldTrial measures pages of fifty clients, a value each, whose keys are in the store and not in
// the cache; the peer has a Tink keyset for each client. Each side begins its turn without keys in memory.
func coldTrial(ctx context.Context, measure func(open openPages) (nanoseconds int64, err error)) (trial, error) {
	store := &clocked{Store: encrypt.NewMemory()}
	p, err := newPairWith(ctx, store)
	if err != nil {
		return trial{}, err
	}
	peer := &tinkClients{store: &clocked{Store: encrypt.NewMemory()}, tenant: p.peer}
	const page = 50
	ours, theirs := make([][]encrypt.Cell, coldPages), make([][]encrypt.Cell, coldPages)
	for i := range coldPages {
		for j := range page {
			cell := encrypt.Cell{Place: phonePlace, Plaintext: shortText}
			cell.Place.Client = "c-" + strconv.Itoa(page*i+j)
			ours[i], theirs[i] = append(ours[i], cell), append(theirs[i], cell)
		}
		if err := errors.Join(p.ours.SealAll(p.ctx, phonePlace.Tenant, ours[i]), peer.create(p.ctx, theirs[i])); err != nil {
			return trial{}, errors.Join(err, p.close())
		}
	}
	// As [perOp] does, the median of batches.
	perClient := func(store *clocked, pages [][]encrypt.Cell, open func(cells []encrypt.Cell) error) measurement {
		return func(context.Context) (float64, error) {
			var batches []float64
			for batch := range slices.Chunk(pages, 20) {
				nanoseconds, err := measure(func() (nanoseconds, inStore int64, err error) {
					start, before := time.Now(), store.spent.Load()
					for _, cells := range batch {
						if err := open(cells); err != nil {
							return 0, 0, err
						}
					}
					return time.Since(start).Nanoseconds(), store.spent.Load() - before, nil
				})
				if err != nil {
					return 0, err
				}
				batches = append(batches, float64(nanoseconds)/float64(len(batch)*page))
			}
			return median(batches), nil
		}
	}
	return trial{
		ours: before(p.ours.Invalidate, perClient(store, ours, func(cells []encrypt.Cell) error {
			return errors.Join(p.ours.OpenAll(p.ctx, phonePlace.Tenant, cells), cells[0].Err)
		})),
		peer:   before(peer.forget, perClient(peer.store, theirs, func(cells []encrypt.Cell) error { return peer.open(p.ctx, cells) })),
		rounds: 61, // garbage collections fall into some
		close:  p.close,
	}, nil
}

// clocked is a store that says how many nanoseconds Load took.
type clocked struct {
	encrypt.Store
	spent atomic.Int64
}

func (s *clocked) Load(ctx context.Context, scopes []encrypt.Scope) ([]encrypt.Record, error) {
	start := time.Now()
	defer func() { s.spent.Add(time.Since(start).Nanoseconds()) }()
	return s.Store.Load(ctx, scopes)
}

// tinkClients has a Tink keyset for each client and does what it takes that values of a page are
// opened, and those of the same clients faster the next time: keysets lie in a store, of which a
// page takes one query, encrypted for their client under the tenant's AEAD; what was built of them is kept.
type tinkClients struct {
	store  *clocked // of the same kind as ours: a Wrapped is a keyset
	tenant tink.AEAD

	mu    sync.Mutex
	ready map[string]tink.AEAD
}

// tinkKept is how many clients a keyring keeps by default.
const tinkKept = 16_000

func (t *tinkClients) forget() { t.ready = make(map[string]tink.AEAD, tinkKept) }

// open fills Plaintext of cells of one tenant from Sealed.
func (t *tinkClients) open(ctx context.Context, cells []encrypt.Cell) error {
	primitives := make([]tink.AEAD, len(cells))
	missing := make([]int, 0, len(cells))
	scopes := make([]encrypt.Scope, 0, len(cells))
	t.mu.Lock()
	for i := range cells {
		at := &cells[i].Place
		if primitives[i] = t.ready[at.Client]; primitives[i] == nil {
			missing, scopes = append(missing, i), append(scopes, encrypt.ClientScope(at.Tenant, at.Client))
		}
	}
	t.mu.Unlock()
	records, err := t.store.Load(ctx, scopes)
	if err != nil {
		return err
	}
	if len(records) != len(missing) {
		return fmt.Errorf("%d keysets of %d clients", len(records), len(missing))
	}
	var ad []byte
	for j, i := range missing {
		ad = appendKeysetAD(ad[:0], records[j].Scope)
		handle, err := keyset.ReadWithAssociatedData(keyset.NewBinaryReader(bytes.NewReader(records[j].Wrapped)), t.tenant, ad)
		if err != nil {
			return err
		}
		if primitives[i], err = aead.New(handle); err != nil {
			return err
		}
		t.keep(cells[i].Place.Client, primitives[i])
	}
	for i := range cells {
		ad = appendPlaceAD(ad[:0], &cells[i].Place)
		if cells[i].Plaintext, err = primitives[i].Decrypt(cells[i].Sealed, ad); err != nil {
			return err
		}
	}
	return nil
}

// keep has the cheapest bound: when there are too many, all go.
func (t *tinkClients) keep(client string, primitive tink.AEAD) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.ready) >= tinkKept {
		clear(t.ready)
	}
	t.ready[client] = primitive
}

// create makes keysets for the clients of cells and fills Sealed.
func (t *tinkClients) create(ctx context.Context, cells []encrypt.Cell) error {
	for i := range cells {
		c := &cells[i]
		scope := encrypt.ClientScope(c.Place.Tenant, c.Place.Client)
		handle, err := keyset.NewHandle(aead.AES256GCMKeyTemplate())
		if err != nil {
			return err
		}
		var stored bytes.Buffer
		if err := handle.WriteWithAssociatedData(keyset.NewBinaryWriter(&stored), t.tenant, appendKeysetAD(nil, scope)); err != nil {
			return err
		}
		record := encrypt.Record{Scope: scope, Version: 1, State: encrypt.Active, Wrapped: stored.Bytes()}
		if _, err := t.store.Insert(ctx, []encrypt.Record{record}); err != nil {
			return err
		}
		primitive, err := aead.New(handle)
		if err != nil {
			return err
		}
		if c.Sealed, err = primitive.Encrypt(c.Plaintext, placeAD(c.Place)); err != nil {
			return err
		}
	}
	return nil
}

// appendKeysetAD binds a keyset to its client.
func appendKeysetAD(ad []byte, s encrypt.Scope) []byte {
	ad = append(append(ad, s.Tenant...), 0)
	return append(ad, s.Name...)
}
