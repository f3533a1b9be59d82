package audit_test

import (
	"context"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/internal/journaltest"
)

// born is a store in which a log begins before somebody learns where it stands.
type born struct {
	*audit.Memory
	begin func()
}

func (b *born) Head(ctx context.Context) (audit.Head, error) {
	b.begin()
	return b.Memory.Head(ctx)
}

// Who verifies a log while it begins finds its first checkpoint.
func TestVerifyWhileALogBegins(t *testing.T) {
	signer, verifier := journaltest.Signer(t)
	m := audit.NewMemory()
	s := &born{m, sync.OnceFunc(func() {
		log, err := audit.New(t.Context(), m, journaltest.NewSealer(), signer, verifier, nil)
		require.NoError(t, err)
		for i := range 3 {
			require.NoError(t, log.Record(t.Context(), journaltest.Event(i)))
		}
		t.Cleanup(func() { require.NoError(t, log.Close()) })
	})}
	r, err := audit.VerifyStore(t.Context(), s, verifier, nil)
	require.NoError(t, err)
	require.Equal(t, audit.Unanchored, r.Verdict, r.Detail)
	require.EqualValues(t, 3, r.Entries)
}
