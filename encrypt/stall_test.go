package encrypt_test

import (
	"context"
	"strconv"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/tink-crypto/tink-go/v2/tink"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/encrypt"
)

// during runs hooks when something waits, after it has happened.
type during struct {
	encrypt.Store
	load, lease func()
	polls       atomic.Int64
	onePoll     bool // later ones fail
}

func (d *during) Closing(ctx context.Context) (int64, []encrypt.Record, error) {
	if d.polls.Add(1) > 1 && d.onePoll {
		return 0, nil, errDown
	}
	return d.Store.Closing(ctx)
}

func (d *during) Load(ctx context.Context, scopes []encrypt.Scope) ([]encrypt.Record, error) {
	records, err := d.Store.Load(ctx, scopes)
	if d.load != nil {
		d.load()
	}
	return records, err
}

func (d *during) Lease(ctx context.Context, records []encrypt.Record, n uint64) ([]encrypt.Record, error) {
	leased, err := d.Store.Lease(ctx, records, n)
	if d.lease != nil {
		d.lease()
	}
	return leased, err
}

// slowKEK runs a hook in every decryption.
type slowKEK struct {
	tink.AEADWithContext
	hook func()
}

func (k *slowKEK) DecryptWithContext(ctx context.Context, b, ad []byte) ([]byte, error) {
	if k.hook != nil {
		k.hook()
	}
	return k.AEADWithContext.DecryptWithContext(ctx, b, ad)
}

// stalled is a node of which something stalls for longer than a lease.
type stalled struct {
	clock   *clock
	memory  *encrypt.Memory
	store   *during
	kek     *slowKEK
	onOpen  func()
	k       *encrypt.Keyring
	table   *encrypt.Table[contact]
	row     *contact
	elapses func() // a lease passes and meanwhile another node closes the client
}

func stall(t *testing.T) *stalled {
	s := &stalled{clock: newClock(t), memory: encrypt.NewMemory()}
	s.store, s.kek = &during{Store: s.memory}, &slowKEK{AEADWithContext: newKEK(t)}
	writer, err := encrypt.NewTable[contact](openKeyring(t, s.kek, s.memory, &encrypt.Options{Index: encrypt.NewMemoryIndex()}), "contacts", nil)
	require.NoError(t, err)
	note := "x"
	s.row = &contact{ID: "c1", Phone: "+79123456789", Note: &note}
	_, err = writer.Seal(acting("acme"), "acme", s.row)
	require.NoError(t, err)
	s.k = openKeyring(t, s.kek, s.store, &encrypt.Options{Index: encrypt.NewMemoryIndex(), OnOpen: func(context.Context, string, []string) error {
		if s.onOpen != nil {
			s.onOpen()
		}
		return nil
	}})
	s.table, err = encrypt.NewTable[contact](s.k, "contacts", nil)
	require.NoError(t, err)
	done := false
	s.elapses = func() {
		if done {
			return
		}
		done = true
		_, err := s.memory.Advance(t.Context(), dataScope("c1"), encrypt.Closing, s.clock.Now())
		require.NoError(t, err)
		s.clock.Advance(encrypt.Lease)
	}
	return s
}

// calls are the ways to use keys, each of which must notice that time has passed.
func (s *stalled) calls() map[string]func() error {
	at := crmguard.Place{Tenant: "acme", Client: "c1", Kind: "contacts", Record: "c1", Field: "phone"}
	return map[string]func() error{
		"find keys":  func() error { return encrypt.Usable(acting("acme"), s.k, encrypt.ClientScope("acme", "c1")) },
		"open":       func() error { _, err := s.k.Open(acting("acme"), at, s.row.PhoneSealed); return err },
		"seal":       func() error { _, err := s.k.Seal(acting("acme"), at, nil); return err },
		"open table": func() error { return s.table.Open(acting("acme"), "acme", s.row) },
		"seal table": func() error { _, err := s.table.Seal(acting("acme"), "acme", s.row); return err },
	}
}

func TestKeysAreLookedAtAgainAfterEveryWait(t *testing.T) {
	waits := map[string]struct {
		set  func(s *stalled)
		with []string
	}{
		"OnOpen":           {func(s *stalled) { s.onOpen = s.elapses }, []string{"open", "open table"}},
		"the KEK":          {func(s *stalled) { s.kek.hook = s.elapses }, []string{"find keys", "open", "seal", "open table", "seal table"}},
		"reading keys":     {func(s *stalled) { s.store.load = s.elapses }, []string{"find keys", "open", "seal", "open table", "seal table"}},
		"a lease of count": {func(s *stalled) { s.store.lease = s.elapses }, []string{"seal", "seal table"}},
	}
	for name, wait := range waits {
		for _, call := range wait.with {
			t.Run(name+" "+call, func(t *testing.T) {
				s := stall(t)
				wait.set(s)
				require.ErrorIs(t, s.calls()[call](), crmguard.ErrErased)
				require.Error(t, s.calls()["open table"]())
				require.Empty(t, s.row.Phone)
			})
		}
	}
}

// A store that is always slower than a lease gives no keys at all.
func TestAStoreSlowerThanALeaseIsUnavailable(t *testing.T) {
	for _, call := range []string{"find keys", "open", "seal", "open table", "seal table"} {
		t.Run(call, func(t *testing.T) {
			s := stall(t)
			s.store.onePoll = true // one in the background would tell that nothing has changed
			s.store.load = func() { s.clock.Advance(encrypt.Lease) }
			require.ErrorIs(t, s.calls()[call](), crmguard.ErrUnavailable)
		})
	}
	for _, call := range []string{"seal", "seal table"} {
		t.Run("lease "+call, func(t *testing.T) {
			s := stall(t)
			s.store.lease = func() { s.clock.Advance(encrypt.Lease) }
			require.NoError(t, s.calls()[call](), "the second try needs no other lease of messages")
		})
	}
}

// A stall without an erasure costs a query, nothing else.
func TestAStallAloneDoesNoHarm(t *testing.T) {
	for _, call := range []string{"open", "open table"} {
		t.Run(call, func(t *testing.T) {
			s := stall(t)
			s.onOpen = func() { s.clock.Advance(encrypt.Lease) }
			require.NoError(t, s.calls()[call]())
		})
	}
}

// However many clients are erased while keys are read, only theirs are read again.
func TestErasuresOfOthersDisturbNobody(t *testing.T) {
	kek, memory := newKEK(t), encrypt.NewMemory()
	sealed, err := openKeyring(t, kek, memory, nil).Seal(acting("acme"), home, []byte("x"))
	require.NoError(t, err)
	store := &during{Store: memory}
	k := openKeyring(t, kek, store, nil)
	others, loads := 0, 0
	store.load = func() {
		loads++
		load := store.load
		store.load = nil
		defer func() { store.load = load }()
		others++
		_, err := k.Erase(acting("acme"), "acme", "other"+strconv.Itoa(others))
		require.NoError(t, err)
	}
	_, err = k.Open(acting("acme"), home, sealed)
	require.NoError(t, err)
	require.NotZero(t, others)
	require.LessOrEqual(t, loads, 2, "of the client, and of the tenant's key for receipts")
}
