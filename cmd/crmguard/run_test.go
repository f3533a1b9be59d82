package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard"
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
			{"audit", "verify", "-db", dir + "/keys.db", "-anchor", url, "-key", publicKey(t)},
			{"audit", "prove", "-db", url, "-key", publicKey(t), "1"},
			{"audit", "timeline", "-db", url, "-tenant", "acme"},
			{"audit", "tail", "-db", url, "-key", publicKey(t), "-tenant", "acme"},
			{"audit", "export", "-db", url, "-key", publicKey(t)},
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
		{"audit", "verify", "-db", planted, "-key", key, "-anchor", dir + "/" + evil},
		{"audit", "prove", "-db", planted, "-key", key, evil},
		{"audit", "check", "-key", key, dir + "/" + evil},
		{"audit", "check", "-key", key, paper},
		{"audit", "timeline", "-db", planted, "-tenant", evil, "-addr", evil},
		{"audit", "timeline", "-db", planted, "-tenant", evil, "-from", evil},
		{"audit", "export", "-db", planted, "-key", key},
		{"audit", "export", "-db", planted, "-key", key, "-format", evil},
		{"audit", "export", "-db", planted, "-key", key, "-syslog", evil},
		{"audit", "export", "-db", planted, "-key", key, "-syslog", "localhost:1", "-ca", dir + "/" + evil},
		{"audit", "tail", "-db", planted, "-key", key, "-tenant", evil},
		{"audit", "verify", "-db", planted, "-key", key, "-checkpoint", dir + "/" + evil},
	} {
		code, out, complaint := invoke(t, args...)
		require.NotEqual(t, good, code)
		text := out + complaint
		require.NotEmpty(t, text)
		require.NotContains(t, text, "\n"+forged, "a line of its own")
		require.True(t, utf8.ValidString(text), "%q", text)
		for _, r := range text {
			require.True(t, r == '\n' || unicode.IsPrint(r), "%v: %q", args[:2], text)
		}
	}
}

// Nor does what stands in an entry.
func TestEntriesDoNotWriteToTheTerminal(t *testing.T) {
	const evil = "x\x1b[2K\r0  2026  forged\n\u009b2K\u202e\x7f"
	line := lineOf(&audit.Entry{Tenant: evil, Event: crmguard.Event{
		ID: evil, Subject: crmguard.Subject{ID: evil, OnBehalfOf: evil, Session: evil}, Action: evil, Reason: evil, Fields: []string{evil, "a"},
		Resource: crmguard.Resource{Kind: evil, ID: evil, Field: evil},
	}, Sealed: []audit.SealedValue{{Name: evil}}})
	for _, r := range line {
		require.True(t, unicode.IsPrint(r), "%q", line)
	}
	line = lineOf(&audit.Entry{Tenant: "acme", Event: crmguard.Event{
		Subject: crmguard.Subject{ID: "anna"}, Action: crmguard.Delete, Outcome: crmguard.Denied, Resource: crmguard.Resource{Kind: "contacts", ID: "17  done   reason=ok"},
	}})
	require.Len(t, strings.Split(line, "  "), 7, "no text is two columns: %s", line)
	var out bytes.Buffer
	require.NoError(t, printJSON(&out, []string{evil}))
	entry, err := jsonOf(&audit.Entry{Tenant: evil, Event: crmguard.Event{ID: evil}})
	require.NoError(t, err)
	for _, r := range out.String() + string(entry) {
		require.True(t, r == '\n' || unicode.IsPrint(r), "%q", out.String())
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
	codes := map[int]audit.Verdict{}
	for v := audit.CannotVerify; v <= audit.Restored; v++ {
		code, next := judge(audit.Report{Verdict: v})
		require.NotContains(t, codes, code, "%v", v)
		require.NotEqual(t, misuse, code)
		codes[code] = v
		require.Equal(t, v != audit.AnchorStale && !audit.Report{Verdict: v}.OK(), code >= tampered || code == unable, "%v", v)
		require.Equal(t, v == audit.Intact || v == audit.Pruned, next == "", "%v: what to do next", v)
		if v != audit.CannotVerify {
			require.Regexp(t, fmt.Sprintf(`(?m)^ *%d  %s: `, code, v), auditVerify.help, "the help says so")
		}
	}
	require.Equal(t, audit.Intact, codes[good])
	require.Equal(t, unable, verdictCode(200))
}

func TestProgressIsForTerminals(t *testing.T) {
	for _, terminal := range []bool{true, false} {
		var out bytes.Buffer
		teller := &teller{out: &out, terminal: terminal}
		teller.later("verifying")
		teller.tell("verifying", "1 of 9") // at once: nobody could read it
		teller.told = time.Now().Add(-progressEvery)
		teller.tell("verifying", "2 of 9")
		teller.end()
		want := ""
		if terminal {
			want = "\r\x1b[Kverifying: 2 of 9\r\x1b[K"
		}
		require.Equal(t, want, out.String())
	}
	c := &call{err: new(bytes.Buffer)}
	require.False(t, c.teller().terminal)
	file, err := os.Create(t.TempDir() + "/log")
	require.NoError(t, err)
	defer file.Close() //nolint:errcheck // a test
	c.err = file
	require.False(t, c.teller().terminal)
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
