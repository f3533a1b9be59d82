package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sethvargo/go-limiter/memorystore"

	"github.com/crmguard/crmguard/quota"
)

// quotaClaims compare the store that counts distinct items in memory to a rate
// limiter that counts calls. Both are told who it is; what package quota does
// before it asks its store, find out who acts and which day it is there, is not
// measured.
func quotaClaims() []claim {
	return []claim{{name: "quota.memory", unit: "ns", direction: atMost, limit: 2, open: openQuotaMemory}}
}

// openQuotaMemory has each of 1,000 persons take fifty clients twice, so that half
// of what is taken is new, and then begins the next day.
func openQuotaMemory(ctx context.Context, _ *servers) (trial, error) {
	const persons, norm = 1000, 50
	peer, err := memorystore.New(&memorystore.Config{Tokens: 1 << 40, Interval: 24 * time.Hour})
	if err != nil {
		return trial{}, err
	}
	var names []string
	for i := range persons {
		names = append(names, fmt.Sprintf("person-%d", i))
	}
	var clients [][]string
	for i := range norm {
		clients = append(clients, []string{fmt.Sprintf("c-%06d", i)})
	}
	var ours quota.Store = quota.NewMemory()
	t := quota.Taking{
		Tenant:   "default",
		Limits:   []quota.Limit{{Counter: "records view contacts", Soft: norm - 10, Hard: norm}},
		Attempts: quota.Limit{Counter: quota.AttemptsCounter},
	}
	calls, peerCalls := 0, 0
	return trial{
		ours: perOp(func() error {
			turn := calls / (2 * norm)
			t.Person, t.Items, t.Day = names[turn%persons], clients[calls%norm], quota.Day(turn/persons) // #nosec G115 -- days of a minute
			calls++
			taken, err := ours.Take(ctx, t)
			if err == nil && taken.Refused != "" {
				err = errors.New("refused")
			}
			return err
		}),
		peer: perOp(func() error {
			name := names[peerCalls/(2*norm)%persons]
			peerCalls++
			_, _, _, ok, err := peer.Take(ctx, name)
			if err == nil && !ok {
				err = errors.New("refused")
			}
			return err
		}),
		close: func() error { return peer.Close(context.WithoutCancel(ctx)) },
	}, nil
}
