package audit_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/internal/journaltest"
)

// elsewhere is a store in which another process does something right after the first
// look for entries.
type elsewhere struct {
	audit.Store
	meanwhile func()
}

func (s *elsewhere) Read(ctx context.Context, from int64, n int) ([]audit.Row, error) {
	rows, err := s.Store.Read(ctx, from, n)
	if meanwhile := s.meanwhile; meanwhile != nil {
		s.meanwhile = nil
		meanwhile()
	}
	return rows, err
}

// Two processes that open a new log at once, of which one records before the other is
// done, both get it.
func TestALogIsOpenedBesideOneThatWrites(t *testing.T) {
	memory, keys := audit.NewMemory(), journaltest.NewSealer()
	signer, verifier := journaltest.Signer(t)
	begin := func(s audit.Store) *audit.Log {
		log, err := audit.New(t.Context(), s, keys, signer, verifier, nil)
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, log.Close()) })
		return log
	}
	var other *audit.Log
	late := begin(&elsewhere{Store: memory, meanwhile: func() {
		other = begin(memory)
		for i := range 3 {
			require.NoError(t, other.Record(t.Context(), journaltest.Event(i)))
		}
	}})
	require.NotNil(t, other)
	require.NoError(t, late.Record(t.Context(), journaltest.Event(9)))
	report, err := late.Verify(t.Context(), verifier, nil)
	require.NoError(t, err)
	require.True(t, report.OK(), report.Detail)
}
