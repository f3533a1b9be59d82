package audit_test

import (
	"bytes"
	"context"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/internal/journaltest"
)

// strictSealer seals and opens for subjects of the tenant alone, as a keyring does.
type strictSealer struct{ *journaltest.Sealer }

func (s strictSealer) Seal(ctx context.Context, at crmguard.Place, plaintext []byte) ([]byte, error) {
	if subject, ok := crmguard.SubjectFrom(ctx); ok {
		if err := crmguard.CheckTenant(subject, at.Tenant); err != nil {
			return nil, err
		}
	}
	return s.Sealer.Seal(ctx, at, plaintext)
}

func (s strictSealer) Open(ctx context.Context, at crmguard.Place, sealed []byte) ([]byte, error) {
	subject, _ := crmguard.SubjectFrom(ctx)
	if err := crmguard.CheckTenant(subject, at.Tenant); err != nil {
		return nil, err
	}
	return s.Sealer.Open(ctx, at, sealed)
}

// tailed is a store in memory that keeps what a batch leaves.
type tailed struct {
	*audit.Memory
	mu   sync.Mutex
	tail []byte
}

func (s *tailed) Append(ctx context.Context, b audit.Batch) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.Memory.Append(ctx, b)
	if err == nil && len(b.Rows) > 0 {
		s.tail = bytes.Clone(b.Tail)
	}
	return err
}

func (s *tailed) Tail(context.Context) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return bytes.Clone(s.tail), nil
}

// Whoever opens a log, or has it verified, is somebody of a tenant. What the log seals
// for itself is of its own tenant, so it acts as itself.
func TestLogActsAsItself(t *testing.T) {
	anna := crmguard.WithSubject(t.Context(), crmguard.Subject{Tenant: "acme", ID: "anna", Kind: crmguard.KindEmployee})
	signer, verifier := journaltest.Signer(t)
	store, keys := &tailed{Memory: audit.NewMemory()}, strictSealer{journaltest.NewSealer()}
	for round := range 2 { // the second process reads what the first one sealed
		log, err := audit.New(anna, store, keys, signer, verifier, nil)
		require.NoError(t, err)
		require.NoError(t, log.Record(anna, journaltest.Event(round)))
		r, err := log.Verify(anna, verifier, nil)
		require.NoError(t, err)
		require.Equal(t, audit.Unanchored, r.Verdict, r.Detail)
		require.True(t, r.Tail, "the MAC was opened")
		require.NoError(t, log.Close())
	}
	_, err := keys.Seal(anna, crmguard.Place{Tenant: "audit:0", Kind: "audit-tail"}, nil)
	require.Error(t, err, "a log that acted as whoever called it would be refused")
}
