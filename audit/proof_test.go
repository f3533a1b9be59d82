package audit_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/internal/journaltest"
)

func prove(t *testing.T, s audit.Store, v note.Verifier, seq int64) []byte {
	t.Helper()
	proof, err := audit.ProveStore(t.Context(), s, v, seq)
	require.NoError(t, err)
	return proof
}

func TestProof(t *testing.T) {
	f, _, verifier := history(t, 11)
	for seq := range int64(11) {
		proof := prove(t, f, verifier, seq)
		got, err := audit.CheckProof(proof, nil, verifier)
		require.NoError(t, err)
		require.Equal(t, seq, got.Entry.Seq)
		require.Equal(t, journaltest.Event(int(seq)).ID, got.Entry.Event.ID)
		require.EqualValues(t, 11, got.Size)
		require.Equal(t, string(f.checkpoints[len(f.checkpoints)-1].Note), got.Checkpoint)
		require.Equal(t, f.rows[seq].Record, got.Record)

		apart, err := audit.CheckProof(withoutExtra(proof), f.rows[seq].Record, verifier)
		require.NoError(t, err, "with the record beside it")
		require.Equal(t, got, apart)
		_, err = audit.CheckProof(proof, f.rows[seq].Record, verifier)
		require.NoError(t, err, "with both")
	}
}

// withoutExtra drops the line of the record.
func withoutExtra(proof []byte) []byte {
	lines := strings.SplitAfterN(string(proof), "\n", 3)
	return []byte(lines[0] + lines[2])
}

func TestProofOfWhatIsNotProved(t *testing.T) {
	j := open(t, audit.NewMemory())
	require.NoError(t, j.Record(t.Context(), journaltest.Event(0)))
	_, err := j.Prove(t.Context(), 0)
	require.ErrorIs(t, err, audit.ErrUnsigned)
	_, err = j.Prove(t.Context(), 1)
	requireBroken(t, err)
	_, err = j.Prove(t.Context(), -1)
	require.Error(t, err)
	_, err = audit.ProveStore(t.Context(), j.store, nil, 0)
	require.Error(t, err)
	_, err = audit.CheckProof(nil, nil, nil)
	require.Error(t, err)
	require.NoError(t, j.Close())
	proof, err := j.Prove(t.Context(), 0)
	require.NoError(t, err, "Close signs")
	_, err = audit.CheckProof(proof, nil, j.verifier)
	require.NoError(t, err)
}

// Each of these is what somebody may hand in as the proof of something.
func TestProofThatProvesNothing(t *testing.T) {
	f, signer, verifier := history(t, 11)
	other, _, otherVerifier := history(t, 11)
	proof := prove(t, f, verifier, 5)
	edit := func(old, new string) []byte {
		require.Contains(t, string(proof), old)
		return []byte(strings.Replace(string(proof), old, new, 1))
	}
	lines := strings.SplitAfter(string(proof), "\n")
	foreign := f.clone()
	foreign.head.Log[0] ^= 1
	for name, c := range map[string]struct{ proof, record []byte }{
		"nothing":                        {},
		"the index of another entry":     {proof: edit("index 5\n", "index 6\n")},
		"the record of another entry":    {proof: withoutExtra(proof), record: f.rows[6].Record},
		"another record in the file":     {proof: proof, record: f.rows[6].Record},
		"both of another entry":          {proof: []byte(strings.Replace(string(withoutExtra(proof)), "index 5\n", "index 6\n", 1)), record: f.rows[6].Record},
		"no record":                      {proof: withoutExtra(proof)},
		"the record of another log":      {proof: withoutExtra(proof), record: other.rows[5].Record},
		"another log's proof":            {proof: prove(t, other, otherVerifier, 5)},
		"signed for another log":         {proof: resigned(t, proof, checkpointOf(t, foreign, signer))},
		"signed for a smaller tree":      {proof: resigned(t, proof, f.checkpoints[2].Note)},
		"signed for a tree before it":    {proof: resigned(t, proof, f.checkpoints[1].Note)},
		"a leading zero":                 {proof: edit("index 5\n", "index 05\n")},
		"a sign":                         {proof: edit("index 5\n", "index +5\n")},
		"a hash less":                    {proof: []byte(strings.Join(slices.Delete(slices.Clone(lines), 3, 4), ""))},
		"a hash twice":                   {proof: []byte(strings.Join(slices.Insert(slices.Clone(lines), 3, lines[3]), ""))},
		"hashes swapped":                 {proof: []byte(strings.Join(append(append(slices.Clone(lines[:3]), lines[4], lines[3]), lines[5:]...), ""))},
		"another version":                {proof: edit("@v1", "@v2")},
		"no checkpoint":                  {proof: []byte(strings.Join(lines[:7], ""))},
		"carriage returns":               {proof: bytes.ReplaceAll(proof, []byte("\n"), []byte("\r\n"))},
		"something after the checkpoint": {proof: append(slices.Clone(proof), 'x')},
	} {
		_, err := audit.CheckProof(c.proof, c.record, verifier)
		require.Error(t, err, name)
	}
	_, err := audit.CheckProof(proof, nil, otherVerifier)
	require.Error(t, err, "another key")
}

// resigned is the proof with another checkpoint.
func resigned(t *testing.T, proof, checkpoint []byte) []byte {
	t.Helper()
	head, _, ok := bytes.Cut(proof, []byte("\n\n"))
	require.True(t, ok)
	return slices.Concat(head, []byte("\n\n"), checkpoint)
}

// No byte of a proof is without meaning.
func TestEveryByteOfAProof(t *testing.T) {
	f, _, verifier := history(t, 11)
	proof := prove(t, f, verifier, 5)
	for i := range proof {
		changed := slices.Clone(proof)
		changed[i] ^= 1
		_, err := audit.CheckProof(changed, nil, verifier)
		require.Error(t, err, "byte %d, %q", i, proof[i])
	}
}

// Who changed the store gets no proof, of whatever entry it leads through.
func TestNoProofFromAChangedStore(t *testing.T) {
	good, _, verifier := history(t, 11)
	for name, change := range map[string]func(f *fixed){
		"the record":               func(f *fixed) { f.rows[5].Record[40] ^= 1 },
		"its number":               func(f *fixed) { f.rows[5].Record[24] ^= 1 },
		"a hash beside it":         func(f *fixed) { f.rows[4].Hashes[0][0] ^= 1 },
		"a hash above":             func(f *fixed) { f.rows[7].Hashes[1][0] ^= 1 },
		"hashes gone":              func(f *fixed) { f.rows[7].Hashes = nil },
		"a row that it needs gone": func(f *fixed) { f.rows = slices.Delete(f.rows, 3, 4) },
		"rewritten":                func(f *fixed) { rewrite(t, f, f.head.Log, 2) },
		"the row gone":             func(f *fixed) { f.rows = slices.Delete(f.rows, 5, 6) },
	} {
		f := good.clone()
		change(f)
		_, err := audit.ProveStore(t.Context(), f, verifier, 5)
		_, broken := errors.AsType[*audit.BrokenError](err)
		require.True(t, broken, "%s: %v", name, err)
	}
	stranger, _, _ := history(t, 11)
	f := good.clone()
	f.checkpoints = stranger.checkpoints
	_, err := audit.ProveStore(t.Context(), f, verifier, 5)
	require.Error(t, err, "a checkpoint of a stranger")
}

// million is a log of a million entries that keeps hashes and makes records anew.
type million struct {
	audit.Store
	hashes [][][32]byte
	note   []byte
	reads  int
}

const millionEntries = 1_000_000

func (m *million) Read(_ context.Context, from int64, _ int) ([]audit.Row, error) {
	m.reads++
	previous := audit.ChainStart([16]byte{1})
	if from > 0 {
		previous = m.hashes[from-1][0]
	}
	return []audit.Row{{Seq: from, Record: audit.NumberedRecord([16]byte{1}, from, previous), Hashes: m.hashes[from]}}, nil
}

func (m *million) Checkpoints(_ context.Context, after int64, _ int) ([]audit.Checkpoint, error) {
	if after >= millionEntries {
		return nil, nil
	}
	return []audit.Checkpoint{{Size: millionEntries, Note: m.note}}, nil
}

func newMillion(t testing.TB) (*million, note.Verifier) {
	t.Helper()
	signer, verifier := journaltest.Signer(t)
	m := &million{hashes: make([][][32]byte, 0, millionEntries)}
	root := audit.Grow([16]byte{1}, millionEntries, func(r audit.Row) { m.hashes = append(m.hashes, r.Hashes) })
	text := fmt.Sprintf("%s/%x\n%d\n%s\n", signer.Name(), [16]byte{1}, millionEntries, root)
	var err error
	m.note, err = note.Sign(&note.Note{Text: text}, signer)
	require.NoError(t, err)
	return m, verifier
}

func TestProofAmongAMillion(t *testing.T) {
	m, verifier := newMillion(t)
	for _, seq := range []int64{0, 1, 499_999, 524_287, 524_288, 777_777, 983_040, millionEntries - 1} {
		m.reads = 0
		proof := prove(t, m, verifier, seq)
		hashes := bytes.Count(proof, []byte("\n")) - 9 // of the file, all other lines
		require.LessOrEqual(t, hashes, 20)
		require.LessOrEqual(t, m.reads, 40)
		got, err := audit.CheckProof(proof, nil, verifier)
		require.NoError(t, err)
		require.Equal(t, seq, got.Entry.Seq)
		require.EqualValues(t, millionEntries, got.Size)
	}
	older, err := audit.ProveConsistency(t.Context(), m, 777_777, millionEntries)
	require.NoError(t, err)
	require.LessOrEqual(t, len(older), 40)
}

const goldenProof = "testdata/entry-2.tlog-proof"

// A proof that version 1 made is checked with the public key alone.
func TestGoldenProof(t *testing.T) {
	content := files(t, golden)
	verifier, err := note.NewVerifier(strings.TrimSpace(string(content["key.pub"])))
	require.NoError(t, err)
	delete(content, "key.pub")
	proof := prove(t, openFile(t, folder(t, content)), verifier, 2)
	if updating() {
		require.NoError(t, os.WriteFile(goldenProof, proof, 0o644))
	}
	want, err := os.ReadFile(goldenProof)
	require.NoError(t, err)
	require.Equal(t, string(want), string(proof))
	got, err := audit.CheckProof(want, nil, verifier)
	require.NoError(t, err)
	require.Equal(t, "event-2", got.Entry.Event.ID)
	require.EqualValues(t, 5, got.Size)
}

func FuzzCheckProof(f *testing.F) {
	proof, err := os.ReadFile(goldenProof)
	require.NoError(f, err)
	public, err := os.ReadFile(golden + "/key.pub")
	require.NoError(f, err)
	verifier, err := note.NewVerifier(strings.TrimSpace(string(public)))
	require.NoError(f, err)
	head, signed, _ := bytes.Cut(proof, []byte("\n\n"))
	f.Add(proof, []byte(nil))
	f.Add(withoutExtra(proof), proof)
	f.Add(head, []byte{1})
	f.Add(signed, []byte(nil))
	f.Add([]byte("c2sp.org/tlog-proof@v1\nindex 9223372036854775807\n\n"), []byte(nil))
	f.Add(slices.Concat([]byte("c2sp.org/tlog-proof@v1\nindex 0\n"+strings.Repeat(tlog.Hash{}.String()+"\n", 70)+"\n"), signed), []byte(nil))
	f.Fuzz(func(t *testing.T, b, record []byte) {
		if len(record) == 0 {
			record = nil
		}
		got, err := audit.CheckProof(b, record, verifier)
		if err != nil {
			return
		}
		// The key signed one tree: only entries of the journal are ever proved, each
		// at its own number, and in one form.
		require.EqualValues(t, 5, got.Size)
		require.Less(t, got.Entry.Seq, int64(5))
		require.Equal(t, fmt.Sprintf("event-%d", got.Entry.Seq), got.Entry.Event.ID)
		if got.Entry.Seq == 2 && bytes.Contains(b, []byte("\nextra ")) && bytes.HasSuffix(b, signed) {
			require.Equal(t, proof, b)
		}
	})
}

// A proof is a text that other tools of C2SP read.
func TestProofText(t *testing.T) {
	f, _, verifier := history(t, 3)
	proof := prove(t, f, verifier, 1)
	lines := strings.Split(string(proof), "\n")
	require.Equal(t, "c2sp.org/tlog-proof@v1", lines[0])
	require.Equal(t, "extra "+base64.StdEncoding.EncodeToString(f.rows[1].Record), lines[1])
	require.Equal(t, "index 1", lines[2])
	require.Equal(t, tlog.Hash(f.rows[0].Hashes[0]).String(), lines[3], "the sibling first")
	require.Equal(t, tlog.Hash(f.rows[2].Hashes[0]).String(), lines[4])
	require.Empty(t, lines[5])
	require.Equal(t, string(f.checkpoints[len(f.checkpoints)-1].Note), strings.Join(lines[6:], "\n"))
}

func BenchmarkProofAmongAMillion(b *testing.B) {
	m, verifier := newMillion(b)
	proof, err := audit.ProveStore(b.Context(), m, verifier, 777_777)
	require.NoError(b, err)
	b.Run("prove", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_, err := audit.ProveStore(b.Context(), m, verifier, 777_777)
			require.NoError(b, err)
		}
	})
	b.Run("check", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_, err := audit.CheckProof(proof, nil, verifier)
			require.NoError(b, err)
		}
	})
}
