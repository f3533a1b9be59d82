package audit_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/internal/journaltest"
)

// An event that does not fit is kept without its bulk, never refused: who exported
// ten thousand fields must not be able to do it unseen.
func TestCutEntries(t *testing.T) {
	big := bytes.Repeat([]byte("secret"), 20_000)
	for name, change := range map[string]func(*crmguard.Event){
		"a value":      func(e *crmguard.Event) { e.Private[0].Value = big },
		"many values":  func(e *crmguard.Event) { e.Private = privates(256, 300) },
		"many fields":  func(e *crmguard.Event) { e.Fields = make([]string, 70_000) },
		"long fields":  func(e *crmguard.Event) { e.Fields = repeat(strings.Repeat("x", 1000), 100) },
		"many roles":   func(e *crmguard.Event) { e.Subject.Roles = make([]string, 70_000) },
		"long scopes":  func(e *crmguard.Event) { e.Subject.Scopes = repeat(strings.Repeat("x", 1000), 100) },
		"all together": func(e *crmguard.Event) { e.Private, e.Fields = privates(256, 9000), make([]string, 70_000) },
		"long clients": func(e *crmguard.Event) { e.Private = longClients(256) },
	} {
		t.Run(name, func(t *testing.T) {
			sealed := &remembering{Sealer: journaltest.NewSealer()}
			signer, verifier := journaltest.Signer(t)
			store := audit.NewMemory()
			log, err := audit.New(t.Context(), store, sealed, signer, verifier, nil)
			require.NoError(t, err)
			e := journaltest.Event(1)
			e.Reason, e.Count = "customer-asked", 12
			change(&e)
			require.NoError(t, log.Record(t.Context(), e))
			require.NoError(t, log.Record(t.Context(), e), "once more, it is the same entry")
			require.NoError(t, log.Close())
			require.True(t, verify(t, store, verifier).OK())

			rows, err := store.Read(t.Context(), 0, 9)
			require.NoError(t, err)
			require.Len(t, rows, 1)
			require.LessOrEqual(t, len(rows[0].Record), 64<<10)
			page, err := log.Find(t.Context(), audit.Query{Tenant: "acme"})
			require.NoError(t, err)
			got := page.Entries[0]
			require.NotNil(t, got.Cut, "the entry says that it is cut")
			require.EqualValues(t, len(e.Fields), got.Cut.Fields)
			require.EqualValues(t, len(e.Private), got.Cut.Values)
			require.Empty(t, got.Event.Fields)
			require.Equal(t, []any{e.ID, e.Time, e.Subject.ID, e.Subject.Addr, e.Action, e.Resource, e.Outcome, e.Reason, e.Count, e.Request, e.Policy},
				[]any{got.Event.ID, got.Event.Time, got.Event.Subject.ID, got.Event.Subject.Addr, got.Event.Action, got.Event.Resource, got.Event.Outcome,
					got.Event.Reason, got.Event.Count, got.Event.Request, got.Event.Policy}, "who, what, when, why and how it ended")
			if name != "long clients" {
				require.Len(t, got.Sealed, len(e.Private))
			}
			require.NotEmpty(t, got.Sealed)
			for i, v := range got.Sealed {
				require.Equal(t, e.Private[i].Client, v.Client)
				require.Nil(t, v.Sealed)
				require.Equal(t, sha256.Sum256(sealed.first[i]), v.Digest, "of the sealed bytes")
				require.EqualValues(t, len(sealed.first[i]), v.Size)
				require.NotEqual(t, sha256.Sum256(e.Private[i].Value), v.Digest, "never of what they hide")
			}
			_, err = log.OpenPrivate(crmguard.WithSubject(t.Context(), e.Subject), got)
			require.ErrorContains(t, err, "not kept")
		})
	}
}

// remembering keeps what was sealed first for each value.
type remembering struct {
	crmguard.Sealer
	first [][]byte
}

func (r *remembering) Seal(ctx context.Context, at crmguard.Place, plaintext []byte) ([]byte, error) {
	sealed, err := r.Sealer.Seal(ctx, at, plaintext)
	r.first = append(r.first, sealed)
	return sealed, err
}

func repeat(s string, n int) []string {
	list := make([]string, n)
	for i := range list {
		list[i] = s
	}
	return list
}

func privates(n, size int) []crmguard.Private {
	list := make([]crmguard.Private, n)
	for i := range list {
		list[i] = crmguard.Private{Client: "client", Name: "old", Value: make([]byte, size)}
	}
	return list
}

func longClients(n int) []crmguard.Private {
	list := privates(n, 300)
	for i := range list {
		list[i].Client = strings.Repeat("c", 1000)
	}
	return list
}

// Texts that a request chooses are as long as the request likes; what is kept of
// them is not, and two that begin alike stay two.
func TestLongTexts(t *testing.T) {
	j := open(t, audit.NewMemory())
	text := strings.Repeat("ä", 600)
	for i, end := range []string{"a", "b"} {
		e := journaltest.Event(i)
		e.Reason, e.Resource.ID, e.Subject.Session, e.Request = text+end, text+end, text+end, text+end
		require.NoError(t, j.Record(t.Context(), e))
	}
	fits := journaltest.Event(2)
	fits.Reason = strings.Repeat("x", 1024)
	require.NoError(t, j.Record(t.Context(), fits))
	page, err := j.Find(t.Context(), audit.Query{Tenant: "acme", Kind: "contacts", Record: text + "a"})
	require.NoError(t, err)
	require.Len(t, page.Entries, 1, "found by all of it")
	got := page.Entries[0].Event
	require.Nil(t, page.Entries[0].Cut)
	require.Regexp(t, `^ä{470,}…sha256:[0-9a-f]{64}$`, got.Resource.ID)
	require.LessOrEqual(t, len(got.Resource.ID), 1024)
	require.Equal(t, got.Resource.ID, got.Reason)
	page, err = j.Find(t.Context(), audit.Query{Tenant: "acme"})
	require.NoError(t, err)
	require.Equal(t, fits.Reason, page.Entries[0].Event.Reason)
	require.NotEqual(t, page.Entries[1].Event.Reason, page.Entries[2].Event.Reason)
	require.True(t, j.verify(t).OK())

	e := journaltest.Event(9)
	e.Private[0].Client = strings.Repeat("c", 1025)
	require.Error(t, j.Record(t.Context(), e), "another id would be another client")
}
