package encrypt_test

import (
	"crypto/fips140"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/keyset"
	tinkpb "github.com/tink-crypto/tink-go/v2/proto/tink_go_proto"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/encrypt"
)

const fipsChild = "CRMGUARD_ENCRYPT_FIPS_CHILD"

// The package runs where only FIPS 140-3 algorithms may. What does not is listed in
// whatFIPSRefuses.
func TestFIPSOnly(t *testing.T) { underFIPS(t, "only", allUnderFIPS) }

// Where FIPS 140-3 mode is on and nothing is enforced, new passphrase files are ones
// that open under enforcement too.
func TestFIPSOn(t *testing.T) {
	underFIPS(t, "on", func(t *testing.T) {
		require.True(t, fips140.Enabled() && !fips140.Enforced())
		passphraseFileByPBKDF2(t)
		_, err := encrypt.OpenPassphraseFile(writeFile(t, read(t, "testdata/v1/kek-argon2id")), "", passphrase, false)
		require.NoError(t, err)
	})
}

// underFIPS runs the calling test again, in a process in that mode.
func underFIPS(t *testing.T, mode string, test func(t *testing.T)) {
	if os.Getenv(fipsChild) != "" {
		test(t)
		return
	}
	self, err := os.Executable()
	require.NoError(t, err)
	child := exec.CommandContext(t.Context(), self, "-test.run=^"+t.Name()+"$", "-test.v")
	child.Env = append(os.Environ(), fipsChild+"=1", "GODEBUG=fips140="+mode)
	out, err := child.CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Contains(t, string(out), "--- PASS: "+t.Name())
}

func allUnderFIPS(t *testing.T) {
	require.True(t, fips140.Enforced())
	handle, err := keyset.NewHandle(aead.AES256GCMKeyTemplate())
	require.NoError(t, err)
	_, err = aead.New(handle)
	require.Error(t, err, "why the package does not use Tink's AEAD")

	passphraseFileByPBKDF2(t)
	whatFIPSRefuses(t)

	path := filepath.Join(t.TempDir(), "kek.json")
	_, err = encrypt.OpenKeyFile(path, "", true)
	require.NoError(t, err)
	kek, err := encrypt.OpenKeyFile(path, "", false)
	require.NoError(t, err)
	keyringUnderFIPS(t, kek)
}

func passphraseFileByPBKDF2(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kek.sealed")
	kek, err := encrypt.OpenPassphraseFile(path, "", passphrase, true)
	require.NoError(t, err)
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, []byte{'c', 'g', 1, 7, 0, 0, 0, 1}, text[:8], "PBKDF2")
	first := wrapped(t, kek)
	require.NoError(t, kek.Rotate(t.Context()))
	second := wrapped(t, kek)
	again, err := encrypt.OpenPassphraseFile(path, "", passphrase, false)
	require.NoError(t, err)
	requireOpens(t, again, first)
	_, err = again.DestroyOld(t.Context())
	require.NoError(t, err)
	requireWrongKEK(t, kek, first)
	requireOpens(t, kek, second)
	_, err = encrypt.OpenPassphraseFile(path, "", []byte("ten crows on a wire"), false)
	require.ErrorIs(t, err, encrypt.ErrPassphrase)
}

func whatFIPSRefuses(t *testing.T) {
	_, err := encrypt.OpenPassphraseFile(writeFile(t, read(t, "testdata/v1/kek-argon2id")), "", passphrase, false)
	require.ErrorIs(t, err, encrypt.ErrFIPS)
	for name, template := range map[string]*tinkpb.KeyTemplate{
		"XChaCha20-Poly1305": aead.XChaCha20Poly1305KeyTemplate(),
		"ChaCha20-Poly1305":  aead.ChaCha20Poly1305KeyTemplate(),
		"AES-CTR-HMAC":       aead.AES256CTRHMACSHA256KeyTemplate(),
		"AES-GCM-SIV":        aead.AES256GCMSIVKeyTemplate(),
		"XAES-GCM":           aead.XAES256GCM192BitNonceKeyTemplate(),
	} {
		handle, err := keyset.NewHandle(template)
		require.NoError(t, err, name)
		_, err = encrypt.OpenKeyFile(writeKeyset(t, handle), "", false)
		require.ErrorIs(t, err, encrypt.ErrFIPS, name)
		require.ErrorContains(t, err, "kek.json", name)
	}
}

// keyringUnderFIPS does one of everything.
func keyringUnderFIPS(t *testing.T, kek encrypt.RotatingKEK) {
	clock, index := newClock(t), encrypt.NewMemoryIndex()
	k, err := encrypt.New(kek, encrypt.NewMemory(), &encrypt.Options{Index: index, Clock: clock.Now})
	require.NoError(t, err)
	defer k.Close() //nolint:errcheck // nothing is lost
	ctx := acting("acme")
	require.NoError(t, k.Check(ctx))

	sealed, err := k.Seal(ctx, home, []byte("x"))
	require.NoError(t, err)
	opened, err := k.Open(ctx, home, sealed)
	require.NoError(t, err)
	require.Equal(t, "x", string(opened))
	mac, err := k.MAC(ctx, home, []byte("x"))
	require.NoError(t, err)
	require.NoError(t, k.Verify(ctx, home, []byte("x"), mac))
	require.ErrorIs(t, k.Verify(ctx, home, []byte("y"), mac), crmguard.ErrMAC)
	pseudonyms, err := k.Pseudonyms(ctx, home, []byte("x"))
	require.NoError(t, err)
	require.Len(t, pseudonyms, 1)

	table, err := encrypt.NewTable[contact](k, "contacts", nil)
	require.NoError(t, err)
	rows := page(3)
	entries, err := table.Seal(ctx, "acme", rows...)
	require.NoError(t, err)
	require.NoError(t, index.Put(ctx, nil, entries))
	phone := rows[1].Phone
	rows[1].Phone = ""
	require.NoError(t, table.Open(ctx, "acme", rows...))
	require.Equal(t, phone, rows[1].Phone)

	_, err = k.Rotate(ctx, dataScope(rows[0].ID))
	require.NoError(t, err)
	done := make(chan error)
	go func() {
		_, err := k.Turn(job("acme"), nil)
		done <- err
	}()
	for turning := true; turning; {
		select {
		case err := <-done:
			require.NoError(t, err)
			turning = false
		case <-time.After(time.Millisecond):
			clock.Advance(100 * time.Millisecond)
		}
	}
	k.Invalidate()
	require.NoError(t, table.Open(ctx, "acme", rows...))

	_, err = k.Erase(ctx, "acme", rows[2].ID)
	require.NoError(t, err)
	clock.Advance(encrypt.ClosingTime)
	receipts, err := k.FinishErasures(job("acme"))
	require.NoError(t, err)
	require.Len(t, receipts, 1)
	document, err := json.Marshal(receipts[0])
	require.NoError(t, err)
	_, err = k.CheckReceipt(ctx, document)
	require.NoError(t, err)
	require.ErrorIs(t, table.Open(ctx, "acme", rows...), crmguard.ErrErased)
}
