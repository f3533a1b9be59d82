package encrypt_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
	"github.com/tink-crypto/tink-go/v2/tink"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/encrypt"
)

// gate holds calls until it is opened, and tells how many wait.
type gate struct {
	waiting chan struct{}
	open    chan struct{}
}

func newGate() *gate { return &gate{waiting: make(chan struct{}, 64), open: make(chan struct{})} }

func (g *gate) pass() {
	g.waiting <- struct{}{}
	<-g.open
}

// heldStore holds every Load of one tenant.
type heldStore struct {
	encrypt.Store
	gate   *gate
	tenant string
}

func (s heldStore) Load(ctx context.Context, scopes []encrypt.Scope) ([]encrypt.Record, error) {
	if scopes[0].Tenant == s.tenant {
		s.gate.pass()
	}
	return s.Store.Load(ctx, scopes)
}

// heldKEK holds every decryption.
type heldKEK struct {
	tink.AEADWithContext
	gate *gate
}

func (k heldKEK) DecryptWithContext(ctx context.Context, b, ad []byte) ([]byte, error) {
	k.gate.pass()
	return k.AEADWithContext.DecryptWithContext(ctx, b, ad)
}

// Two places whose names look the same when they are written one after the other.
var lookAlikes = []crmguard.Place{
	{Tenant: "2", Client: "acmecompany1c1", Kind: "contacts", Record: "r", Field: "f"},
	{Tenant: "acmecompany1", Client: "c1", Kind: "contacts", Record: "r", Field: "f"},
}

// What one caller fetches is handed to those only who asked for the same scope.
func TestOnesKeyNeverServesTheOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kek, memory := newKEK(t), encrypt.NewMemory()
		writer := openKeyring(t, kek, memory, nil)
		sealed, err := writer.Seal(acting("2"), lookAlikes[0], []byte("secret"))
		require.NoError(t, err)
		_, err = writer.Seal(acting("acmecompany1"), lookAlikes[1], []byte("x"))
		require.NoError(t, err)

		held := newGate()
		k := openKeyring(t, kek, heldStore{memory, held, "2"}, nil)
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := k.Open(acting("2"), lookAlikes[0], sealed); err != nil {
				t.Error(err)
			}
		})
		<-held.waiting
		wg.Go(func() {
			if plaintext, err := k.Open(acting("acmecompany1"), lookAlikes[1], sealed); !errors.Is(err, encrypt.ErrForeign) {
				t.Errorf("another tenant opened %q: %v", plaintext, err)
			}
		})
		synctest.Wait() // the second one has joined the flight now, or has ended
		close(held.open)
		wg.Wait()
	})
}

// Each tenant asks the KEK itself, however alike their names are.
func TestOneTenantsKeysetNeverServesTheOther(t *testing.T) {
	kek, memory := newKEK(t), encrypt.NewMemory()
	writer := openKeyring(t, kek, memory, nil)
	places := []crmguard.Place{{Tenant: "1x", Client: "c"}, {Tenant: "11x", Client: "c"}}
	sealed := make([][]byte, len(places))
	for i, at := range places {
		var err error
		sealed[i], err = writer.Seal(acting(at.Tenant), at, []byte("x"))
		require.NoError(t, err)
	}
	held := newGate()
	k := openKeyring(t, heldKEK{kek, held}, memory, nil)
	var wg sync.WaitGroup
	for i, at := range places {
		wg.Go(func() {
			if _, err := k.Open(acting(at.Tenant), at, sealed[i]); err != nil {
				t.Error(err)
			}
		})
		<-held.waiting
	}
	close(held.open)
	wg.Wait()
}
