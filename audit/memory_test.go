package audit_test

import (
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/internal/journaltest"
)

// Frameworks hand out strings whose memory they use again for the next request.
func TestMemoryKeepsNothingBorrowed(t *testing.T) {
	s := audit.NewMemory()
	j := open(t, s)
	var memory [][]byte
	borrow := func(texts ...*string) {
		for _, s := range texts {
			b := []byte(*s)
			memory = append(memory, b)
			*s = unsafe.String(unsafe.SliceData(b), len(b))
		}
	}
	for i := range 3 {
		e := journaltest.Event(i)
		borrow(&e.ID, &e.Subject.ID, &e.Resource.Kind, &e.Resource.ID, (*string)(&e.Action))
		for p := range e.Private {
			borrow(&e.Private[p].Client)
		}
		require.NoError(t, j.Record(t.Context(), e))
	}
	for _, b := range memory {
		clear(b)
	}
	require.True(t, j.verify(t).OK())
	rows, err := s.Find(t.Context(), audit.Query{Tenant: "acme", Client: "client-2", Action: journaltest.Event(2).Action, Limit: 10})
	require.NoError(t, err)
	require.Len(t, rows, 1)
	require.Equal(t, crmguard.Done, rows[0].Keys.Outcome)
}
