package auditsql_test

import (
	"context"
	"database/sql"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/mod/sumdb/note"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/internal/journaltest"
	"github.com/crmguard/crmguard/internal/sqldb/sqldbtest"
)

// forger writes entries as somebody does who has the database and the program, but not
// the keys: without MAC and checkpoints.
type forger struct{ audit.Store }

func (f forger) Append(ctx context.Context, b audit.Batch) error {
	b.Tail, b.Checkpoint = nil, nil
	return f.Store.Append(ctx, b)
}

func forge(t *testing.T, db *sql.DB, signer note.Signer, verifier note.Verifier, from, to int) {
	t.Helper()
	log, err := audit.New(t.Context(), forger{newStore(t, db)}, journaltest.NewSealer(), signer, verifier, nil)
	require.NoError(t, err)
	for i := from; i < to; i++ {
		require.NoError(t, log.Record(t.Context(), journaltest.Event(i)))
	}
	_ = log.Close() // its checkpoint was not kept
}

// What no checkpoint covers is covered by a MAC: whoever has keys notices a change.
func TestTail(t *testing.T) {
	exec := func(statements ...string) func(*testing.T, *sql.DB, note.Signer, note.Verifier) {
		return func(t *testing.T, db *sql.DB, _ note.Signer, _ note.Verifier) {
			for _, s := range statements {
				_, err := db.Exec(s)
				require.NoError(t, err)
			}
		}
	}
	cut := exec(`DELETE FROM crmguard_audit_entries WHERE seq >= 3`, `DELETE FROM crmguard_audit_clients WHERE seq >= 3`)
	for name, attack := range map[string]struct {
		do      func(*testing.T, *sql.DB, note.Signer, note.Verifier)
		verdict audit.Verdict
		without audit.Verdict // what is said without keys
	}{
		"nothing": {exec(), audit.Unanchored, audit.Unanchored},
		"rewritten": {func(t *testing.T, db *sql.DB, s note.Signer, v note.Verifier) {
			exec(`DELETE FROM crmguard_audit_entries`, `DELETE FROM crmguard_audit_clients`)(t, db, s, v)
			forge(t, db, s, v, 10, 15)
		}, audit.Forked, audit.Unanchored},
		"extended": {func(t *testing.T, db *sql.DB, s note.Signer, v note.Verifier) { forge(t, db, s, v, 5, 6) }, audit.Forked, audit.Unanchored},
		"cut":      {cut, audit.Truncated, audit.Unanchored},
		"cut and extended": {func(t *testing.T, db *sql.DB, s note.Signer, v note.Verifier) {
			cut(t, db, s, v)
			forge(t, db, s, v, 10, 12)
		}, audit.Forked, audit.Unanchored},
		"the MAC removed":    {exec(`DELETE FROM crmguard_audit_tail`), audit.CannotVerify, audit.Unanchored},
		"the MAC changed":    {exec(`UPDATE crmguard_audit_tail SET body = 'nonsense'`), audit.CannotVerify, audit.Unanchored},
		"emptied":            {exec(`DELETE FROM crmguard_audit_entries`, `DELETE FROM crmguard_audit_clients`), audit.Truncated, audit.Unanchored},
		"a byte of it":       {flipTail(20), audit.Forked, audit.Unanchored},
		"a byte of the key":  {flipTail(60), audit.CannotVerify, audit.Unanchored},
		"it says fewer":      {flipTail(8), audit.Forked, audit.Unanchored},
		"it says many more":  {flipTail(3), audit.Truncated, audit.Unanchored},
		"its version":        {flipTail(0), audit.CannotVerify, audit.Unanchored},
		"it ends too early":  {exec(`UPDATE crmguard_audit_tail SET body = '1'`), audit.CannotVerify, audit.Unanchored},
		"of what the others": {flipTail(16), audit.Forked, audit.Unanchored},
	} {
		t.Run(name, func(t *testing.T) {
			sqldbtest.Each(t, func(t *testing.T, db *sql.DB) {
				signer, verifier := journaltest.Signer(t)
				log := openLog(t, db, signer, verifier)
				for i := range 5 {
					require.NoError(t, log.Record(t.Context(), journaltest.Event(i)))
				}
				attack.do(t, db, signer, verifier)
				require.Equal(t, attack.without, verify(t, newStore(t, db), verifier).Verdict)
				r, err := log.Verify(t.Context(), verifier, nil)
				require.NoError(t, err)
				require.Equal(t, attack.verdict, r.Verdict, r.Detail)
				require.Equal(t, r.OK(), r.Tail)

				again, err := audit.New(t.Context(), newStore(t, db), journaltest.NewSealer(), signer, verifier, nil)
				if attack.verdict == audit.Unanchored {
					require.NoError(t, err)
					require.NoError(t, again.Close())
					return
				}
				_, broken := errors.AsType[*audit.BrokenError](err)
				require.True(t, broken, "%v", err)
				again, err = audit.New(t.Context(), newStore(t, db), journaltest.NewSealer(), signer, verifier, &audit.Options{AcceptUnsigned: true})
				require.NoError(t, err, "the host says that it looked")
				require.NoError(t, again.Record(t.Context(), journaltest.Event(20)))
				r, err = again.Verify(t.Context(), verifier, nil)
				require.NoError(t, err)
				require.True(t, r.OK(), r.Detail)
				require.NoError(t, again.Close())
			})
		})
	}
}

// flipTail changes a byte of the MAC or what is beside it.
func flipTail(at int) func(*testing.T, *sql.DB, note.Signer, note.Verifier) {
	return func(t *testing.T, db *sql.DB, _ note.Signer, _ note.Verifier) {
		body := tail(t, db)
		body[at] ^= 1
		_, err := db.Exec(`UPDATE crmguard_audit_tail SET body = $1`, body)
		require.NoError(t, err)
	}
}

func tail(t *testing.T, db *sql.DB) []byte {
	t.Helper()
	body, err := newStore(t, db).Tail(t.Context())
	require.NoError(t, err)
	return body
}

// Entries that somebody without keys appends are not continued by a log in use.
func TestTailOfALogInUse(t *testing.T) {
	sqldbtest.Each(t, func(t *testing.T, db *sql.DB) {
		signer, verifier := journaltest.Signer(t)
		log := openLog(t, db, signer, verifier)
		second := openLog(t, db, signer, verifier)
		require.NoError(t, log.Record(t.Context(), journaltest.Event(0)))
		require.NoError(t, second.Record(t.Context(), journaltest.Event(1)), "it follows")
		forge(t, db, signer, verifier, 2, 3)
		err := log.Record(t.Context(), journaltest.Event(3))
		_, broken := errors.AsType[*audit.BrokenError](err)
		require.True(t, broken, "%v", err)
	})
}

// The key of the MAC is a new one after each checkpoint. With what was stored before,
// nothing is proved any more.
func TestTailKeyChanges(t *testing.T) {
	sqldbtest.Each(t, func(t *testing.T, db *sql.DB) {
		signer, verifier := journaltest.Signer(t)
		log, err := audit.New(t.Context(), newStore(t, db), journaltest.NewSealer(), signer, verifier, &audit.Options{CheckpointEvery: 20 * time.Millisecond})
		require.NoError(t, err)
		require.NoError(t, log.Record(t.Context(), journaltest.Event(0)))
		before := tail(t, db)
		i := 1
		require.Eventually(t, func() bool {
			require.NoError(t, log.Record(t.Context(), journaltest.Event(i)))
			i++
			return string(tail(t, db)[49:]) != string(before[49:])
		}, time.Minute, 5*time.Millisecond)
		_, err = db.Exec(`UPDATE crmguard_audit_tail SET body = $1`, before)
		require.NoError(t, err)
		r, err := log.Verify(t.Context(), verifier, nil)
		require.NoError(t, err)
		require.Equal(t, audit.Forked, r.Verdict, "put back: there are more entries than it covers")
		_ = log.Close()
	})
}
