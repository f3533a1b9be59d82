package quota

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/crmguard/crmguard"
)

type tabKey struct{ q *Quota }

// tab is what was taken for one OpenOrRefund.
type tab struct {
	holder int64

	mu    sync.Mutex
	taken []Taking
}

// add notes what was taken. After the end of OpenOrRefund it stays taken.
func (t *tab) add(taking Taking) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.taken = append(t.taken, taking)
}

func (t *tab) close() []Taking {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.taken
}

// OpenOrRefund runs open, and gives back what was counted for it if it reports that
// nothing was opened: that no client's data was decrypted, or that all of it was
// thrown away before a byte of it left the server.
//
//	err := norms.OpenOrRefund(ctx, func(ctx context.Context) (opened bool, err error) {
//		err = contacts.Open(ctx, tenant, &c)
//		return err == nil, err
//	})
//
// Only what is new of today is given back: not who was counted before, nor who was
// opened by another act meanwhile. Attempts and queries are never given back. A
// panic gives nothing back. The context of open is of no use after it returns: the
// act in it is one of its own, which has not opened anything yet.
func (q *Quota) OpenOrRefund(ctx context.Context, open func(ctx context.Context) (opened bool, err error)) error {
	t := &tab{holder: newHolder()}
	inner := context.WithValue(ctx, tabKey{q}, t)
	if act := crmguard.ActFrom(ctx); act != nil {
		inner = crmguard.WithAct(inner, act.Action, act.Resource)
	}
	opened, err := open(inner)
	taken := t.close()
	if opened {
		return err
	}
	ctx, cancel := detached(ctx)
	defer cancel()
	for _, taking := range taken {
		if returnErr := q.store.Return(ctx, taking, nil); returnErr != nil {
			err = errors.Join(err, fmt.Errorf("quota: give back: %w", returnErr))
		}
	}
	return err
}
