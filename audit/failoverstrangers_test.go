package audit_test

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/audit"
)

func knock(a crmguard.Action, tenant string) crmguard.Event {
	e := act(a, "")
	e.Subject, e.Outcome = crmguard.Subject{Addr: netip.MustParseAddr("192.0.2.7")}, crmguard.Denied
	e.Resource.Tenant = tenant
	return e
}

// refusals adds up what the journal says of strangers.
func refusals(t *testing.T, r *rig) (n int) {
	t.Helper()
	for _, e := range r.events(t) {
		if e.Subject.ID == "" {
			n += max(1, e.Count)
		}
	}
	return n
}

// Who hangs up before the answer is added up as everybody is.
func TestStrangersWhoHangUp(t *testing.T) {
	r := newRig(t, audit.FailoverOptions{})
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for range 100 {
		require.NoError(t, r.Record(gone, knock(crmguard.Create, "acme")))
	}
	require.Len(t, r.events(t), 1)
	require.NoError(t, r.Failover.Close())
	require.Len(t, r.events(t), 2)
	require.Equal(t, 100, refusals(t, r))
}

// What was added up is not one event when it is told while the log is down.
func TestStrangersAreCountedWhileDown(t *testing.T) {
	r := newRig(t, audit.FailoverOptions{})
	for range 501 {
		require.NoError(t, r.Record(t.Context(), knock(crmguard.View, "acme")))
	}
	r.store.set(errDown, nil)
	require.NoError(t, r.Record(t.Context(), act(crmguard.View, "")))
	r.clock.Advance(2 * time.Minute)
	r.until(t, func() bool { return r.Status().Repeated == 0 })
	r.store.set(nil, nil)
	r.until(t, func() bool { return r.Status().OK() })
	require.Equal(t, 501, refusals(t, r))
}

// Strangers may name any tenant; those who try them all fill neither memory nor disk.
func TestStrangersWhoNameTenants(t *testing.T) {
	r := newRig(t, audit.FailoverOptions{})
	var wg sync.WaitGroup
	var refused atomic.Int64
	for from := range 64 {
		wg.Go(func() {
			for i := range 300 {
				if err := r.Record(t.Context(), knock(crmguard.View, fmt.Sprint("tenant-", from, "-", i))); err != nil {
					refused.Add(1)
				}
			}
		})
	}
	wg.Wait()
	head, err := r.memory.Head(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 3*4096, head.Size)
	require.EqualValues(t, 64*300-3*4096, refused.Load(), "nobody is told that it was recorded")
	require.NoError(t, r.Record(t.Context(), act(crmguard.View, "")), "people are not strangers")
}

// Counts are on the disk after a while, though nothing else happens.
func TestCountsAreSpooled(t *testing.T) {
	r := newRig(t, audit.FailoverOptions{})
	r.store.set(errDown, nil)
	require.NoError(t, r.Record(t.Context(), act(crmguard.View, "")))
	r.until(t, func() bool { return r.Status().Down })
	r.clock.Advance(2 * time.Minute)
	r.until(t, func() bool { return r.Status().Spooled == 1 && r.Status().Dropped == 0 })
}

// What was acknowledged is told, whoever closes meanwhile.
func TestCloseWaitsForWhoRecords(t *testing.T) {
	r := newRig(t, audit.FailoverOptions{})
	inside, goOn := make(chan struct{}), make(chan struct{})
	f, err := audit.NewFailover(r.log, t.TempDir(), &audit.FailoverOptions{Policy: func(e crmguard.Event) audit.Policy {
		if e.Action == crmguard.List {
			close(inside)
			<-goOn
		}
		return audit.PolicyOf(e)
	}})
	require.NoError(t, err)
	r.store.set(errDown, nil)
	require.NoError(t, f.Record(t.Context(), act(crmguard.View, "")))
	ended, closed := make(chan error, 1), make(chan error, 1)
	go func() { ended <- f.Record(t.Context(), act(crmguard.List, "")) }()
	<-inside
	go func() { closed <- f.Close() }()
	select {
	case err := <-closed:
		closed <- err
	case <-time.After(100 * time.Millisecond): // long enough for one that does not wait
	}
	close(goOn)
	require.NoError(t, <-ended)
	require.NoError(t, <-closed)
	require.Zero(t, f.Status().Dropped, "neither journal nor spool know of it")
	require.ErrorIs(t, f.Record(t.Context(), act(crmguard.View, "")), audit.ErrClosed)
}
