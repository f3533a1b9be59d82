package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/audit"
)

// invoke runs the command in this process.
func invoke(t *testing.T, args ...string) (code int, out, complaint string) {
	t.Helper()
	var o, e bytes.Buffer
	code = run(t.Context(), args, strings.NewReader(""), &o, &e)
	return code, o.String(), e.String()
}

func TestPasswordsAreNotPrinted(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, makeKeyStore(t.Context(), []string{dir + "/keys.db", dir + "/kek.json", "acme"}))
	require.NoError(t, os.Chmod(dir+"/keys.db", 0o600))
	for _, url := range []string{
		"postgres://crm:hunter2@127.0.0.1:1/crm",
		"postgres://crm:hunter2@127.0.0.1:port/crm",
		"postgresql://crm:hunter2@127.0.0.1:1/crm?sslmode=nonsense",
		"postgres://crm:hunter2@[::1/crm",
		"postgres://127.0.0.1:1/crm?password=hunter2&connect_timeout=x",
	} {
		for _, args := range [][]string{
			{"keys", "list", "-store", url},
			{"audit", "verify", "-db", url, "-key", publicKey(t)},
			{"scan", declaration(t, "contacts"), "-db", url, "-store", url, "-kek", "kek.json"},
			{"keys", "turn", "-store", url, "-kek", dir + "/kek.json"},
			{"keys", "erase", "-finish", "-store", dir + "/keys.db", "-db", url, "-kek", dir + "/kek.json"},
		} {
			code, out, complaint := invoke(t, args...)
			require.Equal(t, unable, code, complaint)
			require.NotEmpty(t, complaint)
			require.NotContains(t, out+complaint, "hunter2")
		}
	}
}

// What is made up in a database, file or argument does not write to the terminal: not
// a verdict over the real answer, and not a line that reads like one of ours.
func TestNothingWritesToTheTerminal(t *testing.T) {
	const forged = "intact: all 812 entries are as they were written"
	const evil = "x\x1b[2K\r" + forged + "\n" + forged + "\u009b2K\u202e\x7f"
	dir := t.TempDir()
	planted := dir + "/evil.db"
	require.NoError(t, execute(t.Context(), []string{planted, `CREATE TABLE t (n BIGINT)`, `PRAGMA writable_schema = 1`,
		`UPDATE sqlite_master SET name = '` + evil + `', sql = 'CREATE TABLE nonsense('`}))
	key := publicKey(t)
	ours, paper := dir+"/ours.db", dir+"/p\x1b[2K\rledger"
	require.NoError(t, makeKeyStore(t.Context(), []string{ours, dir + "/ours.json", "acme"}))
	require.NoError(t, os.Chmod(ours, 0o600))
	require.NoError(t, os.WriteFile(paper, []byte(`{"tenant":"`+evil+`"}`), 0o600))
	for _, args := range [][]string{
		{"audit", "verify", "-db", planted, "-key", key},
		{"keys", "list", "-store", planted},
		{"keys", "list", "-store", dir + "/" + evil},
		{"keys", "list", "-store", dir + "/\x9b2K"}, // as terminals without UTF-8 read it
		{"policy", "lint", dir + "/" + evil},
		{"scan", declaration(t, evil), "-db", planted, "-store", planted, "-kek", dir + "/" + evil},
		{"policy", "lint", "-" + evil},
		{"keys", "rotate", "-kek", dir + "/" + evil},
		{"keys", "rotate", "-kek", dir + "/ours.json", "-store", ours, "-tenant", evil, "-client", evil},
		{"keys", "erase", "-kek", dir + "/ours.json", "-store", ours, "-no-index", "-tenant", evil, "-client", evil, "-yes"},
		{"keys", "receipt", "-kek", dir + "/ours.json", "-store", ours, "-tenant", evil, "-client", evil},
		{"keys", "receipt", "-kek", dir + "/ours.json", "-store", ours, dir + "/" + evil},
		{"keys", "replay", "-kek", dir + "/ours.json", "-store", ours, "-no-index", paper},
		{"keys", "turn", "-kek", dir + "/ours.json", "-store", planted},
		{"keys", "create", planted + "/" + evil},
		{"keys", "create", dir + "/kek.json", "-signer", evil},
		{"audit", "verify", "-db", planted, "-key", dir + "/" + evil},
		{"audit", "verify", "-db", planted, "-key", key, "-checkpoint", dir + "/" + evil},
	} {
		code, out, complaint := invoke(t, args...)
		require.NotEqual(t, good, code)
		require.NotEmpty(t, complaint)
		text := out + complaint
		require.NotContains(t, text, "\n"+forged, "a line of its own")
		require.True(t, utf8.ValidString(text), "%q", text)
		for _, r := range text {
			require.True(t, r == '\n' || unicode.IsPrint(r), "%v: %q", args[:2], text)
		}
	}
}

func publicKey(t *testing.T) string {
	t.Helper()
	path := t.TempDir() + "/journal.key"
	_, _, err := audit.OpenSigner(path, "crm.example/journal", true)
	require.NoError(t, err)
	return path + ".pub"
}

func TestEveryVerdictHasACode(t *testing.T) {
	codes := map[audit.Verdict]int{
		audit.Intact: good, audit.Unanchored: good,
		audit.Broken: bad, audit.Truncated: bad, audit.Forked: bad, audit.Restored: bad,
		audit.CannotVerify: unable, audit.AnchorStale: unable, audit.Pruned: unable, audit.Verdict(200): unable,
	}
	for verdict, want := range codes {
		code, next := judge(audit.Report{Verdict: verdict})
		require.Equal(t, want, code, verdict)
		require.Equal(t, verdict == audit.Intact, next == "", "%v: what to do next", verdict)
		require.Equal(t, code == good, audit.Report{Verdict: verdict}.OK(), verdict)
	}
}

// slow lets time pass at each page.
type slow struct{ audit.Store }

func (s slow) Read(ctx context.Context, from int64, n int) ([]audit.Row, error) {
	time.Sleep(progressEvery)
	return s.Store.Read(ctx, from, n)
}

func TestProgressIsForTerminals(t *testing.T) {
	var out bytes.Buffer
	require.Nil(t, watch(audit.NewMemory(), &out).out)
	file, err := os.Create(t.TempDir() + "/log")
	require.NoError(t, err)
	defer file.Close() //nolint:errcheck // a test
	require.Nil(t, watch(audit.NewMemory(), file).out)
	device, err := os.Open(os.DevNull)
	require.NoError(t, err)
	defer device.Close() //nolint:errcheck // a test
	require.NotNil(t, watch(audit.NewMemory(), device).out)

	w := &watched{Store: slow{audit.NewMemory()}, out: &out, size: 9}
	for from := range int64(2) {
		_, err := w.Read(t.Context(), from, 1)
		require.NoError(t, err)
	}
	w.end()
	require.Equal(t, "\r\x1b[K0 of 9 entries\r\x1b[K1 of 9 entries\r\x1b[K", out.String())
}

func TestAnInterruptIsNoVerdict(t *testing.T) {
	key := publicKey(t)
	db := t.TempDir() + "/crm.db"
	require.NoError(t, makeJournal(t.Context(), []string{db, strings.TrimSuffix(key, ".pub"), "3"}))
	ctx, stop := context.WithCancel(t.Context())
	stop()
	var out, complaint bytes.Buffer
	require.Equal(t, unable, run(ctx, []string{"audit", "verify", "-db", db, "-key", key}, strings.NewReader(""), &out, &complaint))
	require.Empty(t, out.String())
	require.Contains(t, complaint.String(), "context canceled")
}

type broken struct{}

func (broken) Read([]byte) (int, error)  { return 0, errors.New("pulled out") }
func (broken) Write([]byte) (int, error) { return 0, errors.New("pulled out") }

func TestInputAndOutputThatFail(t *testing.T) {
	var out, complaint bytes.Buffer
	require.Equal(t, unable, run(t.Context(), []string{"policy", "lint", "-"}, broken{}, &out, &complaint))
	require.Contains(t, complaint.String(), "pulled out")
	db := t.TempDir() + "/keys.db"
	require.NoError(t, makeKeyStore(t.Context(), []string{db, t.TempDir() + "/kek.json", "acme"}))
	for _, json := range []string{"-json=true", "-json=false"} {
		complaint.Reset()
		require.Equal(t, unable, run(t.Context(), []string{"keys", "list", "-store", db, json}, nil, broken{}, &complaint))
		require.Contains(t, complaint.String(), "pulled out")
	}
}
