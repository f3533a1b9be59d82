package main

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/auditsql"
	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/encrypt/encryptsql"
	"github.com/crmguard/crmguard/internal/sqldb/sqldbtest"
	"github.com/crmguard/crmguard/internal/uptime"
)

// kept is a store of a journal, and how to see all that it holds.
type kept struct {
	audit.Store
	db    *sql.DB // nil: it is in none
	bytes func(t *testing.T) string
}

// folderBytes is what all files below a folder hold.
func folderBytes(t *testing.T, dir string) string {
	var all strings.Builder
	require.NoError(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := os.ReadFile(path) //nolint:gosec // below a folder of the test
		all.Write(content)
		return err
	}))
	return all.String()
}

// eachStore runs test on a store of each kind.
func eachStore(t *testing.T, test func(t *testing.T, k kept)) {
	t.Run("memory", func(t *testing.T) {
		store := audit.NewMemory()
		test(t, kept{Store: store, bytes: func(t *testing.T) string {
			rows, err := store.Read(t.Context(), 0, 1000)
			require.NoError(t, err)
			var all strings.Builder
			for i := range rows {
				fmt.Fprintf(&all, "%s%v", rows[i].Record, rows[i].Keys)
			}
			return all.String()
		}})
	})
	t.Run("file", func(t *testing.T) {
		dir := t.TempDir()
		store, err := audit.OpenFile(dir)
		require.NoError(t, err)
		defer store.Close() //nolint:errcheck // a test
		test(t, kept{Store: store, bytes: func(t *testing.T) string { return folderBytes(t, dir) }})
	})
	databases := func(name string, all func(t *testing.T, db *sql.DB) string) func(t *testing.T) {
		return func(t *testing.T) {
			if name == "" {
				name = sqldbtest.PostgresURL(t)
			}
			db, err := open(t.Context(), name)
			require.NoError(t, err)
			defer db.Close() //nolint:errcheck // a test
			store, err := auditsql.New(t.Context(), db, nil)
			require.NoError(t, err)
			test(t, kept{Store: store, db: db, bytes: func(t *testing.T) string { return all(t, db) }})
		}
	}
	dir := t.TempDir()
	t.Run("sqlite", databases(dir+"/crm.db", func(t *testing.T, _ *sql.DB) string { return folderBytes(t, dir) }))
	t.Run("postgres", databases("", func(t *testing.T, db *sql.DB) string { return sqldbtest.PostgresText(t, db) }))
}

// A client is erased for good: the journal verifies and tells who did what, extracts from before and
// after are checked with the public key alone, and the values that were sealed open nowhere and stand
// in no byte, indexes included. Another client's are as they were.
func TestErasedForGood(t *testing.T) {
	const gone, stays = "+49 30 5550199 Herr Geheim", "+49 40 7770188 Frau Bleibt"
	eachStore(t, func(t *testing.T, k kept) {
		dir := t.TempDir()
		kek, err := encrypt.OpenKeyFile(dir+"/kek.json", "", true)
		require.NoError(t, err)
		keysDB, err := open(t.Context(), dir+"/keys.db")
		require.NoError(t, err)
		defer keysDB.Close() //nolint:errcheck // a test
		records, err := encryptsql.New(t.Context(), keysDB, nil)
		require.NoError(t, err)
		var passed atomic.Int64
		clock := func() time.Time { return time.Now().Add(time.Duration(passed.Load())) }
		began, before := time.Now(), uptime.Now()
		t.Cleanup(uptime.Move(func() time.Duration { return before + time.Since(began) + time.Duration(passed.Load()) }))
		keys, err := encrypt.New(kek, records, &encrypt.Options{Clock: clock})
		require.NoError(t, err)
		defer keys.Close() //nolint:errcheck // a test
		signer, verifier, err := audit.OpenSigner(dir+"/journal.key", "crm.example/journal", true)
		require.NoError(t, err)
		o := &audit.Options{}
		_, finds := k.Store.(audit.Finder)
		if finds {
			o.Findable, o.Pseudonyms = []string{"phone"}, keys
		}
		var journal *audit.Log
		reopen := func() { // so that all is signed
			if journal != nil {
				require.NoError(t, journal.Close())
			}
			journal, err = audit.New(t.Context(), k.Store, keys, signer, verifier, o)
			require.NoError(t, err)
		}
		reopen()
		defer func() { _ = journal.Close() }()

		anna := crmguard.WithSubject(t.Context(), crmguard.Subject{Tenant: "acme", ID: "anna", Kind: crmguard.KindEmployee})
		about := func(i int, client, phone string) crmguard.Event {
			e := view(strconv.Itoa(i))
			e.Private = []crmguard.Private{{Client: client, Name: "phone", Value: []byte(phone)}}
			return e
		}
		for i := range 6 {
			require.NoError(t, journal.Record(anna, about(2*i, "c1", gone)))
			require.NoError(t, journal.Record(anna, about(2*i+1, "c2", stays)))
		}
		entries := 6
		if k.db != nil {
			entries++
			require.NoError(t, journal.InTx(anna, k.db, func(_ context.Context, _ *sql.Tx, record func(crmguard.Event) error) error {
				return record(about(20, "c1", gone))
			}))
			require.Eventually(t, func() bool {
				page, err := journal.Find(anna, audit.Query{Tenant: "acme", Record: "20"})
				return err == nil && len(page.Entries) == 1
			}, time.Minute, 10*time.Millisecond)
		}
		byPhone := func(phone string) int {
			page, err := journal.Find(anna, audit.Query{Tenant: "acme", Private: crmguard.Private{Name: "phone", Value: []byte(phone)}})
			require.NoError(t, err)
			return len(page.Entries)
		}
		extract := func(name string, want int) {
			reopen()
			var file bytes.Buffer
			x, err := journal.Extract(anna, audit.Query{Tenant: "acme", Client: "c1"}, &file)
			require.NoError(t, err)
			require.EqualValues(t, want, x.Entries)
			require.NoError(t, os.WriteFile(dir+"/"+name, file.Bytes(), 0o600))
		}
		extract("before", entries)
		if finds {
			require.Equal(t, entries, byPhone(gone))
		}

		_, err = keys.Erase(anna, "acme", "c1")
		require.NoError(t, err)
		_, err = journal.Forget(anna, "acme", "c1")
		require.NoError(t, err)
		require.NoError(t, journal.Record(anna, about(30, "c1", gone)), "it comes too late, and is not kept")
		passed.Add(int64(2 * time.Minute))
		finished, err := keys.FinishErasures(crmguard.System(anna, "acme", "erasure"))
		require.NoError(t, err)
		require.Len(t, finished, 1)
		_, err = journal.Forget(anna, "acme", "c1")
		require.NoError(t, err)
		extract("after", entries+1)
		if finds {
			require.Zero(t, byPhone(gone))
			require.Equal(t, 6, byPhone(stays))
		}

		page, err := journal.Find(anna, audit.Query{Tenant: "acme", Limit: 100})
		require.NoError(t, err)
		for _, e := range page.Entries {
			values, err := journal.OpenPrivate(anna, e)
			switch {
			case len(e.Sealed) == 0:
			case e.Sealed[0].Client == "c1":
				require.ErrorIs(t, err, crmguard.ErrErased)
				require.Nil(t, values[0].Value)
			default:
				require.NoError(t, err)
				require.Equal(t, stays, string(values[0].Value))
			}
		}
		require.NoError(t, journal.Close())
		report, err := audit.VerifyStore(t.Context(), k.Store, verifier, nil)
		require.NoError(t, err)
		require.Equal(t, audit.Unanchored, report.Verdict, report.Detail)

		for name, want := range map[string]int{"before": entries, "after": entries + 1} {
			code, out, why := invoke(t, "audit", "check", "-key", dir+"/journal.key.pub", dir+"/"+name)
			require.Equal(t, good, code, out+why)
			require.Contains(t, out, fmt.Sprintf("holds: %d acts", want))
			require.Equal(t, want, strings.Count(out, "sealed=phone"))
		}
		all := func() string { return k.bytes(t) + folderBytes(t, dir) }
		require.Contains(t, all(), "c1", "the search sees what is there")
		for _, secret := range []string{gone, "5550199", "Geheim", stays} {
			for _, form := range []string{secret, hex.EncodeToString([]byte(secret)), strings.TrimRight(base64.StdEncoding.EncodeToString([]byte(secret)), "=")} {
				require.NotContains(t, all(), form)
			}
		}
		require.NoError(t, os.WriteFile(dir+"/leak", []byte(gone), 0o600)) // a planted fault
		require.Contains(t, all(), "5550199")
	})
}
