// Package journaltest holds what the tests of the journal share.
package journaltest

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/mod/sumdb/note"

	"github.com/crmguard/crmguard"
)

// Sealer is a [crmguard.Sealer] with one AES-256 key per client. All Sealers have
// the same keys, as processes of one installation have.
type Sealer struct {
	mu     sync.Mutex
	keys   map[[2]string][]byte
	erased map[[2]string]bool
	Err    error // what Seal returns, if not nil
}

// NewSealer returns one without keys.
func NewSealer() *Sealer {
	return &Sealer{keys: make(map[[2]string][]byte), erased: make(map[[2]string]bool)}
}

// Erase destroys the key of a client.
func (s *Sealer) Erase(tenant, client string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.erased[[2]string{tenant, client}] = true
	delete(s.keys, [2]string{tenant, client})
}

func (s *Sealer) aead(at crmguard.Place) (cipher.AEAD, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id := [2]string{at.Tenant, at.Client}
	if s.erased[id] {
		return nil, crmguard.ErrErased
	}
	if s.keys[id] == nil {
		sum := sha256.Sum256(fmt.Appendf(nil, "%q", id))
		s.keys[id] = sum[:]
	}
	block, err := aes.NewCipher(s.keys[id])
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

func aad(at crmguard.Place) []byte {
	sum := sha256.Sum256(fmt.Appendf(nil, "%q", at))
	return sum[:]
}

// Seal implements [crmguard.Sealer].
func (s *Sealer) Seal(_ context.Context, at crmguard.Place, plaintext []byte) ([]byte, error) {
	if s.Err != nil {
		return nil, s.Err
	}
	a, err := s.aead(at)
	if err != nil {
		return nil, err
	}
	return a.Seal(nil, nil, plaintext, aad(at)), nil //nolint:gosec // the AEAD makes the nonce
}

// Open implements [crmguard.Sealer].
func (s *Sealer) Open(ctx context.Context, at crmguard.Place, sealed []byte) ([]byte, error) {
	if _, ok := crmguard.SubjectFrom(ctx); !ok && at.Client != "" {
		return nil, errors.New("journaltest: no subject")
	}
	a, err := s.aead(at)
	if err != nil {
		return nil, err
	}
	return a.Open(nil, nil, sealed, aad(at))
}

// Signer makes a key named "crm.example/journal".
func Signer(t require.TestingT) (note.Signer, note.Verifier) {
	secret, public, err := note.GenerateKey(rand.Reader, "crm.example/journal")
	require.NoError(t, err)
	signer, err := note.NewSigner(secret)
	require.NoError(t, err)
	verifier, err := note.NewVerifier(public)
	require.NoError(t, err)
	return signer, verifier
}

// Event returns a complete event, number i, of one of three people.
func Event(i int) crmguard.Event {
	return crmguard.Event{
		ID:   fmt.Sprintf("event-%d", i),
		Time: time.Date(2026, 11, 21, 12, 0, i, 0, time.UTC),
		Subject: crmguard.Subject{
			Tenant: "acme", ID: []string{"anna", "boris", "clara"}[i%3], Kind: crmguard.KindEmployee,
			Session: "s-1", Device: "d-1", Addr: netip.MustParseAddr([]string{"192.0.2.7", "2001:db8::7"}[i/2%2]),
			Assurance: crmguard.AssuranceSecondFactor, AuthenticatedAt: time.Date(2026, 11, 21, 9, 0, 0, 0, time.UTC),
			Roles: []string{"seller"}, Units: []string{"sales"},
		},
		Action:   []crmguard.Action{crmguard.View, crmguard.Update}[i%2],
		Resource: crmguard.Resource{Tenant: "acme", Kind: "contacts", ID: fmt.Sprint(i % 5), Owner: "anna", Unit: "sales"},
		Outcome:  crmguard.Done,
		Fields:   []string{"phone", "email"},
		Count:    1,
		Request:  "r-1",
		Policy:   "p-1",
		Private:  []crmguard.Private{{Client: fmt.Sprintf("client-%d", i%4), Name: "old", Value: fmt.Appendf(nil, "+4930123456%d", i)}},
	}
}
