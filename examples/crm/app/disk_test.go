package app

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// needles are the personal data of the sample and the password, in the shapes in
// which they could lie in a file.
func (in *installation) needles() [][]byte {
	texts := []string{in.password(), "Wafflewords", "4111 1111 1111 1111", "4111111111111111"}
	for i := range 120 {
		a, b := i/100, i%100
		texts = append(texts,
			fmt.Sprintf("Quillfeather%04d", i), fmt.Sprintf("quill%04d@example.org", i), fmt.Sprintf("Zanzibar%04d", i),
			fmt.Sprintf("Umbridge%04d", i), fmt.Sprintf("Whisper%04d", i),
			fmt.Sprintf("916555%02d%02d", a, b), fmt.Sprintf("916) 555-%02d-%02d", a, b), fmt.Sprintf("555-%02d-%02d", a, b),
			fmt.Sprintf("916 777-%02d-%02d", a, b))
	}
	texts = append(texts, "Quillfeather9999", "9165559999", "Имярек")
	var needles [][]byte
	for _, text := range texts {
		needles = append(needles, []byte(text), []byte(hex.EncodeToString([]byte(text))), []byte(base64.RawStdEncoding.EncodeToString([]byte(text)))[:len(text)])
	}
	return needles
}

// leaks searches every file below a folder and returns what it found where.
func leaks(t *testing.T, dir string, needles [][]byte) []string {
	t.Helper()
	var found []string
	files := 0
	require.NoError(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		files++
		content, err := os.ReadFile(path) //nolint:gosec // the test's own folder
		if err != nil {
			return err
		}
		lower := bytes.ToLower(content)
		for _, needle := range needles {
			if bytes.Contains(content, needle) || bytes.Contains(lower, bytes.ToLower(needle)) {
				found = append(found, fmt.Sprintf("%s holds %q", filepath.Base(path), needle))
			}
		}
		return nil
	}))
	require.NotZero(t, files)
	return found
}

// nothingInTheClear greps the data folder while the CRM runs, so with the
// write-ahead log, and after it was closed; then it takes the keys away.
func (in *installation) nothingInTheClear() {
	t := in.t
	t.Helper()
	needles := in.needles()
	require.Empty(t, leaks(t, in.cfg.Data, needles))
	in.stop()
	require.Empty(t, leaks(t, in.cfg.Data, needles))

	aside := in.cfg.Keys + "-aside"
	require.NoError(t, os.Rename(in.cfg.Keys, aside))
	before := snapshot(t, in.cfg.Data)
	_, err := New(t.Context(), in.cfg)
	require.ErrorContains(t, err, "was sealed with keys that are not in")
	require.NoDirExists(t, in.cfg.Keys, "no new keys were made")
	require.True(t, before == snapshot(t, in.cfg.Data), "nothing was changed")
	require.NoError(t, os.Rename(aside, in.cfg.Keys))
	in.start()
}

// snapshot is a digest of the database file, without the counters in its header
// that grow whenever a transaction begins to write.
func snapshot(t *testing.T, dir string) [32]byte {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(dir, "crm.db")) //nolint:gosec // the test's own folder
	require.NoError(t, err)
	clear(content[24:28])
	clear(content[92:96])
	return sha256.Sum256(content)
}

// TestLeaksAreNoticed plants one value in the clear, once where a careless
// handler would put it and once in a file beside the database.
func TestLeaksAreNoticed(t *testing.T) {
	in := newInstallation(t, sample(6))
	require.Empty(t, leaks(t, in.cfg.Data, in.needles()))

	_, err := in.app.db.ExecContext(t.Context(), `UPDATE contacts SET city = $1 WHERE seq = 2`, "Umbridge0001")
	require.NoError(t, err)
	require.NotEmpty(t, leaks(t, in.cfg.Data, in.needles()), "a column that was not sealed")
	_, err = in.app.db.ExecContext(t.Context(), `UPDATE contacts SET city = NULL WHERE seq = 2`)
	require.NoError(t, err)

	path := filepath.Join(in.cfg.Data, "debug.log")
	require.NoError(t, os.WriteFile(path, []byte("search for +79165550001\n"), 0o600))
	require.Contains(t, fmt.Sprint(leaks(t, in.cfg.Data, in.needles())), "debug.log")
}
