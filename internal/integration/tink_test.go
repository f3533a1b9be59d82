package integration

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/tink-crypto/tink-go/v2/tink"
	_ "modernc.org/sqlite" // driver "sqlite"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/encrypt"
)

// What tinkv1 calls its data.
const (
	plaintext      = "+79123456789"
	associatedData = "contacts.phone"
)

// tinkv1 runs the program that is built with google/tink/go v1.7.0.
func tinkv1(t *testing.T, command, dir string) string {
	t.Helper()
	var stderr bytes.Buffer
	run := exec.CommandContext(t.Context(), "go", "run", "-C", "tinkv1", "-buildvcs=false", ".", command, dir)
	run.Env = append(os.Environ(), "GOWORK=off")
	run.Stderr = &stderr
	out, err := run.Output()
	require.NoError(t, err, "%s", &stderr)
	return string(out)
}

func read(t *testing.T, path ...string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(path...))
	require.NoError(t, err)
	return b
}

// What an application on google/tink/go v1.7.0 has stored opens with its keyset as
// the key file: ciphertexts of the keyset itself, of a KMS envelope over it, and of a
// deterministic keyset that it encrypted.
func TestWhatTinkV1Wrote(t *testing.T) {
	dir := t.TempDir()
	tinkv1(t, "write", dir)
	kek, err := encrypt.OpenKeyFile(filepath.Join(dir, "kek.json"), "", false)
	require.NoError(t, err)

	opened, err := kek.DecryptWithContext(t.Context(), read(t, dir, "direct"), []byte(associatedData))
	require.NoError(t, err)
	require.Equal(t, plaintext, string(opened))

	envelopes, err := openEnvelopes(kek)
	require.NoError(t, err)
	opened, err = envelopes.DecryptWithContext(t.Context(), read(t, dir, "envelope"), []byte(associatedData))
	require.NoError(t, err)
	require.Equal(t, plaintext, string(opened))
	_, err = envelopes.DecryptWithContext(t.Context(), read(t, dir, "envelope"), []byte("contacts.note"))
	require.Error(t, err)

	deterministic, err := openDeterministic(t.Context(), kek, read(t, dir, "siv-keyset"))
	require.NoError(t, err)
	opened, err = deterministic.DecryptDeterministically(read(t, dir, "siv"), []byte(associatedData))
	require.NoError(t, err)
	require.Equal(t, plaintext, string(opened))

	// The old keyset serves a new key store, and rotates.
	store := encrypt.NewMemory()
	keys, err := encrypt.New(kek, store, nil)
	require.NoError(t, err)
	ctx := crmguard.System(t.Context(), "acme", "test")
	at := crmguard.Place{Tenant: "acme", Client: "1", Kind: "contacts", Record: "1", Field: "phone"}
	sealed, err := keys.Seal(ctx, at, []byte(plaintext))
	require.NoError(t, err)
	require.NoError(t, kek.Rotate(ctx))
	reopened, err := encrypt.OpenKeyFile(filepath.Join(dir, "kek.json"), "", false)
	require.NoError(t, err)
	keys, err = encrypt.New(reopened, store, nil)
	require.NoError(t, err)
	opened, err = keys.Open(ctx, at, sealed)
	require.NoError(t, err)
	require.Equal(t, plaintext, string(opened))
	_, err = keys.Open(ctx, at, read(t, dir, "envelope"))
	require.ErrorIs(t, err, encrypt.ErrMalformed, "an envelope is no sealed value")
}

// An application on google/tink/go v1.7.0 reads crmguard's key file, also after a
// rotation, and what was encrypted under it.
func TestTinkV1ReadsAKeyFile(t *testing.T) {
	dir := t.TempDir()
	kek, err := encrypt.OpenKeyFile(filepath.Join(dir, "kek.json"), "", true)
	require.NoError(t, err)
	write := func(name string, with tink.AEADWithContext) {
		ciphertext, err := with.EncryptWithContext(t.Context(), []byte(name), []byte(associatedData))
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), ciphertext, 0o600))
	}
	write("first", kek)
	require.NoError(t, kek.Rotate(t.Context()))
	write("second", kek)
	envelopes, err := openEnvelopes(kek)
	require.NoError(t, err)
	write("envelope", envelopes)
	require.Equal(t, "first\nsecond\nenvelope\n", tinkv1(t, "read", dir))
}

// The guide's recipe on a table of envelopes that v1 wrote. It is cut off and goes on.
func TestMoveEnvelopes(t *testing.T) {
	dir := t.TempDir()
	tinkv1(t, "write", dir)
	kek, err := encrypt.OpenKeyFile(filepath.Join(dir, "kek.json"), "", false)
	require.NoError(t, err)
	envelopes, err := openEnvelopes(kek)
	require.NoError(t, err)
	keys, err := encrypt.New(kek, encrypt.NewMemory(), nil)
	require.NoError(t, err)
	defer func() { require.NoError(t, keys.Close()) }()
	contacts, err := newContacts(keys, envelopes)
	require.NoError(t, err)
	db, err := sql.Open("sqlite", filepath.Join(t.TempDir(), "crm.db"))
	require.NoError(t, err)
	defer db.Close() //nolint:errcheck // nothing is lost
	_, err = db.ExecContext(t.Context(), `CREATE TABLE contacts (tenant TEXT NOT NULL, id TEXT NOT NULL, phone_envelope BLOB, phone_sealed BLOB, PRIMARY KEY (tenant, id))`)
	require.NoError(t, err)
	const n = 1200
	tx, err := db.BeginTx(t.Context(), nil)
	require.NoError(t, err)
	for i := range n {
		envelope := read(t, dir, "envelope")
		if i == 700 {
			envelope[len(envelope)-1] ^= 1
		}
		_, err = tx.ExecContext(t.Context(), `INSERT INTO contacts (tenant, id, phone_envelope) VALUES ('acme', $1, $2)`, fmt.Sprintf("%04d", i), envelope)
		require.NoError(t, err)
	}
	require.NoError(t, tx.Commit())
	rows, err := contactRows(t.Context(), db)
	require.NoError(t, err)
	ctx := crmguard.System(t.Context(), "acme", "tink")
	all := func() (list []*Contact) {
		found, err := db.QueryContext(ctx, `SELECT id, phone_envelope, phone_sealed FROM contacts ORDER BY id`)
		require.NoError(t, err)
		defer found.Close() //nolint:errcheck // read to its end
		for found.Next() {
			c := &Contact{}
			require.NoError(t, found.Scan(&c.ID, &c.PhoneEnvelope, &c.PhoneSealed))
			list = append(list, c)
		}
		require.NoError(t, found.Err())
		require.Len(t, list, n)
		return list
	}
	requireOpen := func(bad int) {
		list := all()
		err := contacts.Open(ctx, "acme", list...)
		if bad > 0 {
			failed, ok := errors.AsType[encrypt.RowErrors](err)
			require.True(t, ok, "%v", err)
			require.Len(t, failed, bad)
			require.Equal(t, "0700", failed[0].Record)
		} else {
			require.NoError(t, err)
		}
		for _, c := range list {
			if bad == 0 || c.ID != "0700" {
				require.Equal(t, plaintext, c.Phone)
			}
		}
	}

	require.ErrorIs(t, contacts.Open(ctx, "acme", all()...), encrypt.ErrPlaintext, "not before Collect has collected it")
	report, err := contacts.Collect(ctx, "acme", rows, nil)
	require.NoError(t, err)
	require.Equal(t, n, report.Changed)
	requireOpen(1)
	stop := errors.New("enough")
	_, err = contacts.Migrate(ctx, "acme", rows, &encrypt.JobOptions{Batch: 100, Progress: func(_ context.Context, r encrypt.Report) error {
		if r.Rows >= 500 {
			return stop
		}
		return nil
	}})
	require.ErrorIs(t, err, stop)
	requireOpen(1)
	require.ErrorContains(t, moveEnvelopes(ctx, contacts, rows, "acme"), "1 envelopes are left")
	_, err = db.ExecContext(ctx, `UPDATE contacts SET phone_envelope = $1 WHERE id = '0700'`, read(t, dir, "envelope")) // from a backup
	require.NoError(t, err)
	require.NoError(t, moveEnvelopes(ctx, contacts, rows, "acme"))
	requireOpen(0)

	_, err = db.ExecContext(ctx, `UPDATE contacts SET phone_envelope = $1, phone_sealed = NULL WHERE id = '0003'`, read(t, dir, "envelope"))
	require.NoError(t, err)
	require.ErrorIs(t, contacts.Open(ctx, "acme", all()...), encrypt.ErrPlaintext, "no envelope is accepted any more")
}
