package audit_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/internal/journaltest"
)

// calls returns a log whose entries tell of calls to clients, with the numbers.
func calls(t *testing.T, keys crmguard.Pseudonymizer) (*audit.Log, *audit.Memory, *journaltest.Sealer) {
	t.Helper()
	signer, verifier := journaltest.Signer(t)
	store, sealer := audit.NewMemory(), journaltest.NewSealer()
	log, err := audit.New(t.Context(), store, sealer, signer, verifier, &audit.Options{Findable: []string{"phone"}, Pseudonyms: keys})
	require.NoError(t, err)
	t.Cleanup(func() { _ = log.Close() })
	for i := range 8 {
		e := journaltest.Event(i)
		e.Private = []crmguard.Private{
			{Client: fmt.Sprintf("client-%d", i%4), Name: "phone", Value: fmt.Appendf(nil, "+4930%d", i%4)},
			{Client: fmt.Sprintf("client-%d", i%4), Name: "note", Value: []byte("+49300")},
		}
		require.NoError(t, log.Record(t.Context(), e))
	}
	return log, store, sealer
}

func byPhone(t *testing.T, log *audit.Log, phone string) (seqs []int64) {
	t.Helper()
	page, err := log.Find(t.Context(), audit.Query{Tenant: "acme", Private: crmguard.Private{Name: "phone", Value: []byte(phone)}})
	require.NoError(t, err)
	for _, e := range page.Entries {
		seqs = append(seqs, e.Seq)
	}
	return seqs
}

func TestEntriesAreFoundByASealedValue(t *testing.T) {
	keys := &journaltest.Pseudonymizer{First: 1, Last: 1}
	log, store, sealer := calls(t, keys)
	require.Equal(t, []int64{4, 0}, byPhone(t, log, "+49300"))
	require.Empty(t, byPhone(t, log, "+4930"))

	// Keys rotate: what was written under an old version is found while that lives.
	keys.Last = 2
	e := journaltest.Event(8)
	e.Private = []crmguard.Private{{Client: "client-0", Name: "phone", Value: []byte("+49300")}}
	require.NoError(t, log.Record(t.Context(), e))
	require.Equal(t, []int64{8, 4, 0}, byPhone(t, log, "+49300"))
	n, err := log.Reindex(t.Context(), "acme")
	require.NoError(t, err)
	require.Equal(t, 9, n)
	keys.First = 2
	require.Equal(t, []int64{8, 4, 0}, byPhone(t, log, "+49300"))
	keys.First, keys.Last = 3, 3 // the planted fault: nobody has reindexed
	require.Empty(t, byPhone(t, log, "+49300"))
	_, err = log.Reindex(t.Context(), "acme")
	require.NoError(t, err)

	// They die with the client.
	sealer.Erase("acme", "client-0")
	require.Equal(t, []int64{8, 4, 0}, byPhone(t, log, "+49300"), "planted fault: the host has not said so")
	dropped, err := log.Forget(t.Context(), "acme", "client-0")
	require.NoError(t, err)
	require.EqualValues(t, 3, dropped)
	require.Empty(t, byPhone(t, log, "+49300"))
	_, err = log.Reindex(t.Context(), "acme")
	require.NoError(t, err)
	require.Empty(t, byPhone(t, log, "+49300"), "nor does a reindex bring them back")
	require.Equal(t, []int64{5, 1}, byPhone(t, log, "+49301"))

	// What somebody plants beside the log finds no entry that has no such value.
	other := journaltest.Event(9)
	other.Private = nil
	require.NoError(t, log.Record(t.Context(), other))
	value, err := keys.Pseudonyms(t.Context(), crmguard.Place{Tenant: "acme", Kind: "audit", Field: "phone"}, []byte("+49301"))
	require.NoError(t, err)
	require.NoError(t, store.SetPseudonyms(t.Context(), "acme", other.ID, other.Outcome, []audit.Pseudonym{{
		Tenant: "acme", Event: other.ID, Outcome: other.Outcome, Name: "phone", Value: value[0],
	}}))
	require.Equal(t, []int64{5, 1}, byPhone(t, log, "+49301"))
}

func TestFindableIsRefused(t *testing.T) {
	signer, verifier := journaltest.Signer(t)
	keys := &journaltest.Pseudonymizer{First: 1, Last: 1}
	_, err := audit.New(t.Context(), audit.NewMemory(), journaltest.NewSealer(), signer, verifier, &audit.Options{Findable: []string{"phone"}})
	require.ErrorContains(t, err, "pseudonymizer")
	_, err = audit.New(t.Context(), openFile(t, t.TempDir()), journaltest.NewSealer(), signer, verifier, &audit.Options{Findable: []string{"phone"}, Pseudonyms: keys})
	require.ErrorContains(t, err, "a store that keeps pseudonyms")

	log, store, _ := calls(t, keys)
	byNote := audit.Query{Tenant: "acme", Private: crmguard.Private{Name: "note", Value: []byte("+49300")}}
	_, err = log.Find(t.Context(), byNote)
	require.ErrorContains(t, err, "not findable")
	byNote.Private.Name = "phone"
	byNote.Pseudonyms = [][]byte{[]byte("of the caller's")} // does not count
	_, err = audit.FindStore(t.Context(), store, byNote)
	require.ErrorContains(t, err, "by Log.Find only")
	for _, err := range log.Follow(t.Context(), byNote, -1) {
		require.ErrorContains(t, err, "by Log.Find only", "a tail of all entries it is not")
	}
	boss := crmguard.WithSubject(t.Context(), crmguard.Subject{Tenant: "acme", ID: "boss", Kind: crmguard.KindEmployee})
	_, err = log.Watch(boss, byNote, -1)
	require.ErrorContains(t, err, "by Log.Find only")
	_, err = log.Extract(boss, byNote, io.Discard)
	require.ErrorContains(t, err, "by Log.Find only", "an extract of all entries it is not")
	page, err := log.Read(boss, byNote)
	require.NoError(t, err)
	require.Len(t, page.Entries, 2)
	page, err = log.Find(t.Context(), audit.Query{Tenant: "acme", Action: audit.ActRead})
	require.NoError(t, err)
	require.Equal(t, []string{"private:phone"}, page.Entries[0].Event.Fields)
	require.NotContains(t, fmt.Sprintf("%+v", byNote), "+49300", "a query redacts what it looks for")

	_, err = log.Forget(t.Context(), "acme", "")
	require.Error(t, err)
	plain := open(t, audit.NewMemory())
	_, err = plain.Reindex(t.Context(), "acme")
	require.Error(t, err)
	_, err = plain.Find(t.Context(), byNote)
	require.ErrorContains(t, err, "not findable")
}

// One value that does not open keeps nobody from the others.
func TestReindexGoesOn(t *testing.T) {
	keys := &journaltest.Pseudonymizer{First: 1, Last: 1}
	signer, verifier := journaltest.Signer(t)
	sealer := &failsOnce{Sealer: journaltest.NewSealer()}
	log, err := audit.New(t.Context(), audit.NewMemory(), sealer, signer, verifier, &audit.Options{Findable: []string{"old"}, Pseudonyms: keys})
	require.NoError(t, err)
	t.Cleanup(func() { _ = log.Close() })
	for i := range 3 {
		require.NoError(t, log.Record(t.Context(), journaltest.Event(i)))
	}
	sealer.fails = true
	n, err := log.Reindex(t.Context(), "acme")
	require.ErrorContains(t, err, "entry 2: no keys")
	require.Equal(t, 2, n)
}

// failsOnce is a sealer that fails to open once.
type failsOnce struct {
	*journaltest.Sealer
	fails bool
}

func (f *failsOnce) Open(ctx context.Context, at crmguard.Place, sealed []byte) ([]byte, error) {
	if f.fails {
		f.fails = false
		return nil, errors.New("no keys")
	}
	return f.Sealer.Open(ctx, at, sealed)
}
