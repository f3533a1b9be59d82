package rbacsql_test

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/internal/sqldb/sqldbtest"
	"github.com/crmguard/crmguard/internal/uptime"
	"github.com/crmguard/crmguard/rbac"
	"github.com/crmguard/crmguard/rbac/rbacsql"
)

// moment is longer than anything here takes.
const moment = 20 * time.Second

// lockedBuffer is a log that is read while it is written.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func textLogger(b *lockedBuffer) *slog.Logger { return slog.New(slog.NewTextHandler(b, nil)) }

// watch watches until the test ends, and then waits for Watch to return.
func watch(t *testing.T, e *rbac.Engine, o *rbac.WatchOptions) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- e.Watch(ctx, o) }()
	stop = sync.OnceFunc(func() {
		cancel()
		require.NoError(t, <-done)
	})
	t.Cleanup(stop)
	return stop
}

func list(e *rbac.Engine, id string) error {
	return e.Check(context.Background(), employee("default", id), crmguard.List, crmguard.Resource{Tenant: "default", Kind: "contacts"})
}

func mayList(e *rbac.Engine, id string) bool { return list(e, id) == nil }

func TestPollingTakesOverWhatOthersChange(t *testing.T) {
	sqldbtest.Each(t, func(t *testing.T, db *sql.DB) {
		a := open(t, db, nil, rbac.StarterPolicy()+people2)
		one, err := rbac.New(t.Context(), a, quiet())
		require.NoError(t, err)
		other, err := rbacsql.New(t.Context(), db, testKeys, nil)
		require.NoError(t, err)
		two, err := rbac.New(t.Context(), other, quiet())
		require.NoError(t, err)
		stop := watch(t, two, &rbac.WatchOptions{Every: 5 * time.Millisecond, MaxAge: moment})
		job := crmguard.System(t.Context(), "default", "test")

		require.True(t, mayList(two, "anna"))
		_, err = one.Revoke(job, "default", "anna")
		require.NoError(t, err)
		require.Eventually(t, func() bool { return !mayList(two, "anna") }, moment, time.Millisecond)
		require.Eventually(t, func() bool { return two.Status().Stored.Number == one.Status().Stored.Number }, moment, time.Millisecond)
		status := two.Status()
		require.NoError(t, status.Err)
		require.Equal(t, two.Version(), status.InForce)
		require.Equal(t, status.InForce, status.Stored.Digest)
		require.False(t, status.Stale)
		require.Eventually(t, func() bool { return two.Status().Looked.After(status.Looked) }, moment, time.Millisecond)

		require.ErrorContains(t, two.Watch(job, nil), "already")
		stop()
		require.ErrorContains(t, two.Watch(job, &rbac.WatchOptions{MaxAge: time.Second}), "MaxAge")
		require.ErrorContains(t, two.Watch(job, &rbac.WatchOptions{Every: -1}), "negative")
	})
}

// A broken policy keeps what is left of the old one; one that was changed past the
// adapter keeps the old one for a while.
func TestWhatAWatcherDoesNotTakeOver(t *testing.T) {
	sqldbtest.Each(t, func(t *testing.T, db *sql.DB) {
		a := open(t, db, nil, rbac.StarterPolicy()+people2)
		var log lockedBuffer
		other, err := rbacsql.New(t.Context(), db, testKeys, nil)
		require.NoError(t, err)
		e, err := rbac.New(t.Context(), other, &rbac.Options{Logger: textLogger(&log)})
		require.NoError(t, err)
		watch(t, e, &rbac.WatchOptions{Every: 5 * time.Millisecond, MaxAge: moment})

		bad := []string{"role:x", "default", "contacts", "view", "own", "Allow"}
		require.NoError(t, a.AddPolicy("p", "p", bad))
		require.NoError(t, a.RemovePolicy("g", "g", []string{"u:vera", "role:seller", "default"}))
		require.Eventually(t, func() bool { return !mayList(e, "vera") }, moment, time.Millisecond)
		require.True(t, mayList(e, "anna"))
		var refused *rbac.PolicyError // what is left is in force a moment before the status says so
		require.Eventually(t, func() bool { return errors.As(e.Status().Err, &refused) }, moment, time.Millisecond)
		looked := e.Status().Looked
		require.Eventually(t, func() bool { return e.Status().Looked.After(looked) }, moment, time.Millisecond, "it counts as looked at")
		require.ErrorAs(t, e.Status().Err, &refused)
		require.Contains(t, log.String(), "what is still stored")
		require.NoError(t, a.RemovePolicy("p", "p", bad))
		require.Eventually(t, func() bool { return e.Status().Err == nil }, moment, time.Millisecond)
		require.Eventually(t, func() bool { return bytes.Contains([]byte(log.String()), []byte("again")) }, moment, time.Millisecond)

		d := table{t, db}
		d.dump("good")
		d.exec(`DELETE FROM casbin_version WHERE number = (SELECT MAX(number) FROM casbin_version)`)
		require.Eventually(t, func() bool { return errors.Is(e.Status().Err, rbacsql.ErrOlder) }, moment, time.Millisecond)
		looked = e.Status().Looked
		require.True(t, mayList(e, "anna"))
		require.Eventually(t, func() bool { return bytes.Contains([]byte(log.String()), []byte("cannot be used")) }, moment, time.Millisecond)
		require.Equal(t, looked, e.Status().Looked, "it does not count as looked at")
		d.restore("good")
		require.Eventually(t, func() bool { return e.Status().Err == nil }, moment, time.Millisecond)
	})
}

// failingHead is a store that nobody can look at.
type failingHead struct {
	*rbacsql.Adapter
	down atomic.Bool
}

func (a *failingHead) Head(ctx context.Context) (rbac.Version, error) {
	if a.down.Load() {
		return rbac.Version{}, errors.New("connection refused")
	}
	return a.Adapter.Head(ctx)
}

func (a *failingHead) Load(ctx context.Context) (rbac.Stored, error) {
	if a.down.Load() {
		return rbac.Stored{}, errors.New("connection refused")
	}
	return a.Adapter.Load(ctx)
}

// Once nobody has looked at the store for too long, every question is an error that is no
// denial; one look makes the answers good again.
func TestAStalePolicyDecidesNothing(t *testing.T) {
	store := &failingHead{Adapter: open(t, sqldbtest.SQLite(t), nil, rbac.StarterPolicy()+people2)}
	var past atomic.Int64
	began := uptime.Now()
	defer uptime.Move(func() time.Duration { return began + time.Duration(past.Load()) })()
	e, err := rbac.New(t.Context(), store, quiet())
	require.NoError(t, err)
	ctx, anna := t.Context(), employee("default", "anna")
	contacts := crmguard.Resource{Tenant: "default", Kind: "contacts"}
	questions := map[string]func() error{
		"Check":    func() error { return e.Check(ctx, anna, crmguard.List, contacts) },
		"CheckAll": func() error { return e.CheckAll(ctx, anna, crmguard.List, []crmguard.Resource{contacts})[0] },
		"Filter":   func() error { _, err := e.Filter(ctx, anna, crmguard.List, "contacts"); return err },
		"Fields":   func() error { _, err := e.Fields(ctx, anna, contacts, "phone"); return err },
		"Resolve":  func() error { _, _, err := e.Resolve(ctx, "default", "anna"); return err },
		"Roles":    func() error { _, err := e.Roles(ctx, "default"); return err },
	}
	stale := func(want bool) {
		t.Helper()
		for name, ask := range questions {
			err := ask()
			if !want {
				require.NoError(t, err, name)
				continue
			}
			var is *rbac.StaleError
			require.ErrorAs(t, err, &is, name)
			require.Greater(t, is.Age, is.MaxAge)
			_, denied := errors.AsType[*crmguard.Denial](err)
			require.False(t, denied)
		}
		require.Equal(t, want, e.Status().Stale)
	}

	// planted fault: nobody watches, so nobody notices
	past.Store(int64(24 * time.Hour))
	stale(false)
	past.Store(0)

	watch(t, e, &rbac.WatchOptions{Every: time.Millisecond, MaxAge: 10 * time.Second})
	looked := e.Status().Looked
	require.Eventually(t, func() bool { return e.Status().Looked.After(looked) }, moment, time.Millisecond)
	store.down.Store(true)
	require.Eventually(t, func() bool { return e.Status().Err != nil }, moment, time.Millisecond)
	stale(false)
	past.Store(int64(10 * time.Second))
	stale(false)
	past.Store(int64(10*time.Second + 1))
	stale(true)
	store.down.Store(false)
	require.Eventually(t, func() bool { return !e.Status().Stale }, moment, time.Millisecond)
	stale(false)
}

// hear is the listener of the package documentation.
func hear(url, channel string, ready func()) func(ctx context.Context, changed func()) error {
	return func(ctx context.Context, changed func()) error {
		conn, err := pgx.Connect(ctx, url)
		if err != nil {
			return err
		}
		defer conn.Close(context.WithoutCancel(ctx)) //nolint:errcheck // it ends
		if _, err := conn.Exec(ctx, "LISTEN "+channel); err != nil {
			return err
		}
		ready()
		for {
			if _, err := conn.WaitForNotification(ctx); err != nil {
				return err
			}
			changed()
		}
	}
}

func TestNotifiedChangesComeAtOnce(t *testing.T) {
	url := sqldbtest.PostgresURL(t)
	db, err := sql.Open("pgx", url)
	require.NoError(t, err)
	defer func() { require.NoError(t, db.Close()) }()
	a := open(t, db, nil, rbac.StarterPolicy()+people2)
	require.Equal(t, "casbin_policy", a.Channel())
	other, err := rbacsql.New(t.Context(), db, testKeys, nil)
	require.NoError(t, err)
	e, err := rbac.New(t.Context(), other, quiet())
	require.NoError(t, err)
	ready := make(chan struct{}, 1)
	watch(t, e, &rbac.WatchOptions{Every: time.Hour, MaxAge: 2 * time.Hour, Listen: hear(url, a.Channel(), func() { ready <- struct{}{} })})
	<-ready
	require.NoError(t, a.RemovePolicy("g", "g", []string{"u:anna", "role:seller", "default"}))
	require.Eventually(t, func() bool { return !mayList(e, "anna") }, moment, time.Millisecond)
}

// Signs are lost, or nobody can listen: the next look finds the change.
func TestLostSigns(t *testing.T) {
	for name, listen := range map[string]func(ctx context.Context, changed func()) error{
		"lost":   func(ctx context.Context, _ func()) error { <-ctx.Done(); return ctx.Err() },
		"failed": func(context.Context, func()) error { return errors.New("connection refused") },
	} {
		t.Run(name, func(t *testing.T) {
			a := open(t, sqldbtest.SQLite(t), nil, rbac.StarterPolicy()+people2)
			var log lockedBuffer
			e, err := rbac.New(t.Context(), a, &rbac.Options{Logger: textLogger(&log)})
			require.NoError(t, err)
			watch(t, e, &rbac.WatchOptions{Every: 5 * time.Millisecond, MaxAge: moment, Listen: listen})
			require.NoError(t, a.RemovePolicy("g", "g", []string{"u:anna", "role:seller", "default"}))
			require.Eventually(t, func() bool { return !mayList(e, "anna") }, moment, time.Millisecond)
			if name == "failed" {
				require.Eventually(t, func() bool { return bytes.Contains([]byte(log.String()), []byte("not heard")) }, moment, time.Millisecond)
			}
		})
	}
}

func TestWatchLeavesNothingBehind(t *testing.T) {
	a := open(t, sqldbtest.SQLite(t), nil, rbac.StarterPolicy())
	e, err := rbac.New(t.Context(), a, quiet())
	require.NoError(t, err)
	before := goleak.IgnoreCurrent()
	began := make(chan struct{})
	stop := watch(t, e, &rbac.WatchOptions{Listen: func(ctx context.Context, _ func()) error { close(began); <-ctx.Done(); return nil }})
	<-began
	require.Error(t, goleak.Find(before, goleak.Cleanup(func(int) {})), "planted fault: it still watches")
	stop()
	require.NoError(t, goleak.Find(before))
}

// An adapter without versions is read whole each time.
func TestWatchOfAFile(t *testing.T) {
	e, err := rbac.FromCSV(t.Context(), "../testdata/v1/policy.csv", quiet())
	require.NoError(t, err)
	looked := e.Status().Looked
	watch(t, e, &rbac.WatchOptions{Every: time.Millisecond, MaxAge: moment})
	require.Eventually(t, func() bool { return e.Status().Looked.After(looked) }, moment, time.Millisecond)
	require.Zero(t, e.Status().Stored)
}
