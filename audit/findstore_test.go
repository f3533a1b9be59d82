package audit_test

import (
	"bytes"
	"context"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/internal/journaltest"
	"github.com/crmguard/crmguard/crmguardtest"
)

// Without a Log entries are found all the same, and a damaged one is told, not left out in silence.
func TestFindStore(t *testing.T) {
	dir := t.TempDir()
	signer, verifier, err := audit.OpenSigner(dir+"/journal.key", "crm.example/journal", true)
	require.NoError(t, err)
	store := audit.NewMemory()
	log, err := audit.New(t.Context(), store, crmguardtest.NewKeys(), signer, verifier, nil)
	require.NoError(t, err)
	for i := range 3 {
		require.NoError(t, log.Record(t.Context(), crmguard.Event{Action: crmguard.View, Outcome: crmguard.Done,
			Subject:  crmguard.Subject{Tenant: "acme", ID: "anna", Kind: crmguard.KindEmployee},
			Resource: crmguard.Resource{Tenant: "acme", Kind: "contacts", ID: strconv.Itoa(i)}}))
	}
	require.NoError(t, log.Close())

	q := audit.Query{Tenant: "acme", Subject: "anna", Limit: 2}
	page, err := audit.FindStore(t.Context(), store, q)
	require.NoError(t, err)
	require.Len(t, page.Entries, 2)
	require.Equal(t, int64(2), page.Entries[0].Seq)
	q.Before = page.Next
	page, err = audit.FindStore(t.Context(), store, q)
	require.NoError(t, err)
	require.Len(t, page.Entries, 1)
	_, err = audit.FindStore(t.Context(), store, audit.Query{})
	require.ErrorContains(t, err, "tenant")

	rows, err := store.Read(t.Context(), 0, 3)
	require.NoError(t, err)
	entry, err := rows[1].Entry()
	require.NoError(t, err)
	require.Equal(t, "1", entry.Event.Resource.ID)

	// Planted faults: a row that is found by what its record does not say, and one that is none.
	rows[1].Keys.Subject = "boris"
	_, err = rows[1].Entry()
	require.ErrorAs(t, err, new(*audit.BrokenError))
	rows[2].Record = rows[2].Record[:8]
	_, err = rows[2].Entry()
	require.ErrorAs(t, err, new(*audit.BrokenError))
	page, err = audit.FindStore(t.Context(), found{store, rows}, audit.Query{Tenant: "acme", Subject: "anna"})
	broken := new(audit.BrokenError)
	require.ErrorAs(t, err, &broken)
	require.Equal(t, int64(2), broken.Seq)
	require.Len(t, page.Entries, 2, "the record of the second says anna")
}

// What was changed in the store is named and not shown, also where its hash was changed with it.
func TestFindTellsWhatWasChanged(t *testing.T) {
	good, _, _ := history(t, 5)
	store := good.memory(t)
	q := audit.Query{Tenant: journaltest.Event(0).Subject.Tenant, Limit: 50}
	for name, change := range map[string]func(r *audit.Row){
		"nothing": nil,
		"record":  func(r *audit.Row) { r.Record = bytes.Replace(r.Record, []byte("view"), []byte("vexx"), 1) },
		"hash":    func(r *audit.Row) { r.Hashes[0][3] ^= 1 },
		"both": func(r *audit.Row) {
			r.Record = bytes.Replace(r.Record, []byte("view"), []byte("vexx"), 1)
			r.Hashes[0] = tlog.RecordHash(r.Record)
		},
		"hashes removed": func(r *audit.Row) { r.Hashes = nil },
	} {
		t.Run(name, func(t *testing.T) {
			rows, err := store.Find(t.Context(), q)
			require.NoError(t, err)
			require.Len(t, rows, 5)
			if change == nil {
				page, err := audit.FindStore(t.Context(), found{store, rows}, q)
				require.NoError(t, err)
				require.Empty(t, page.Damaged)
				return
			}
			was := bytes.Clone(rows[2].Record)
			change(&rows[2])
			require.Equal(t, name == "record" || name == "both", !bytes.Equal(was, rows[2].Record))
			page, err := audit.FindStore(t.Context(), found{store, rows}, q)
			broken := new(audit.BrokenError)
			require.ErrorAs(t, err, &broken)
			require.Equal(t, rows[2].Seq, broken.Seq)
			require.Equal(t, []int64{rows[2].Seq}, page.Damaged)
			require.Len(t, page.Entries, 4)
		})
	}
}

// found is a store that finds these rows, whatever is asked.
type found struct {
	audit.Store
	rows []audit.Row
}

func (f found) Find(context.Context, audit.Query) ([]audit.Row, error) { return f.rows, nil }
