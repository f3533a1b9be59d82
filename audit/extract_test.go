package audit_test

import (
	"bytes"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/mod/sumdb/note"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/internal/journaltest"
)

// extractOf records n entries, erases one of four clients, and extracts what is about it.
func extractOf(t testing.TB, n int) (file []byte, x audit.Extracted, verifier note.Verifier) {
	t.Helper()
	signer, verifier := journaltest.Signer(t)
	keys := journaltest.NewSealer()
	store := audit.NewMemory()
	log, err := audit.New(t.Context(), store, keys, signer, verifier, nil)
	require.NoError(t, err)
	for i := range n {
		require.NoError(t, log.Record(t.Context(), journaltest.Event(i)))
	}
	keys.Erase("acme", "client-2")
	require.NoError(t, log.Record(t.Context(), crmguard.Event{
		ID: "erased", Time: journaltest.Event(n).Time, Subject: journaltest.Event(0).Subject, Action: crmguard.Erase, Outcome: crmguard.Done,
		Resource: crmguard.Resource{Tenant: "acme", Kind: "clients", ID: "client-2"}, Private: []crmguard.Private{{Client: "client-2", Name: "erased"}},
	}))
	require.NoError(t, log.Close())
	log, err = audit.New(t.Context(), store, keys, signer, verifier, nil)
	require.NoError(t, err)
	defer func() { require.NoError(t, log.Close()) }()
	var out bytes.Buffer
	x, err = log.Extract(crmguard.System(t.Context(), "acme", "destruction"), audit.Query{Tenant: "acme", Client: "client-2"}, &out)
	require.NoError(t, err)
	_, err = log.Extract(crmguard.System(t.Context(), "other", "destruction"), audit.Query{Tenant: "acme", Client: "client-2"}, &out)
	require.Error(t, err, "another tenant's")
	page, err := log.Find(t.Context(), audit.Query{Tenant: "acme", Action: audit.ActRead})
	require.NoError(t, err)
	require.Len(t, page.Entries, 1, "that it was read is an entry")
	return out.Bytes(), x, verifier
}

func TestExtract(t *testing.T) {
	file, x, verifier := extractOf(t, 40)
	require.Equal(t, 11, x.Entries)
	require.EqualValues(t, 41, x.Size)
	var seqs []int64
	got, err := audit.CheckExtract(bytes.NewReader(file), verifier, func(p audit.Proven) error {
		seqs = append(seqs, p.Entry.Seq)
		require.Equal(t, "client-2", p.Entry.Sealed[0].Client)
		return nil
	})
	require.NoError(t, err, "the client's key is gone, what was done about the client is proved")
	require.Equal(t, []int64{2, 6, 10, 14, 18, 22, 26, 30, 34, 38, 40}, seqs)
	require.Equal(t, x, got)
	require.NotContains(t, string(file), "+4930", "nothing of the client's data is in it")

	stop := errors.New("enough")
	_, err = audit.CheckExtract(bytes.NewReader(file), verifier, func(audit.Proven) error { return stop })
	require.ErrorIs(t, err, stop)
	_, stranger := journaltest.Signer(t)
	_, err = audit.CheckExtract(bytes.NewReader(file), stranger, nil)
	require.Error(t, err)
}

// A line that is left out, added, moved, changed or taken from another extract.
func TestForgedExtracts(t *testing.T) {
	file, _, verifier := extractOf(t, 12)
	other, _, _ := extractOf(t, 12)
	lines := bytes.SplitAfter(file, []byte("\n"))
	lines = lines[:len(lines)-1]
	foreign := bytes.SplitAfter(other, []byte("\n"))
	check := func(lines [][]byte) error {
		_, err := audit.CheckExtract(bytes.NewReader(bytes.Join(lines, nil)), verifier, nil)
		return err
	}
	require.NoError(t, check(lines))
	statement := string(lines[len(lines)-1])
	for _, forged := range []string{
		strings.Replace(statement, `{`, `{"proof":"an act that never was",`, 1),
		strings.Replace(statement, "}\n", "} {\"proof\":\"an act that never was\"}\n", 1),
		strings.Replace(statement, `"statement"`, `"Statement"`, 1),
		strings.Replace(statement, "}\n", ",\"statement\":\"\"}\n", 1),
		strings.Replace(statement, ":", ": ", 1),
	} {
		require.NotEqual(t, statement, forged)
		require.Error(t, check(append(slices.Clone(lines[:len(lines)-1]), []byte(forged))), "beside the statement: %s", forged)
	}
	for i := range lines {
		require.Error(t, check(slices.Delete(slices.Clone(lines), i, i+1)), "line %d is left out", i)
		require.Error(t, check(slices.Insert(slices.Clone(lines), i, lines[i])), "line %d is there twice", i)
		changed := slices.Clone(lines)
		changed[i] = foreign[i]
		require.Error(t, check(changed), "line %d is another log's", i)
		if i > 0 {
			swapped := slices.Clone(lines)
			swapped[i-1], swapped[i] = swapped[i], swapped[i-1]
			require.Error(t, check(swapped), "lines %d and %d are swapped", i-1, i)
		}
		require.Error(t, check(lines[:i]), "cut before line %d", i)
	}
	for i := range file {
		flipped := bytes.Clone(file)
		flipped[i] ^= 1
		_, err := audit.CheckExtract(bytes.NewReader(flipped), verifier, nil)
		require.Error(t, err, "byte %d", i)
	}
	require.Error(t, check(append(slices.Clone(lines), []byte("x"))), "something follows")
	require.Error(t, check([][]byte{bytes.Repeat([]byte("x"), 1<<20)}))
	text := strings.Replace(string(file), `"client":"client-2"`, `"client":"client-3"`, 1)
	_, err := audit.CheckExtract(strings.NewReader(text), verifier, nil)
	require.ErrorContains(t, err, "not one that was asked for")
}

// Who hides an entry from searching does not hide it from an extract: there is none.
func TestExtractOfHiddenEntries(t *testing.T) {
	good, signer, verifier := history(t, 11)
	f := good.clone()
	f.rows[2].Keys.Clients = nil
	log, err := audit.New(t.Context(), f.memory(t), journaltest.NewSealer(), signer, verifier, nil)
	require.NoError(t, err)
	defer func() { _ = log.Close() }()
	var out bytes.Buffer
	_, err = log.Extract(crmguard.System(t.Context(), "acme", "x"), audit.Query{Tenant: "acme", Client: "client-2"}, &out)
	require.ErrorContains(t, err, "broken at entry 2")
	require.Empty(t, out.Bytes())
}

func TestExtractOfAPeriod(t *testing.T) {
	a := days(t, audit.NewMemory(), 4)
	a.prune(t, 2)
	var out bytes.Buffer
	x, err := a.Extract(admin(t), audit.Query{Tenant: "acme", Subject: "anna", From: firstDay.AddDate(0, 0, 2), To: firstDay.AddDate(0, 0, 3)}, &out)
	require.NoError(t, err)
	require.Equal(t, perDay/3, x.Entries)
	require.EqualValues(t, 512, x.Pruned, "the file says what was gone before")
	got, err := audit.CheckExtract(&out, a.verifier, nil)
	require.NoError(t, err)
	require.Equal(t, x, got)
}

const goldenExtract = "testdata/client-2.extract"

// An extract that version 1 made is checked with the public key alone.
func TestGoldenExtract(t *testing.T) {
	if updating() {
		writeGoldenExtract(t)
	}
	public, err := os.ReadFile(goldenExtract + ".pub")
	require.NoError(t, err)
	verifier, err := note.NewVerifier(strings.TrimSpace(string(public)))
	require.NoError(t, err)
	file, err := os.ReadFile(goldenExtract)
	require.NoError(t, err)
	x, err := audit.CheckExtract(bytes.NewReader(file), verifier, nil)
	require.NoError(t, err)
	require.Equal(t, 2, x.Entries)
}

func writeGoldenExtract(t *testing.T) {
	t.Helper()
	key := t.TempDir() + "/key"
	signer, verifier, err := audit.OpenSigner(key, "crm.example/journal", true)
	require.NoError(t, err)
	log, err := audit.New(t.Context(), audit.NewMemory(), journaltest.NewSealer(), signer, verifier, &audit.Options{CheckpointEvery: time.Millisecond})
	require.NoError(t, err)
	defer func() { require.NoError(t, log.Close()) }()
	for i := range 8 {
		require.NoError(t, log.Record(t.Context(), journaltest.Event(i)))
	}
	var out bytes.Buffer
	require.Eventually(t, func() bool {
		out.Reset()
		x, err := log.Extract(crmguard.System(t.Context(), "acme", "destruction"), audit.Query{Tenant: "acme", Client: "client-2"}, &out)
		return err == nil && x.Size >= 8
	}, 10*time.Second, 10*time.Millisecond)
	public, err := os.ReadFile(key + ".pub")
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(goldenExtract, out.Bytes(), 0o644))
	require.NoError(t, os.WriteFile(goldenExtract+".pub", public, 0o644))
}

func FuzzCheckExtract(f *testing.F) {
	file, _, verifier := extractOf(f, 6)
	f.Add(file)
	f.Add([]byte("{}\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := audit.CheckExtract(bytes.NewReader(b), verifier, nil); err == nil {
			require.Equal(t, file, b, "one that is accepted is the one that was made")
		}
	})
}
