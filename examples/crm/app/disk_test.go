package app

import (
	"bytes"
	"crypto/sha256"
	"database/sql"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
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

// leaks searches everything that is stored and returns what it found where: every
// file of the data folder, or every row as PostgreSQL hands it out. What its own
// files hold is for a test of PostgreSQL to say. Upper and lower case are the same. There
// are thousands of needles, so that all are looked for in one pass, by how they begin.
func leaks(t *testing.T, cfg Config, needles [][]byte) []string {
	t.Helper()
	const head = 4
	begins, heads := [1 << 16]bool{}, map[string][][]byte{}
	for _, needle := range needles {
		needle = bytes.ToLower(needle)
		require.GreaterOrEqual(t, len(needle), head, "%q", needle)
		begins[int(needle[0])<<8|int(needle[1])] = true
		heads[string(needle[:head])] = append(heads[string(needle[:head])], needle)
	}
	var found []string
	for name, content := range stored(t, cfg) {
		lower := bytes.ToLower(content)
		for i := range max(0, len(lower)-head+1) {
			if !begins[int(lower[i])<<8|int(lower[i+1])] {
				continue
			}
			for _, needle := range heads[string(lower[i:i+head])] {
				if bytes.HasPrefix(lower[i:], needle) {
					found = append(found, fmt.Sprintf("%s holds %q", name, needle))
				}
			}
		}
	}
	return found
}

// stored returns the files of the data folder, or the tables of the database.
func stored(t *testing.T, cfg Config) map[string][]byte {
	t.Helper()
	all := map[string][]byte{}
	if cfg.DB != "" {
		db, err := sql.Open("pgx", string(cfg.DB))
		require.NoError(t, err)
		defer db.Close() //nolint:errcheck // it only read
		for _, table := range column(t, db, `SELECT tablename FROM pg_tables WHERE schemaname = current_schema()`) {
			all[table] = []byte(strings.Join(column(t, db, `SELECT t::text FROM "`+table+`" t ORDER BY 1`), "\n"))
		}
		require.NotEmpty(t, all["settings"])
		return all
	}
	require.NoError(t, filepath.WalkDir(cfg.Data, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		all[filepath.Base(path)], err = os.ReadFile(path) //nolint:gosec // the test's own folder
		return err
	}))
	require.NotEmpty(t, all["crm.db"])
	return all
}

// column reads the one column of a query.
func column(t *testing.T, db *sql.DB, query string) (values []string) {
	t.Helper()
	rows, err := db.QueryContext(t.Context(), query) //nolint:gosec // names from the catalogue
	require.NoError(t, err)
	defer rows.Close() //nolint:errcheck // rows.Err says what went wrong
	for rows.Next() {
		var value string
		require.NoError(t, rows.Scan(&value))
		values = append(values, value)
	}
	require.NoError(t, rows.Err())
	return values
}

// nothingInTheClear greps the data while the CRM runs, so with SQLite's write-ahead
// log, and after it was closed; then it takes the keys away.
func (in *installation) nothingInTheClear() {
	t := in.t
	t.Helper()
	needles := in.needles()
	require.Empty(t, leaks(t, in.cfg, needles))
	in.stop()
	require.Empty(t, leaks(t, in.cfg, needles))

	aside := in.cfg.Keys + "-aside"
	require.NoError(t, os.Rename(in.cfg.Keys, aside))
	before := snapshot(t, in.cfg)
	_, err := New(t.Context(), in.cfg)
	require.ErrorContains(t, err, "was sealed with keys that are not in")
	require.NoDirExists(t, in.cfg.Keys, "no new keys were made")
	require.True(t, before == snapshot(t, in.cfg), "nothing was changed")
	require.NoError(t, os.Rename(aside, in.cfg.Keys))
	in.start()
}

// snapshot is a digest of the database: of SQLite's file without the counters in
// its header that grow whenever a transaction begins to write, of all rows in
// PostgreSQL.
func snapshot(t *testing.T, cfg Config) [32]byte {
	t.Helper()
	if cfg.DB != "" {
		return sha256.Sum256(fmt.Append(nil, stored(t, cfg))) // sorted by table
	}
	content, err := os.ReadFile(filepath.Join(cfg.Data, "crm.db")) //nolint:gosec // the test's own folder
	require.NoError(t, err)
	clear(content[24:28])
	clear(content[92:96])
	return sha256.Sum256(content)
}

// TestLeaksAreNoticed plants one value in the clear, once where a careless
// handler would put it and once in a file beside SQLite's.
func TestLeaksAreNoticed(t *testing.T) {
	each(t, func(t *testing.T, on database) {
		in := newInstallation(t, on, sample(6))
		require.Empty(t, leaks(t, in.cfg, in.needles()))
		in.tamper(`UPDATE contacts SET city = $1 WHERE seq = 2`, []byte("Umbridge0001"))
		require.NotEmpty(t, leaks(t, in.cfg, in.needles()), "a column that was not sealed")
		in.tamper(`UPDATE contacts SET city = NULL WHERE seq = 2`)
		if on == onSQLite {
			path := filepath.Join(in.cfg.Data, "debug.log")
			require.NoError(t, os.WriteFile(path, []byte("search for +79165550001\n"), 0o600))
			require.Contains(t, fmt.Sprint(leaks(t, in.cfg, in.needles())), "debug.log")
		}
	})
}
