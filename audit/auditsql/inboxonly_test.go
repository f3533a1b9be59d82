package auditsql_test

import (
	"bytes"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/internal/journaltest"
	"github.com/crmguard/crmguard/internal/sqldb/sqldbtest"
)

// A process that has no options of its own forgets a client in what others keep.
func TestInboxOnlyForgets(t *testing.T) {
	db := sqldbtest.SQLite(t)
	signer, verifier := journaltest.Signer(t)
	log, err := audit.New(t.Context(), newStore(t, db), journaltest.NewSealer(), signer, verifier,
		&audit.Options{Findable: []string{"old"}, Pseudonyms: &journaltest.Pseudonymizer{First: 1, Last: 1}})
	require.NoError(t, err)
	defer func() { require.NoError(t, log.Close()) }()
	e := journaltest.Event(1)
	require.NoError(t, log.Record(t.Context(), e))
	crm, err := audit.OpenInbox(t.Context(), newStore(t, db), journaltest.NewSealer(), nil)
	require.NoError(t, err)
	defer func() { require.NoError(t, crm.Close()) }()
	n, err := crm.Forget(t.Context(), "acme", e.Private[0].Client)
	require.NoError(t, err)
	require.EqualValues(t, 1, n)
}

// A log without a signing key refuses what takes one.
func TestInboxOnlyHasNoKey(t *testing.T) {
	db := sqldbtest.SQLite(t)
	signer, verifier := journaltest.Signer(t)
	log := openLog(t, db, signer, verifier)
	require.NoError(t, log.Record(t.Context(), journaltest.Event(1)))
	require.NoError(t, log.Close())
	crm, err := audit.OpenInbox(t.Context(), newStore(t, db), journaltest.NewSealer(), nil)
	require.NoError(t, err)
	defer func() { require.NoError(t, crm.Close()) }()
	ctx := crmguard.WithSubject(t.Context(), journaltest.Event(1).Subject)
	for name, do := range map[string]func() error{
		"prove":   func() error { _, err := crm.Prove(ctx, 0); return err },
		"extract": func() error { _, err := crm.Extract(ctx, audit.Query{Tenant: "acme"}, &bytes.Buffer{}); return err },
		"prune":   func() error { _, err := crm.Prune(ctx, time.Now()); return err },
	} {
		require.NotPanics(t, func() { require.Error(t, do(), name) }, name)
	}
}
