package main

import (
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/auditsql"
	"github.com/crmguard/crmguard/crmguardtest"
	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/encrypt/encryptsql"
	"github.com/crmguard/crmguard/internal/sqldb"
)

// Keys are counted while somebody writes, and the writer goes on.
func TestCountingWhileTheCRMRuns(t *testing.T) {
	dir := t.TempDir()
	store, err := encryptsql.OpenSQLite(t.Context(), dir+"/keys.db", true)
	require.NoError(t, err)
	defer store.Close() //nolint:errcheck // a test
	insert := func(name string) error {
		_, err := store.Insert(t.Context(), []encrypt.Record{{Scope: encrypt.Scope{Tenant: "acme", Purpose: encrypt.DataKey, Name: name},
			Version: 1, State: encrypt.Active, Wrapped: []byte("x"), CreatedAt: time.Now()}})
		return err
	}
	require.NoError(t, insert("c1"))
	writer, err := sqldb.OpenSQLite(t.Context(), dir+"/keys.db")
	require.NoError(t, err)
	defer writer.Close() //nolint:errcheck // a test
	writer.SetMaxOpenConns(1)
	_, err = writer.Exec(`BEGIN IMMEDIATE`)
	require.NoError(t, err)
	code, out, complaint := invoke(t, "keys", "list", "-store", dir+"/keys.db")
	require.Equal(t, good, code, complaint)
	require.Regexp(t, `acme +client +1 +active +1 `, out)
	_, err = writer.Exec(`ROLLBACK`)
	require.NoError(t, err)
	require.NoError(t, insert("c2"))
}

// runningJournal begins a journal, as a CRM that runs has one, in the database with this name.
func runningJournal(t *testing.T, name, key string) *audit.Log {
	t.Helper()
	signer, verifier, err := audit.OpenSigner(key, "crm.example/journal", true)
	require.NoError(t, err)
	db, err := open(t.Context(), name)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	store, err := auditsql.New(t.Context(), db, nil)
	require.NoError(t, err)
	journal, err := audit.New(t.Context(), store, crmguardtest.NewKeys(), signer, verifier, nil)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, journal.Close()) })
	return journal
}

// A journal is verified while it grows, and against the checkpoint of a moment ago.
func TestVerifyingWhileTheCRMRuns(t *testing.T) {
	eachName(t, func(t *testing.T, name string) {
		dir := t.TempDir()
		journal := runningJournal(t, name, dir+"/journal.key")

		stop, stopped := make(chan struct{}), make(chan error)
		go func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					stopped <- nil
					return
				default:
				}
				if err := journal.Record(t.Context(), view(strconv.Itoa(i))); err != nil {
					stopped <- err
					return
				}
			}
		}()
		code, out, complaint := invoke(t, "audit", "verify", "-db", name, "-key", dir+"/journal.key.pub", "-save", dir+"/pin")
		require.Equal(t, unanchored, code, out+complaint)
		for range 3 {
			code, out, complaint := invoke(t, "audit", "verify", "-db", name, "-key", dir+"/journal.key.pub", "-checkpoint", dir+"/pin", "-save", dir+"/pin")
			require.Equal(t, good, code, out+complaint)
			require.Contains(t, out, "intact")
		}
		close(stop)
		require.NoError(t, <-stopped)
		require.NoError(t, journal.Close())
	})
}

// view is the event of Anna looking at a contact.
func view(contact string) crmguard.Event {
	return crmguard.Event{
		Subject: crmguard.Subject{Tenant: "acme", ID: "anna", Kind: crmguard.KindEmployee},
		Action:  crmguard.View, Outcome: crmguard.Done,
		Resource: crmguard.Resource{Tenant: "acme", Kind: "contacts", ID: contact},
	}
}
