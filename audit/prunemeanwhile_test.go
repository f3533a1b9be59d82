package audit_test

import (
	"bytes"
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/internal/journaltest"
)

// meanwhile is a store in which something happens before one of the next reads.
type meanwhile struct {
	*audit.Memory
	reads int // until then
	do    func()
}

func (m *meanwhile) Read(ctx context.Context, from int64, n int) ([]audit.Row, error) {
	if do := m.do; do != nil && m.reads == 0 {
		m.do = nil
		do()
	}
	m.reads--
	return m.Memory.Read(ctx, from, n)
}

// What retention removes while somebody reads it was not tampered with.
func TestPrunedMeanwhile(t *testing.T) {
	for name, c := range map[string]func(t *testing.T, s *meanwhile, a *aging) error{
		"a proof": func(t *testing.T, s *meanwhile, a *aging) error {
			s.reads = 1
			_, err := audit.ProveStore(t.Context(), s, a.verifier, 100)
			require.ErrorIs(t, err, audit.ErrPruned)
			return err
		},
		"an extract": func(t *testing.T, s *meanwhile, a *aging) error {
			log, err := audit.New(t.Context(), s, journaltest.NewSealer(), a.signer, a.verifier, &audit.Options{Clock: func() time.Time { return a.now }})
			require.NoError(t, err)
			defer func() { require.NoError(t, log.Close()) }()
			s.reads = 20
			_, err = log.Extract(admin(t), audit.Query{Tenant: "acme"}, new(bytes.Buffer))
			require.ErrorIs(t, err, audit.ErrPruned)
			return err
		},
		"another removal": func(t *testing.T, s *meanwhile, a *aging) error {
			log, err := audit.New(t.Context(), s, journaltest.NewSealer(), a.signer, a.verifier, &audit.Options{Clock: func() time.Time { return a.now }})
			require.NoError(t, err)
			defer func() { require.NoError(t, log.Close()) }()
			s.reads = 1
			_, err = log.Prune(admin(t), a.now)
			require.ErrorContains(t, err, "meanwhile")
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := audit.NewMemory()
			a := days(t, m, 3)
			s := &meanwhile{Memory: m, reads: 1 << 20, do: func() { require.EqualValues(t, 768, a.prune(t, 3).To) }}
			err := c(t, s, a)
			require.Nil(t, s.do, "nothing happened meanwhile")
			require.Error(t, err)
			require.NotErrorAs(t, err, new(*audit.BrokenError))
		})
	}
}
