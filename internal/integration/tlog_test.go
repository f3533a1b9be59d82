package integration

import (
	"crypto/rand"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/transparency-dev/formats/log"
	fnote "github.com/transparency-dev/formats/note"
	"github.com/transparency-dev/formats/proof"
	mproof "github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
	"golang.org/x/mod/sumdb/note"

	"github.com/crmguard/crmguard"
	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/audittest"
	"github.com/crmguard/crmguard/crmguardtest"
)

// journal is one of eleven entries, signed.
func journal(t *testing.T) (*audit.Memory, *audit.Log, note.Verifier) {
	t.Helper()
	signer, verifier, err := audit.OpenSigner(filepath.Join(t.TempDir(), "key"), "crm.example/journal", true)
	require.NoError(t, err)
	store := audit.NewMemory()
	l, err := audit.New(t.Context(), store, crmguardtest.NewKeys(), signer, verifier, nil)
	require.NoError(t, err)
	for i := range 11 {
		require.NoError(t, l.Record(t.Context(), crmguard.Event{
			Subject:  crmguard.Subject{Tenant: "acme", ID: "anna", Kind: crmguard.KindEmployee},
			Action:   crmguard.View,
			Resource: crmguard.Resource{Tenant: "acme", Kind: "contacts", ID: fmt.Sprint(i)},
			Outcome:  crmguard.Done,
		}))
	}
	require.NoError(t, l.Close())
	return store, l, verifier
}

// Another implementation of C2SP's formats reads our proofs and checkpoints, writes
// proofs that we read, and agrees on the tree.
func TestTransparencyDevReadsOurProofs(t *testing.T) {
	_, journal, verifier := journal(t)
	for seq := range int64(11) {
		ours, err := journal.Prove(t.Context(), seq)
		require.NoError(t, err)
		var theirs proof.TLogProof
		require.NoError(t, theirs.Unmarshal(ours))
		require.EqualValues(t, seq, theirs.Index)
		origin, _, _ := strings.Cut(string(theirs.Checkpoint), "\n")
		checkpoint, _, _, err := log.ParseCheckpoint(theirs.Checkpoint, origin, verifier)
		require.NoError(t, err)
		hashes := make([][]byte, len(theirs.Hashes))
		for i := range theirs.Hashes {
			hashes[i] = theirs.Hashes[i][:]
		}
		leaf := rfc6962.DefaultHasher.HashLeaf(theirs.ExtraData)
		require.NoError(t, mproof.VerifyInclusion(rfc6962.DefaultHasher, theirs.Index, checkpoint.Size, leaf, hashes, checkpoint.Hash))

		require.Equal(t, string(ours), string(theirs.Marshal()))
		record := theirs.ExtraData
		theirs.ExtraData = nil
		proven, err := audit.CheckProof(theirs.Marshal(), record, verifier)
		require.NoError(t, err)
		require.Equal(t, seq, proven.Entry.Seq)
	}
}

// Cosignatures of another implementation are ours, and ours theirs.
func TestTransparencyDevCosignatures(t *testing.T) {
	store, journal, verifier := journal(t)
	report, err := journal.Verify(t.Context(), verifier, nil)
	require.NoError(t, err)
	secret, public, err := note.GenerateKey(rand.Reader, "witness.example/w1")
	require.NoError(t, err)
	cosigner, err := fnote.NewSignerForCosignatureV1(secret)
	require.NoError(t, err)
	key, err := fnote.VKeyToCosignatureV1(public)
	require.NoError(t, err)
	ours, err := audit.NewCosigner(key)
	require.NoError(t, err)

	// A witness that signs with their library is an anchor of ours.
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		n, err := note.Open([]byte(report.Checkpoint), note.VerifierList(verifier))
		if err != nil {
			return
		}
		signed, err := note.Sign(&note.Note{Text: n.Text}, cosigner)
		if err != nil {
			return
		}
		_, _ = w.Write(signed[len(n.Text)+1:])
	}))
	defer server.Close()
	kept, err := audit.NewFileAnchor(filepath.Join(t.TempDir(), "anchor"), verifier)
	require.NoError(t, err)
	w, err := audit.NewWitness(server.URL, ours, store, verifier, kept, nil)
	require.NoError(t, err)
	require.NoError(t, w.Keep(t.Context(), []byte(report.Checkpoint)))
	cosigned, at, err := w.Newest(t.Context())
	require.NoError(t, err)
	require.WithinDuration(t, time.Now(), at, time.Minute)

	theirs, err := fnote.NewVerifierForCosignatureV1(key)
	require.NoError(t, err)
	n, err := note.Open(cosigned, note.VerifierList(theirs))
	require.NoError(t, err)
	stamp, err := fnote.CoSigV1Timestamp(n.Sigs[0])
	require.NoError(t, err)
	require.Equal(t, stamp.Unix(), at.Unix())

	// What the witness of our tests signs they verify.
	service := audittest.NewWitness(t, "w", verifier)
	theirs, err = fnote.NewVerifierForCosignatureV1(service.Key)
	require.NoError(t, err)
	_, err = note.Open([]byte(n.Text+"\n"+service.Cosign(n.Text)), note.VerifierList(theirs))
	require.NoError(t, err)
}
