package encrypt_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/encrypt"
)

// refuses returns an error unless a keyring refuses to seal and open at home as erased.
func refuses(k *encrypt.Keyring, sealed []byte) error {
	ctx := acting("acme")
	if plaintext, err := k.Open(ctx, home, sealed); !errors.Is(err, crmguard.ErrErased) || plaintext != nil {
		return fmt.Errorf("open: %w", err)
	}
	if _, err := k.Seal(ctx, home, []byte("more")); !errors.Is(err, crmguard.ErrErased) {
		return fmt.Errorf("seal: %w", err)
	}
	return nil
}

func TestErase(t *testing.T) {
	kek, store, clock := newKEK(t), encrypt.NewMemory(), newClock(t)
	index := encrypt.NewMemoryIndex()
	ctx := acting("acme")
	options := &encrypt.Options{Clock: clock.Now, Index: index, BackupRetention: 40 * 24 * time.Hour}
	here, there := openKeyring(t, kek, store, options), openKeyring(t, kek, store, options)
	table, err := encrypt.NewTable[contact](here, "contacts", nil)
	require.NoError(t, err)
	row := &contact{ID: "c1", Phone: "+79123456789"}
	entries, err := table.Seal(ctx, "acme", row)
	require.NoError(t, err)
	require.NoError(t, index.Put(ctx, nil, entries))
	sealed, err := here.Seal(ctx, home, []byte("x"))
	require.NoError(t, err)
	_, err = there.Open(ctx, home, sealed)
	require.NoError(t, err)

	start := clock.Now()
	receipt, err := here.Erase(ctx, "acme", "c1")
	require.NoError(t, err)
	want := encrypt.Receipt{
		Tenant: "acme", Client: "c1", State: "closing", ClosedAt: start, IndexRows: 1,
	}
	require.Equal(t, want, unsigned(t, receipt))
	require.NoError(t, there.Check(ctx), "so that it knows")
	require.NoError(t, refuses(here, sealed))
	_, err = table.Seal(ctx, "acme", row)
	require.ErrorIs(t, err, crmguard.ErrErased)
	found, err := table.Find(ctx, "acme", "phone", "phone", row.Phone)
	require.NoError(t, err)
	require.Empty(t, found)

	clock.Advance(encrypt.Lease)
	require.NoError(t, refuses(there, sealed))

	// A transaction that sealed before the erasure commits now.
	require.NoError(t, index.Put(ctx, nil, entries))
	again, err := here.Erase(ctx, "acme", "c1")
	require.NoError(t, err)
	want.IndexRows = 2
	require.Equal(t, want, unsigned(t, again), "the first time counts; late rows are deleted again")
	require.NoError(t, index.Put(ctx, nil, entries))

	clock.Advance(encrypt.LongestTransaction - time.Microsecond)
	finished, err := here.FinishErasures(context.Background())
	require.NoError(t, err)
	require.Empty(t, finished, "too early")
	clock.Advance(time.Microsecond)
	finished, err = there.FinishErasures(context.Background())
	require.NoError(t, err)
	want.State, want.DestroyedAt = "destroyed", clock.Now()
	want.UnreadableAfter, want.UnlinkableAfter = clock.Now().Add(40*24*time.Hour), clock.Now().Add((40+90)*24*time.Hour)
	want.IndexRows = 3
	require.Len(t, finished, 1)
	require.Equal(t, want, unsigned(t, finished[0]), "with the late index row")
	finished, err = here.FinishErasures(context.Background())
	require.NoError(t, err)
	require.Empty(t, finished, "once")

	for _, k := range []*encrypt.Keyring{here, there, openKeyring(t, kek, store, options)} {
		require.NoError(t, refuses(k, sealed))
		clock.Advance(encrypt.Lease)
		require.NoError(t, refuses(k, sealed))
	}
	again, err = here.Erase(ctx, "acme", "c1")
	require.NoError(t, err)
	require.Equal(t, want, unsigned(t, again))
	records, err := store.Load(ctx, []encrypt.Scope{dataScope("c1")})
	require.NoError(t, err)
	require.Empty(t, records[0].Wrapped)

	other, err := here.Seal(ctx, client(2), []byte("x"))
	require.NoError(t, err)
	_, err = here.Open(ctx, client(2), other)
	require.NoError(t, err, "other clients go on")
}

// unsigned is a receipt without its MAC, which no other test foresees.
func unsigned(t *testing.T, r encrypt.Receipt) encrypt.Receipt {
	t.Helper()
	require.Len(t, r.MAC, 40)
	r.MAC = nil
	return r
}

// deaf never hears that a scope has closed.
type deaf struct{ encrypt.Store }

func (s deaf) Load(ctx context.Context, scopes []encrypt.Scope) ([]encrypt.Record, error) {
	records, err := s.Store.Load(ctx, scopes)
	for i := range records {
		records[i].State = encrypt.Active
	}
	return records, err
}

func TestTheCheckNoticesANodeThatDoesNotRefuse(t *testing.T) {
	kek, store, clock := newKEK(t), encrypt.NewMemory(), newClock(t)
	options := &encrypt.Options{Clock: clock.Now}
	here, there := openKeyring(t, kek, store, options), openKeyring(t, kek, deaf{store}, options)
	sealed, err := here.Seal(acting("acme"), home, []byte("x"))
	require.NoError(t, err)
	_, err = here.Erase(acting("acme"), "acme", "c1")
	require.NoError(t, err)
	clock.Advance(encrypt.Lease)
	require.NoError(t, refuses(here, sealed))
	require.Error(t, refuses(there, sealed))
}

func TestEraseRefuses(t *testing.T) {
	k := newKeyring(t, encrypt.NewMemory(), nil)
	for name, call := range map[string]struct {
		ctx            context.Context
		tenant, client string
	}{
		"no tenant":      {acting("acme"), "", "c1"},
		"no client":      {acting("acme"), "acme", ""},
		"foreign tenant": {acting("other"), "acme", "c1"},
		"nobody":         {context.Background(), "acme", "c1"},
		"zero byte":      {acting("acme"), "acme", "c\x00"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := k.Erase(call.ctx, call.tenant, call.client)
			require.Error(t, err)
		})
	}
	_, err := k.Seal(acting("acme"), home, nil)
	require.NoError(t, err, "nothing was erased")
}

func TestAClientThatNeverWasIsClosedToo(t *testing.T) {
	k := newKeyring(t, encrypt.NewMemory(), nil)
	receipt, err := k.Erase(acting("acme"), "acme", "c1")
	require.NoError(t, err)
	require.Equal(t, "closing", receipt.State)
	_, err = k.Seal(acting("acme"), home, nil)
	require.ErrorIs(t, err, crmguard.ErrErased)
}

// failing fails to delete index rows, or to destroy, while broken.
type failing struct {
	encrypt.Index
	encrypt.Store
	broken bool
}

func (f *failing) DropClient(ctx context.Context, tenant, client string) (int, error) {
	if f.broken {
		return 0, errDown
	}
	return f.Index.DropClient(ctx, tenant, client)
}

func (f *failing) Advance(ctx context.Context, scope encrypt.Scope, to encrypt.State, at time.Time) (encrypt.Record, error) {
	if f.broken && to == encrypt.Destroyed && scope.Name == "c2" {
		return encrypt.Record{}, errDown
	}
	return f.Store.Advance(ctx, scope, to, at)
}

func TestErasureGoesOnAfterFailures(t *testing.T) {
	clock, ctx := newClock(t), acting("acme")
	index := &failing{Index: encrypt.NewMemoryIndex(), broken: true}
	store := &failing{Store: encrypt.NewMemory(), broken: true}
	k := newKeyring(t, store, &encrypt.Options{Clock: clock.Now, Index: index})
	sealed, err := k.Seal(ctx, home, nil)
	require.NoError(t, err)
	receipt, err := k.Erase(ctx, "acme", "c1")
	require.ErrorIs(t, err, errDown)
	require.Equal(t, "closing", receipt.State, "closed all the same")
	require.NoError(t, refuses(k, sealed))
	_, err = k.Erase(ctx, "acme", "c2")
	require.Error(t, err)

	clock.Advance(encrypt.ClosingTime)
	finished, err := k.FinishErasures(job("acme"))
	require.ErrorIs(t, err, errDown)
	require.Empty(t, finished, "no key is destroyed while index rows may be left")
	index.broken = false
	finished, err = k.FinishErasures(job("acme"))
	require.ErrorIs(t, err, crmguard.ErrUnavailable)
	require.Len(t, finished, 1, "one failure does not hold up the others")
	store.broken = false
	finished, err = k.FinishErasures(job("acme"))
	require.NoError(t, err)
	require.Equal(t, "c2", finished[0].Client)
}

// What was under way when the client closed must not bring the key back into this node's cache.
func TestEraseBesideSlowReaders(t *testing.T) {
	for name, use := range map[string]func(ctx context.Context, k *encrypt.Keyring, sealed []byte){
		"open": func(ctx context.Context, k *encrypt.Keyring, sealed []byte) { _, _ = k.Open(ctx, home, sealed) },
		"seal": func(ctx context.Context, k *encrypt.Keyring, _ []byte) { _, _ = k.Seal(ctx, home, nil) },
	} {
		t.Run(name, func(t *testing.T) {
			kek, store := newKEK(t), encrypt.NewMemory()
			ctx := acting("acme")
			sealed, err := openKeyring(t, kek, store, nil).Seal(ctx, home, nil)
			require.NoError(t, err)
			lagging := &lagging{Store: store, gate: newGate()}
			k := openKeyring(t, kek, lagging, nil)
			var wg sync.WaitGroup
			wg.Go(func() { use(ctx, k, sealed) })
			<-lagging.gate.waiting
			_, err = k.Erase(ctx, "acme", "c1")
			require.NoError(t, err)
			require.NoError(t, refuses(k, sealed))
			close(lagging.gate.open)
			wg.Wait()
			require.NoError(t, refuses(k, sealed))
		})
	}
}

// lagging holds, the first time, what it has read of a client at home.
type lagging struct {
	encrypt.Store
	gate *gate
	once atomic.Bool
}

func (s *lagging) Load(ctx context.Context, scopes []encrypt.Scope) ([]encrypt.Record, error) {
	records, err := s.Store.Load(ctx, scopes)
	if slices.ContainsFunc(scopes, func(s encrypt.Scope) bool { return s.Name == home.Client }) && !s.once.Swap(true) {
		s.gate.pass()
	}
	return records, err
}

func TestReceiptAsJSON(t *testing.T) {
	clock := newClock(t)
	k := newKeyring(t, encrypt.NewMemory(), &encrypt.Options{Clock: clock.Now})
	receipt, err := k.Erase(acting("acme"), "acme", "c1")
	require.NoError(t, err)
	text, err := json.Marshal(unsigned(t, receipt))
	require.NoError(t, err)
	require.JSONEq(t, `{"tenant":"acme","client":"c1","state":"closing","closed_at":"2026-03-01T12:00:00Z","index_rows":0}`, string(text))
	clock.Advance(encrypt.ClosingTime)
	finished, err := k.FinishErasures(t.Context())
	require.NoError(t, err)
	require.Len(t, finished, 1)
	text, err = json.Marshal(unsigned(t, finished[0]))
	require.NoError(t, err)
	require.JSONEq(t, `{"tenant":"acme","client":"c1","state":"destroyed","closed_at":"2026-03-01T12:00:00Z","destroyed_at":"2026-03-01T12:01:10Z",
		"unreadable_after":"2026-03-31T12:01:10Z","unlinkable_after":"2026-06-29T12:01:10Z","index_rows":0}`, string(text))
}

// losing loses the record of a client while a note is added to it.
type losing struct{ *encrypt.Memory }

func (losing) Replace(context.Context, []encrypt.Record, []encrypt.Record) (int, error) {
	return 0, nil
}

func (s losing) Load(ctx context.Context, scopes []encrypt.Scope) ([]encrypt.Record, error) {
	if scopes[0] == dataScope("c1") {
		return nil, nil
	}
	return s.Memory.Load(ctx, scopes)
}

func TestARecordThatIsLostWhileItIsErasedHasNoKey(t *testing.T) {
	k := newKeyring(t, losing{encrypt.NewMemory()}, nil)
	_, err := k.Erase(acting("acme"), "acme", "c1", encrypt.Copy{What: "contacts of March"})
	require.EqualError(t, err, encrypt.ErrNoKey.Error())
}
