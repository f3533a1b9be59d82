package quota_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/quota"
)

// opener opens clients, half of them new: each of 1,000 persons opens fifty, each
// twice, and then the next day comes.
type opener struct {
	norms   *quota.Quota
	persons []context.Context
	clients [][]string
	n       int
	later   time.Duration
}

func newOpener(tb testing.TB, norms ...quota.Norm) *opener {
	o := &opener{}
	zone, err := quota.OneZone("Europe/Moscow")
	require.NoError(tb, err)
	o.norms, err = quota.New(quota.NewMemory(), zone, norms, &quota.Options{
		Clock: func() time.Time { return time.Now().Add(o.later) },
	})
	require.NoError(tb, err)
	for i := range 1000 {
		ctx := crmguard.WithSubject(tb.Context(), crmguard.Subject{Tenant: "acme", ID: fmt.Sprint("person", i), Kind: crmguard.KindEmployee})
		o.persons = append(o.persons, crmguard.WithAct(ctx, crmguard.View, crmguard.Resource{Tenant: "acme", Kind: "contacts"}))
	}
	for i := range 50 {
		o.clients = append(o.clients, []string{fmt.Sprintf("c-%08d", i)})
	}
	return o
}

func (o *opener) open() error {
	person, client := o.n/100%len(o.persons), o.n%50
	err := o.norms.OnOpen(o.persons[person], "acme", o.clients[client])
	if o.n++; o.n%(100*len(o.persons)) == 0 {
		o.later += 24 * time.Hour
	}
	return err
}

// BenchmarkOnOpen: one client of a card, half of them new.
func BenchmarkOnOpen(b *testing.B) {
	o := newOpener(b, quota.Norm{Action: crmguard.View, Kind: "contacts", Soft: 49, Hard: 50})
	b.ReportAllocs()
	for b.Loop() {
		if err := o.open(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkCountRefusal: what an attempt that rights refuse costs in addition.
func BenchmarkCountRefusal(b *testing.B) {
	o := newOpener(b, quota.Norm{Of: quota.Attempts, Hard: 100})
	b.ReportAllocs()
	for b.Loop() {
		if err := o.norms.CountRefusal(b.Context(), anna()); err != nil {
			b.Fatal(err)
		}
	}
}
