package audit_test

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/mod/sumdb/note"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/audittest"
	"github.com/crmguard/crmguard/audit/internal/journaltest"
)

func cosigner(t testing.TB, key string) note.Verifier {
	t.Helper()
	v, err := audit.NewCosigner(key)
	require.NoError(t, err)
	return v
}

func witnessOf(t *testing.T, url, key string, s audit.Store, v note.Verifier) *audit.Witness {
	t.Helper()
	return witnessKept(t, url, key, s, v, fileAnchor(t, filepath.Join(t.TempDir(), "anchor"), v))
}

func witnessKept(t *testing.T, url, key string, s audit.Store, v note.Verifier, kept audit.Anchor) *audit.Witness {
	t.Helper()
	w, err := audit.NewWitness(url, cosigner(t, key), s, v, kept, nil)
	require.NoError(t, err)
	return w
}

func newestNote(f *fixed) []byte { return f.checkpoints[len(f.checkpoints)-1].Note }

func TestWitness(t *testing.T) {
	signer, verifier := journaltest.Signer(t)
	service := audittest.NewWitness(t, "witness.example/w1", verifier)
	store := audit.NewMemory()
	w := witnessOf(t, service.URL, service.Key, store, verifier)
	require.Equal(t, "witness witness.example/w1", w.String())
	n, _ := newestOf(t, w)
	require.Empty(t, n)
	for i := range 20 { // the log grows by one each time, so that all kinds of proofs come up
		log, err := audit.New(t.Context(), store, journaltest.NewSealer(), signer, verifier, &audit.Options{Anchors: []audit.Anchor{w}})
		require.NoError(t, err)
		require.NoError(t, log.Record(t.Context(), journaltest.Event(i)))
		require.NoError(t, log.Close())
		require.NoError(t, log.Anchors()[0].Err)
	}
	n, at := newestOf(t, w)
	require.WithinDuration(t, time.Now(), at, time.Minute)
	require.Contains(t, n, "— witness.example/w1 ")
	opened, err := note.Open([]byte(n), note.VerifierList(verifier, cosigner(t, service.Key)))
	require.NoError(t, err)
	require.Len(t, opened.Sigs, 2)
	origin, _, _ := strings.Cut(n, "\n")
	require.EqualValues(t, 20, service.Seen(origin))
	sizes := 0
	for _, err := range w.All(t.Context()) {
		require.NoError(t, err)
		sizes++
	}
	require.Greater(t, sizes, 20)
}

// A process that does not know what the witness saw asks; the same checkpoint again
// gets a new time.
func TestWitnessKnowsMore(t *testing.T) {
	f, _, verifier := history(t, 11)
	service := audittest.NewWitness(t, "w", verifier)
	first := witnessOf(t, service.URL, service.Key, f, verifier)
	require.NoError(t, first.Keep(t.Context(), f.checkpoints[1].Note))
	require.NoError(t, witnessOf(t, service.URL, service.Key, f, verifier).Keep(t.Context(), newestNote(f)))
	require.NoError(t, first.Keep(t.Context(), f.checkpoints[2].Note), "of fewer than another process submitted")
	require.NoError(t, first.Keep(t.Context(), newestNote(f)))
	_, before := newestOf(t, first)
	service.SetClock(func() time.Time { return time.Now().Add(time.Minute) })
	require.NoError(t, first.Keep(t.Context(), newestNote(f)))
	_, after := newestOf(t, first)
	require.Greater(t, after, before)
}

// Whoever holds database, host and signing key still meets the witness.
func TestWitnessRefusesAnotherPast(t *testing.T) {
	for name, attack := range map[string]func(f *fixed, signer note.Signer){
		"rewritten": func(f *fixed, signer note.Signer) {
			rewrite(t, f, f.head.Log, 2)
			f.checkpoints = []audit.Checkpoint{{Size: 11, Note: checkpointOf(t, f, signer)}}
		},
		"cut": func(f *fixed, _ note.Signer) {
			f.rows, f.checkpoints = f.rows[:8], f.checkpoints[:3]
			f.head.Size, f.head.Last = 8, f.rows[7].Hashes[0]
		},
		"cut and grown again": func(f *fixed, signer note.Signer) {
			more, _, _ := history(t, 14)
			records := make([][]byte, 14)
			for i := range records {
				records[i] = append([]byte(nil), more.rows[i].Record...)
				copy(records[i][1:17], f.head.Log[:])
			}
			f.rows = audit.Rows(f.head.Log, records)
			for i := range f.rows {
				f.rows[i].Keys = more.rows[i].Keys
			}
			f.head.Size, f.head.Last = 14, f.rows[13].Hashes[0]
			f.checkpoints = []audit.Checkpoint{{Size: 14, Note: checkpointOf(t, f, signer)}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			good, signer, verifier := history(t, 11)
			service := audittest.NewWitness(t, "w", verifier)
			require.NoError(t, witnessOf(t, service.URL, service.Key, good, verifier).Keep(t.Context(), newestNote(good)))

			f := good.clone()
			attack(f, signer)
			require.True(t, verify(t, f, verifier).OK(), "the journal itself does not tell")
			w := witnessOf(t, service.URL, service.Key, f, verifier)
			require.ErrorIs(t, w.Keep(t.Context(), newestNote(f)), audit.ErrContradicted)
			_, _, err := w.Newest(t.Context())
			require.ErrorIs(t, err, audit.ErrContradicted)

			// Planted: a witness that forgets what it saw lets it pass.
			forgetful := audittest.NewWitness(t, "w", verifier)
			require.NoError(t, witnessOf(t, forgetful.URL, forgetful.Key, f, verifier).Keep(t.Context(), newestNote(f)))
		})
	}
}

// What a witness, or whoever answers in its place, may say that is not so.
func TestWitnessThatLies(t *testing.T) {
	f, _, verifier := history(t, 11)
	service := audittest.NewWitness(t, "w", verifier)
	stranger := audittest.NewWitness(t, "w", verifier)
	text := func(n []byte) string { return strings.SplitAfter(string(n), "\n\n")[0] }
	body := text(newestNote(f))[:len(text(newestNote(f)))-1]
	answers := func(status int, answer string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			_, _ = io.WriteString(w, answer)
		}
	}
	good := service.Cosign(body)
	number := 0
	for name, c := range map[string]struct {
		handler http.HandlerFunc
		want    string
	}{
		"nothing signed":               {answers(200, ""), "did not sign"},
		"garbage":                      {answers(200, "— w garbage\n"), "did not sign"},
		"under another key":            {answers(200, stranger.Cosign(body)), "did not sign"},
		"another checkpoint":           {answers(200, service.Cosign(body[:len(body)-10]+"AAAAAAAAA\n")), "did not sign"},
		"a cosignature that is forged": {answers(200, altered(t, good, 40)), "did not sign"},
		"a later time than was signed": {answers(200, altered(t, good, 11)), "did not sign"},
		"an old cosignature":           {answers(200, at(service, -time.Hour, body)), "not now"},
		"one of the future":            {answers(200, at(service, time.Hour, body)), "not now"},
		"that it saw more":             {answers(409, "99\n"), "contradicts"},
		"numbers that are none":        {answers(409, "x\n"), "does not say"},
		"a negative number":            {answers(409, "-1\n"), "does not say"},
		"another number each time": {func(w http.ResponseWriter, _ *http.Request) {
			number++
			w.WriteHeader(409)
			_, _ = fmt.Fprintf(w, "%d\n", 1+number%9)
		}, "another number"},
		"a redirect": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, service.URL, http.StatusTemporaryRedirect)
		}, "307"},
		"an endless answer": {answers(200, strings.Repeat("— w AAAA\n", 1<<16)), "did not sign"},
		"unknown log":       {answers(404, ""), "404"},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(c.handler)
			defer server.Close()
			w := witnessOf(t, server.URL, service.Key, f, verifier)
			require.ErrorContains(t, w.Keep(t.Context(), newestNote(f)), c.want)
			n, _, _ := w.Newest(t.Context())
			require.Nil(t, n, "nothing of it is kept")
		})
	}
	server := httptest.NewServer(answers(200, stranger.Cosign(body)+good))
	defer server.Close()
	require.NoError(t, witnessOf(t, server.URL, service.Key, f, verifier).Keep(t.Context(), newestNote(f)), "signatures of others are passed over")
}

func at(w *audittest.Witness, d time.Duration, body string) string {
	w.SetClock(func() time.Time { return time.Now().Add(d) })
	defer w.SetClock(time.Now)
	return w.Cosign(body)
}

// altered changes a byte of a cosignature: the first 4 are the key's hash, the next 8
// the time.
func altered(t *testing.T, line string, i int) string {
	t.Helper()
	fields := strings.Fields(line)
	b, err := base64.StdEncoding.DecodeString(fields[2])
	require.NoError(t, err)
	b[i] ^= 1
	return fmt.Sprintf("— w %s\n", base64.StdEncoding.EncodeToString(b))
}

// What lies where the witness's signatures are kept is believed no more than the
// witness.
func TestWitnessKeptIsForged(t *testing.T) {
	f, _, verifier := history(t, 11)
	service := audittest.NewWitness(t, "w", verifier)
	k := &kept{notes: [][]byte{newestNote(f)}, at: []time.Time{time.Now()}}
	w := witnessKept(t, service.URL, service.Key, f, verifier, k)
	_, _, err := w.Newest(t.Context())
	require.ErrorContains(t, err, "did not sign")
	k.notes[0] = append(k.notes[0], audittest.NewWitness(t, "w", verifier).Cosign("x")...)
	_, _, err = w.Newest(t.Context())
	require.Error(t, err)
}

func TestNewCosigner(t *testing.T) {
	key, err := hex.DecodeString("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")
	require.NoError(t, err)
	service := audittest.NewWitness(t, "witness.example/w1")
	v := cosigner(t, service.Key)
	require.Equal(t, "witness.example/w1", v.Name())
	require.False(t, v.Verify([]byte("x"), make([]byte, 8+ed25519.SignatureSize)))
	require.False(t, v.Verify([]byte("x"), nil))
	parts := strings.SplitN(service.Key, "+", 3)
	plain := base64.StdEncoding.EncodeToString(append([]byte{1}, key...))
	for _, bad := range []string{
		"", "w", "w+00000000+", parts[0] + "+00000000+" + parts[2], "other+" + parts[1] + "+" + parts[2],
		parts[0] + "+" + parts[1] + "+" + plain, "+" + parts[1] + "+" + parts[2], parts[0] + "+" + parts[1] + "+" + parts[2] + "=",
		"a b+" + parts[1] + "+" + parts[2],
	} {
		_, err := audit.NewCosigner(bad)
		require.Error(t, err, bad)
	}
	_, verifier := journaltest.Signer(t)
	_, err = audit.NewWitness("http://example.com", v, audit.NewMemory(), verifier, &kept{}, nil)
	require.Error(t, err, "in the clear")
	_, err = audit.NewWitness("https://example.com", nil, nil, nil, nil, nil)
	require.Error(t, err)
}

func FuzzNewCosigner(f *testing.F) {
	f.Add(audittest.NewWitness(f, "w").Key)
	f.Add("w+00000000+BA==")
	f.Fuzz(func(t *testing.T, key string) {
		v, err := audit.NewCosigner(key)
		if err != nil {
			return
		}
		require.Equal(t, key[:len(v.Name())], v.Name())
		require.Contains(t, key, fmt.Sprintf("+%08x+", v.KeyHash()))
	})
}

// What the witness signed is found in an anchor that keeps the log's own checkpoints,
// too, and of somebody else's: nobody makes it blind with a newer one.
func TestWitnessSharesAnAnchor(t *testing.T) {
	signer, verifier := journaltest.Signer(t)
	service := audittest.NewWitness(t, "witness.example/w1", verifier)
	store := audit.NewMemory()
	file := fileAnchor(t, filepath.Join(t.TempDir(), "anchor"), verifier)
	w := witnessKept(t, service.URL, service.Key, store, verifier, file)
	log, err := audit.New(t.Context(), store, journaltest.NewSealer(), signer, verifier, nil)
	require.NoError(t, err)
	var notes [][]byte
	for i := range 3 {
		require.NoError(t, log.Record(t.Context(), journaltest.Event(i)))
		require.NoError(t, log.Close())
		list, err := store.Checkpoints(t.Context(), int64(i), 1)
		require.NoError(t, err)
		notes = append(notes, list[0].Note)
		log, err = audit.New(t.Context(), store, journaltest.NewSealer(), signer, verifier, nil)
		require.NoError(t, err)
	}
	require.NoError(t, log.Close())
	require.NoError(t, file.Keep(t.Context(), notes[0]))
	_, _, err = w.Newest(t.Context())
	require.Error(t, err, "the witness signed nothing")
	require.NoError(t, w.Keep(t.Context(), notes[0]))
	require.NoError(t, w.Keep(t.Context(), notes[1]))
	want, _ := newestOf(t, w)
	for _, n := range [][]byte{notes[1], notes[2]} { // of the same size, and of more entries
		require.NoError(t, file.Keep(t.Context(), n))
		got, at := newestOf(t, w)
		require.Equal(t, want, got)
		require.WithinDuration(t, time.Now(), at, time.Minute)
	}
	require.NoError(t, w.Keep(t.Context(), notes[2]))
	got, _ := newestOf(t, w)
	require.True(t, strings.HasPrefix(got, string(notes[2])))
}
